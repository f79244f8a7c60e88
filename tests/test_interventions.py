"""benchmark/interventions.py changes what it says, and nothing else."""

import inspect
import subprocess
import sys

import interventions
import numpy as np
import pytest
import stress_resume
import torch
from conftest import ROOT, filled_buffer, make_args, random_batch
from experiments import ROWS
from interventions import applied, true_step

import ftfl
import mbpo
import sac

CHEETAH = "dm_control/cheetah-run-v0"
FINGER = "dm_control/finger-spin-v0"


def test_each_is_one_of_a_row_and_undone_afterwards():
    assert {row.intervention for row in ROWS} == {"", *interventions.INTERVENTIONS}
    for name in interventions.INTERVENTIONS:
        assert f"    {name} " in interventions.__doc__
        before = dict(vars(ftfl))
        with pytest.raises(KeyError), applied(name, ftfl):
            changed = [key for key in before if vars(ftfl)[key] is not before[key]]
            assert "make_run_dirs" in changed and len(changed) <= 3
            raise KeyError
        assert vars(ftfl) == before


# ---------------------------------------- What the agent sees, and where it starts
def test_cut_states_are_in_the_real_ones_range_and_nothing_else_is_changed():
    args = make_args(ftfl, num_seeds=2, rollouts_per_step=200)
    torch.manual_seed(1)
    buffer = filled_buffer(ftfl, random_batch(2, 50, 4, 2, module=ftfl))
    agent, model = ftfl.SAC(4, 2, args), ftfl.Ensemble(4, 2, args)

    def imagined():
        synthetic = ftfl.ReplayBuffer(2, 200, 4, 2)
        torch.manual_seed(2)
        ftfl.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1e9, 1, args)
        return synthetic.data

    free = imagined()
    with applied("cut", ftfl):
        cut = imagined()
    real = buffer.data.next_obs
    low, high = real.amin(1, keepdim=True), real.amax(1, keepdim=True)
    assert ((free.next_obs < low) | (free.next_obs > high)).any()
    assert torch.equal(cut.next_obs, free.next_obs.clamp(low, high))
    assert torch.equal(cut.rewards, free.rewards) and torch.equal(cut.actions, free.actions)


def test_forces_are_left_out_and_nothing_else():
    whole = sac.make_env("dm_control/quadruped-walk-v0", False)
    with applied("noforce", sac):
        part = sac.make_env("dm_control/quadruped-walk-v0", False)
    (obs, _), (fewer, _) = whole.reset(seed=1), part.reset(seed=1)
    assert part.observation_space.shape == fewer.shape == (54,) and obs.shape == (78,)
    np.testing.assert_array_equal(fewer, np.concatenate([obs[:44], obs[68:]]))
    assert (np.abs(obs[44:68]) > 0).any()


def test_a_cool_start_changes_the_first_temperature_alone():
    def new_agent():
        torch.manual_seed(1)
        return sac.SAC(4, 2, make_args(sac, num_seeds=2)).state_dict()

    usual = new_agent()
    with applied("cool", sac):
        cool = new_agent()
    assert cool["log_alpha"].exp().flatten().tolist() == pytest.approx([0.01] * 2)
    assert [name for name in usual if not torch.equal(usual[name], cool[name])] == ["log_alpha"]


def test_orthogonal_weights_are_those_of_the_earlier_code():
    with applied("orthogonal", sac):
        agent = sac.SAC(4, 2, make_args(sac, num_seeds=2, hidden_dim=16, critic_layer_norm=True))
    *inner, last = agent.actor.net[::2]
    pairs = [(x, 2) for layer in [*inner, *agent.qf[::2]] for x in layer.weight.flatten(0, -3)]
    pairs += [(x[:, :2], 2) for x in last.weight] + [(x[:, 2:], 1) for x in last.weight]
    assert len(pairs) == 2 * 2 + 4 * 3 + 2 * 2
    for matrix, square in pairs:
        short = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
        assert torch.allclose(short @ short.T, square * torch.eye(len(short)), atol=1e-5)
    assert not any(layer.bias.any() for layer in [*agent.actor.net[::2], *agent.qf[::2]])
    first, *others = agent.qf[2].weight.flatten(0, 1)  # of Q1 and Q2 of both seeds
    assert all((first - other).abs().max() > 0.01 for other in others)
    targets, weights = agent.qf_target.state_dict(), agent.qf.state_dict()
    assert all(torch.equal(targets[name], weights[name]) for name in weights)


