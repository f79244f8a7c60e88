"""benchmark/model_study.py and benchmark/evaluate.py: the model alone, and what a run's agents earn."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import evaluate
import gymnasium as gym
import model_study
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ftfl
import mbpo
import sac

ROOT = Path(evaluate.__file__).parent.parent
TASK = "InvertedPendulum-v5"  # 4 numbers, 1 action, episodes of a few steps
TINY = {"ensemble_size": 3, "num_elites": 2, "model_hidden_dim": 8, "model_batch_size": 16}
TINY_RUN = {"env_id": TASK, "total_timesteps": 60, "learning_starts": 30, "hidden_dim": 8, "batch_size": 20}
TINY_RUN |= {"utd_ratio": 1, "eval_interval": 60, "eval_episodes": 3, "num_seeds": 2, "seed": 5}
TINY_MODEL = TINY | {"model_train_steps": 3, "rollouts_per_step": 5, "synthetic_buffer_size": 100}


def read_scalars(run_dir):
    """{tag: {step: value}} of a run directory."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {tag: {p.step: p.value for p in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def study(tmp_path, **flags):
    """The scalars of each seed of a small study, and its directories."""
    defaults = {"env_id": TASK, "collect": 100, "steps": 6, "log_interval": 2, "device": "cpu"}
    flags = defaults | TINY | {"run_dir": str(tmp_path / "study")} | flags
    run_dirs = model_study.main(model_study.Args(**flags))
    return [read_scalars(run_dir) for run_dir in run_dirs], run_dirs


@pytest.fixture(scope="module", params=[sac, mbpo, ftfl], ids=lambda module: module.__name__)
def run(request, tmp_path_factory):
    """A script, and the first run directory of two seeds that it has trained."""
    script = request.param
    flags = TINY_RUN | (TINY_MODEL if script is not sac else {})
    args = script.Args(**flags, device="cpu", run_dir=str(tmp_path_factory.mktemp("runs")))
    return script, script.main(args)[0]


