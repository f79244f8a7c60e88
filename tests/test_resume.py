"""Long runs survive: exact resuming, signals, bad numbers, full disks, damaged and foreign files."""

import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import ftfl
import mbpo
import sac
import stress_resume
from conftest import filled_buffer, make_args, random_batch, read_scalars

GYM_TASKS = ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5",
             "Humanoid-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5", "HumanoidStandup-v5"]  # fmt: skip


def trajectory(envs, actions):
    """All that the environments return for some actions."""
    return [np.concatenate([np.ravel(x) for x in envs.step(a)[:4]]) for a in actions]


def assert_state_is_whole(env_id, **flags):
    """An environment that is set to another's state goes on as that does, through a reset, too."""
    args = sac.Args(env_id=env_id, **flags)
    envs, others = sac.make_envs(args), sac.make_envs(args)
    envs.reset(seed=[1])
    others.reset(seed=[3])
    actions = np.random.default_rng(0).uniform(-1, 1, (60, *envs.action_space.shape)).astype(np.float32)
    trajectory(envs, actions[:23])
    trajectory(others, actions[:5])
    states = envs.get_attr("state")
    if all(states):
        others.set_attr("state", [str(state) for state in states])
        assert np.array_equal(trajectory(envs, actions[23:]), trajectory(others, actions[23:])), env_id
        first, second = envs.reset()[0], others.reset()[0]
        assert np.array_equal(first, second), f"{env_id}: another episode follows"
        assert np.array_equal(trajectory(envs, actions[:7]), trajectory(others, actions[:7])), env_id
    envs.close()
    others.close()
    return all(states)


@pytest.mark.parametrize("env_id", GYM_TASKS)
def test_gymnasiums_environments_give_and_take_their_whole_state(env_id):
    assert assert_state_is_whole(env_id)
    if env_id in ("Ant-v5", "Humanoid-v5"):
        assert assert_state_is_whole(env_id, full_observation=True)


def test_dmcs_environments_give_and_take_their_whole_state_or_none(capsys):
    sac.make_envs(sac.Args(env_id="Hopper-v5")).close()  # registers DMC's tasks
    names = [name for name in gym.registry if name.startswith("dm_control/")]
    suite, whole = [name for name in names if "-" in name.removesuffix("-v0") and name != "dm_control/compatibility-env-v0"], []
    for env_id in suite:
        try:
            assert assert_state_is_whole(env_id), env_id
            whole.append(env_id)
        except SystemExit:
            assert "renderer" in capsys.readouterr().err
    assert len(whole) >= 50 and len(whole) >= len(suite) - 1
    assert not assert_state_is_whole("dm_control/reach_site_features-v0"), "what is not known whole is not given"


# ------------------------------------------------------------------------------------------------ Whole runs
TASKS = ["dm_control/walker-walk-v0", "Hopper-v5"]


def run(script, folder, **flags):
    """A small run in this process; its directories."""
    small = {"env_id": "Hopper-v5", "total_timesteps": 120, "learning_starts": 40, "eval_interval": 60, "checkpoint_interval": 30}
    small |= {"utd_ratio": 1, "model_train_interval": 20} if hasattr(script.Args, "model_lr") else {}
    return script.main(make_args(script, run_dir=str(folder), **small | flags))


@pytest.fixture(autouse=True)
def locks_of_failed_runs(monkeypatch):
    """A process that fails ends, and so does its lock; here all is one process, so `resume` closes what is left of them."""
    for module in (sac, mbpo, ftfl):
        monkeypatch.setattr(module, "lock", lambda run_dir, lock=module.lock: LOCKS.append((lock(run_dir), run_dir)) or LOCKS[-1][0])
    yield
    LOCKS.clear()


LOCKS = []


def resume(script, run_dir, *argv):
    for handle, locked in LOCKS:
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(locked)):
                os.close(handle)
    LOCKS.clear()
    time.sleep(1.1)  # event files are told apart, and ordered, by the second in which they began
    return script.main(script.parse_args(["--resume", str(run_dir), *map(str, argv)]))


def checkpoints(run_dir):
    return [int(file.stem.split("-")[1]) for file in sorted(run_dir.glob("checkpoint-*.pt"))]


