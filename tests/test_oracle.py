"""benchmark/oracle.py takes away what its rows say, and nothing else."""

import csv
import re
from functools import partial

import numpy as np
import oracle
import pytest
import torch
from conftest import filled_buffer, make_args

import ftfl
import mbpo
import plots
import sac

CHEETAH = oracle.env_id_of("cheetah-run")


@pytest.fixture
def changed(monkeypatch):
    """mbpo.py, put back after the test."""
    for name in ("Ensemble", "imagine", "train_model"):
        monkeypatch.setattr(mbpo, name, getattr(mbpo, name))
    return mbpo


def play(env_id, act, steps=500):
    """Transitions of a task as a Batch of one seed, in float64, whose actions are act(obs, step, random)."""
    env, rows = mbpo.make_env(env_id, False), []
    (obs, _), rng = env.reset(seed=1), np.random.default_rng(1)
    for t in range(steps):
        action = np.clip(act(obs, t, rng), -1, 1).astype(np.float32)
        next_obs, reward, *_ = env.step(action)
        rows.append((obs, action, reward, next_obs, 0.0))
        obs = next_obs
    return mbpo.Batch(*(torch.as_tensor(np.array(x))[None] for x in zip(*rows)))


@pytest.fixture(scope="module")
def played():
    """500 transitions of cheetah-run, some of them with a reward."""
    return play(CHEETAH, lambda obs, t, rng: np.sin(t / 4 + np.arange(6)) + rng.normal(size=6) / 2)


def imagined(played, seed=2):
    """What `imagine` makes from 200 of these transitions with an agent and a model of a few steps, and with
    which; and the rows that it drew."""
    args = make_args(mbpo, rollouts_per_step=200, model_train_steps=100)
    torch.manual_seed(1)
    agent, buffer = mbpo.SAC(17, 6, args), filled_buffer(mbpo, mbpo.Batch(*(x.float() for x in played)))
    model, synthetic = mbpo.Ensemble(17, 6, args), mbpo.ReplayBuffer(1, 200, 17, 6)
    logs = mbpo.train_model(model, buffer, args)
    torch.manual_seed(seed)
    never = mbpo.termination_rule(CHEETAH)
    batch = mbpo.imagine(agent, model, buffer, synthetic, never, 1, args)
    assert all(torch.equal(x, y) for x, y in zip(batch, synthetic.data))
    return batch, agent, model, logs


def from_rows(batch, played):
    """Which of the played transitions each imagined one starts from."""
    distances = torch.cdist(batch.obs[0].double(), played.obs[0])
    assert distances.min(1).values.max() < 1e-5
    return distances.argmin(1)


def test_a_true_step_is_the_environment_s(played):
    spun = play(oracle.env_id_of("finger-spin"), lambda obs, t, rng: rng.choice([-1, 1], size=2), 1_000)
    for task, batch in (("cheetah-run", played), ("finger-spin", spun)):
        env = mbpo.make_env(oracle.env_id_of(task), False)
        obs, actions = (x[0].double().numpy() for x in (batch.obs, batch.actions))
        next_obs, rewards = oracle.true_step(env, obs, actions)
        np.testing.assert_allclose(next_obs, batch.next_obs[0], atol=1e-9)
        np.testing.assert_allclose(rewards, batch.rewards[0], atol=1e-9)
        assert 0.01 < (rewards > 0).mean() < 0.9
    assert (spun.obs[0, :, 4:6] > 0).sum() > 40, "it touches the spinner"


def test_the_oracle_imagines_what_the_policy_s_actions_really_do(played, changed):
    usual, *_ = imagined(played)
    oracle.simulate(changed, "cheetah-run")
    batch, agent, model, logs = imagined(played)
    assert list(logs) == ["model/nll"] and not model.input_mean.any(), "no model is trained"
    rows = from_rows(batch, played)
    assert (batch.actions[0] - played.actions[0, rows]).abs().mean() > 0.1
    env = mbpo.make_env(CHEETAH, False)
    truth = oracle.true_step(env, *(x[0].double().numpy() for x in (batch.obs, batch.actions)))
    np.testing.assert_allclose(batch.next_obs[0], truth[0], atol=1e-4)
    np.testing.assert_allclose(batch.rewards[0], truth[1], atol=1e-5)
    mean, log_std = agent.actor(batch.obs)
    noise = (torch.atanh(batch.actions) - mean) / log_std.exp()
    assert noise.std().item() == pytest.approx(1, abs=0.1), "the actions are the policy's"
    assert (usual.next_obs - batch.next_obs).abs().max() > 0.01


