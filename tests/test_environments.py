"""Environments: what is stored at the end of an episode, replays, scaling, seeding, the termination rules."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import make_args

import ftfl
import mbpo
import sac

GYM_TASKS = ["InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5",
             "Swimmer-v5", "Reacher-v5", "Pusher-v5", "HumanoidStandup-v5"]  # fmt: skip
sac.make_env("Hopper-v5", False).close()  # registers dm_control's tasks
DMC = sorted(name for name in gym.registry if name.startswith("dm_control/"))
SUITE = [name for name in DMC if "-" in name.removesuffix("-v0") and "compatibility" not in name]
LQR = [name for name in SUITE if "/lqr-" in name]
# Quadruped's terrain is drawn at each reset, by a renderer: there is none in tests
SUITE = [name for name in SUITE if name not in LQR and "quadruped-escape" not in name]


def train(script, folder, **flags):
    """The Batch of all transitions that a small run has stored, without the axis of the seeds."""
    args = make_args(script, run_dir=str(folder), utd_ratio=1, **flags)
    (run_dir,) = script.main(args)
    data = torch.load(run_dir / "checkpoint.pt", weights_only=True)["buffer"]["data"]
    return script.Batch(*(x[0].numpy() for x in data))


# ---------------------------------------- The end of an episode
def test_stored_transitions_at_the_end_of_episodes(script, tmp_path, monkeypatch):
    if hasattr(script, "termination_rule"):
        monkeypatch.setattr(script, "termination_rule", lambda env_id: lambda s: s[..., 0] < -1e9)
    stored = train(script, tmp_path, env_id="Scripted-v0", total_timesteps=50, learning_starts=30)
    t, episode = stored.obs.T
    episode = episode - episode.min()
    assert len(t) == 50 and np.array_equal(np.unique(episode), np.arange(9))
    # The true last observation is stored, not the first one after the reset, which begins the next row
    assert np.array_equal(stored.next_obs, stored.obs + [1, 0])
    last = np.isin(stored.next_obs[:, 0], (5, 7)) & np.append(np.diff(episode) > 0, True)
    assert np.array_equal(np.flatnonzero(np.diff(episode)), np.flatnonzero(last)[:8]) and t[0] == 0
    assert (t[1:][last[:-1]] == 0).all() and np.array_equal(t[1:][~last[:-1]], t[:-1][~last[:-1]] + 1)
    assert np.array_equal(stored.rewards, t + 1)
    terminal = (stored.obs[:, 1] % 2 == 0) & (t == 4)
    assert terminal.sum() == 4 and ((stored.obs[:, 1] % 2 == 1) & (t == 6)).sum() == 4
    assert np.array_equal(stored.terminations, terminal)


def test_gymnasiums_time_limit_is_no_terminal_state(script, tmp_path):
    gym.register("Short-v0", "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv", max_episode_steps=20)
    try:
        flags = {"real_ratio": 1.0} if hasattr(script.Args, "real_ratio") else {}
        stored = train(script, tmp_path, env_id="Short-v0", total_timesteps=60, learning_starts=60, **flags)
    finally:
        del gym.registry["Short-v0"]
    assert not stored.terminations.any()
    cuts = np.flatnonzero(np.abs(stored.next_obs[:-1] - stored.obs[1:]).max(1) > 0)
    assert cuts.tolist() == [19, 39]
    # At a cut it follows from the step before: it is not near a reset's, which starts almost at rest
    assert np.abs(stored.next_obs[cuts][:, 8:]).max() > 1


@pytest.mark.parametrize("env_id", ["dm_control/cartpole-balance-v0", "dm_control/humanoid-stand-v0"])
def test_episodes_of_the_suite_end_at_1000_steps_without_a_terminal_state(env_id):
    envs = sac.make_envs(sac.Args(env_id=env_id))
    envs.reset(seed=[1])
    for step in range(1, 1001):
        _, _, terminations, truncations, infos = envs.step(np.zeros(envs.action_space.shape, np.float32))
        assert not terminations.any() and truncations.all() == (step == 1000)
    assert infos["episode"]["l"][0] == 1000
    envs.close()


# ---------------------------------------- Episodes are their reset seeds and their actions
def play(env, actions):
    """All that an environment returns for some actions, until an episode ends."""
    history = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        history.append((*obs, reward, terminated, truncated))
        if terminated or truncated:
            break
    return np.array(history)


def assert_no_residue(env_id, **flags):
    """A reset environment is a new one: nothing of its earlier episodes is left in it."""
    args = sac.Args(env_id=env_id, **flags)
    used, fresh = (sac.make_env(env_id, args.full_observation) for _ in range(2))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (90, *used.action_space.shape)).astype(np.float32)
    used.reset(seed=3)
    play(used, actions[:60])
    first, second = used.reset(seed=7)[0], fresh.reset(seed=7)[0]
    assert np.isfinite(first).all() and np.array_equal(first, second), f"{env_id}: first observations"
    assert np.array_equal(play(used, actions[60:]), play(fresh, actions[60:])), env_id
    used.close(), fresh.close()


@pytest.mark.parametrize("part", range(6))
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_reset_environment_is_free_of_residue(part):
    """What replays and so every resumed run rely on: of all the suite's tasks, and of Gymnasium's."""
    assert len(SUITE) >= 48
    for env_id in ([*SUITE, *GYM_TASKS, "InvertedDoublePendulum-v5"])[part::6]:
        assert_no_residue(env_id)
    if part == 0:
        assert_no_residue("Ant-v5", full_observation=True)
        assert_no_residue("Humanoid-v5", full_observation=True)


@pytest.mark.parametrize("workers", [False, True])
@pytest.mark.parametrize("env_id", ["Hopper-v5", "dm_control/walker-walk-v0"])
def test_replayed_episodes_go_on_as_those_never_stopped(env_id, workers):
    """Of several seeds, at several steps: just before, just after and far from the ends of episodes."""
    args = sac.Args(env_id=env_id, num_seeds=3, env_workers=workers)
    envs, num_steps, further = sac.make_envs(args), 130, 30
    obs_dim, act_dim = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    buffer = sac.ReplayBuffer(3, num_steps + further, obs_dim, act_dim)
    rng = np.random.default_rng(1)
    starts, obs, rows, history = [0] * 3, None, [], []
    obs = sac.reset_envs(envs, args, starts, np.ones(3, dtype=bool))
    for step in range(1, num_steps + further + 1):
        # the third seed acts gently: its episodes last longer
        actions = rng.uniform(-1, 1, (3, act_dim)).astype(np.float32) * np.array(
            [[1], [1], [0.1]], np.float32
        )
        next_obs, rewards, terminations, truncations, _ = envs.step(actions)
        rows.append((obs, actions, next_obs, rewards, terminations, truncations))
        transition = obs, actions, rewards, next_obs, terminations
        buffer.add(sac.Batch(*(torch.as_tensor(x, dtype=torch.float32).unsqueeze(1) for x in transition)))
        obs, ended = next_obs, terminations | truncations
        starts = [step if ended[k] else starts[k] for k in range(3)]
        if ended.any():
            obs = sac.reset_envs(envs, args, starts, ended)
        history.append((starts, obs))
    envs.close()
    ends = sorted({start for starts, _ in history for start in starts if 0 < start <= num_steps})
    assert bool(ends) == (env_id == "Hopper-v5")
    if ends:
        assert len({tuple(starts) for starts, _ in history}) > 4, "episodes of different lengths"
    near = [step + offset for step in ends[2:4] for offset in (-1, 0, 1)]
    envs = sac.make_envs(args)  # one for all: what earlier replays have left in it does no harm
    for stop in [1, *near, 63, num_steps]:
        starts, expected = history[stop - 1]
        obs = sac.fast_forward(envs, args, buffer, starts, stop)
        assert np.array_equal(obs, expected) and obs.dtype == expected.dtype, stop
        for t in range(stop, min(stop + further, num_steps + further)):
            before, actions, *results = rows[t]
            assert np.array_equal(obs, before), t
            *outcome, _ = envs.step(actions)
            assert all(np.array_equal(a, b) for a, b in zip(outcome, results)), t
            obs, ended = outcome[0], outcome[2] | outcome[3]
            if ended.any():
                obs = sac.reset_envs(envs, args, history[t][0], ended)
    envs.close()


def test_every_episode_and_seed_starts_from_states_of_its_own():
    args, firsts = sac.Args(env_id="Hopper-v5", num_seeds=2), []
    envs, both = sac.make_envs(args), np.ones(2, dtype=bool)
    for starts in ([0, 0], [0, 5], [5, 0], [6, 6]):
        firsts += list(sac.reset_envs(envs, args, starts, both))
    assert len({tuple(obs) for obs in firsts}) == 6, "(0, 0) and (0, 5) share their first, and so on"
    # Only those in the mask are reset
    before = firsts[-2:]
    obs = sac.reset_envs(envs, args, [9, 9], np.array([False, True]))
    assert np.array_equal(obs[0], before[0]) and not np.array_equal(obs[1], before[1])
    envs.close()
    args.seed = 2  # the seed 2 has the same episodes, whether it is the first or the second of a run
    args.num_seeds = 1
    envs = sac.make_envs(args)
    assert np.array_equal(sac.reset_envs(envs, args, [6], np.ones(1, dtype=bool))[0], before[1])
    envs.close()


def test_an_evaluation_leaves_the_training_as_it_is(script, tmp_path):
    """Environments of its own, and no random numbers of the training's."""
    flags = {"env_id": "Hopper-v5", "total_timesteps": 70, "learning_starts": 40}
    often, seldom = (train(script, tmp_path, **flags, eval_interval=n) for n in (10, 1000))
    assert all(np.array_equal(a, b) for a, b in zip(often, seldom))