def assert_stops(capsys, code, *words, call):
    """`call` prints one line with these words and exits with this code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call()
    error = capsys.readouterr().err
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert stop.value.code == code and len(lines) == 1 and "Traceback" not in error, error
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("env_id", TASKS)
def test_a_killed_and_resumed_run_logs_what_one_never_killed_logs(script, env_id, tmp_path):
    """Twice by SIGKILL, once of these in a write. benchmark/stress_resume.py does it many times."""
    command = stress_resume.flags(script.__name__, env_id, steps=350)
    reference = script.main(script.parse_args([*command[1:], "--run-dir", str(tmp_path / "reference")]))
    run_dirs, hits = stress_resume.killed_run(command, tmp_path / "killed", 2, random.Random(1))
    assert hits >= 1 and len(run_dirs) == 2
    for run_dir, other in zip(run_dirs, reference, strict=True):
        assert stress_resume.differences(run_dir, other) == []
        logged = stress_resume.numbers(run_dir)[0]
        assert len(logged["losses/qf_loss"]) == 251 and len(logged["eval/episodic_return"]) == 1


def test_a_run_can_be_made_longer(script, tmp_path):
    """Exactly: the rows held out are the same ones, whatever --total-timesteps is."""
    (whole,) = run(script, tmp_path / "whole", total_timesteps=180)
    (longer,) = run(script, tmp_path / "longer", save_model=True)
    assert resume(script, longer, "--total-timesteps", 180, "--save-model") == [longer]
    assert read_scalars(longer) == read_scalars(whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert json.loads((longer / "args.json").read_text())["total_timesteps"] == 180


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_leaves_a_checkpoint_of_its_step(script, name, tmp_path, capsys, monkeypatch):
    number, steps = getattr(signal, name), []
    evaluate = script.evaluate
    monkeypatch.setattr(script, "evaluate", lambda *a: (os.kill(os.getpid(), number) if a[3] == 50 else None, evaluate(*a))[1])
    assert_stops(capsys, 128 + number, name, "step 50", "--resume",
                 call=lambda: run(script, tmp_path / "runs", eval_interval=50, num_seeds=2))  # fmt: skip
    run_dirs = sorted((tmp_path / "runs").iterdir())
    assert checkpoints(run_dirs[0]) == [30, 50] and checkpoints(run_dirs[1]) == []
    monkeypatch.undo()
    resume(script, run_dirs[1])  # any of the seeds' directories names the run
    whole = run(script, tmp_path / "whole", eval_interval=50, num_seeds=2)
    assert [read_scalars(d) for d in run_dirs] == [read_scalars(d) for d in whole]
    assert checkpoints(run_dirs[0]) == [90, 120], "the last two are kept"


def test_flags_of_the_run_hold_and_only_some_may_change(script, tmp_path, capsys):
    (run_dir,) = run(script, tmp_path, gamma=0.9)
    args = script.parse_args(["--resume", str(run_dir)])
    assert args.gamma == 0.9 and args.hidden_dim == 16 and args.total_timesteps == 120
    for argv, flag in ((["--gamma", "0.99"], "--gamma"), (["--hidden-dim", "32"], "--hidden-dim"), (["--seed", "2"], "--seed"),
                       (["--num-seeds", "2"], "--num-seeds"), (["--env-id", "Walker2d-v5"], "--env-id")):  # fmt: skip
        assert_stops(capsys, 2, flag, call=lambda: script.parse_args(["--resume", str(run_dir), *argv]))
    assert script.parse_args(["--resume", str(run_dir), "--gamma", "0.9", "--num-threads", "2"]).num_threads == 2
    for argv, words in ((["--total-timesteps", "100"], ["--total-timesteps", "120"]), (["--evaluate", "x"], ["--evaluate"])):
        assert_stops(capsys, 2, *words, call=lambda: resume(script, run_dir, *argv))
    other = "mbpo" if script is sac else "sac"
    module = {"sac": sac, "mbpo": mbpo}[other]
    assert_stops(capsys, 2, f"{script.__name__}.py", call=lambda: module.parse_args(["--resume", str(run_dir)]))
    before = {f.name: f.read_bytes() for f in run_dir.iterdir()}
    LOCKS and os.close(LOCKS.pop()[0])
    args = script.parse_args(["--resume", str(run_dir)])
    args.gamma = 0.5  # as if args.json had been edited
    assert_stops(capsys, 2, "--gamma", call=lambda: script.main(args))
    assert before == {f.name: f.read_bytes() for f in run_dir.iterdir()}, "nothing may be written"


def test_no_run_to_resume(script, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "args.json").write_text('{"script": "sac", "seed"')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "args.json").write_text(json.dumps({"script": script.__name__, "gamma": "high", "run_dirs": ["odd"]}))
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "torn", tmp_path / "odd", tmp_path / "x.pt"):
        assert_stops(capsys, 2, "--resume", str(path), call=lambda: script.parse_args(["--resume", str(path)]))
    (run_dir,) = run(script, tmp_path / "runs")
    for file in run_dir.glob("checkpoint-*"):
        file.unlink()
    assert_stops(capsys, 2, "no checkpoint", call=lambda: resume(script, run_dir))


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path(self.path).write_text, ("x",))


def test_damaged_and_foreign_checkpoints(script, tmp_path, capsys):
    """One clear line that offers the older one by name; the older one works, and the logs go back to its step."""
    (run_dir,) = run(script, tmp_path / "runs")
    (foreign,) = run(script, tmp_path / "foreign", hidden_dim=8)
    newest, older = run_dir / "checkpoint-000000120.pt", run_dir / "checkpoint-000000090.pt"
    whole, reference = newest.read_bytes(), read_scalars(run_dir)
    torch.save({"agent": Payload(tmp_path / "ran")}, tmp_path / "payload.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    flipped = bytearray(whole)
    with zipfile.ZipFile(newest) as file:  # in the middle of the largest tensor
        largest = file.read(max((i for i in file.infolist() if "/data/" in i.filename), key=lambda i: i.file_size))
    flipped[whole.index(largest) + len(largest) // 2] ^= 1
    damages = {"truncated": whole[: len(whole) // 2], "empty": b"", "flipped": bytes(flipped), "text": b"not a checkpoint",
               "payload": (tmp_path / "payload.pt").read_bytes(), "other": (tmp_path / "other.pt").read_bytes(),
               "foreign": (foreign / newest.name).read_bytes(), "pickle": pickle.dumps(Payload(tmp_path / "ran"))}  # fmt: skip
    for name, content in damages.items():
        newest.write_bytes(content)
        events = {f.name: f.read_bytes() for f in run_dir.glob("events*")}
        assert_stops(capsys, 2, "--resume", str(newest), f"--resume {older}", call=lambda: resume(script, run_dir))
        assert events == {f.name: f.read_bytes() for f in run_dir.glob("events*")} and newest.read_bytes() == content, name
    assert not (tmp_path / "ran").exists(), "code ran"
    resume(script, older)
    assert checkpoints(run_dir) == [90, 120] and read_scalars(run_dir) == reference
    assert newest.with_name(newest.name + ".set-aside").read_bytes() == damages["pickle"], "nothing is lost"
    older.write_bytes(b"")
    assert_stops(capsys, 2, str(older), "no older one", call=lambda: resume(script, older))


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    (run_dir,) = run(sac, tmp_path)
    path = run_dir / "checkpoint-000000120.pt"
    whole = path.read_bytes()

    def values(x):
        if isinstance(x, torch.Tensor):
            return [x.tolist(), str(x.dtype)]
        return [values(v) for v in x] if isinstance(x, (list, tuple)) else {k: values(v) for k, v in x.items()} if isinstance(x, dict) else x

    expected, refused = values(sac.load_file(path)), 0
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 8 * len(whole), 60):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(data))
        try:
            assert values(sac.load_file(path)) == expected
        except AssertionError:
            raise
        except Exception:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("what", ["an observation", "a reward", "an action", "losses/qf_loss", "the parameter agent.actor",
                                  "the physics", "an imagined state", "an imagined reward", "model/nll"])  # fmt: skip
def test_nan_stops_the_run_with_a_checkpoint_of_the_last_good_state(script, what, tmp_path, capsys, monkeypatch):
    if script is sac and ("imagined" in what or "model" in what):
        pytest.skip("sac.py has no model")
    calls = []

    def at(k, broken, result):
        """`result`, and from the k-th call on `broken` of it."""
        calls.append(0)
        return broken(result) if len(calls) >= k else result

    def nan(x):
        return x * torch.nan

    if what in ("an observation", "a reward"):
        step = gym.vector.SyncVectorEnv.step

        def broken_step(self, actions):  # the training environments only
            obs, rewards, *rest = step(self, actions)
            if self.num_envs == 1 and len(calls) >= 0:
                calls.append(0)
                if len(calls) == 77:
                    (obs if what == "an observation" else rewards)[...] = np.inf
            return obs, rewards, *rest

        monkeypatch.setattr(gym.vector.SyncVectorEnv, "step", broken_step)
    elif what == "the physics":  # what dm_control raises when a simulation diverges
        step = gym.wrappers.RecordEpisodeStatistics.step

        def diverge(result):
            raise type("PhysicsError", (RuntimeError,), {})("mjWARN_BADQACC")

        monkeypatch.setattr(gym.wrappers.RecordEpisodeStatistics, "step", lambda *a: at(77, diverge, step(*a)))
    elif what in ("losses/qf_loss", "the parameter agent.actor"):
        update = script.SAC.update

        def broken_update(self, batch, noise):
            losses = update(self, batch, noise)
            calls.append(0)
            if len(calls) == 37:
                if what == "losses/qf_loss":
                    return losses | {what: nan(losses[what])}
                with torch.no_grad():  # as a gradient that is infinite leaves it
                    self.actor.net[0].weight[0, 0] = torch.nan
            return losses

        monkeypatch.setattr(script.SAC, "update", broken_update)
    elif what == "an action":
        sample = script.Actor.sample

        def broken_sample(self, obs, noise):
            actions, log_probs = sample(self, obs, noise)
            acting = obs.shape[1] == 1 and not torch.is_grad_enabled()
            return (nan(actions) if acting and at(37, bool, False) is not False or acting and len(calls) >= 37 else actions), log_probs

        monkeypatch.setattr(script.Actor, "sample", broken_sample)
    elif what == "model/nll":
        train_model = script.train_model
        monkeypatch.setattr(script, "train_model", lambda *a: at(3, lambda logs: logs | {what: nan(logs[what])}, train_model(*a)))
    else:
        imagined, i = script.Ensemble.sample, what.endswith("reward")
        monkeypatch.setattr(script.Ensemble, "sample", lambda *a: at(
            37, lambda pair: (pair[0], nan(pair[1])) if i else (nan(pair[0]), pair[1]), imagined(*a)))  # fmt: skip
    flags = {"checkpoint_interval": 1000, "eval_interval": 120, "log_interval": 10}
    assert_stops(capsys, 1, what, "step ", "last good state", call=lambda: run(script, tmp_path, **flags))
    monkeypatch.undo()
    (run_dir,) = tmp_path.iterdir()
    (step,) = checkpoints(run_dir)
    assert 75 <= step <= 80, step
    state = script.load_file(run_dir / f"checkpoint-{step:09d}.pt")
    tensors = [x for name, x in state["networks"]["agent"].items()] + state["buffers"]["real"]["data"] + [state["obs"]]
    tensors += state["buffers"].get("synthetic", {"data": []})["data"] + list(state["networks"].get("model", {}).values())
    assert all(torch.isfinite(x).all() for x in tensors)
    assert len(state["buffers"]["real"]["data"][0][0]) == step
    assert state["networks"]["actor_optimizer"]["steps"][0] == 31, "as they were at the last log, of step 70"
    to_blame = what in ("an observation", "a reward", "the physics", "an action", "the parameter agent.actor")
    assert (state["env_states"] == [""]) == to_blame, "the environment is at another step than its last transition"
    resume(script, run_dir)
    last = read_scalars(run_dir)["losses/qf_loss"][-1]
    assert last[0] == 120 and np.isfinite(last[1])


def test_a_buffer_with_nan_is_refused(model_script, tmp_path, capsys):
    (run_dir,) = run(sac, tmp_path, save_buffer=True)
    arrays = dict(np.load(run_dir / "buffer.npz"))
    arrays["rewards"][3] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    args = make_args(model_script, fit_buffer=str(tmp_path / "nan.npz"), run_dir=str(tmp_path / "fits"))
    assert_stops(capsys, 2, "--fit-buffer", "rewards", call=lambda: model_script.main(args))
    assert not (tmp_path / "fits").exists()


def test_what_leaves_the_range_of_real_data_is_counted(model_script):
    real, imagined = random_batch(2, 50, 3, 1, module=model_script), random_batch(2, 40, 3, 1, seed=1, module=model_script)
    real = real._replace(rewards=real.rewards.clamp(0.2, 0.8), next_obs=real.next_obs.clamp(-1, 1))
    imagined = imagined._replace(rewards=torch.full((2, 40), 0.5), next_obs=torch.zeros(2, 40, 3))
    imagined.rewards[0, :20] = 0.9  # the oldest ten are no longer asked for
    imagined.rewards[1, 35:] = -0.1
    imagined.next_obs[1, 30, 2] = 5.0
    real = real._replace(rewards=real.rewards.index_fill(1, torch.tensor([0]), 0.2).index_fill(1, torch.tensor([1]), 0.8))
    real.next_obs[:, 0], real.next_obs[:, 1] = -1, 1
    buffer, synthetic = model_script.ReplayBuffer(2, 60, 3, 1, "cpu"), filled_buffer(model_script, imagined)
    buffer.add(real)
    logs = model_script.out_of_range(buffer, synthetic, 30)
    assert logs["rewards/out_of_range"].tolist() == pytest.approx([10 / 30, 5 / 30])
    assert logs["model/out_of_range"].tolist() == pytest.approx([0, 1 / 90])


def limited(size):
    """No file of this process may grow beyond `size` bytes, which stands in for a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_leaves_the_checkpoint_before_intact(script, tmp_path):
    """The files grow as the run goes on, until one does not fit any more."""
    command = [*stress_resume.flags(script.__name__, "Hopper-v5", 6000), "--run-dir", str(tmp_path), "--num-seeds", "1"]
    command += ["--log-interval", "1000"]
    size = {"sac": 150_000, "mbpo": 900_000, "ftfl": 900_000}[script.__name__]
    done = subprocess.run([sys.executable, *command], env=stress_resume.ENVIRONMENT, capture_output=True, text=True, preexec_fn=limited(size))
    error = done.stderr.replace("\r", "\n")
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in error, error[-2000:]
    (run_dir,) = tmp_path.iterdir()
    assert str(run_dir) in lines[0] and not list(run_dir.glob("*.tmp"))
    newest = sorted(run_dir.glob("checkpoint-*.pt"))[-1]
    assert f"--resume {newest}" in lines[0]
    resume(script, run_dir, "--total-timesteps", checkpoints(run_dir)[-1] + 20)