@pytest.mark.parametrize("name", ["true-states", "true-rewards"])
def test_one_half_is_the_simulator_s_and_the_other_the_model_s(name, played, changed):
    usual, _, _, logs = imagined(played)
    for change in oracle.ROWS[name][2]:
        change(changed, task="cheetah-run")
    batch, _, _, same = imagined(played)
    assert torch.equal(logs["model/nll"], same["model/nll"]) and torch.equal(batch.actions, usual.actions)
    env = mbpo.make_env(CHEETAH, False)
    truth = oracle.true_step(env, *(x[0].double().numpy() for x in (batch.obs, batch.actions)))
    truth = [torch.as_tensor(x).float()[None] for x in truth]
    states, rewards = (truth[0], usual.rewards) if name == "true-states" else (usual.next_obs, truth[1])
    assert torch.equal(batch.next_obs, states) and torch.equal(batch.rewards, rewards)


def test_real_actions_are_those_that_were_played_and_the_rest_is_the_model_s(played, changed):
    oracle.keep_actions(changed, "cheetah-run")
    batch, _, model, _ = imagined(played)
    rows = from_rows(batch, played)
    assert torch.equal(batch.actions[0], played.actions[0, rows]) and len(set(rows.tolist())) > 100
    torch.manual_seed(2)
    torch.randint(500, batch.rewards.shape)
    next_obs, rewards = model.sample(batch.obs, batch.actions)
    assert torch.equal(next_obs, batch.next_obs) and torch.equal(rewards, batch.rewards)
    assert not batch.terminations.any()


def test_without_noise_an_elite_s_mean_is_imagined_and_training_is_as_ever(played, changed):
    usual, _, as_ever, logs = imagined(played)
    oracle.without_noise(changed, "cheetah-run")
    batch, _, model, same = imagined(played)
    assert all(torch.equal(logs[name], same[name]) for name in logs)
    assert all(torch.equal(x, y) for x, y in zip(as_ever.state_dict().values(), model.state_dict().values()))
    assert torch.equal(batch.obs, usual.obs) and torch.equal(batch.actions, usual.actions)
    with torch.no_grad():
        mean, _ = model(batch.obs.unsqueeze(1), batch.actions.unsqueeze(1))
    off = (mean[..., -1] - batch.rewards.unsqueeze(1)).abs()[:, model.elites[0]]
    assert off.min(1).values.max() < 1e-6
    assert (usual.rewards - batch.rewards).abs().mean() > 1e-3


