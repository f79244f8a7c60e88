"""Environments: what is stored at the end of an episode, scaling, seeding, the termination rules."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import mbpo
import sac
from conftest import make_args

GYM_TASKS = ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5",
             "Humanoid-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5", "HumanoidStandup-v5"]  # fmt: skip


def test_stored_transitions_at_the_end_of_episodes(script, tmp_path, monkeypatch):
    if hasattr(script, "termination_rule"):
        monkeypatch.setattr(script, "termination_rule", lambda env_id: lambda s: s[..., 0] < -1e9)
    args = make_args(script, env_id="Scripted-v0", total_timesteps=50, learning_starts=30, save_buffer=True)
    args.run_dir = str(tmp_path)
    stored = np.load(script.main(args)[0] / "buffer.npz")
    t, episode = stored["obs"].T
    assert len(t) == 50 and episode.min() == 1 and episode.max() == 9
    # The true last observation is stored, not the first one after the reset
    assert np.array_equal(stored["next_obs"], stored["obs"] + [1, 0])
    assert np.array_equal(stored["rewards"], t + 1)
    terminal = (episode % 2 == 0) & (t == 4)
    assert terminal.sum() == 4 and ((episode % 2 == 1) & (t == 6)).sum() == 4
    assert np.array_equal(stored["terminations"], terminal)


def test_gymnasiums_time_limit_is_no_terminal_state(script, tmp_path):
    gym.register("Short-v0", "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv", max_episode_steps=20)
    try:
        args = make_args(script, env_id="Short-v0", total_timesteps=60, learning_starts=60, save_buffer=True)
        if hasattr(args, "real_ratio"):
            args.real_ratio = 1.0
        args.run_dir = str(tmp_path)
        stored = np.load(script.main(args)[0] / "buffer.npz")
    finally:
        del gym.registry["Short-v0"]
    assert not stored["terminations"].any()
    cuts = np.flatnonzero(np.abs(stored["next_obs"][:-1] - stored["obs"][1:]).max(1) > 0)
    assert cuts.tolist() == [19, 39]
    # At a cut the next observation follows from the step before: it is not near a reset's, which starts almost at rest
    assert np.abs(stored["next_obs"][cuts][:, 8:]).max() > 1


def test_actions_are_scaled_from_minus_one_to_one(script):
    for env_id, high in (("InvertedPendulum-v5", 3.0), ("dm_control/quadruped-walk-v0", 1.1)):
        envs = script.make_envs(script.Args(env_id=env_id))
        env = envs.envs[0]
        assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1
        assert env.unwrapped.action_space.high.max() == pytest.approx(high)
        scaled = env
        while not isinstance(scaled, gym.wrappers.RescaleAction):
            scaled = scaled.env
        assert np.allclose(scaled.func(np.ones(env.action_space.shape)), env.unwrapped.action_space.high)
        envs.close()


def test_observations_are_compact_unless_asked_for(script):
    for env_id, compact, full in (("Ant-v5", 27, 105), ("Humanoid-v5", 45, 348), ("dm_control/humanoid-stand-v0", 67, 67)):
        for flag, size in ((False, compact), (True, full)):
            envs = script.make_envs(script.Args(env_id=env_id, full_observation=flag))
            assert envs.single_observation_space.shape == (size,)
            envs.close()


def test_episodes_of_the_suite_end_at_1000_steps_without_a_terminal_state(script):
    for env_id in ("dm_control/cartpole-balance-v0", "dm_control/lqr-lqr_2_1-v0"):
        envs = script.make_envs(script.Args(env_id=env_id))
        envs.reset(seed=[1])
        for step in range(1, 1001):
            _, _, terminations, truncations, _ = envs.step(np.zeros(envs.action_space.shape, np.float32))
            assert not terminations.any() and truncations.all() == (step == 1000)
        envs.close()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_every_dm_control_task_steps_or_says_why_not(capsys):
    envs = sac.make_envs(sac.Args(env_id="Hopper-v5"))
    envs.close()
    working, refused = [], {}
    for env_id in [name for name in gym.registry if name.startswith("dm_control/")]:
        try:
            envs = sac.make_envs(sac.Args(env_id=env_id))
            obs, _ = envs.reset(seed=[1])
            obs, rewards, *_ = envs.step(np.zeros(envs.action_space.shape, np.float32))
            assert obs.shape == envs.observation_space.shape and obs.ndim == 2 and np.isfinite(obs).all()
            envs.close()
            working.append(env_id)
        except SystemExit as error:
            assert error.code == 2
            refused[env_id] = capsys.readouterr().err
    # What is refused here: pixels, tasks that render even to be reset (there is no renderer in tests), and the generic id
    assert len(working) + len(refused) == 86
    for env_id, message in refused.items():
        assert message.count("\n") == 1 and env_id in message
        assert "renderer" in message or "pixels" in message or env_id == "dm_control/compatibility-env-v0"
    suite = [name for name in working if "-" in name.removesuffix("-v0")]
    assert len(suite) >= 50 and len(working) >= 60


def real_transitions(module, env_id, num_steps):
    """Next observations and termination flags under random, and under smooth, gently perturbed actions."""
    envs = module.make_envs(module.Args(env_id=env_id, num_seeds=2))
    rng = np.random.default_rng(0)
    shape = envs.action_space.shape
    envs.reset(seed=[1, 2])
    next_obs, flags, mean = [], [], np.zeros(shape)
    for step in range(num_steps):
        mean = 0.95 * mean + 0.05 * rng.uniform(-1, 1, shape)
        actions = rng.uniform(-1, 1, shape) if step % 400 < 200 else np.clip(mean + 0.1 * rng.normal(size=shape), -1, 1)
        obs, _, terminations, truncations, infos = envs.step(actions.astype(np.float32))
        for k in range(2):
            ended = terminations[k] or truncations[k]
            next_obs.append(infos["final_obs"][k] if ended else obs[k])
            flags.append(terminations[k])
    envs.close()
    return torch.as_tensor(np.array(next_obs), dtype=torch.float32), np.array(flags)


@pytest.mark.parametrize("env_id", GYM_TASKS)
def test_termination_rule_agrees_with_the_environment(env_id):
    """On real steps. Only mbpo.py's rules: ftfl.py's are the same text, as test_shared_text sees to."""
    next_obs, flags = real_transitions(mbpo, env_id, 2600)
    assert len(flags) >= 5000
    predicted = mbpo.termination_rule(env_id)(next_obs).numpy()
    differing = (predicted != flags).sum()
    assert differing <= (3 if env_id.startswith("InvertedDouble") else 0), f"{differing} of {len(flags)} disagree"
    never = env_id.split("-")[0] in ("HalfCheetah", "Swimmer", "Reacher", "Pusher", "HumanoidStandup")
    assert flags.any() != never, "the steps must show both outcomes where there are two"


def test_termination_rules_at_their_edges(model_script):
    """The edges that random steps seldom reach."""
    rule = model_script.termination_rule

    def hopper(**changes):
        s = torch.zeros(11)
        s[0] = 1.25
        for i, value in changes.items():
            s[int(i[1:])] = value
        return rule("Hopper-v5")(s).item()

    assert not hopper()
    assert hopper(s0=0.69) and hopper(s1=0.21) and hopper(s1=-0.21)
    assert hopper(s5=101.0) and hopper(s5=-101.0)
    assert rule("Ant-v5")(torch.full((27,), 1.01)).item() and rule("Ant-v5")(torch.full((27,), 0.19)).item()
    assert rule("Walker2d-v5")(torch.full((17,), 2.01)).item()
    assert rule("Humanoid-v5")(torch.full((45,), 0.99)).item() and rule("Humanoid-v5")(torch.full((45,), 2.01)).item()
    for env_id in GYM_TASKS + ["dm_control/walker-walk-v0"]:
        assert rule(env_id)(torch.full((45,), torch.nan)).item(), "a state that is not a number is no live state"
    assert not rule("dm_control/humanoid_CMU-run-v0")(torch.ones(5)).item()
    assert rule("dm_control/lqr-lqr_2_1-v0")(torch.zeros(4)).item()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "dm_control/CmuHumanoidGoToTarget-v0", "Scripted-v0"])
def test_a_task_without_a_rule_is_refused_by_name(model_script, env_id, capsys):
    with pytest.raises(SystemExit) as error:
        model_script.termination_rule(env_id)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "termination_rule" in message and env_id in message and message.count("\n") == 1


@pytest.mark.parametrize("env_id,groups", [
    ("Walker2d-v5", "p" * 8 + "v" * 9),
    ("Ant-v5", "p" * 13 + "v" * 14),
    ("dm_control/humanoid-stand-v0", "v" * 3 + "p" * 37 + "v" * 27),
    ("dm_control/hopper-hop-v0", "p" * 6 + "o" * 2 + "v" * 7),
    ("Reacher-v5", "o" * 10)])  # fmt: skip
def test_observations_are_told_apart_by_their_names(script, env_id, groups):
    found = script.observation_groups(make_args(script, env_id=env_id))
    assert "".join(name[0] for name in found) == groups