def test_an_evaluation_is_of_whole_episodes_from_different_states():
    args = make_args(sac, env_id="Hopper-v5", num_seeds=2, eval_episodes=3)
    envs = sac.make_envs(args, args.eval_episodes, "NextStep")
    torch.manual_seed(0)
    agent = sac.SAC(11, 3, args)
    state = torch.get_rng_state()
    results = sac.evaluate(agent, envs, args, 10)
    again = sac.evaluate(agent, envs, args, 10)
    assert torch.equal(state, torch.get_rng_state())
    assert all(np.array_equal(results[name], again[name]) for name in results), "the same episodes"
    assert not np.array_equal(results["eval/q_start"], sac.evaluate(agent, envs, args, 20)["eval/q_start"])
    assert len(np.unique(results["eval/q_start"])) == 6
    calls = []
    agent.q_values = lambda qf, obs, actions: (
        calls.append((qf, obs, actions)) or torch.stack([obs[..., 5] + 9, obs[..., 5]], 1)
    )
    q_start = sac.evaluate(agent, envs, args, 10)["eval/q_start"]
    assert all(qf is agent.qf for qf, _, _ in calls), "not the target critics"
    assert q_start == pytest.approx(calls[0][1][..., 5].numpy()), "the smaller one, at the first states"
    assert torch.equal(calls[0][2], torch.tanh(agent.actor(calls[0][1])[0]))
    # By hand, one environment after the other
    seeds = np.random.SeedSequence((args.seed, 10, 1)).generate_state(6).tolist()
    for i, seed in enumerate(seeds):
        env, k, rewards, done = sac.make_env("Hopper-v5", False), i // 3, [], False
        obs, _ = env.reset(seed=seed)
        while not done:
            batch = torch.as_tensor(np.tile(obs, (2, 1, 1)), dtype=torch.float32)
            with torch.no_grad():
                action = torch.tanh(agent.actor(batch)[0])[k, 0].numpy()
            obs, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        discounted = sum(0.99**t * reward for t, reward in enumerate(rewards))
        assert results["eval/episodic_length"][k, i % 3] == len(rewards)
        assert results["eval/episodic_return"][k, i % 3] == pytest.approx(sum(rewards), rel=1e-3)
        assert results["eval/discounted_return"][k, i % 3] == pytest.approx(discounted, rel=1e-3)
    envs.close()


