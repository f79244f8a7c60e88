"""What a run on a GPU does, looked at without one: on torch's "meta" device, with shapes, but no numbers. And
the precision of the matrix products, which depends on the processor."""

import pytest
import torch
from conftest import Scripted, make_args
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
        batch = buffer.take(torch.randint(100, (2, 20, 16), device=META))
        logs = agent.update(script.Batch(*(x[:, 0] for x in batch)), *torch.randn(2, 2, 16, 3, device=META))
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


@pytest.fixture
def precisions():
    """torch's settings for the products of the CPU and of a GPU, put back after the test."""
    backends = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    yield backends
    for backend, precision in zip(backends, before):
        backend.fp32_precision = precision


def test_products_are_as_exact_as_float32_on_this_processor(script, precisions):
    """Of the shapes of actor, critics and ensemble; with all the libraries that torch might take."""
    random_numbers = torch.get_rng_state()
    script.fast_matmul()
    assert torch.equal(torch.get_rng_state(), random_numbers), "it shifts a run's random numbers"
    g = torch.Generator().manual_seed(0)
    for stack, rows, a, b in [(1, 256, 256, 256), (2, 256, 88, 256), (7, 256, 200, 136), (6, 1, 24, 256)]:
        x, w = torch.randn(stack, rows, a, generator=g), torch.randn(stack, a, b, generator=g)
        for p, q in [(x, w), (x.mT, x @ w), (x @ w, w.mT)]:
            exact = p.double() @ q.double()
            scale = p.double().square().sum(-1, True).sqrt() * q.double().square().sum(-2, True).sqrt()
            # bfloat16 has 8 bits: a single product is off by up to 4e-3 of itself; float32 has 24
            assert ((p @ q - exact).abs() / scale).max() < 2e-6


def test_products_that_round_to_bfloat16_are_not_accepted(script, precisions, monkeypatch):
    """As oneDNN does on processors with AMX."""
    matmul = torch.Tensor.__matmul__

    def rounded(x, y):
        if x.dtype == torch.float32 and precisions[0].fp32_precision == "bf16":
            x, y = x.bfloat16().float(), y.bfloat16().float()
        return matmul(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    script.fast_matmul()
    x = torch.ones(1, 1, 1) / 3
    assert x @ x == matmul(x, x) and precisions[0].fp32_precision == "none"


@pytest.mark.parametrize("tf32", [False, True])
def test_a_run_sets_the_precision_of_products(script, tf32, precisions, monkeypatch, tmp_path):
    """tf32 is a GPU's affair, and a decision of the user's alone."""
    called = []
    monkeypatch.setattr(script, "fast_matmul", lambda: called.append("fast_matmul"))
    monkeypatch.setattr(
        script, "make_env", lambda *_: script.gym.wrappers.RecordEpisodeStatistics(Scripted())
    )
    monkeypatch.setattr(script, "full_env_id", lambda env_id: env_id)
    flags = {} if script.__name__ == "sac" else {"real_ratio": 1.0}
    precisions[1].fp32_precision = "none"
    args = make_args(script, total_timesteps=12, learning_starts=11, utd_ratio=1, tf32=tf32, **flags)
    args.run_dir = str(tmp_path)
    script.main(args)
    assert called == ["fast_matmul"] and precisions[1].fp32_precision == ("tf32" if tf32 else "ieee")


def test_a_checkpoint_has_the_generator_of_every_gpu(script, tmp_path, monkeypatch):
    """On a GPU the random numbers are the GPU's: resumed, they must not begin anew. (Here two made up.)"""
    short = {"env_id": "Hopper-v5", "total_timesteps": 20, "learning_starts": 15, "run_dir": str(tmp_path)}
    run_dirs = script.main(make_args(script, device="cpu", **short))
    states, back = [torch.arange(3), torch.arange(5)], []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", back.append)
    args = script.parse_args(["--resume", str(run_dirs[0]), "--total-timesteps", "30"])
    script.save_checkpoint(args, {}, run_dirs, [], 20, [0])
    for count in (0, 1, 2, 3):  # on this machine; more GPUs than then keep their own
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        script.load_checkpoint(args, {})
        assert [x.tolist() for x in back.pop()] == [x.tolist() for x in states[:count]]
