"""What users run into: each gets one line that names the flag, and no run is lost or silently wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import Scripted, make_args, read_checkpoint, read_scalars

import sac

SHORT = {"env_id": "Hopper-v5", "total_timesteps": 20, "learning_starts": 15, "device": "cpu"}


class Shaped(Scripted):
    """With actions of any space."""

    def __init__(self, space):
        super().__init__()
        self.action_space = space


class Nested(Scripted):
    observation_space = gym.spaces.Dict(
        {"a": gym.spaces.Dict({"b": gym.spaces.Box(-1, 1, (2,))}), "c": gym.spaces.Box(-1, 1, (2,))}
    )

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return {"a": {"b": np.zeros(2, np.float32)}, "c": np.zeros(2, np.float32)}, {}


SPACES = {
    "Rows": (gym.spaces.Box(-1, 1, (1, 3), np.float32), "a vector"),
    "Square": (gym.spaces.Box(-1, 1, (2, 3), np.float32), "a vector"),
    "Scalar": (gym.spaces.Box(-1, 1, (), np.float32), "a vector"),
    "Integer": (gym.spaces.Box(-1, 1, (2,), np.int32), "continuous"),
    "Constant": (gym.spaces.Box(np.float32([0, -1]), np.float32([0, 1])), "constant"),
}
for name, (space, _) in SPACES.items():
    gym.register(f"{name}-v0", lambda space=space: Shaped(space))
gym.register("Nested-v0", Nested)
gym.register("Reacher-v77", Scripted)


def stopped(capsys, call, code=2):
    """The one line with which a call stops."""
    with pytest.raises(SystemExit) as stop:
        call()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == code and len(lines) == 1
    return lines[0]


# ---------------------------------------- Tasks
@pytest.mark.parametrize("name", SPACES)
def test_actions_that_sac_cannot_have_are_named(script, name, capsys):
    line = stopped(capsys, lambda: script.full_env_id(f"{name}-v0"))
    assert f"--env-id {name}-v0" in line and SPACES[name][1] in line


def test_nested_observations_are_not_called_pixels_alone(script, capsys):
    assert "nested" in stopped(capsys, lambda: script.full_env_id("Nested-v0"))


def test_a_known_name_does_not_make_it_the_known_task(model_script, capsys):
    assert "termination_rule" in stopped(capsys, lambda: model_script.termination_rule("Reacher-v77"))
    assert not model_script.termination_rule("Reacher-v4")(torch.ones(2, 5)).any()


def test_a_task_of_a_module_keeps_its_module(script, tmp_path, monkeypatch):
    """So that it can be resumed by a process that has not imported the module."""
    text = "import gymnasium as gym\nfrom conftest import Scripted\ngym.register('Mine-v3', Scripted)\n"
    (tmp_path / "my_tasks.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert script.full_env_id("my_tasks:Mine") == "my_tasks:Mine-v3"
    flags = SHORT | {"env_id": "my_tasks:Mine-v3", "run_dir": str(tmp_path / "runs")}
    if hasattr(script.Args, "real_ratio"):
        flags["real_ratio"] = 1.0
    (run_dir,) = script.main(make_args(script, **flags))
    assert read_checkpoint(run_dir)["flags"]["env_id"] == "my_tasks:Mine-v3" and ":" not in run_dir.name


def test_a_task_without_a_time_limit_is_named_at_the_first_evaluation(capsys, monkeypatch):
    args, nothing, never = make_args(sac, env_id="Endless-v0"), np.zeros((1, 2)), np.zeros(1, bool)
    envs = SimpleNamespace(num_envs=1, reset=lambda **_: (nothing, {}))
    envs.step = lambda actions: (nothing, np.ones(1), never, never, {})
    agent = sac.SAC(2, 1, args)
    monkeypatch.setattr(agent.actor, "forward", lambda obs: (torch.zeros(1, 1, 1), None))
    assert "time limit" in stopped(capsys, lambda: sac.evaluate(agent, envs, args, 0))


def test_nan_in_an_evaluation_stops_the_run(script, tmp_path, capsys, monkeypatch):
    evaluate = script.evaluate

    def with_nan(*args):
        results = evaluate(*args)
        results["eval/episodic_return"][0, 0] = np.nan
        return results

    monkeypatch.setattr(script, "evaluate", with_nan)
    flags = SHORT | {"eval_interval": 18, "run_dir": str(tmp_path)}
    line = stopped(capsys, lambda: script.main(make_args(script, **flags)), code=1)
    assert "step 18" in line and "eval/episodic_return" in line


def test_humanoid_standup_leaves_out_forces_like_humanoid(script):
    assert script.make_env("HumanoidStandup-v5", False).observation_space.shape == (45,)
    assert script.make_env("HumanoidStandup-v5", True).observation_space.shape == (348,)


# ---------------------------------------- Flags
@pytest.mark.parametrize("schedule", ["20:100:1:15", "1:51:0:1"])
def test_a_schedule_in_the_order_of_the_original_mbpo_is_refused(model_script, schedule, capsys):
    args = make_args(model_script, rollout_schedule=schedule)
    line = stopped(capsys, lambda: model_script.check_args(args))
    assert "--rollout-schedule" in line and "FROM:TO:START:END" in line


@pytest.mark.parametrize("words", [["--resume", ""], ["--resume="]])
def test_an_empty_resume_starts_no_new_run(script, words, capsys):
    assert "--resume" in stopped(capsys, lambda: script.parse_args(words))


# ---------------------------------------- Resume
@pytest.fixture
def two_seeds(script, tmp_path):
    """The folders of a finished run of two seeds."""
    return script.main(make_args(script, **SHORT, num_seeds=2, run_dir=str(tmp_path / "runs")))


def go_on(script, run_dir, steps=25):
    return script.main(script.parse_args(["--resume", str(run_dir), "--total-timesteps", str(steps)]))


def test_the_second_seeds_folder_names_the_first(script, two_seeds, capsys):
    first, second = two_seeds
    assert first.name in stopped(capsys, lambda: script.parse_args(["--resume", str(second)]))


def test_a_moved_run_gets_the_folders_of_all_its_seeds(script, two_seeds, tmp_path):
    moved = tmp_path / "elsewhere" / two_seeds[0].name
    moved.parent.mkdir()
    shutil.copytree(two_seeds[0], moved)
    run_dirs = go_on(script, moved)
    for run_dir, seed in zip(run_dirs, (1, 2), strict=True):
        assert run_dir.parent == moved.parent
        assert json.loads((run_dir / "args.json").read_text())["seed"] == seed
        assert read_scalars(run_dir)["eval/episodic_return"][-1][0] == 25


def change_checkpoint(run_dir, change):
    state = read_checkpoint(run_dir)
    change(state)
    torch.save(state, run_dir / "checkpoint.pt")


@pytest.mark.parametrize("change", [lambda flags: flags.pop("gamma"), lambda flags: flags.update(old=1)])
def test_a_checkpoint_of_another_version_is_named(script, two_seeds, change, capsys):
    change_checkpoint(two_seeds[0], lambda state: change(state["flags"]))
    line = stopped(capsys, lambda: script.parse_args(["--resume", str(two_seeds[0])]))
    assert "another version" in line and ("gamma" in line or "old" in line)


def test_other_package_versions_are_said_in_a_line(script, two_seeds, capsys):
    go_on(script, two_seeds[0])
    assert "note:" not in capsys.readouterr().err
    change_checkpoint(two_seeds[0], lambda state: state["versions"].update(torch="1.0"))
    go_on(script, two_seeds[0], 30)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(notes) == 1 and "'torch': '1.0'" in notes[0]


# ---------------------------------------- Processes
def start(tmp_path, *flags, **options):
    """One script is enough: what is around main() is the same text in all."""
    command = [sys.executable, sac.__file__, "--env-id", "Hopper-v5", "--eval-episodes", 1]
    command += ["--run-dir", tmp_path, *flags]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_lost_terminal_leaves_a_checkpoint(tmp_path):
    run = start(tmp_path, "--learning-starts", 400_000)
    while not list(tmp_path.glob("*/events*")):
        time.sleep(0.1)
    time.sleep(1)
    run.send_signal(signal.SIGHUP)
    assert "--resume" in run.communicate(timeout=60)[1] and run.returncode == 128 + signal.SIGHUP
    assert list(tmp_path.glob("*/checkpoint.pt"))


def test_main_runs_in_a_thread(script, tmp_path):
    done = []
    args = make_args(script, **SHORT, run_dir=str(tmp_path))
    thread = threading.Thread(target=lambda: done.append(script.main(args)))
    thread.start()
    thread.join()
    assert len(done) == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_folder_that_the_terminal_cannot_print(tmp_path, encoding):
    flags = ["--total-timesteps", 12, "--learning-starts", 12, "--utd-ratio", 1]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    run = start(tmp_path / "läufe-試", *flags, env=environment, stdout=subprocess.DEVNULL)
    assert run.communicate(timeout=120)[1].count("Traceback") == 0 and run.returncode == 0


def test_without_git_the_commit_is_empty(script, monkeypatch):
    monkeypatch.setenv("PATH", str(Path("/nonexistent")))
    assert script.git_commit() == ""