# ---------------------------------------- Observations and actions
def test_actions_are_scaled_from_minus_one_to_one():
    for env_id, high in (("InvertedPendulum-v5", 3.0), ("dm_control/quadruped-walk-v0", 1.1)):
        env = sac.make_env(env_id, False)
        assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1
        assert env.unwrapped.action_space.high.max() == pytest.approx(high)
        scaled = env
        while not isinstance(scaled, gym.wrappers.RescaleAction):
            scaled = scaled.env
        assert np.allclose(scaled.func(np.ones(env.action_space.shape)), env.unwrapped.action_space.high)
        env.close()


@pytest.mark.parametrize("name", ["Ant", "Humanoid", "dm_control/humanoid-stand"])
def test_observations_are_compact_unless_asked_for(script, name):
    """And the same for an id without a version."""
    sizes = {"Ant": (27, 105), "Humanoid": (45, 348), "dm_control/humanoid-stand": (67, 67)}[name]
    env_version = "-v0" if name.startswith("dm_control") else "-v5"
    for full in (False, True):
        for env_id in (name, name + env_version):
            args = script.Args(env_id=env_id, full_observation=full)
            args.env_id = script.full_env_id(args.env_id)
            assert args.env_id == name + env_version
            envs = script.make_envs(args)
            assert envs.single_observation_space.shape == (sizes[full],)
            envs.close()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_every_task_of_dm_control_is_accepted_or_says_why_not(capsys):
    working, refused = [], {}
    assert len(DMC) == 86
    for env_id in set(DMC) - {*SUITE[1:]}:  # the suite's are made and played above
        try:
            assert sac.full_env_id(env_id) == env_id
            working.append(env_id)
        except SystemExit as error:
            assert error.code == 2
            refused[env_id] = capsys.readouterr().err
    # What is refused here: lqr, pixels, tasks that render even to be made (there is no renderer in tests)
    for env_id, message in refused.items():
        assert message.count("\n") == 1 and message.startswith(f"error: --env-id {env_id}"), message
    assert len(LQR) == 2 and all("bounded" in refused[env_id] for env_id in LQR)
    assert SUITE[0] in working and len(working) + len(SUITE) >= 60, "and manipulation from features"
    assert "dm_control/reach_site_features-v0" in working
    assert "dm_control/quadruped-escape-v0" in refused