@pytest.mark.parametrize("script", [mbpo, ftfl])
def test_effects_of_actions_are_known_by_the_truth_and_not_by_who_ignores_actions(
    script, tmp_path, monkeypatch
):
    small = "--total-timesteps 150 --learning-starts 150 --hidden-dim 16 --model-hidden-dim 16 --device cpu "
    small += f"--model-train-steps 5 --eval-episodes 1 --utd-ratio 1 --seed 3 --run-dir {tmp_path}"
    (run_dir,) = script.main(script.parse_args([*small.split(), "--env-id", CHEETAH]))
    env, heard, noise = script.make_env(CHEETAH, False), 1.0, -np.inf  # log-variance

    def forward(self, obs, actions):
        flat = (x[0, 0].double().numpy() for x in (obs, heard * actions))
        next_obs, rewards = (torch.as_tensor(x)[None, None].float() for x in oracle.true_step(env, *flat))
        targets = self.targets(script.Batch(obs, actions, rewards, next_obs, None))
        targets = targets.expand(1, 7, *targets.shape[2:])
        return targets, torch.full_like(targets, noise)

    monkeypatch.setattr(script.Ensemble, "forward", forward)
    oracle.main(oracle.Args(effects=(str(run_dir),), out=str(tmp_path / "out")))
    with open(tmp_path / "out/cheetah-run/effects.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["actions"] for line in lines] == ["policy", "uniform"]
    for line in lines:
        assert (line["script"], line["width"], line["seed"], line["step"]) == (
            script.__name__,
            "16",
            "3",
            "150",
        )
        assert line["algorithm"] == {"mbpo": "MBPO", "ftfl": "FTFL"}[script.__name__]
        known = [float(line[name]) for name in line if name.endswith("r2")]
        known += [float(x) for x in line["r2_by_number"].split()]
        assert known == pytest.approx([1] * (9 + 17), abs=1e-3)
    assert 0.2 < float(lines[1]["next_state_effect_share"]) < 0.99
    assert float(lines[0]["next_state_effect_share"]) < 0.1, "at first, the policy's actions are alike"
    heard, noise = 0.0, -5.0
    _, uniform = oracle.action_effects(run_dir, "cheetah-run")
    for name in ("reward", "next_state", "value"):
        assert float(uniform[f"{name}_effect_r2"]) == pytest.approx(0, abs=1e-2)
        assert float(uniform[f"{name}_sampled_effect_r2"]) < -0.01, "noise is not what the actions do"
        # What is left of the variance when the state is known is what who ignores the action can't know
        assert float(uniform[f"{name}_r2"]) < 1 - 0.5 * float(uniform[f"{name}_effect_share"])


def test_a_linear_regression_knows_what_is_linear_on_rows_it_was_not_fitted_to():
    rng = np.random.default_rng(1)
    obs, actions, noise = rng.normal(size=(400, 2)), rng.normal(size=(400, 1)), rng.normal(size=400)
    data = ftfl.Batch(obs, actions, 3 + noise, obs + np.hstack([2 * actions, noise[:, None]]), None)
    rows = np.arange(0, 400, 5)
    data.rewards[rows] = 3 - 9 * obs[rows, 0]  # on these rows only
    about = oracle.about_data(data, rows)
    exact, unknown = (float(x) for x in about["linear_r2_by_number"].split())
    assert exact == pytest.approx(1, abs=1e-6) and unknown == pytest.approx(0, abs=0.1)
    assert float(about["linear_reward_r2"]) < 0.1, "what holds on the held-out rows only is not known"
    share = (np.abs(2 * actions[:, 0]) > 1).mean()
    assert float(about["changed_by_number"].split()[0]) == pytest.approx(share, abs=1e-3)


def test_fits_say_what_models_know_of_each_number_on_rows_held_out(tmp_path, monkeypatch, capsys):
    small = "--total-timesteps 200 --learning-starts 200 --hidden-dim 16 --eval-episodes 1 --device cpu "
    small += f"--utd-ratio 1 --seed 3 --env-id {CHEETAH}"
    (run_dir,) = sac.main(sac.parse_args([*small.split(), "--run-dir", str(tmp_path)]))
    monkeypatch.setattr(oracle, "flags_of", lambda task: f"{small} --model-hidden-dim 16")
    monkeypatch.setattr(oracle, "fits", partial(oracle.fits, num_steps=5))
    env, heard, seen = ftfl.make_env(CHEETAH, False), [], []
    last = env.observation_space.shape[0] - 1

    def forward(self, obs, actions):
        """The truth, but of one number's change and of the reward their means over these rows."""
        seen.append(obs)
        heard.append((self.normalize, self.direct))
        flat = (x.flatten(0, 2).double().numpy() for x in (obs, actions))
        next_obs, rewards = (torch.as_tensor(x).float() for x in oracle.true_step(env, *flat))
        next_obs = next_obs.view_as(obs)
        next_obs[..., last] = obs[..., last] + (next_obs - obs)[..., last].mean()
        rewards = rewards.mean().expand(obs.shape[:-1])
        targets = self.targets(ftfl.Batch(obs, actions, rewards, next_obs, None))
        targets = targets.expand(1, 7, *targets.shape[2:]) + 0 * self.net[0].bias.sum()
        return targets, torch.zeros_like(targets)

    monkeypatch.setattr(ftfl.Ensemble, "forward", forward)
    monkeypatch.setattr(ftfl.Ensemble, "update", lambda self, batch: {"model/nll": torch.zeros(1, 7)})
    oracle.main(oracle.Args(fits=(str(run_dir),), out=str(tmp_path / "out")))
    with open(tmp_path / "out/cheetah-run/fits.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["model"] for line in lines] == ["mbpo", "tun", "ftfl"]
    assert list(dict.fromkeys(heard)) == [(False, False), (True, False), (True, True)]
    data, *_ = oracle.model_study.read_buffer(run_dir)
    held_out = torch.as_tensor(data.obs)[ftfl.split_rows(make_args(ftfl, seed=3), 200)[1][0]]
    assert torch.equal(seen[-1][0, 0], held_out) and len(held_out) == 40
    for line in lines:
        assert (line["data"], line["seed"], line["transitions"]) == ("sac", "3", "200")
        assert float(line["rewarded"]) == pytest.approx((data.rewards > 0).mean(), abs=1e-3)
        changed = (np.abs(data.next_obs - data.obs) > 1).mean(0)
        assert [float(x) for x in line["changed_by_number"].split()] == pytest.approx(changed, abs=1e-3)
        *others, number = [float(x) for x in line["r2_by_number"].split()]
        assert others == pytest.approx([1] * 16, abs=1e-3)
        assert [number, float(line["reward_r2"])] == pytest.approx([0, 0], abs=0.03), "a mean knows nothing"
    with pytest.raises(SystemExit):
        oracle.main(oracle.Args(fits=(str(run_dir),), task="finger-spin"))
    assert "it must be a run on finger-spin (--task)" in capsys.readouterr().err
    monkeypatch.setattr(oracle, "fits", None)  # a mistake in the last is said before the first is fitted
    with pytest.raises(SystemExit):
        oracle.main(oracle.Args(fits=(str(run_dir), str(tmp_path / "none"))))
    said = capsys.readouterr().err
    assert f"--fits {tmp_path / 'none'}: no run to fit models to" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("task, steps", [("cheetah-run", 12_500), ("finger-spin", 25_000)])
def test_rows_are_the_grid_s_commands_but_for_what_they_say(task, steps, capsys):
    oracle.main(oracle.Args(list=True, task=task))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * len(oracle.ROWS)
    for line in lines:
        name, script, command = re.fullmatch(r"(.*): python (\w+)\.py (.*)", line).groups()
        assert script == (name.split("__")[0] if name[:4] in ("sac_", "ftfl") else "mbpo")
        args = {"sac": sac, "mbpo": mbpo, "ftfl": ftfl}[script].parse_args(command.split())
        assert args.env_id == oracle.env_id_of(task) and args.critic_layer_norm
        assert args.total_timesteps == steps
        assert name.endswith(f"__seed{args.seed}")
        assert (getattr(args, "real_ratio", 0) == 0.5) == name.startswith("real50")
        assert getattr(args, "model_hidden_dim", 100) == (200 if name.startswith("paper-model") else 100)


def test_rows_are_run_once_and_a_wrong_name_is_one_line(tmp_path, monkeypatch, capsys):
    small = "--total-timesteps 60 --learning-starts 40 --hidden-dim 16 --model-hidden-dim 16 --device cpu "
    small += "--model-train-steps 5 --eval-episodes 1 --batch-size 20 --env-id dm_control/finger-spin-v0"
    monkeypatch.setattr(oracle, "flags_of", lambda task: small)
    args = oracle.Args(("oracle",), "finger-spin", (2,), str(tmp_path / "runs"), str(tmp_path / "out"))
    oracle.main(args)
    (path,) = (tmp_path / "out/finger-spin").glob("*")
    assert path.name == "oracle__seed2.csv" and "eval/episodic_return" in path.read_text()
    written = path.read_text()
    assert str(tmp_path) not in written
    (run,) = plots.read_csv(path)
    assert plots.label(run.flags) == "MBPO, width 16, oracle", "no run of mbpo.py, as it stands"
    assert mbpo.make_run_dirs.__name__ == "make_run_dirs"
    path.unlink()  # as if killed before it was written
    monkeypatch.setattr(mbpo, "main", None)
    oracle.main(args)
    assert path.read_text() == written
    monkeypatch.setattr(oracle.critics, "run", None)
    oracle.main(args)
    assert "oracle__seed2: complete" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        oracle.main(oracle.Args(("means",)))
    assert "there is no such row" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        oracle.main(oracle.Args(task="finger-turn"))
    assert "--task finger-turn: there is no such task" in capsys.readouterr().err


@pytest.mark.parametrize("script, task", [(sac, CHEETAH), (mbpo, oracle.env_id_of("finger-spin"))])
def test_a_run_that_has_no_model_of_the_task_is_one_line(script, task, tmp_path, capsys):
    flags = f"--env-id {task} --total-timesteps 20 --learning-starts 20 --eval-episodes 1 --batch-size 20"
    flags += f" --hidden-dim 8 --utd-ratio 1 --device cpu --run-dir {tmp_path}"
    flags += " --model-train-steps 1" * (script is mbpo)
    (run_dir,) = script.main(script.parse_args(flags.split()))
    with pytest.raises(SystemExit) as stopped:
        oracle.main(oracle.Args(effects=(str(run_dir),), out=str(tmp_path / "out")))
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    assert "it must be a run of mbpo.py or ftfl.py, on cheetah-run (--task)" in capsys.readouterr().err