def importable_bomb(folder, bomb, monkeypatch):
    """A module that leaves a file behind when imported, as gymnasium does for "imported_bomb:Task-v0"."""
    (folder / "imported_bomb.py").write_text(f"open({str(bomb)!r}, 'w')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "imported_bomb", raising=False)


def refused(capsys, call, *words):
    """Check that the call exits with code 2 and one line on stderr that has these words."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        call()
    lines = capsys.readouterr().err.strip().split("\n")
    assert exit_info.value.code == 2 and len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines


# ---------------------------------------- The fit
def test_logs_what_training_logs_and_more(tmp_path):
    scalars, run_dirs = study(tmp_path, num_seeds=2, steps=5)
    tags = {"nll", "mse_loss", "variance_loss", "holdout_mse", "predicted_std", "reward_r2", "next_state_r2"}
    tags = {f"model/{tag}" for tag in tags} | {"rewards/real", "rewards/synthetic", "rewards/synthetic_std"}
    groups = ("position", "velocity", "reward")
    tags |= {f"model/{units}_variance_{group}" for units in ("predicted", "trained") for group in groups}
    tags |= {f"model/within_{count}_std_{what}" for count in ("one", "two") for what in ("state", "reward")}
    tags.remove(
        "model/reward_r2"
    )  # InvertedPendulum's reward may be constant on the holdout: then there is none
    for values in scalars:
        assert tags <= values.keys() <= tags | {"model/reward_r2", "model/predicted_variance_other"}
        assert all(list(values[tag]) == [2, 4, 5] for tag in tags)
    assert scalars[0]["model/nll"] != scalars[1]["model/nll"]  # each seed has its own networks
    about = [json.loads((run_dir / "args.json").read_text()) for run_dir in run_dirs]
    assert [flags["seed"] for flags in about] == [1, 2]
    for flags in about:
        assert flags["model_study"] == f"random {TASK} 100" and flags["gradient_steps"] == 5
        assert flags["script"] == "ftfl" and flags["model_hidden_dim"] == 8 and flags["versions"]["torch"]


@pytest.mark.parametrize("script", [mbpo, ftfl], ids=lambda module: module.__name__)
def test_is_the_first_training_of_a_run_however_often_it_logs(script):
    args = script.Args(**TINY, num_seeds=2, device="cpu", env_id=TASK)
    batch = model_study.collect(script, args, 60)
    groups = model_study.observation_groups(TASK, False)
    torch.manual_seed(args.seed)
    expected = script.Ensemble(4, 1, args)
    buffer = script.ReplayBuffer(2, 60, 4, 1)
    buffer.add(script.Batch(*(torch.as_tensor(x).expand(2, *x.shape) for x in batch)))
    args.model_train_steps = 6
    logs = script.train_model(expected, buffer, args)
    for args.log_interval in (1, 4, 100):
        record = {}
        model = model_study.fit(script, args, batch, groups, 6, record.__setitem__)
        for name, value in expected.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        assert list(record) == {1: [1, 2, 3, 4, 5, 6], 4: [4, 6], 100: [6]}[args.log_interval]
        for tag, value in logs.items():
            torch.testing.assert_close(record[6][tag].view_as(value), value, rtol=0, atol=0, equal_nan=True)


def test_the_same_transitions_for_every_script_seed_and_number():
    batches = [
        model_study.collect(script, script.Args(env_id=TASK, seed=seed, num_seeds=seeds), rows)
        for script, seed, seeds, rows in ((ftfl, 1, 1, 50), (mbpo, 7, 3, 50), (ftfl, 1, 1, 30))
    ]
    for a, b, c in zip(*batches):
        assert np.array_equal(a, b) and np.array_equal(a[:30], c)
    obs, actions, _, next_obs, terminations = batches[0]
    ends = np.flatnonzero(terminations)
    assert 0 < len(ends) < 30 and np.abs(actions).max() <= 1 and actions.std() > 0.4
    follows = (next_obs[:-1] == obs[1:]).all(1)  # but for the resets
    assert not follows[ends[ends < 49]].any() and np.delete(follows, ends[ends < 49]).all()
    begins = obs[ends[ends < 49] + 1]
    assert len(np.unique(begins, axis=0)) == len(begins)  # no two episodes begin alike


def test_settings_on_the_same_transitions_share_the_study(tmp_path):
    settings = [
        {"script": "mbpo"},
        {},
        {"target_normalization": False},
        {"next_state_prediction": "residual"},
    ]
    names = set()
    for flags in settings:
        _, (run_dir,) = study(tmp_path, **flags)
        names.add(json.loads((run_dir / "args.json").read_text())["model_study"])
    assert len(names) == 1


def test_two_files_of_one_name_are_two_studies(tmp_path):
    names, batch = set(), model_study.collect(ftfl, ftfl.Args(env_id=TASK), 100)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        file = str(tmp_path / folder / "t.npz")
        model_study.save_transitions(file, batch, TASK)
        batch = batch._replace(next_obs=batch.next_obs + 0.1)
        _, (run_dir,) = study(tmp_path, buffer=file, env_id="")
        names.add(json.loads((run_dir / "args.json").read_text())["model_study"])
    assert len(names) == 2 and all(name.startswith("t.npz ") for name in names)


# ---------------------------------------- Groups and variances
def test_groups_of_observations():
    def groups(env_id):
        return "".join(name[0] for name in model_study.observation_groups(env_id, False))

    assert groups("Walker2d-v5") == 8 * "p" + 9 * "v"
    assert groups("Ant-v5") == 13 * "p" + 14 * "v"  # contact forces left out
    assert model_study.observation_groups("Ant-v5", True)[27:].tolist() == 78 * ["other"]
    # com_velocity, extremities, head_height, joint_angles, torso_vertical, velocity, in the space's order
    env = ftfl.make_env("dm_control/humanoid-stand-v0", False).unwrapped
    sizes = {name: int(np.prod(space.shape)) for name, space in env.observation_space.spaces.items()}
    assert groups("dm_control/humanoid-stand-v0") == "".join(
        size * ("v" if name in ("com_velocity", "velocity") else "p") for name, size in sizes.items()
    )
    assert groups("dm_control/humanoid-stand-v0").count("v") == 30
    hopper = groups("dm_control/hopper-hop-v0")
    assert (hopper.count("p"), hopper.count("v"), hopper.count("o")) == (6, 7, 2)  # touch is neither


def test_variance_in_both_units():
    args = ftfl.Args(**TINY, device="cpu")
    model = ftfl.Ensemble(3, 1, args)
    for parameter in model.net.parameters():
        parameter.data.zero_()
    logvar = torch.tensor([-2.0, -1.0, 0.0, -3.0])
    model.net[-1].bias.data[..., 4:] = logvar
    model.target_std.copy_(torch.tensor([2.0, 3.0, 1.0, 0.1]))
    model.target_is_constant.copy_(torch.tensor([False, False, True, False]))  # so far
    buffer = ftfl.ReplayBuffer(1, 20, 3, 1)
    buffer.add(ftfl.Batch(*(torch.randn(1, 20, *shape) for shape in ((3,), (1,), (), (3,), ()))))
    groups = np.array(["position", "velocity", "velocity"])
    holdout = ftfl.take_holdout(buffer, torch.arange(4)[None])
    logs = model_study.evaluate(ftfl, model, holdout, groups)
    bounded = 0.5 - torch.nn.functional.softplus(0.5 - logvar)  # the soft clamp to [-10, 0.5]
    v = (-10 + torch.nn.functional.softplus(bounded + 10)).exp().tolist()
    expected = {
        "trained_variance_position": v[0],
        "trained_variance_velocity": (v[1] + v[2]) / 2,
        "trained_variance_reward": v[3],
        "predicted_variance_position": 4 * v[0],
        "predicted_variance_velocity": (9 * v[1] + 0) / 2,
        "predicted_variance_reward": 0.01 * v[3],
    }
    assert {t.removeprefix("model/") for t in logs if "_variance_" in t} == set(expected)
    for tag, value in expected.items():
        assert logs[f"model/{tag}"].mean().item() == pytest.approx(value, rel=1e-5), tag


# ---------------------------------------- Files
def test_of_a_run_and_of_the_same_npz(run, tmp_path):
    script, run_dir = run
    npz = str(tmp_path / "t.npz")
    of_run, _ = study(tmp_path, env_id="", buffer=str(run_dir), save=npz)
    of_npz, (study_dir,) = study(tmp_path, env_id="", buffer=npz)
    assert of_run == of_npz and json.loads((study_dir / "args.json").read_text())["env_id"] == TASK
    stored = torch.load(run_dir / "checkpoint.pt", weights_only=True)["buffer"]["data"]
    with np.load(npz) as file:  # the first seed's
        for name, x in zip(script.Batch._fields, stored):
            assert np.array_equal(file[name], x[0].numpy())


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_unusable_transitions_are_refused(run, tmp_path, capsys, monkeypatch):
    _, run_dir = run
    good = {name: x for name, x in model_study.read_buffer(run_dir)[0]._asdict().items()}
    good["env_id"] = TASK
    bomb, folder = tmp_path / "bomb", tmp_path / "files"
    folder.mkdir()
    importable_bomb(tmp_path, bomb, monkeypatch)

    def npz(name, **changes):
        np.savez(folder / name, **good | changes)
        return folder / name

    def checkpoint(name, state):
        (folder / name).mkdir()
        torch.save(state, folder / name / "checkpoint.pt")
        return folder / name

    state = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    files = [folder / "missing", folder, run_dir / "args.json"]
    files += [npz("few.npz", **{name: x[:9] for name, x in good.items() if name != "env_id"})]
    files += [npz("shape.npz", obs=good["obs"][:, :3]), npz("nan.npz", rewards=good["rewards"] * np.nan)]
    files += [npz("foreign.npz", env_id="Hopper-v5"), npz("module.npz", env_id="imported_bomb:Task-v0")]
    files += [npz("unknown.npz", env_id="Nothing-v0"), npz("text.npz", rewards=np.array(["a"] * 60))]
    files += [npz("code.npz", rewards=np.array([Bomb(bomb)], dtype=object))]
    files += [checkpoint("code", {"script": "ftfl", "flags": Bomb(bomb)}), checkpoint("list", [1])]
    files += [checkpoint("foreign", state | {"script": "dreamer"})]
    module = state["flags"] | {"env_id": "imported_bomb:Task-v0"}
    files += [checkpoint("module", state | {"flags": module})]
    (folder / "pickle.npz").write_bytes(pickle.dumps(Bomb(bomb)))
    damaged = bytearray(npz("damaged.npz").read_bytes())
    damaged[damaged.index(good["obs"].tobytes()[:64])] ^= 1
    (folder / "damaged.npz").write_bytes(damaged)
    (folder / "damaged").mkdir()
    data = bytearray((run_dir / "checkpoint.pt").read_bytes())
    data[data.index(good["obs"].tobytes()[:64])] ^= 1  # in a number: only the checksum tells
    (folder / "damaged" / "checkpoint.pt").write_bytes(data)
    files += [folder / "pickle.npz", folder / "damaged.npz", folder / "damaged"]
    for file in files:
        refused(capsys, lambda: study(tmp_path, env_id="", buffer=str(file)), "--buffer", str(file))
    sibling = run_dir.parent / json.loads((run_dir / "args.json").read_text())["run_dirs"][1]
    refused(capsys, lambda: study(tmp_path, env_id="", buffer=str(sibling)), "first's directory")
    assert not bomb.exists() and not (tmp_path / "study").exists()
    assert zipfile.ZipFile(npz("good.npz")).testzip() is None
    study(tmp_path, env_id="", buffer=str(folder / "good.npz"))  # what was changed is what was refused


@pytest.mark.parametrize(
    "flags",
    [
        {"steps": 0},
        {"steps": -5},
        {"collect": 9},
        {"env_id": "Nothing-v0"},
        {"num_elites": 4},
        {"log_interval": 0},
        {"save": "buffer.npy"},
        {"save": "no/such/folder/buffer.npz"},
    ],
    ids=str,
)
def test_senseless_flags_are_refused(tmp_path, capsys, flags):
    (name,) = flags
    refused(capsys, lambda: study(tmp_path, **flags), "--" + name.replace("_", "-"))
    assert not list(tmp_path.iterdir())


def test_flags_that_contradict_each_other(run, tmp_path, capsys):
    buffer = {"buffer": str(run[1]), "env_id": "Hopper-v5"}
    refused(capsys, lambda: study(tmp_path, **buffer), "--env-id", TASK)
    for flag in ("--no-target-normalization", "--next_state_prediction=direct"):
        call = lambda: model_study.parse_args(["--script", "mbpo", flag])  # noqa: E731
        refused(capsys, call, flag.split("=")[0].replace("_", "-"))
    assert model_study.parse_args(["--no-target-normalization"]).target_normalization is False


# ---------------------------------------- Evaluation
def test_evaluation_is_that_of_the_run(run, capsys, monkeypatch):
    script, run_dir = run
    called = []
    monkeypatch.setattr(script, "fast_matmul", lambda: called.append(script))
    returns = evaluate.main(evaluate.Args(str(run_dir), episodes=3, seed=5))
    text = capsys.readouterr().out
    names = json.loads((run_dir / "args.json").read_text())["run_dirs"]
    for k, name in enumerate(names):
        logged = read_scalars(run_dir.parent / name)["eval/episodic_return"][60]
        assert returns[k].mean() == pytest.approx(logged, rel=1e-6)
        assert f"seed {5 + k}" in text and f"{returns[k].mean():.2f}" in text
    assert f"{returns[0].std(ddof=1):.2f}" in text
    assert called == [script], "products by another library than the run's make other episodes of 1,000 steps"


class Planted(gym.Env):
    """Three steps from a state that its seed alone determines; the reward is the state's first number, plus
    the action."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    @staticmethod
    def first(seed):
        return np.sin(float(seed) + np.arange(4))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs, self.t = self.first(0 if seed is None else seed), 0
        return self.obs.copy(), {}

    def step(self, action):
        reward, self.obs, self.t = self.obs[0] + action[0], np.roll(self.obs, 1), self.t + 1
        return self.obs.copy(), float(reward), False, self.t == 3, {}


def test_evaluation_by_hand(run, monkeypatch):
    """Each of the run's agents plays its mean action in episodes of its own."""
    script, run_dir = run
    monkeypatch.setattr(script, "make_env", lambda *_: gym.wrappers.RecordEpisodeStatistics(Planted()))
    monkeypatch.setattr(script, "full_env_id", lambda env_id: env_id)
    state = torch.load(run_dir / "checkpoint.pt", weights_only=True)["agent"]
    for run_seed in (9, 10):
        returns = evaluate.main(evaluate.Args(str(run_dir), episodes=4, seed=run_seed))
        seeds = np.random.SeedSequence((run_seed, 60, 1)).generate_state(8)
        assert returns.shape == (2, 4) and len(np.unique(returns)) == 8
        for i, seed in enumerate(seeds):
            obs, total = Planted.first(seed), 0.0
            for _ in range(3):
                x = torch.as_tensor(obs, dtype=torch.float32)
                for layer in (0, 2, 4):
                    weight, bias = (state[f"actor.net.{layer}.{name}"][i // 4] for name in ("weight", "bias"))
                    x = x @ weight + bias[0]
                    x = x.relu() if layer < 4 else x[:1].tanh()
                total, obs = total + obs[0] + x.item(), np.roll(obs, 1)
            assert returns[i // 4, i % 4] == pytest.approx(total, rel=1e-4)


def test_evaluation_refuses_what_it_cannot_play(run, tmp_path, capsys, monkeypatch):
    script, run_dir = run
    bomb, state = tmp_path / "bomb", torch.load(run_dir / "checkpoint.pt", weights_only=True)
    importable_bomb(tmp_path, bomb, monkeypatch)
    flags = state["flags"]
    states = [
        state | {"script": "os"},
        state | {"flags": flags | {"env_id": "imported_bomb:Task-v0"}},
        state | {"flags": flags | {"env_id": "Hopper-v5"}},  # networks of other shapes
        state | {"flags": flags | {"unknown": 1}},
        {name: x for name, x in state.items() if name != "agent"},
        {"script": "sac", "flags": Bomb(bomb)},
    ]
    folders = [tmp_path / "missing", tmp_path]
    for k, state in enumerate(states):
        (tmp_path / str(k)).mkdir()
        torch.save(state, tmp_path / str(k) / "checkpoint.pt")
        folders.append(tmp_path / str(k))
    for folder in folders:
        refused(capsys, lambda: evaluate.main(evaluate.Args(str(folder))), "RUN", str(folder))
    refused(capsys, lambda: evaluate.main(evaluate.Args(str(run_dir), episodes=0)), "--episodes")
    refused(capsys, lambda: evaluate.main(evaluate.Args(str(run_dir), seed=-1)), "--seed")
    assert not bomb.exists()


def test_a_missing_renderer_is_one_line(run, capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    refused(capsys, lambda: evaluate.main(evaluate.Args(str(run[1]), video=True)), "--video", "MUJOCO_GL")
    assert not (run[1] / "videos").exists()


@pytest.mark.parametrize("env_id, fps", [("dm_control/cheetah-run-v0", 100), ("Hopper-v5", 125)])
def test_films_are_as_fast_as_the_task(env_id, fps, tmp_path, monkeypatch):
    """Not as Shimmy says: 10 frames a second of cheetah-run, which makes 100 steps in one."""
    made = []
    monkeypatch.setattr(gym.wrappers, "RecordVideo", lambda env, folder, **kw: made.append(kw) or env)
    monkeypatch.setattr(sac, "evaluate", lambda *args: {"eval/episodic_return": np.zeros((1, 1))})
    evaluate.film(sac, sac.Args(env_id=env_id, seed=3), None, 60, 7, tmp_path)
    assert made[0]["fps"] == fps and made[0]["name_prefix"] == "seed-3-step-60-played-7"


@pytest.mark.parametrize("run", [sac], indirect=True, ids=["sac"])
def test_films_an_episode_per_seed(run):
    command = [
        sys.executable,
        str(ROOT / "benchmark" / "evaluate.py"),
        str(run[1]),
        "--episodes",
        "1",
        "--video",
    ]
    env = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    if "--video: can't render" in result.stderr:
        pytest.skip("there is no renderer")
    assert result.returncode == 0, result.stderr
    names = sorted(file.name for file in (run[1] / "videos").iterdir())
    assert names == [f"seed-{seed}-step-60-played-0-episode-0.mp4" for seed in (5, 6)]
    assert all(file.stat().st_size > 1_000 for file in (run[1] / "videos").iterdir())
