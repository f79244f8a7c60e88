"""Long runs survive: exact resuming, signals, bad numbers, full disks, damaged and foreign checkpoints."""

import itertools
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import stress_resume
import sweep
import torch
from conftest import make_args, random_batch, read_scalars

import ftfl
import mbpo
import sac


def small_args(script, folder, **flags):
    small = {"env_id": "Hopper-v5", "total_timesteps": 120, "learning_starts": 40, "utd_ratio": 1}
    small |= {"eval_interval": 60, "checkpoint_interval": 30}
    small |= {"model_train_interval": 20} if hasattr(script.Args, "model_lr") else {}
    return make_args(script, run_dir=str(folder), **small | flags)


def run(script, folder, **flags):
    """A small run in this process; its directories."""
    return script.main(small_args(script, folder, **flags))


def resume(script, run_dir, *argv, real=time.time, later=itertools.count(2, 2)):
    """Seconds later: event files are told apart, and ordered, by the second in which they began."""
    seconds = next(later)
    with mock.patch("time.time", lambda: real() + seconds):
        return script.main(script.parse_args(["--resume", str(run_dir), *map(str, argv)]))


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_one_line(error, *words):
    """Of what stands on stderr, the progress bar aside, one line is the error, with these words."""
    lines = [line for line in error.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in error and "Exception ignored" not in error, error[-3000:]
    assert all(word in lines[0] for word in words), lines[0]


def assert_stops(capsys, code, *words, call):
    """`call` prints one line with these words and exits with this code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call()
    assert_one_line(capsys.readouterr().err, *words)
    assert stop.value.code == code


def by_subprocess(script, argv, patch="", **kwargs):
    """A run in a process of its own, after the code `patch`: with what is handled around main()."""
    code = f"import runpy, sys\n{patch}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", f"import sys; sys.argv = sys.argv[1:]\n{code}", script.__file__]
    command += map(str, argv)
    return subprocess.run(
        command, env=stress_resume.ENVIRONMENT, capture_output=True, text=True, timeout=100, **kwargs
    )


# ---------------------------------------- Resuming
@pytest.mark.parametrize("script, env_id", [(sac, "dm_control/walker-walk-v0"), (ftfl, "Hopper-v5")])
def test_a_killed_and_resumed_run_is_one_never_killed(script, env_id, tmp_path):
    """Twice by SIGKILL, once of these in a write. tests/stress_resume.py does it many times, to all three
    scripts: how a run is brought back is the same text in them."""
    command = stress_resume.flags(script.__name__, env_id, steps=350)
    reference = script.main(script.parse_args([*command[1:], "--run-dir", str(tmp_path / "reference")]))
    run_dirs, hits = stress_resume.killed_run(command, tmp_path / "killed", 2, random.Random(1))
    assert hits >= 1 and len(run_dirs) == 2
    assert stress_resume.differences(run_dirs, reference) == []
    for run_dir in run_dirs:
        logged = stress_resume.scalars(run_dir)
        assert len(logged["losses/qf_loss"]) == 251 and len(logged["eval/episodic_return"]) == 1


def test_a_difference_between_two_runs_is_found(tmp_path):
    one, other = (run(sac, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    found = stress_resume.differences(one, other)
    assert "checkpoint/agent/log_alpha" in found and "checkpoint/rng/0" in found
    assert any(line.startswith("losses/qf_loss from") for line in found)
    assert stress_resume.differences(one, one) == []


def test_a_run_can_be_made_longer(script, tmp_path):
    """Exactly: the rows held out are the same ones, whatever --total-timesteps is."""
    whole = run(script, tmp_path / "whole", total_timesteps=180)
    longer = run(script, tmp_path / "longer")
    assert resume(script, longer[0], "--total-timesteps", 180) == longer
    assert stress_resume.differences(longer, whole) == []
    assert checkpoint(longer[0])["flags"]["total_timesteps"] == 180


@pytest.mark.parametrize("names", ["SIGTERM SIGTERM", "SIGINT"])
def test_a_signal_leaves_a_checkpoint_of_its_step(script, names, tmp_path, capsys, monkeypatch):
    """SIGTERM can come twice: when a sweep of several threads was killed, its runs got it again."""
    numbers, evaluate = [getattr(signal, name) for name in names.split()], script.evaluate

    def evaluate_and_kill(agent, envs, args, step):
        if step == 50:
            for number in numbers:
                os.kill(os.getpid(), number)
        return evaluate(agent, envs, args, step)

    monkeypatch.setattr(script, "evaluate", evaluate_and_kill)
    flags = {"eval_interval": 50, "num_seeds": 2}
    call = lambda: run(script, tmp_path / "runs", **flags)  # noqa: E731
    assert_stops(capsys, 128 + numbers[0], "step 50", "--resume", call=call)
    run_dirs = sorted((tmp_path / "runs").iterdir())
    assert checkpoint(run_dirs[0])["step"] == 50 and not (run_dirs[1] / "checkpoint.pt").exists()
    monkeypatch.undo()
    assert resume(script, run_dirs[0]) == run_dirs
    assert stress_resume.differences(run_dirs, run(script, tmp_path / "whole", **flags)) == []


def test_ctrl_c_twice_stops_at_once(script, tmp_path, monkeypatch):
    def evaluate(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still running")

    monkeypatch.setattr(script, "evaluate", evaluate)
    with pytest.raises(SystemExit) as stop:
        run(script, tmp_path)
    assert stop.value.code == 128 + signal.SIGINT


def test_flags_of_the_run_hold_and_only_some_may_change(script, tmp_path, capsys):
    (run_dir,) = run(script, tmp_path, gamma=0.9)
    before = contents(tmp_path)
    args = script.parse_args(["--resume", str(run_dir)])
    assert args.gamma == 0.9 and args.hidden_dim == 16 and args.total_timesteps == 120
    argv = ["--gamma", "0.9", "--num-threads", "2", "--total-timesteps", "200", "--eval-interval", "7"]
    args = script.parse_args(["--resume", str(run_dir), *argv, "--env-workers", "--log-interval", "9"])
    assert (args.num_threads, args.total_timesteps, args.eval_interval, args.log_interval) == (2, 200, 7, 9)
    free = {"total_timesteps", "device", "num_threads", "env_workers", "tf32", "compile", "resume"}
    free |= {"eval_interval", "log_interval", "checkpoint_interval"}
    assert sweep.MAY_CHANGE == free | {"run_dir"}, "the sweep's, which names another folder, too"
    others = {bool: "", int: "77", float: "0.77"}
    others |= {"device": "cuda", "next_state_prediction": "residual"}
    for name, value in vars(args).items():
        flag = f"--{'no-' * (value is True)}{name.replace('_', '-')}"
        argv = [flag, others.get(name, others.get(type(value), "other"))]
        if name in free - {"resume"}:
            assert getattr(script.parse_args(["--resume", str(run_dir), *filter(None, argv)]), name) != value
        elif name != "resume":
            call = lambda: script.parse_args(["--resume", str(run_dir), *filter(None, argv)])  # noqa: B023, E731
            assert_stops(capsys, 2, f"--{name.replace('_', '-')}", "--resume", call=call)
    for steps in ("100", "120"):
        call = lambda: resume(script, run_dir, "--total-timesteps", steps)  # noqa: B023, E731
        assert_stops(capsys, 2, "--total-timesteps", "120", call=call)
    other = mbpo if script is sac else sac
    call = lambda: other.parse_args(["--resume", str(run_dir)])  # noqa: E731
    assert_stops(capsys, 2, f"{script.__name__}.py", call=call)
    assert contents(tmp_path) == before, "nothing may be written"


def test_no_run_to_resume(script, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "x.pt"):
        call = lambda: script.parse_args(["--resume", str(path)])  # noqa: B023, E731
        assert_stops(capsys, 2, "--resume", str(path), "checkpoint.pt", call=call)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path(self.path).write_text, ("x",))


def test_damaged_and_foreign_checkpoints(script, tmp_path, capsys):
    """Refused in one line, and nothing is written."""
    (run_dir,) = run(script, tmp_path / "runs")
    path = run_dir / "checkpoint.pt"
    whole = path.read_bytes()
    torch.save({"agent": Payload(tmp_path / "ran")}, tmp_path / "payload.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(checkpoint(run_dir) | {"script": "td3"}, tmp_path / "td3.pt")
    flipped = bytearray(whole)
    with zipfile.ZipFile(path) as file:  # in the middle of the largest tensor
        tensors = [i for i in file.infolist() if "/data/" in i.filename]
        largest = file.read(max(tensors, key=lambda i: i.file_size))
    flipped[whole.index(largest) + len(largest) // 2] ^= 1
    damages = {"truncated": whole[: len(whole) // 2], "cut": whole[:-1], "empty": b"", "flipped": flipped}
    damages |= {"text": b"not a checkpoint", "pickle": pickle.dumps(Payload(tmp_path / "ran"))}
    for name in ("payload", "other", "list", "td3"):
        damages[name] = (tmp_path / f"{name}.pt").read_bytes()
    for content in damages.values():
        path.write_bytes(content)
        before = contents(tmp_path)
        call = lambda: script.parse_args(["--resume", str(run_dir)])  # noqa: E731
        assert_stops(capsys, 2, f"--resume {run_dir}", "checkpoint.pt", call=call)
        assert contents(tmp_path) == before
    assert not (tmp_path / "ran").exists(), "code ran"
    path.write_bytes(whole)
    resume(script, run_dir, "--total-timesteps", 130)


def test_a_damaged_checkpoint_is_one_line_of_the_program(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"x" * 1000)
    done = by_subprocess(sac, ["--resume", tmp_path])
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert_one_line(done.stderr, f"--resume {tmp_path}")


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    (run_dir,) = run(sac, tmp_path, hidden_dim=4)
    path, refused = run_dir / "checkpoint.pt", 0
    whole, expected = path.read_bytes(), stress_resume.numbers(sac.read_checkpoint(run_dir))
    # At random over the file, and over what is no tensor: the names and checksums of the zip file
    rng, bits = np.random.default_rng(0), 8 * len(whole)
    positions = [*rng.integers(0, bits, 60), *rng.integers(bits - 8 * 3000, bits, 60)]
    for position in positions:
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(data))
        try:
            state = stress_resume.numbers(sac.read_checkpoint(run_dir))
        except SystemExit:
            refused += 1
            continue
        assert state.keys() == expected.keys(), position
        for name, x in expected.items():
            same = torch.equal(state[name], x) if isinstance(x, torch.Tensor) else state[name] == x
            assert same, f"{name} by bit {position}"
    assert refused > 60


def test_a_kill_in_a_write_leaves_the_checkpoint_before(script, tmp_path, monkeypatch):
    """torch.save dies halfway: only the temporary file is torn, and the next checkpoint replaces it."""
    save = torch.save

    def torn(state, path):
        save(state, path)
        if state["step"] == 90:
            os.truncate(path, 1000)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "runs")
    monkeypatch.undo()
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert checkpoint(run_dir)["step"] == 60 and (run_dir / "checkpoint.tmp").stat().st_size == 1000
    resume(script, run_dir)
    assert checkpoint(run_dir)["step"] == 120 and not (run_dir / "checkpoint.tmp").exists()
    # What was logged up to step 90 is not there twice
    assert stress_resume.differences([run_dir], run(script, tmp_path / "whole")) == []


def test_the_capacity_of_a_buffer_may_grow(script):
    buffer, other = (script.ReplayBuffer(1, 10, 3, 1) for _ in range(2))
    for seed in range(2):
        buffer.add(random_batch(1, 7, 3, 1, seed=seed, module=script))
    script.load_buffer(other, script.buffer_state(buffer))
    for one in (buffer, other):  # a full one goes on overwriting its oldest rows
        one.add(random_batch(1, 4, 3, 1, seed=2, module=script))
    assert (other.pos, other.size) == (buffer.pos, buffer.size) == (8, 10)
    assert all(torch.equal(a, b) for a, b in zip(buffer.data, other.data))
    half, larger = script.ReplayBuffer(1, 10, 3, 1), script.ReplayBuffer(1, 20, 3, 1)  # a run made longer
    half.add(random_batch(1, 10, 3, 1, module=script))
    script.load_buffer(larger, script.buffer_state(half))
    assert (larger.pos, larger.size) == (10, 10)


# ---------------------------------------- What stops a run


@pytest.mark.parametrize("name", ["agent", "model"])
def test_no_checkpoint_is_replaced_by_one_with_bad_numbers(script, name, tmp_path, capsys):
    part = torch.nn.Linear(2, 2)
    part.weight.data[0, 1] = torch.nan
    call = lambda: script.save_checkpoint(script.Args(), {name: part}, [tmp_path], [], 5, [0])  # noqa: E731
    assert_stops(capsys, 1, f"the {name}'s weight", "step 5", call=call)
    assert not list(tmp_path.iterdir())


NAN_IN = ["an observation", "a reward", "losses/qf_loss"]
NAN_IN += ["the agent's actor.net.0.weight", "the agent's q_optimizer"]
NAN_IN_THE_MODEL = ["the model's net.2.bias", "model/nll", "an imagined state", "an imagined reward"]
NAN_CASES = [(module, what) for module in (sac, ftfl) for what in NAN_IN]


@pytest.mark.parametrize("script, what", NAN_CASES + [(ftfl, what) for what in NAN_IN_THE_MODEL])
def test_nan_stops_the_run_before_it_reaches_a_checkpoint(script, what, tmp_path, capsys, monkeypatch):
    calls = []

    def spoil(owner, name, k, broken):
        """From the k-th call on, `broken` is applied to what the function returns."""
        function = getattr(owner, name)

        def call(*args):
            calls.append(0)
            result = function(*args)
            return broken(args, result) if len(calls) >= k else result

        monkeypatch.setattr(owner, name, call)

    def infinite(i):
        return lambda _, result: (*result[:i], np.full_like(result[i], np.inf), *result[i + 1 :])

    def spoil_parameter(name):
        def broken(args, result):
            with torch.no_grad():  # as an infinite gradient leaves it
                next(x for key, x in args[0].state_dict().items() if key.startswith(name)).view(-1)[0] = (
                    torch.nan
                )
            return result

        return broken

    words = [what]
    if what in ("an observation", "a reward"):
        # of the training environments: those of the evaluation would be counted, too
        monkeypatch.setattr(script, "evaluate", lambda *a: {"eval/episodic_return": np.ones((1, 1))})
        spoil(gym.vector.SyncVectorEnv, "step", 77, infinite(0 if what == "an observation" else 1))
    elif what == "losses/qf_loss":
        spoil(script.SAC, "update", 37, lambda _, logs: logs | {what: logs[what] * torch.nan})
    elif what.startswith("the agent's"):
        # by the update of step 90, whose checkpoint would be the next
        spoil(script.SAC, "update", 51, spoil_parameter(what.split()[-1]))
    elif what.startswith("the model's"):
        spoil(script, "train_model", 3, spoil_parameter(what.split()[-1]))
        words = []  # imagined states, losses, the checkpoint: whichever comes first
    elif what == "model/nll":
        spoil(script, "train_model", 3, lambda _, logs: logs | {what: logs[what] * torch.nan})
    else:
        i, words = int(what.endswith("reward")), []
        nan = lambda _, pair: [x * torch.nan if j == i else x for j, x in enumerate(pair)]  # noqa: E731
        spoil(script.Ensemble, "sample", 37, nan)
    interval = 1 if "imagined" in what else 30  # of its step, before a loss can show it
    call = lambda: run(script, tmp_path, checkpoint_interval=interval)  # noqa: E731
    assert_stops(capsys, 1, "step ", "--resume", *words, call=call)
    monkeypatch.undo()
    (run_dir,) = tmp_path.iterdir()
    state = stress_resume.numbers(checkpoint(run_dir))
    assert state["/step"] == (75 if "imagined" in what else 60), "the checkpoint before stays as it was"
    assert all(torch.isfinite(x).all() for x in state.values() if isinstance(x, torch.Tensor))
    resume(script, run_dir)
    last = read_scalars(run_dir)["losses/qf_loss"][-1]
    assert last[0] == 120 and np.isfinite(last[1])


DIVERGE = """
from dm_control.rl.control import Environment
step, calls = Environment.step, []
def broken(self, action):
    calls.append(0)
    if len(calls) == 77:
        self.physics.data.qvel[:] = 1e12
    return step(self, action)
Environment.step = broken
"""


@pytest.mark.parametrize("workers", ["--no-env-workers", "--env-workers"])
def test_a_simulation_that_diverges_is_one_clear_line(workers, tmp_path):
    argv = ["--env-id", "dm_control/walker-walk-v0", "--total-timesteps", 200, "--learning-starts", 190]
    argv += [workers]
    done = by_subprocess(sac, [*argv, "--run-dir", tmp_path, "--checkpoint-interval", 50], DIVERGE)
    assert done.returncode == 1, done.stderr[-2000:]
    error = done.stderr if workers == "--no-env-workers" else done.stderr.split("main process.")[-1]
    assert_one_line(error, "PhysicsError", "--resume")  # of a worker Gymnasium shows the traceback, too
    (run_dir,) = tmp_path.iterdir()
    assert checkpoint(run_dir)["step"] == 50


def limited(size):
    """No file of this process may grow beyond `size` bytes, which stands in for a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("what", ["checkpoint", "events"])
def test_a_full_disk_leaves_the_checkpoint_before_intact(what, tmp_path):
    """The files grow as the run goes on, until one does not fit any more."""
    command = stress_resume.flags("sac", "Hopper-v5", 4000)[1:]
    command += ["--run-dir", tmp_path, "--num-seeds", 1, "--hidden-dim", 2, "--checkpoint-interval", 25]
    command += ["--log-interval", 1000 if what == "checkpoint" else 1]
    # Bytes: a checkpoint of some 300 transitions, or the numbers of some 100 steps
    done = by_subprocess(sac, command, preexec_fn=limited(50_000 if what == "checkpoint" else 55_000))
    assert done.returncode == 1, done.stderr[-2000:]
    assert_one_line(done.stderr, "--resume")
    (run_dir,) = tmp_path.iterdir()
    largest = max(run_dir.iterdir(), key=lambda path: path.stat().st_size)
    assert largest.name.startswith("checkpoint.tmp" if what == "checkpoint" else "events")
    step = checkpoint(run_dir)["step"]
    resume(sac, run_dir, "--total-timesteps", step + 20)


@pytest.mark.parametrize("bug", ["raise RuntimeError('a bug')", "open('a bug')"])
def test_what_stops_a_run_that_is_no_mistake_keeps_its_traceback(bug, tmp_path):
    """A file that an edited script looks for in vain is a bug, too, and not of the machine."""
    patch = f"import gymnasium\ndef step(*_):\n    {bug}\n"
    patch += "gymnasium.vector.SyncVectorEnv.step = step"
    done = by_subprocess(sac, ["--env-id", "Hopper-v5", "--run-dir", tmp_path], patch)
    assert done.returncode == 1 and "Traceback" in done.stderr and "a bug" in done.stderr


# ---------------------------------------- Worker processes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_signal_to_all_processes_of_a_run_with_workers(name, tmp_path):
    """As a scheduler or a terminal sends it: the run leaves its checkpoint, and no process is left over."""
    flags = "--env-id Hopper-v5 --learning-starts 20 --hidden-dim 16 --batch-size 20 --eval-episodes 1 "
    flags += "--num-seeds 2 --log-interval 1 --checkpoint-interval 50 --utd-ratio 1"
    command = [sys.executable, sac.__file__, *flags.split(), "--total-timesteps", "20000", "--env-workers"]
    command += ["--run-dir", str(tmp_path / "runs")]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint.pt")))
        assert len(processes_of(process.pid)) == 5, "the run, two environments, and two to evaluate in"
        if name == "SIGKILL":
            process.kill()
        else:
            os.killpg(process.pid, getattr(signal, name))
        error = process.communicate(timeout=60)[1]
        wait_for(lambda: not processes_of(process.pid))
    finally:
        for pid in processes_of(process.pid):
            os.kill(int(pid), signal.SIGKILL)
    number = getattr(signal, name)
    assert process.returncode == (-number if name == "SIGKILL" else 128 + number), error
    run_dirs = sorted((tmp_path / "runs").iterdir())
    step = checkpoint(run_dirs[0])["step"]
    if name != "SIGKILL":
        assert_one_line(error, f"after step {step}")
    resume(sac, run_dirs[0], "--total-timesteps", step + 20, "--no-env-workers")
    argv = [*flags.split(), "--total-timesteps", str(step + 20), "--run-dir", str(tmp_path / "whole")]
    whole = sac.main(sac.parse_args(argv))
    assert stress_resume.differences(run_dirs, whole) == []


def wait_for(condition):
    end = time.time() + 60
    while not condition():
        assert time.time() < end
        time.sleep(0.05)


def processes_of(session):
    """Of a session of processes, those that live."""
    lines = subprocess.run(["ps", "-eo", "pid,sid,stat"], capture_output=True, text=True).stdout.splitlines()
    rows = [line.split() for line in lines[1:]]
    return [pid for pid, sid, stat in rows if int(sid) == session and not stat.startswith("Z")]


def test_a_mistake_found_after_the_workers_have_started_ends_them_too(tmp_path):
    """They have the handler of SIGTERM, with which Python would end them."""
    argv = ["--env-id", "Hopper-v5", "--env-workers", "--total-timesteps", 10**12, "--run-dir", tmp_path]
    command = [sys.executable, sac.__file__, *map(str, argv)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        error = process.communicate(timeout=60)[1]
    finally:
        for pid in processes_of(process.pid):
            os.kill(int(pid), signal.SIGKILL)
    assert process.returncode == 2 and not list(tmp_path.iterdir())
    assert_one_line(error, "memory")


@pytest.mark.parametrize("env_id", ["dm_control/cartpole-swingup-v0", "Hopper-v5"])
def test_environments_in_worker_processes_give_the_same_numbers(env_id, tmp_path):
    flags = {"num_seeds": 2, "env_id": env_id}
    alone = run(sac, tmp_path / "alone", **flags)
    workers = run(sac, tmp_path / "workers", **flags, env_workers=True, total_timesteps=60)
    resume(sac, workers[0], "--total-timesteps", 120)
    assert stress_resume.differences(workers, alone) == []
