"""benchmark/grid.py: a grid of tiny runs, completed, exported and not run again."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import critics
import grid
import pytest
import sweep
from conftest import ROOT

import plots

FLAGS = "--total-timesteps 60 --learning-starts 30 --utd-ratio 1 --hidden-dim 8 --batch-size 20 "
FLAGS += "--eval-interval 30 --eval-episodes 1 --model-hidden-dim 8 --model-batch-size 8 "
FLAGS += "--model-train-steps 5 --log-interval 10 --model-train-interval 10 --rollouts-per-step 5 "
FLAGS += "--synthetic-buffer-size 100"


@pytest.fixture
def small(tmp_path, monkeypatch):
    task = "InvertedPendulum-v5"
    preset = {"algos": ["sac", "mbpo"], "tasks": [task], "seeds": [1], "flags": FLAGS}
    monkeypatch.setitem(sweep.PRESETS, "laptop", preset)
    return grid.Args(run_dir=str(tmp_path / "runs"), out=str(tmp_path / "out"))


def test_a_grid_is_run_exported_and_not_run_again(small, tmp_path, monkeypatch, capsys):
    grid.main(small)
    names = ["mbpo__InvertedPendulum-v5__seed1.csv", "sac__InvertedPendulum-v5__seed1.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for name, path in zip(("MBPO", "SAC"), sorted((tmp_path / "out").iterdir())):
        (run,) = plots.read_csv(path)
        assert plots.label(run.flags).startswith(name) and ("model/reward_r2" in run.scalars) == (
            name == "MBPO"
        )
        assert run.scalars["eval/episodic_return"][0].tolist() == [30, 60]
        assert str(tmp_path) not in path.read_text()  # a path of this machine
    (tmp_path / "out" / names[0]).unlink()  # complete, but not written down
    monkeypatch.setattr(sweep.subprocess, "Popen", None)
    grid.main(small)
    assert (tmp_path / "out" / names[0]).exists()
    capsys.readouterr()
    small.list = True
    grid.main(small)
    assert capsys.readouterr().out == "2 of 2 runs are complete\n"


def test_seeds_of_one_process_have_a_file_each_and_none_is_overwritten(small, tmp_path):
    small.algos, small.seeds, small.num_seeds = ("sac",), (1, 2), 2
    kept = tmp_path / "out/sac__InvertedPendulum-v5__seed1.csv"
    kept.parent.mkdir()
    kept.write_text("of another machine")
    grid.main(small)
    assert kept.read_text() == "of another machine"
    (run,) = plots.read_csv(tmp_path / "out/sac__InvertedPendulum-v5__seed2.csv")
    assert run.flags["seed"] == 2 and run.flags["num_seeds"] == 2
    assert len(list((tmp_path / "out").iterdir())) == 2 and str(tmp_path) not in run.name


def test_complete_runs_go_on_and_what_they_were_is_not_mixed_with_what_they_are(small, tmp_path, capsys):
    small.algos = ("sac",)
    grid.main(small)
    longer = replace(small, total_timesteps=90, out=str(tmp_path / "longer"))
    grid.main(longer)
    for folder, steps in {"out": [30, 60], "longer": [30, 60, 90]}.items():
        (run,) = plots.load_runs((str(tmp_path / folder / "*.csv"),))
        assert run.scalars["eval/episodic_return"][0].tolist() == steps
    assert len(list((tmp_path / "runs").rglob("args.json"))) == 1  # not begun anew
    path = tmp_path / "out/sac__InvertedPendulum-v5__seed1.csv"
    path.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        grid.main(small)
    said = capsys.readouterr().err
    assert error.value.code == 2 and said.startswith("error: --run-dir") and "90 steps" in said
    assert not path.exists()


def test_quadrupeds_that_land_are_the_agents_alone(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(critics, "landings", lambda *args, **kwargs: called.append((args, kwargs)))
    monkeypatch.setattr(grid, "export_as", lambda *args: called.append(args))
    folder, flags = tmp_path / "RUN0", {"total_timesteps": 60, "seed": 1, "num_seeds": 2}
    flags["run_dirs"] = ["RUN0", "RUN1"]
    about = plots.Run("", flags, {"eval/episodic_return": ([60], [0])})
    monkeypatch.setattr(plots, "read_run_dir", lambda folder: about)
    monkeypatch.setattr(sweep, "progress", lambda _: (60, folder))
    run = sweep.Run("sac/dm_control-quadruped-walk-v0/seed1-2", tmp_path, "sac", [], about.flags)
    grid.export(run, tmp_path)
    for k in (0, 1):
        path = tmp_path / f"sac__dm_control-quadruped-walk-v0__seed{k + 1}.csv"
        assert called[2 * k] == ((tmp_path / "landings" / path.name, str(folder), k), {"policies": ()})
        exported = tmp_path / f"RUN{k}"
        assert called[2 * k + 1] == (path, exported, ("eval/episodic_return",), run.folder, run.name)


def test_another_preset_has_a_folder_of_its_own(small, tmp_path, monkeypatch, capsys):
    flags = FLAGS.replace("--total-timesteps 60", "--total-timesteps 90")
    preset = {"algos": ["sac"], "tasks": ["InvertedPendulum-v5"], "seeds": [2], "flags": flags}
    monkeypatch.setitem(sweep.PRESETS, "hopper", preset)
    grid.main(replace(small, preset="hopper"))
    (run,) = plots.load_runs((str(tmp_path / "out/*.csv"),))
    assert run.flags["seed"] == 2 and run.scalars["eval/episodic_return"][0].tolist() == [30, 60, 90]


def test_what_stands_after_the_dashes_goes_to_the_scripts(small, tmp_path, capsys):
    grid.main(replace(small, algos=("mbpo",)), ["--learned-logvar-bounds", "--gamma", "0.9"])
    (run,) = plots.load_runs((str(tmp_path / "out/*.csv"),))
    assert run.flags["learned_logvar_bounds"] and run.flags["gamma"] == 0.9
    assert {"losses/qf_loss", "model/mse_loss"} <= run.scalars.keys()
    with pytest.raises(SystemExit) as error:
        grid.main(replace(small, out=grid.Args.out), ["--gamma", "0.9"])
    assert error.value.code == 2 and "error: --gamma needs an --out" in capsys.readouterr().err


def test_runs_that_fail_do_not_stop_the_others_and_are_all_reported(small, tmp_path, monkeypatch, capsys):
    def export(run, out):
        raise OSError("no space left")

    small.seeds, small.algos = (1, 2, 3), ("sac",)
    command = sweep.command
    broken = [sys.executable, "-c", "raise SystemExit(2)"]
    monkeypatch.setattr(sweep, "command", lambda run: broken if "seed1" in run.name else command(run))
    with pytest.raises(SystemExit) as error:
        grid.main(small)
    said = capsys.readouterr().err
    assert error.value.code == 1 and "seed1 failed with exit code 2" in said
    assert len(list((tmp_path / "out").glob("*.csv"))) == 2
    monkeypatch.setattr(grid, "export", export)
    (tmp_path / "out/sac__InvertedPendulum-v5__seed3.csv").unlink()
    with pytest.raises(SystemExit) as error:
        grid.main(small)
    said = capsys.readouterr().err
    assert error.value.code == 1 and "seed1 failed" in said and "error: no space left" in said


INTERRUPTED = """import sys
sys.path.insert(0, "benchmark")
import grid, sweep
slow = "import signal, sys, time; end = lambda *_: (print('ends', flush=True), sys.exit(143)); "
slow += "signal.signal(signal.SIGTERM, end); print('begins', flush=True); time.sleep(60)"
sweep.command = lambda run: [sys.executable, "-c", slow]
where = {"run_dir": sys.argv[1] + "/runs", "out": sys.argv[1] + "/out"}
grid.main(grid.Args(algos=("sac",), tasks=("InvertedPendulum-v5",), **where))"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_ctrl_c_stops_what_is_running_and_begins_nothing_else(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log, until = tmp_path / "runs/sac/InvertedPendulum-v5/seed1/log.txt", time.time() + 60
    while not log.exists() or "\nbegins\n" not in log.read_text():
        assert time.time() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130 and len(error.splitlines()) == 1 and "the same command goes on" in error
    while "\nends\n" not in log.read_text():
        assert time.time() < until
        time.sleep(0.1)
    assert not (tmp_path / "runs/sac/InvertedPendulum-v5/seed2").exists()


@pytest.mark.parametrize("flag", ["jobs", "total_timesteps", "preset"])
def test_a_mistake_is_one_line_before_any_run(small, tmp_path, capsys, flag):
    wrong = {
        "jobs": {"jobs": 0},
        "total_timesteps": {"total_timesteps": 90, "out": os.path.relpath(grid.Args.out)},
        "preset": {"preset": "smoke", "out": grid.Args.out},
    }[flag]
    with pytest.raises(SystemExit) as error:
        grid.main(replace(small, **wrong))
    said = capsys.readouterr().err
    assert error.value.code == 2 and said.startswith(f"error: --{flag.replace('_', '-')} ")
    assert not list(tmp_path.iterdir())