def test_a_removed_directory_is_one_clear_line(script, tmp_path, capsys, monkeypatch):
    evaluate = script.evaluate

    def remove(*args):
        shutil.rmtree(next(tmp_path.iterdir()))
        return evaluate(*args)

    monkeypatch.setattr(script, "evaluate", remove)
    assert_stops(capsys, 1, "can't be written", call=lambda: run(script, tmp_path))


def test_two_processes_never_train_one_run(script, tmp_path, capsys):
    (run_dir,) = run(script, tmp_path)
    handle = script.lock(run_dir)
    LOCKS.clear()
    assert_stops(capsys, 2, "another process", call=lambda: resume(script, run_dir, "--total-timesteps", 200))
    os.close(handle)
    resume(script, run_dir, "--total-timesteps", 130)


def test_runs_of_one_seed_started_together_have_directories_of_their_own(script, tmp_path):
    command = [*stress_resume.flags(script.__name__, "Hopper-v5", 110), "--run-dir", str(tmp_path)]
    for process in [stress_resume.start(command) for _ in range(2)]:
        stress_resume.finish(process)
    run_dirs = sorted(tmp_path.iterdir())
    assert len(run_dirs) == 4  # of two seeds each
    assert all(len(list(d.glob("events*"))) == 1 and (d / "agent.pt").exists() for d in run_dirs)
    firsts = [json.loads((d / "args.json").read_text())["run_dirs"][0] for d in run_dirs]
    assert len(set(firsts)) == 2 and all(checkpoints(tmp_path / name) == [100, 110] for name in firsts)