# ---------------------------------------- What is imagined
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
    which."""
    args = make_args(mbpo, env_id=CHEETAH, rollouts_per_step=200, model_train_steps=100)
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


def truth_of(batch):
    """Next states and rewards of imagined transitions by the simulator."""
    env = mbpo.make_env(CHEETAH, False)
    next_obs, rewards = true_step(env, batch.obs[0].double().numpy(), batch.actions[0].double().numpy())
    return torch.as_tensor(next_obs).float()[None], torch.as_tensor(rewards).float()[None]


def test_a_true_step_is_the_environment_s(played):
    spun = play(FINGER, lambda obs, t, rng: rng.choice([-1, 1], size=2), 1_000)
    for env_id, batch in ((CHEETAH, played), (FINGER, spun)):
        env = mbpo.make_env(env_id, False)
        next_obs, rewards = true_step(env, batch.obs[0].numpy(), batch.actions[0].double().numpy())
        np.testing.assert_allclose(next_obs, batch.next_obs[0], atol=1e-9)
        np.testing.assert_allclose(rewards, batch.rewards[0], atol=1e-9)
        assert 0.01 < (rewards > 0).mean() < 0.9
    assert (spun.obs[0, :, 4:6] > 0).sum() > 40, "it touches the spinner"


def test_the_oracle_imagines_what_the_policy_s_actions_really_do(played):
    usual, *_ = imagined(played)
    with applied("oracle", mbpo):
        batch, agent, model, logs = imagined(played)
    assert list(logs) == ["model/nll"] and not model.input_mean.any(), "no model is trained"
    rows = from_rows(batch, played)
    assert (batch.actions[0] - played.actions[0, rows]).abs().mean() > 0.1
    next_obs, rewards = truth_of(batch)
    assert torch.allclose(batch.next_obs, next_obs, atol=1e-4)
    assert torch.allclose(batch.rewards, rewards, atol=1e-5)
    mean, log_std = agent.actor(batch.obs)
    noise = (torch.atanh(batch.actions) - mean) / log_std.exp()
    assert noise.std().item() == pytest.approx(1, abs=0.1), "the actions are the policy's"
    assert (usual.next_obs - batch.next_obs).abs().max() > 0.01


@pytest.mark.parametrize("name", ["true-states", "true-rewards"])
def test_one_half_is_the_simulator_s_and_the_other_the_model_s(name, played):
    usual, _, _, logs = imagined(played)
    with applied(name, mbpo):
        batch, _, _, same = imagined(played)
    assert torch.equal(logs["model/nll"], same["model/nll"]) and torch.equal(batch.actions, usual.actions)
    next_obs, rewards = truth_of(batch)
    states = next_obs if name == "true-states" else usual.next_obs
    earned = rewards if name == "true-rewards" else usual.rewards
    assert torch.equal(batch.next_obs, states) and torch.equal(batch.rewards, earned)


def test_real_actions_are_those_that_were_played_and_the_rest_is_the_model_s(played):
    with applied("real-actions", mbpo):
        batch, _, model, _ = imagined(played)
    rows = from_rows(batch, played)
    assert torch.equal(batch.actions[0], played.actions[0, rows]) and len(set(rows.tolist())) > 100
    torch.manual_seed(2)
    torch.randint(500, batch.rewards.shape)
    next_obs, rewards = model.sample(batch.obs, batch.actions)
    assert torch.equal(next_obs, batch.next_obs) and torch.equal(rewards, batch.rewards)
    assert not batch.terminations.any()


def test_without_noise_an_elite_s_mean_is_imagined_and_training_is_as_ever(played):
    usual, _, as_ever, logs = imagined(played)
    with applied("mean", mbpo):
        batch, _, model, same = imagined(played)
    assert all(torch.equal(logs[name], same[name]) for name in logs)
    assert all(torch.equal(x, y) for x, y in zip(as_ever.state_dict().values(), model.state_dict().values()))
    assert torch.equal(batch.obs, usual.obs) and torch.equal(batch.actions, usual.actions)
    with torch.no_grad():
        mean, _ = model(batch.obs.unsqueeze(1), batch.actions.unsqueeze(1))
    off = (mean[..., -1] - batch.rewards.unsqueeze(1)).abs()[:, model.elites[0]]
    assert off.min(1).values.max() < 1e-6
    assert (usual.rewards - batch.rewards).abs().mean() > 1e-3


# ---------------------------------------- The model's variance
def test_a_fixed_variance_makes_the_likelihood_a_squared_error():
    torch.manual_seed(1)
    with applied("fixed", ftfl):
        model = ftfl.Ensemble(4, 2, make_args(ftfl))
    batch = ftfl.Batch(*(torch.randn(1, 7, 16, *shape) for shape in ((4,), (2,), (), (4,), ())))
    mean, logvar = model(batch.obs, batch.actions)
    expected = (model.targets(batch) - mean).square().mean((2, 3))
    logs = model.update(batch)
    assert not logvar.any() and torch.allclose(logs["model/nll"], expected)


def test_a_high_cap_lets_the_variance_be_large(monkeypatch):
    with applied("cap", ftfl):
        model = ftfl.Ensemble(4, 2, make_args(ftfl))
    monkeypatch.setattr(model.net, "forward", lambda x: torch.full((*x.shape[:-1], 10), 40.0))
    _, logvar = model(torch.randn(1, 1, 16, 4), torch.randn(1, 1, 16, 2))
    assert logvar.min() == logvar.max() == pytest.approx(5, abs=1e-3)
    assert not model.max_logvar.requires_grad


# ---------------------------------------- The program
@pytest.mark.parametrize("words, named", [
    ([], "INTERVENTION and SCRIPT"),
    (["oracle"], "INTERVENTION and SCRIPT"),
    (["nothing", "mbpo"], "INTERVENTION and SCRIPT"),
    (["oracle", "plots"], "INTERVENTION and SCRIPT"),
    ("oracle mbpo --env-id Hopper-v5 --device cpu".split(), "--env-id Hopper-v5"),
])  # fmt: skip
def test_a_mistake_is_one_line(words, named, tmp_path, capsys):
    if len(words) > 2:
        words = [*words, "--run-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as error:
        interventions.main(words)
    said = capsys.readouterr().err.splitlines()[-1]
    assert error.value.code == 2 and said.startswith("error: ") and named in said


def test_help_lists_them():
    command = [sys.executable, str(ROOT / "benchmark/interventions.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=stress_resume.ENVIRONMENT)
    assert done.returncode == 0 and inspect.getdoc(interventions) in done.stdout
