"""The seed axis: seeds trained side by side are the independent runs that they claim to be."""

import numpy as np
import pytest
import torch

from conftest import filled_buffer, make_args, random_batch, read_scalars

OBS, ACT = 5, 2


def parameters_of(module, k):
    return [parameter[k].clone() for parameter in module.parameters()]


def test_updates_of_a_seed_do_not_depend_on_another_seeds_data(script):
    results = []
    for scale in (1.0, 100.0):
        args = make_args(script, num_seeds=2)
        agent = script.SAC(script.make_rng(args, script.AGENT_STREAM), OBS, ACT, args)
        rng = script.make_rng(args, 9)
        for step in range(5):
            batch = random_batch(2, 20, OBS, ACT, seed=step, module=script)
            for x in batch:
                x[0] *= scale
            agent.update(batch, script.randn(rng, 2, 20, ACT))
        results.append((parameters_of(agent, 0), parameters_of(agent, 1)))
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1]))
    assert not any(torch.equal(a, b) for a, b in zip(results[0][0][:4], results[1][0][:4]))


def test_the_model_of_a_seed_does_not_depend_on_another_seeds_data(model_script):
    module, results = model_script, []
    for scale in (1.0, 100.0):
        args = make_args(module, num_seeds=2)
        batch = random_batch(2, 50, OBS, ACT, module=module)
        for x in batch:
            x[0] *= scale
        buffer = filled_buffer(module, batch)
        rng = module.make_rng(args, module.MODEL_STREAM)
        model = module.Ensemble(rng, OBS, ACT, args)
        train_rows, holdout_rows = module.split_rows(module.draw_holdout(rng, 50), 50)
        model.update_normalizer(buffer.sample(train_rows.unsqueeze(1)))
        rows = module.bootstrap_rows(train_rows, args.ensemble_size, rng)
        module.train_model(model, buffer, rows, 5, 16, rng)
        logs = module.evaluate_model(model, buffer, holdout_rows, np.array(["position", "velocity", "other", "position", "other"]))
        agent = module.SAC(module.make_rng(args, 0), OBS, ACT, args)
        synthetic = module.ReplayBuffer(2, 100, OBS, ACT, "cpu")
        module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1, 3, 10, rng)
        results.append((parameters_of(model, 1), [logs[tag][1] for tag in logs], [x[1] for x in synthetic.data]))
    for a, b in zip(results[0], results[1]):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_seed_trains_the_same_alone_as_beside_another(script, tmp_path):
    flags = {"env_id": "Hopper-v5", "total_timesteps": 80, "learning_starts": 60, "model_train_interval": 10, "utd_ratio": 1}
    flags = {name: value for name, value in flags.items() if hasattr(script.Args, name)}
    pair = script.main(make_args(script, **flags, seed=1, num_seeds=2, run_dir=str(tmp_path / "pair")))
    alone = script.main(make_args(script, **flags, seed=2, run_dir=str(tmp_path / "alone")))
    pair, alone = read_scalars(pair[1]), read_scalars(alone[0])
    assert pair.keys() == alone.keys()
    for tag in pair:  # equal but for the rounding of batched matmuls
        assert [step for step, _ in pair[tag]] == [step for step, _ in alone[tag]]
        assert [v for _, v in pair[tag]] == pytest.approx([v for _, v in alone[tag]], rel=2e-2, abs=1e-4), tag


def test_seeds_start_and_draw_differently(script):
    args = make_args(script, num_seeds=3)
    agent = script.SAC(script.make_rng(args, script.AGENT_STREAM), OBS, ACT, args)
    for weight in (agent.actor.net[0].weight, agent.qf.net[0].weight):
        assert len({round(weight[k].sum().item(), 6) for k in range(3)}) == 3
    rng = script.make_rng(args, script.AGENT_STREAM)
    rows = script.randint(rng, 1000, 50)
    assert not torch.equal(rows[0], rows[1])
    envs = script.make_envs(script.Args(env_id="Hopper-v5", num_seeds=2), per_seed=1)
    obs, _ = envs.reset(seed=[1, 2])
    assert (obs[0] != obs[1]).any()
    envs.close()


def test_streams_of_one_seed_differ(script):
    args = make_args(script)
    assert script.rand(script.make_rng(args, 0), 1) != script.rand(script.make_rng(args, 1), 1)