def test_an_environment_that_keeps_its_state_to_itself_begins_a_new_episode(tmp_path, capsys):
    (run_dir,) = run(sac, tmp_path, env_id="Scripted-v0", save_buffer=True)
    assert "new episode" not in capsys.readouterr().err
    resume(sac, run_dir, "--total-timesteps", 180, "--save-buffer")
    assert "a new episode begins" in capsys.readouterr().err
    stored = np.load(run_dir / "buffer.npz")
    assert len(stored["obs"]) == 180 and stored["obs"][120, 0] == 0, "row 120 is a first step"
    assert np.array_equal(stored["next_obs"], stored["obs"] + [1, 0])


def test_a_full_buffer_goes_on_overwriting_its_oldest_rows(script):
    buffer, other = (script.ReplayBuffer(1, 10, 3, 1, "cpu") for _ in range(2))
    for seed in range(2):
        buffer.add(random_batch(1, 7, 3, 1, seed=seed, module=script))
    other.load_state_dict(buffer.state_dict())
    for one in (buffer, other):
        one.add(random_batch(1, 4, 3, 1, seed=2, module=script))
    assert (other.pos, other.size) == (buffer.pos, buffer.size) == (8, 10)
    assert all(torch.equal(a, b) for a, b in zip(buffer.data, other.data))
    larger = script.ReplayBuffer(1, 20, 3, 1, "cpu")  # as when a run is made longer
    half = script.ReplayBuffer(1, 10, 3, 1, "cpu")
    half.add(random_batch(1, 10, 3, 1, module=script))
    larger.load_state_dict(half.state_dict())
    assert (larger.pos, larger.size) == (10, 10)