def test_every_task_of_the_suite_has_a_rule(model_script):
    for env_id in SUITE:
        assert not model_script.termination_rule(env_id)(torch.ones(3, 5)).any()


# ---------------------------------------- Termination rules
def real_transitions(env_id, num_steps):
    """Next observations and termination flags under random, and under smooth, gently perturbed actions."""
    args = mbpo.Args(env_id=env_id, num_seeds=2)
    envs, rng, starts = mbpo.make_envs(args), np.random.default_rng(0), [0, 0]
    shape = envs.action_space.shape
    mbpo.reset_envs(envs, args, starts, np.ones(2, dtype=bool))
    next_obs, flags, mean = [], [], np.zeros(shape)
    for step in range(num_steps):
        mean = 0.95 * mean + 0.05 * rng.uniform(-1, 1, shape)
        smooth = np.clip(mean + 0.1 * rng.normal(size=shape), -1, 1)
        actions = rng.uniform(-1, 1, shape) if step % 400 < 200 else smooth
        obs, _, terminations, truncations, _ = envs.step(actions.astype(np.float32))
        next_obs += list(obs)
        flags += list(terminations)
        if (ended := terminations | truncations).any():
            mbpo.reset_envs(envs, args, [step + 1] * 2, ended)
    envs.close()
    return torch.as_tensor(np.array(next_obs), dtype=torch.float32), np.array(flags)


@pytest.mark.parametrize("env_id", GYM_TASKS)
def test_termination_rule_agrees_with_the_environment(env_id):
    """On real steps. Only mbpo.py's rules: ftfl.py's are the same text, as test_shared_text sees to."""
    never = env_id.split("-")[0] in ("HalfCheetah", "Swimmer", "Reacher", "Pusher", "HumanoidStandup")
    next_obs, flags = real_transitions(env_id, 400 if never else 2600)
    differing = (mbpo.termination_rule(env_id)(next_obs).numpy() != flags).sum()
    assert differing == 0, f"{differing} of {len(flags)} disagree"
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
    for z, angle, ends in ((2.01, 0, True), (0.79, 0, True), (1.99, 0.99, False), (1, 1.01, True)):
        assert rule("Walker2d-v5")(torch.tensor([z, angle, *[0.0] * 15])).item() == ends
        assert rule("Walker2d-v5")(torch.tensor([z, -angle, *[0.0] * 15])).item() == ends
    for z in (0.99, 2.01):
        assert rule("Humanoid-v5")(torch.full((45,), z)).item()
    for env_id in GYM_TASKS + ["dm_control/walker-walk-v0"]:
        for bad in (torch.nan, torch.inf):
            s = torch.ones(45)
            s[-1] = bad
            assert rule(env_id)(s).item(), "a state that is not a number is no live state"
    for task in ("humanoid_CMU-run", "reach_site_features"):  # of the suite, and of manipulation
        assert not rule(f"dm_control/{task}-v0")(torch.ones(5)).item()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "dm_control/CmuHumanoidGoToTarget-v0", "Scripted-v0"])
def test_a_task_without_a_rule_is_refused_by_name(model_script, env_id, capsys):
    with pytest.raises(SystemExit) as error:
        model_script.termination_rule(env_id)
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert "termination_rule" in message and env_id in message and message.count("\n") == 1


def test_without_a_model_no_rule_is_needed(tmp_path):
    flags = {"env_id": "Pendulum-v1", "real_ratio": 1.0, "total_timesteps": 30}
    stored = train(ftfl, tmp_path, **flags, learning_starts=20)
    assert len(stored.rewards) == 30
