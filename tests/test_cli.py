"""Command line: bad input gets one clear line and exit code 2 before the first step, nothing is written."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import textwrap
from importlib.metadata import version

import pytest
from conftest import ROOT, make_args, read_scalars

import ftfl
import sac

TASKS = [  # looked at by functions that are the same text in all scripts
    ({"env_id": "Nonsense-v0"}, "--env-id"),
    ({"env_id": "dm_control/humanoid-fly-v0"}, "--env-id"),
    ({"env_id": "Hopper-v99"}, "--env-id"),
    ({"env_id": ""}, "--env-id"),
    ({"env_id": "DiscreteActions-v0"}, "continuous"),
    ({"env_id": "Pixels-v0"}, "pixels"),
    ({"env_id": "FloatPixels-v0"}, "pixels"),
    ({"env_id": "dm_control/lqr-lqr_2_1-v0"}, "bounded"),
    ({"env_id": "Scripted-v0"}, "termination_rule"),
    ({"env_id": "Pendulum-v1"}, "termination_rule"),
    ({"device": "abacus"}, "--device"),
    ({"device": "cuda:77"}, "--device"),
    ({"run_dir": "/dev/null/runs"}, "--run-dir"),
    ({"run_dir": "/proc/runs"}, "--run-dir"),
    ({"resume": "/nonexistent"}, "--resume"),
]
NUMBERS = [  # of check_args: sac.py has one of its own
    ({"num_seeds": 0}, "--num-seeds"),
    ({"seed": -1}, "--seed"),
    ({"seed": 2**32}, "--seed"),
    ({"seed": 2**32 - 1, "num_seeds": 2}, "--seed"),  # the second seed would be 2^32
    ({"num_seeds": 2**32}, "seed"),
    ({"total_timesteps": 0}, "--total-timesteps"),
    ({"learning_starts": 0}, "--learning-starts"),
    ({"learning_starts": 501}, "--learning-starts"),
    ({"batch_size": 0}, "--batch-size"),
    ({"utd_ratio": -3}, "--utd-ratio"),
    ({"eval_episodes": 0}, "--eval-episodes"),
    ({"num_threads": 0}, "--num-threads"),
    ({"num_threads": os.cpu_count() + 1}, "--num-threads"),
    ({"gamma": 1.5}, "--gamma"),
    ({"gamma": float("nan")}, "--gamma"),
    ({"tau": -0.1}, "--tau"),
    ({"actor_lr": 0.0}, "--actor-lr"),
    ({"critic_lr": float("inf")}, "--critic-lr"),
]
TEN_ROLLOUTS = {"synthetic_buffer_size": 49, "rollouts_per_step": 10}
NUMBERS_OF_THE_MODEL = [
    ({"real_ratio": 1.01}, "--real-ratio"),
    ({"real_ratio": -0.5}, "--real-ratio"),
    ({"real_ratio": 0.01, "batch_size": 20}, "--real-ratio"),  # rounds to no real row,
    ({"real_ratio": 0.99, "batch_size": 20}, "--real-ratio"),  # and this to no synthetic one
    ({"ensemble_size": 0}, "--ensemble-size"),
    ({"num_elites": 8}, "--num-elites"),
    ({"model_train_steps": 0}, "--model-train-steps"),
    ({"rollouts_per_step": 0}, "--rollouts-per-step"),
    ({"rollouts_per_step": 50, "synthetic_buffer_size": 49}, "--synthetic-buffer-size"),
    (TEN_ROLLOUTS | {"rollout_schedule": "1:5:0:9"}, "--synthetic-buffer-size"),
    (TEN_ROLLOUTS | {"rollout_schedule": "5:1:0:9"}, "--synthetic-buffer-size"),
    ({"learning_starts": 9}, "--learning-starts"),
    *[
        ({"rollout_schedule": bad}, "--rollout-schedule")
        for bad in ("1:2:3", "1:2:x:4", "0:2:3:4", "1:2:4:4")
    ],
]
BAD = [(ftfl, *case) for case in TASKS + NUMBERS_OF_THE_MODEL]
BAD += [(module, *case) for case in NUMBERS for module in (sac, ftfl)]


def assert_refused(script, flags, names, tmp_path, capsys):
    run_dir = tmp_path / "runs"
    flags = {
        "env_id": "Hopper-v5",
        "total_timesteps": 500,
        "learning_starts": 100,
        "run_dir": str(run_dir),
    } | flags
    with pytest.raises(SystemExit) as error:
        script.main(make_args(script, **flags))
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line]
    assert error.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and names in lines[0], captured.err
    assert captured.out == ""
    assert not run_dir.exists(), "nothing may be written"


@pytest.mark.parametrize("module,flags,names", BAD, ids=lambda x: getattr(x, "__name__", str(x)))
def test_bad_input(module, flags, names, tmp_path, capsys):
    assert_refused(module, flags, names, tmp_path, capsys)


def test_compiling_without_a_compiler(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(script, {"compile": True}, "--compile", tmp_path, capsys)


def test_a_run_dir_inside_a_file(script, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert_refused(script, {"run_dir": str(tmp_path / "file" / "runs")}, "--run-dir", tmp_path, capsys)


@pytest.mark.parametrize(
    "flags", [{"real_ratio": 0.0}, {"real_ratio": 1.0}, {"real_ratio": 0.05, "batch_size": 20}]
)
def test_the_real_ratios_that_are_allowed(model_script, flags):
    args = make_args(model_script, env_id="Hopper-v5", device="cpu", **flags)
    model_script.check_args(args)


def test_help(script, capsys, monkeypatch):
    """A short header, the flags in groups, and every flag with its explanation."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        script.parse_args(["--help"])
    assert stop.value.code == 0
    header, boxes = re.split(r"\n\W*options\W+", capsys.readouterr().out, maxsplit=1)
    header = [line for paragraph in header.splitlines() for line in textwrap.wrap(paragraph, 110)]
    assert 2 <= len(header) <= 10 and script.__doc__.splitlines()[0] in " ".join(header)
    groups = re.findall(r"(\w+) options\b", boxes)
    assert groups == [group.__name__[:-4] for group in script.Args.__bases__]
    flat = " ".join(boxes.replace("│", " ").split())
    for group in script.Args.__bases__:
        source = inspect.getsource(group)
        for field in dataclasses.fields(group):
            flag = "--" + field.name.replace("_", "-")
            explanation = re.search(rf"^    {field.name}: .*?  # (.*)$", source, re.M).group(1)
            assert len(explanation) > 10
            shown = flat.split(f" {flag} ")[1] if f" {flag} " in flat else flat.split(f" {flag}, ")[1]
            assert explanation in shown[: len(explanation) + 150], flag


