"""What a run on a GPU does, looked at without one: on torch's "meta" device, which knows shapes and devices, but no numbers."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from conftest import make_args

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses operations that mix devices. (Single numbers may come from anywhere, as torch lets them.)"""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()}
        assert len(found) <= 1, f"{func} of tensors on {found}"
        self.calls += 1
        return func(*args, **kwargs or {})


@pytest.fixture
def meta_rng(script, monkeypatch):
    """Generators of two seeds, for numbers that are never drawn."""

    class Generator:
        device = META

    monkeypatch.setattr(script, "rand", lambda rng, *shape: torch.empty(len(rng), *shape, device=META))
    monkeypatch.setattr(script, "randn", script.rand)
    monkeypatch.setattr(script, "randint", lambda rng, high, *shape: script.rand(rng, *shape).long())
    return [Generator(), Generator()]


def test_the_loop_stays_on_its_device_and_never_waits_for_it(script, meta_rng, monkeypatch):
    """Reading one number, with .item() or an `if`, would raise: nothing between two waits of main() makes the CPU wait."""
    args, rng = make_args(script, num_seeds=2), meta_rng
    agent, buffer = script.SAC(rng, 4, 3, args), script.ReplayBuffer(2, 100, 4, 3, META)
    with OneDevice() as mode:
        for _ in range(20):
            buffer.add(script.Batch(*(torch.zeros(2, 5, *x.shape[2:], device=META) for x in buffer.data)))
        batch = buffer.sample(script.randint(rng, 100, 20, 16))
        logs = agent.update(script.Batch(*(x[:, 0] for x in batch)), script.randn(rng, 2, 16, 3))
        if hasattr(script, "Ensemble"):
            with pytest.raises(AssertionError, match="on {"):  # the mode itself
                buffer.sample(torch.zeros(2, 5, dtype=torch.long))
            model, synthetic_buffer = script.Ensemble(rng, 4, 3, args), script.ReplayBuffer(2, 50, 4, 3, META)
            train_rows, holdout_rows = script.randint(rng, 100, 80), script.randint(rng, 100, 20)
            model.update_normalizer(buffer.sample(train_rows.unsqueeze(1)))
            train_rows = script.bootstrap_rows(train_rows, args.ensemble_size, rng)
            logs |= script.train_model(model, buffer, train_rows, 2, args.model_batch_size, rng)
            groups = np.array(["position", "position", "velocity", "velocity"])
            logs |= script.evaluate_model(model, buffer, holdout_rows, groups)
            monkeypatch.setattr(script, "check_finite", lambda values: None)  # this one waits, once per imagined step
            for env_id in ("Hopper-v5", "dm_control/walker-walk-v0"):
                script.imagine(agent, model, buffer, synthetic_buffer, script.termination_rule(env_id), 3, 10, rng)
            logs |= script.out_of_range(buffer, synthetic_buffer, 10)
    assert {x.device.type for x in logs.values()} == {"meta"} and mode.calls > 200
    assert all(x.shape[0] == 2 for x in logs.values())
