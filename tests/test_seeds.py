"""The seed axis: seeds trained side by side are the independent runs that they claim to be."""

import numpy as np
import pytest
import torch
from conftest import filled_buffer, make_args, random_batch, read_checkpoint, read_scalars

OBS, ACT = 5, 2


def parameters_of(module, k):
    return [parameter[k].clone() for parameter in module.parameters()]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_updates_of_a_seed_do_not_depend_on_another_seeds_data(script, layer_norm):
    results = []
    for scale in (1.0, 100.0):
        args = make_args(script, num_seeds=2, critic_layer_norm=layer_norm)
        torch.manual_seed(1)
        agent = script.SAC(OBS, ACT, args)
        for step in range(5):
            batch = random_batch(2, 20, OBS, ACT, seed=step, module=script)
            for x in batch:
                x[0] *= scale
            agent.update(batch, *torch.randn(2, 2, 20, ACT))
        results.append((parameters_of(agent, 0), parameters_of(agent, 1)))
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1]))
    assert not any(torch.equal(a, b) for a, b in zip(results[0][0][:4], results[1][0][:4]))


def test_the_model_of_a_seed_does_not_depend_on_another_seeds_data(model_script):
    module, results = model_script, []
    for scale in (1.0, 100.0):
        args = make_args(module, num_seeds=2, rollout_schedule="3:3:0:1")
        batch = random_batch(2, 50, OBS, ACT, module=module)
        for x in batch:
            x[0] *= scale
        buffer = filled_buffer(module, batch)
        torch.manual_seed(1)
        model = module.Ensemble(OBS, ACT, args)
        logs = module.train_model(model, buffer, args)
        agent = module.SAC(OBS, ACT, args)
        synthetic = module.ReplayBuffer(2, 100, OBS, ACT)
        module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1, 0, args)
        results.append(
            (parameters_of(model, 1), [logs[tag][1] for tag in logs], [x[1] for x in synthetic.data])
        )
    for a, b in zip(results[0], results[1]):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_seeds_start_and_draw_differently(script):
    args = make_args(script, num_seeds=3)
    agent = script.SAC(OBS, ACT, args)
    for weight in (agent.actor.net[0].weight, agent.qf[0].weight, agent.qf[0].weight[:, 1]):
        assert len({round(weight[k].sum().item(), 6) for k in range(3)}) == 3
    assert not torch.equal(agent.qf[0].weight[:, 0], agent.qf[0].weight[:, 1]), "nor do the twin critics"
    envs = script.make_envs(script.Args(env_id="Hopper-v5", num_seeds=2))
    obs = script.reset_envs(envs, script.Args(num_seeds=2), [0, 0], np.ones(2, bool))
    assert (obs[0] != obs[1]).any()
    envs.close()


def test_no_two_seeds_and_no_two_starts_of_a_run_share_an_episode(script):
    """Resets are seeded by the seed and the step; evaluations by numbers of their own."""
    seeds = []

    class Envs:
        num_envs = 4

        def reset(self, seed, options=None):
            seeds.extend(seed)
            raise StopIteration if options is None else KeyError

    for start in ([0, 0], [1, 1], [7, 1000]):
        with pytest.raises(KeyError):
            script.reset_envs(Envs(), script.Args(num_seeds=2), start, np.ones(2, bool))
    for step in (0, 7, 1000):
        with pytest.raises(StopIteration):
            script.evaluate(None, Envs(), script.Args(num_seeds=2, eval_episodes=2), step)
    assert len(seeds) == 18 and len(set(seeds)) == 18
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)


def test_runs_of_other_seeds_are_other_runs_and_of_the_same_seed_the_same(script, tmp_path):
    def logged(seed, name):
        flags = {"env_id": "Hopper-v5", "total_timesteps": 80, "learning_starts": 60, "utd_ratio": 1}
        (run_dir,) = script.main(make_args(script, **flags, seed=seed, run_dir=str(tmp_path / name)))
        return read_scalars(run_dir), read_checkpoint(run_dir)

    (first, state), (again, _), (second, other) = logged(1, "first"), logged(1, "again"), logged(2, "second")
    assert first == again
    for name in {"agent", "model"} & state.keys():  # they began apart: in 20 updates weights move by 0.006
        weights = (
            x[name]["actor.net.0.weight" if name == "agent" else "net.0.weight"] for x in (state, other)
        )
        assert torch.sub(*weights).abs().mean() > 0.05
    actions = [x["buffer"]["data"][1][0, :60].flatten() for x in (state, other)]
    assert torch.corrcoef(torch.stack(actions))[0, 1].abs() < 0.3, "nor are their random actions alike"
    for tag in ("losses/qf_loss", "charts/episodic_return", "eval/episodic_return"):
        assert first[tag] != second[tag]