@pytest.mark.parametrize("script, env_id", [(sac, "dm_control/walker-walk-v0"), (ftfl, "Hopper-v5")])
def test_environments_in_worker_processes_give_the_same_numbers(script, env_id, tmp_path):
    flags = {"num_seeds": 2, "env_id": env_id}
    alone = run(script, tmp_path / "alone", **flags, env_workers="no")
    workers = run(script, tmp_path / "workers", **flags, env_workers="yes", total_timesteps=60)
    assert not multiprocessing.active_children()
    resume(script, workers[0], "--total-timesteps", 120)
    for a, b in zip(alone, workers, strict=True):
        assert read_scalars(a) == read_scalars(b)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_signal_to_all_processes_of_a_run_with_workers(name, tmp_path):
    """As a scheduler or a terminal sends it, to workers too: the run leaves its checkpoint, and no process is left over."""
    flags = ["--env-id", "Hopper-v5", "--learning-starts", 20, "--hidden-dim", 16, "--batch-size", 20, "--eval-episodes", 1, "--num-seeds", 2,
             "--log-interval", 1, "--checkpoint-interval", 50]  # fmt: skip
    command = [sys.executable, Path(sac.__file__), *flags, "--total-timesteps", 20_000, "--env-workers", "yes", "--run-dir", tmp_path / "runs"]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint-*")))
    members = processes_of(process.pid)
    assert len(members) == 5, "the run, two environments, and two to evaluate in"
    if name == "SIGKILL":
        process.kill()
    else:
        os.killpg(process.pid, getattr(signal, name))
    error = process.communicate(timeout=60)[1]
    wait_for(lambda: not processes_of(process.pid))
    assert process.returncode == (-signal.SIGKILL if name == "SIGKILL" else 128 + getattr(signal, name)), error
    run_dirs = sorted((tmp_path / "runs").iterdir())
    step = checkpoints(run_dirs[0])[-1]
    if name != "SIGKILL":
        assert f"stopped by {name} after step {step}" in error and "Traceback" not in error
    resume(sac, run_dirs[0], "--total-timesteps", step + 20, "--env-workers", "no")
    whole = sac.main(sac.parse_args([*map(str, flags), "--total-timesteps", str(step + 20), "--run-dir", str(tmp_path / "whole")]))
    assert [read_scalars(d) for d in run_dirs] == [read_scalars(d) for d in whole]


def wait_for(condition):
    end = time.time() + 60
    while not condition():
        assert time.time() < end
        time.sleep(0.05)


def processes_of(session):
    """Of a session of processes, those that live."""
    lines = subprocess.run(["ps", "-eo", "pid,sid,stat"], capture_output=True, text=True).stdout.splitlines()[1:]
    return [pid for pid, sid, stat in map(str.split, lines) if int(sid) == session and not stat.startswith("Z")]


def test_a_mistake_found_after_the_workers_have_started_ends_them_too(tmp_path):
    """They ignore the SIGTERM with which Python would end them."""
    flags = ["--env-id", "Hopper-v5", "--env-workers", "yes", "--total-timesteps", str(10**12), "--run-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, sac.__file__, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "out of memory" in done.stderr
