"""The switches: with both off ftfl.py is mbpo.py, and with real data only mbpo.py is sac.py, bit for bit."""

from functools import partial

import pytest
import torch
from conftest import NEEDS_COMPILER, make_args, random_batch, read_checkpoint, read_scalars

import ftfl
import mbpo
import sac

# One of dm_control, whose steps are cheap: an evaluation has 1,000 of them
CASES = [("dm_control/cartpole-swingup-v0", {"critic_layer_norm": True}), ("Hopper-v5", {})]


def run(module, tmp_path, env_id, **flags):
    """A run of 2 seeds: what each logged, and the agent in its checkpoint."""
    flags = {"total_timesteps": 160, "learning_starts": 60, "eval_interval": 160, "num_seeds": 2} | flags
    run_dirs = module.main(make_args(module, env_id=env_id, run_dir=str(tmp_path / module.__name__), **flags))
    return [(read_scalars(run_dir), read_checkpoint(run_dirs[0])["agent"]) for run_dir in run_dirs]


def assert_same(run_a, run_b):
    for (scalars_a, agent_a), (scalars_b, agent_b) in zip(run_a, run_b, strict=True):
        assert scalars_a == scalars_b
        assert len(scalars_a["losses/qf_loss"]) > 90
        assert agent_a.keys() == agent_b.keys()
        assert all(torch.equal(agent_a[name], agent_b[name]) for name in agent_a)
    assert len(run_a) == 1 or run_a[0][0] != run_a[1][0], "the two seeds are the same run"


@pytest.mark.maintainer
@pytest.mark.parametrize("env_id,norm", CASES)
def test_ftfl_with_both_switches_off_is_mbpo(env_id, norm, tmp_path):
    flags = {"utd_ratio": 2, "model_train_interval": 50, "rollout_schedule": "1:3:80:140"} | norm
    off = {"target_normalization": False, "next_state_prediction": "residual"}
    of_mbpo = run(mbpo, tmp_path, env_id, **flags)
    assert_same(of_mbpo, run(ftfl, tmp_path, env_id, **flags, **off))
    assert len(of_mbpo[0][0]["model/nll"]) == 3


@pytest.mark.maintainer
@pytest.mark.parametrize("env_id,norm", CASES)
def test_mbpo_on_real_data_only_is_sac(env_id, norm, tmp_path):
    assert_same(
        run(sac, tmp_path, env_id, utd_ratio=2, **norm),
        run(mbpo, tmp_path, env_id, utd_ratio=2, real_ratio=1.0, **norm),
    )


@pytest.mark.parametrize("switch", [{"target_normalization": False}, {"next_state_prediction": "residual"}])
def test_each_switch_changes_the_run(switch, tmp_path):
    full = run(ftfl, tmp_path / "full", "Hopper-v5", num_seeds=1, total_timesteps=100)
    assert full != run(ftfl, tmp_path / "ablated", "Hopper-v5", num_seeds=1, total_timesteps=100, **switch)


@NEEDS_COMPILER
@pytest.mark.parametrize("module", [sac, ftfl], ids=lambda module: module.__name__)
def test_a_compiled_run_is_near_the_eager_one(module, tmp_path):
    """The same numbers but for the order of sums. test_model.py compiles mbpo.py's model."""
    flags = {"utd_ratio": 2, "num_seeds": 1, "total_timesteps": 70}
    (graph, _), (eager, _) = (
        run(module, tmp_path / str(compile), "Hopper-v5", **flags, compile=compile)[0]
        for compile in (True, False)
    )
    for tag in ["losses/qf_loss", "losses/actor_loss"] + ["model/nll"] * (module is ftfl):
        values = [[value for _, value in logs[tag][:5]] for logs in (graph, eager)]
        assert values[0] == pytest.approx(values[1], rel=1e-3), tag


def test_compiled_updates_can_be_cuda_graphs():
    """A CUDA graph reads and writes where it was recorded: all that an update writes to, and all that it
    reads but for the batch
    and the noise, must be known to torch.compile as tensors whose address is fixed. (Looked at on the CPU,
    without code.)"""
    from torch._inductor.compile_fx import compile_fx

    torch._dynamo.reset()  # what other tests compiled
    graphs = []

    def record(graph, inputs, **kwargs):
        copies = [node for node in graph.graph.nodes if node.target is torch.ops.aten.copy_.default]
        names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        fixed = {names[i] for i in kwargs["static_input_idxs"]}
        moving = [tuple(x.shape) for name, x in zip(names, inputs, strict=True) if name not in fixed]
        graphs.append(({node.args[0].name for node in copies}, fixed, moving))
        return graph

    backend = partial(compile_fx, inner_compile=record)
    args = make_args(ftfl, num_seeds=2)
    agent, model = ftfl.SAC(4, 3, args), ftfl.Ensemble(4, 3, args)
    torch._dynamo.config.trace_autograd_ops = True
    for part in (agent, model):
        part.update = torch.compile(part.update, fullgraph=True, backend=backend)
    batch = random_batch(2, 32, 4, 3, module=ftfl)
    # By torch's own patch: a monkeypatch of its settings hides them from later tests, instead of putting them
    # back.
    with torch._functorch.config.patch(enable_autograd_cache=False):
        agent.update(batch, *torch.randn(2, 2, 32, 3))
        addresses = {name: x.data_ptr() for name, x in model.named_buffers()}
        model.fit_normalizers(ftfl.Batch(*(x.unsqueeze(1) for x in batch)))
        assert addresses == {name: x.data_ptr() for name, x in model.named_buffers()}
        model.update(ftfl.Batch(*(torch.stack([x] * 7, 1) for x in batch)))

    (sac_written, sac_fixed, sac_moving), (model_written, model_fixed, model_moving) = graphs
    parameters = sum(
        len(optimizer.params) for optimizer in (agent.actor_optimizer, agent.q_optimizer, agent.a_optimizer)
    )
    assert len(sac_written) == 4 * parameters + 6, (
        "each parameter, its two moments and its step; and the target critics"
    )
    assert len(model_written) == 4 * len(model.optimizer.params)
    assert sac_written <= sac_fixed and model_written <= model_fixed
    assert sorted(sac_moving) == sorted([*(tuple(x.shape) for x in batch), (2, 32, 3), (2, 32, 3)])
    assert len(model_moving) == 4, "terminations are not used"
