"""What a run on a GPU does, looked at without one: on torch's "meta" device, with shapes, but no numbers."""

import pytest
import torch
from conftest import make_args
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses operations that mix devices. (Single numbers may come from anywhere, as torch lets them.)"""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = {
            x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()
        }
        assert len(found) <= 1, f"{func} of tensors on {found}"
        self.calls += 1
        return func(*args, **kwargs or {})


def test_the_loop_stays_on_its_device_and_never_waits_for_it(script, monkeypatch):
    """Reading a number, with .item() or an `if`, would raise: nothing between two waits of main() makes the
    CPU wait."""
    monkeypatch.setattr(
        script, "check_finite", lambda values, step: None
    )  # this waits, once per imagined step
    flags = {"model_train_steps": 2} if hasattr(script.Args, "model_lr") else {}
    args = make_args(script, num_seeds=2, **flags)
    with META:
        agent, buffer = script.SAC(4, 3, args), script.ReplayBuffer(2, 100, 4, 3)
    with OneDevice() as mode:
        for _ in range(20):
            buffer.add(script.Batch(*(torch.zeros(2, 5, *x.shape[2:], device=META) for x in buffer.data)))
        batch = buffer.sample(torch.randint(100, (2, 20, 16), device=META))
        logs = agent.update(script.Batch(*(x[:, 0] for x in batch)), torch.randn(2, 2, 16, 3, device=META))
        if hasattr(script, "Ensemble"):
            with pytest.raises(AssertionError, match="on {"):  # the mode itself
                agent.actor.sample(torch.zeros(2, 5, 4), torch.zeros(2, 5, 3))
            with META:
                model, synthetic_buffer = script.Ensemble(4, 3, args), script.ReplayBuffer(2, 50, 4, 3)
            logs |= script.train_model(model, buffer, args)
            for env_id in ("Hopper-v5", "dm_control/walker-walk-v0"):
                rule = script.termination_rule(env_id)
                imagined = script.imagine(agent, model, buffer, synthetic_buffer, rule, 0, args)
            logs["model/out_of_range"] = script.out_of_range(buffer.data.next_obs, imagined.next_obs)
    assert {x.device.type for x in logs.values()} == {"meta"} and mode.calls > 200
    assert all(x.shape[0] == 2 for x in logs.values())