@pytest.mark.parametrize("words", ["--gamma 2", "--gamma high", "--no-such-flag", "--env-id Nonsense-v0"])
def test_typed_flags(script, words, capsys):
    """Exit code 2, and a line that names the flag."""
    with pytest.raises(SystemExit) as stop:
        script.main(script.parse_args(words.split()))
    assert stop.value.code == 2 and words.split()[0] in capsys.readouterr().err


def test_parsed_flags(script):
    args = script.parse_args(["--env-id", "Hopper", "--num-seeds", "3", "--env-workers", "--gamma", "0.5"])
    assert (args.env_id, args.num_seeds, args.env_workers, args.gamma) == ("Hopper", 3, True, 0.5)
    assert vars(script.parse_args([])) == vars(script.Args())
    assert args.utd_ratio == 20


def test_a_finished_run(script, tmp_path, capsys):
    """One line per seed says where it is and what it earned; flags and versions are stored."""
    flags = {
        "env_id": "Hopper",
        "total_timesteps": 20,
        "learning_starts": 20,
        "num_seeds": 2,
        "eval_episodes": 2,
    }
    run_dirs = script.main(make_args(script, **flags, run_dir=str(tmp_path), seed=2**32 - 2))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(run_dirs) == 2
    for line, run_dir, seed in zip(lines, run_dirs, (2**32 - 2, 2**32 - 1)):
        ((step, value),) = read_scalars(run_dir)["eval/episodic_return"]
        assert line.startswith(f"{run_dir}: return {value:.1f} at step 20") and step == 20
        assert run_dir.parent == tmp_path
        assert run_dir.name.startswith(f"Hopper-v5__{script.__name__}__{seed}__")
        stored = json.loads((run_dir / "args.json").read_text())
        assert stored["script"] == script.__name__ and stored["seed"] == seed
        assert stored["env_id"] == "Hopper-v5" and stored["num_seeds"] == 2
        assert stored["run_dirs"] == [d.name for d in run_dirs]
        assert stored.keys() == vars(script.Args()).keys() | {
            "script",
            "commit",
            "source",
            "versions",
            "run_dirs",
        }
        names = ("torch", "numpy", "gymnasium", "mujoco", "dm_control")
        assert stored["versions"] == {name: version(name) for name in names}
        if shutil.which("git") and (ROOT / ".git").exists():
            assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", stored["commit"])


def test_runs_of_the_same_moment_never_share_a_directory(script, tmp_path, capsys, monkeypatch):
    """Either both get their own, or the later one stops with a line that says so."""
    monkeypatch.setattr(script.time, "time", lambda: 1_000_000_000.0)
    args = make_args(script, env_id="Hopper-v5", run_dir=str(tmp_path), num_seeds=2)
    run_dirs = script.make_run_dirs(args)
    before = [(run_dir / "args.json").read_text() for run_dir in run_dirs]
    args.gamma = 0.5
    try:
        later = script.make_run_dirs(args)
        assert not set(later) & set(run_dirs)
    except SystemExit as stop:
        assert stop.code == 2 and "--run-dir" in capsys.readouterr().err
    assert [(run_dir / "args.json").read_text() for run_dir in run_dirs] == before
