"""benchmark/experiments.py: its rows are what is published, and every one can be run again and exported."""

import csv
import fnmatch
import json
import shlex
import signal
import subprocess
import sys
import time

import evaluate
import export
import interventions
import numpy as np
import pytest
import stress_resume
import sweep
import torch
from conftest import ROOT, make_args
from experiments import MEASURED, ROWS

import plots
import sac

RESULTS = ROOT / "benchmark/results"
RUNS = {run.name: run for run in sweep.plan(sweep.Args(rows=("all",), run_dir="/none"))}


def row_named(name):
    (row,) = (row for row in ROWS if row.full_name == name)
    return row


def test_what_is_published_is_a_row_s_or_measured_on_one_and_every_row_is_published():
    files = {row.file(seed) for row in ROWS for seed in row.seeds}
    there = {str(path.relative_to(RESULTS)) for path in RESULTS.rglob("*.csv")}
    landings = {path for path in there if "/landings/" in path}
    assert {path.replace("landings/", "") for path in landings} <= files
    assert files | landings | set(MEASURED) == there and not files & set(MEASURED)
    assert len({row.full_name for row in ROWS}) == len(ROWS)


def test_every_row_can_be_started_by_its_name(capsys):
    """A dry run of all rows: what it prints are commands that the scripts understand."""
    sweep.main(sweep.Args(rows=("all",), run_dir="/none", dry_run=True))
    *lines, about, _, _, _ = capsys.readouterr().out.splitlines()
    assert len(lines) == len(RUNS) and about == f"# {len(RUNS)} runs, and 0 that are complete"
    parsed = set()
    for line in lines:
        _, program, *words = shlex.split(line)
        folder = words[words.index("--run-dir") + 1]
        run = RUNS[folder.removeprefix("/none/")]
        row = row_named(run.row)
        if row.intervention:
            assert program.endswith("/benchmark/interventions.py")
            assert words[0] == row.intervention and words[0] in interventions.INTERVENTIONS
            program, words = words[1], words[2:]
        assert program.removesuffix(".py").endswith(row.script)
        if row.full_name not in parsed:  # its seeds' commands are alike
            args = sweep.PROGRAMS[row.script].parse_args(words)
            assert args.env_id == row.task and args.run_dir == folder and args.seed in row.seeds
            parsed.add(row.full_name)
    assert parsed == {row.full_name for row in ROWS}


def test_the_flags_of_a_row_are_those_that_its_csv_says():
    """But for what may change when a run goes on, and for flags that are younger than the file."""
    compared = 0
    for run in RUNS.values():
        path = RESULTS / row_named(run.row).file(run.flags["seed"])
        with open(path, newline="") as file:
            first = next(csv.DictReader(file))
        if first.get("tag") != "flags":
            continue
        there = json.loads(first["value"])
        compared += 1
        assert there.get("changed", "") == run.intervention, path
        for name in run.flags.keys() & there.keys() - sweep.MAY_CHANGE:
            assert there[name] == run.flags[name], f"{path}: {name}"
    assert compared == 90 + 33 + 12 + 6 + 9 + 3 + 30 + 12 + 6 + 3


YOUNGER = {"losses/qf_loss", "losses/entropy", "model/mse_loss"}
LACKING = {  # what benchmark/results/README.md says that files lack: most of it was not exported yet
    "grid/*__InvertedPendulum-v5__*": YOUNGER,
    "grid*/*__dm_control-quadruped-walk-v0__*": YOUNGER,
    "grid/[!d]*__dm_control-finger-spin-v0__*": YOUNGER,
    "bounds/*__Hopper-v5__*": {"losses/entropy"},
    "grid/[sm]*__InvertedPendulum-v5__seed1.csv": {"losses/qf1_values"},
    "grid/ftfl__dm_control-finger-spin-v0__seed3.csv": {"model/reward_r2"},  # it has seen no reward
}


def test_every_file_of_a_kind_has_the_tags_of_that_kind():
    rows = {row.file(seed): row for row in ROWS for seed in row.seeds if not row.together}
    for name, row in rows.items():
        path = RESULTS / name
        if not name.startswith(("grid", "hopper", "bounds", "oracle", "beta")) or not path.exists():
            continue  # whether it is there is another test's question
        wanted = set(export.tags_of(row)) | {"flags"}
        if row.script == "sac" or row.intervention == "oracle":
            wanted = {tag for tag in wanted if not tag.startswith(("model/", "rewards/"))}
        for pattern, tags in LACKING.items():
            wanted -= tags if fnmatch.fnmatch(name, pattern) else set()
        with open(path, newline="") as file:
            assert {line["tag"] for line in csv.DictReader(file)} == wanted, name


def test_what_the_names_of_rows_say():
    for run in RUNS.values():
        row, flags = row_named(run.row), run.flags
        if row.folder in ("critics", "studies"):
            assert flags.get("critic_layer_norm", False) == ("-norm" in row.name)
            assert flags.get("learned_logvar_bounds", False) == row.name.endswith("-bounds")
            assert ("cuda" in flags["device"]) == row.name.endswith("-gpu")
        if "-paper" in row.name and row.folder == "critics":  # the scripts' defaults
            assert flags["utd_ratio"] == 20 and "model" not in row.flags
        if row.script == "model_study":
            steps = 5_000 if "rewarded2" in row.name else 20_000 if "-beta" in row.name else 50_000
            assert (flags["steps"], flags["collect"]) == (steps, 10_000)
            assert flags["nll_beta"] == (0.5 if row.name.endswith("-beta0.5") else 0)
            assert bool(run.needs) == row.name.startswith("rewarded")


def test_a_name_is_that_row_or_all_that_begin_so():
    names = [run.name for run in sweep.plan(sweep.Args(rows=("critics-ftfl",)))]
    assert names == ["critics-ftfl/seed1-3"]
    names = [run.name for run in sweep.plan(sweep.Args(rows=("critics-ftfl-", "critics-ftfl"), seeds=(1,)))]
    assert "critics-ftfl/seed1-3" in names and "critics-ftfl-norm/seed1-3" in names
    assert "critics-ftfl-long-seeds23/seed2-3" not in names
    runs = sweep.plan(sweep.Args(rows=("studies-Walker2d-ftfl",), num_seeds=3, gpus=1))
    assert [(run.name, run.flags["device"]) for run in runs] == [("studies-Walker2d-ftfl/seed1-3", "cuda")]
    runs = sweep.plan(sweep.Args(rows=("studies-rewarded-ftfl",), seeds=(2,)))
    assert [run.name for run in runs] == ["studies-rewarded-ftfl/seed2", "studies-sac/seed1"], "with its data"


# ---------------------------------------- One of each kind, run
SMALL = "--total-timesteps 1050 --learning-starts 1000 --utd-ratio 1 --hidden-dim 8 --batch-size 20 "
SMALL += "--model-hidden-dim 8 --model-batch-size 16 --model-train-steps 5 --model-train-interval 25 "
SMALL += "--rollouts-per-step 5 --synthetic-buffer-size 500 --eval-interval 500 --eval-episodes 1 "
SMALL += "--log-interval 10 --checkpoint-interval 20 --steps 20 --no-compile"
KINDS = ["critics-ftfl-cut", "oracle-finger-spin-true-rewards", "hopper-sac__Hopper-v5", "pilots-finger-spin"]
KINDS += ["studies-rewarded-ftfl-fixed", "studies-sac"]  # the last one is there because the other needs it


def lines_of(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_row_of_each_kind_is_run_interrupted_resumed_exported_and_read(tmp_path, monkeypatch):
    words = ["--rows", *KINDS[:-1], "--seeds", "1", "--jobs", "2", "--run-dir", str(tmp_path / "runs")]
    words += ["--export", "--out", str(tmp_path / "out"), "--", *SMALL.split()]
    command = [sys.executable, str(ROOT / "benchmark/sweep.py"), *words]
    kwargs = {"env": stress_resume.ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    first = subprocess.Popen(command, text=True, **kwargs)
    while not (begun := list(tmp_path.glob("runs/*/*/*/checkpoint.pt"))):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=100)
    assert first.returncode == 143 and "the same command goes on" in said
    second = subprocess.run(command, text=True, timeout=400, **kwargs)
    assert second.returncode == 0 and f"{len(KINDS)} runs complete, 0 failed" in second.stdout
    assert "--resume" in (begun[0].parents[1] / "log.txt").read_text()

    rows = [row_named(name) for name in KINDS]
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.csv")}
    assert written == {row.file(1) for row in rows}
    for row in rows:
        found, published = (lines_of(folder / row.file(1)) for folder in (tmp_path / "out", RESULTS))
        assert found[0][: len(published[0])] == published[0], "the columns, some of which are younger"
        assert len(found) > 1 and all(len(line) == len(found[0]) for line in found)
    steps = {name: [line[:2] for line in lines_of(tmp_path / f"out/{name}.csv")[1:]] for name in
             ("critics/ftfl-cut", "studies/sac", "studies/rewarded-ftfl-fixed__1")}  # fmt: skip
    logged = [str(step) for step in range(1000, 1051, 10)]
    assert [step for seed, step in steps["critics/ftfl-cut"] if seed == "2" and step in logged] == logged
    assert [step for step, _ in steps["studies/sac"]] == ["500", "1000", "1050"]
    assert [step for step, _ in steps["studies/rewarded-ftfl-fixed__1"]] == ["10", "20"]
    pilot = lines_of(tmp_path / "out/pilots.csv")[1]
    assert pilot[0] == "dm_control/finger-spin-v0" and float(pilot[1]) >= 0 and pilot[2] == ""

    labels = {"oracle/finger-spin/true-rewards__seed1": "MBPO, width 8, true-rewards"}
    labels |= {"hopper/sac__Hopper-v5__seed1": "SAC"}
    for name, label in labels.items():
        path = tmp_path / f"out/{name}.csv"
        (run,) = plots.load_runs((str(path),))
        assert plots.label(run.flags) == label and str(tmp_path) not in path.read_text()
        assert run.scalars["eval/episodic_return"][0].tolist() == [500, 1000, 1050]
        tags = set(export.ORACLE if "oracle" in name else export.RETURNS)
        if label == "SAC":
            tags = {tag for tag in tags if not tag.startswith(("model/", "rewards/"))}
        assert tags - {"model/reward_r2"} <= run.scalars.keys() <= tags, "no reward, no R2"
    about = [json.loads(path.read_text()) for path in tmp_path.glob("runs/critics-ftfl-cut/*/*/args.json")]
    assert [flags["changed"] for flags in about] == ["cut"] * 3

    (tmp_path / "out/studies/sac.csv").unlink()  # complete, but not written down: it is, and nothing is run
    monkeypatch.setattr(sweep, "run_script", None)
    monkeypatch.setattr(sweep.signal, "signal", lambda *_: None)
    args = sweep.Args(
        ("studies-sac",), run_dir=str(tmp_path / "runs"), export=True, out=str(tmp_path / "out")
    )
    with pytest.raises(SystemExit) as end:
        sweep.main(args, SMALL.split())
    assert end.value.code == 0 and (tmp_path / "out/studies/sac.csv").exists()


def fake_runs(tmp_path, monkeypatch, codes):
    """studies-rewarded-ftfl and the run that it needs, whose scripts are lines of Python."""
    run, _ = sweep.plan(sweep.Args(rows=("studies-rewarded-ftfl",), seeds=(1,), run_dir=str(tmp_path)))

    def command(run):
        return [sys.executable, "-c", codes[run.script]]

    monkeypatch.setattr(sweep, "command", command)
    return run


def test_a_fit_begins_after_the_run_that_it_needs_and_not_without_it(tmp_path, monkeypatch):
    codes = {"sac": "raise SystemExit(2)", "model_study": "print('fitted')"}
    run = fake_runs(tmp_path, monkeypatch, codes)
    assert sweep.attempt(run) == 2 and not run.folder.exists()
    (run.needs.folder / "run").mkdir()
    torch.save({"step": 200_000}, run.needs.folder / "run/checkpoint.pt")
    assert sweep.attempt(run) == 0 and "fitted" in sweep.end_of_log(run)
    monkeypatch.undo()
    words = sweep.command(run)
    assert words[words.index("--buffer") + 1] == str(run.needs.folder / "run")


def test_a_fit_that_was_killed_begins_again_and_one_that_is_complete_does_not(tmp_path, monkeypatch):
    codes = {"sac": "", "model_study": "print('fitted')"}
    run = fake_runs(tmp_path, monkeypatch, codes)
    run.needs = None
    (run.folder / "begun").mkdir(parents=True)
    assert not sweep.is_complete(run)
    assert sweep.attempt(run) == sweep.attempt(run) == 0 and sweep.is_complete(run)
    assert not (run.folder / "begun").exists() and sweep.end_of_log(run).count("fitted\n") == 1
    run.flags["steps"] += 1
    assert not sweep.is_complete(run), "it is to be longer"
    with open(run.folder / "log.txt", "a") as log:
        log.write("random dm_control/humanoid-stand-v0: 90%| | 9/10 [\rmodel: 25%|# | 12500/50000 [00:02<")
    assert sweep.share_done(run) == pytest.approx(0.25, abs=1e-3)


# ---------------------------------------- What is written
def test_no_csv_is_written_of_a_run_of_another_length_and_the_sweep_says_so(tmp_path, monkeypatch):
    run = RUNS["hopper-sac__Hopper-v5/seed1"]
    monkeypatch.setattr(run, "run_dir", tmp_path)
    (run.folder / "run").mkdir(parents=True)
    flags = run.flags | {"script": "sac"}
    (run.folder / "run/args.json").write_text(json.dumps(flags))
    logged = plots.Run(str(run.folder / "run"), flags, {"eval/episodic_return": ([20_000, 25_000], [1, 2])})
    monkeypatch.setattr(plots, "read_run_dir", lambda folder: logged)
    assert "25000 steps, not 20000" in sweep.write_csv(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_can_not_be_written_whole_replaces_nothing(tmp_path):
    path = tmp_path / "a/b.csv"
    with export.whole(path) as writer:
        writer.writerow([1])
    with pytest.raises(ZeroDivisionError), export.whole(path) as writer:
        writer.writerow([2])
        1 / 0
    assert path.read_text() == "1\n" and len(list(path.parent.iterdir())) == 1


def test_a_pilot_s_line_is_what_the_run_logged_and_other_lines_stay(tmp_path):
    row = row_named("pilots-finger-spin")
    episodes = (np.array([1000, 10_000, 11_000]), np.array([1.0, 2.0, 900.0]))
    scalars = {"charts/episodic_return": episodes}
    for scale in (1, 2):
        steps = [5_000, 10_000, 25_000, 30_000]
        scalars["eval/episodic_return"] = (steps, [scale * step / 1000 for step in steps])
        run = plots.Run("", {"seed": 1, "learning_starts": 10_000}, scalars)
        (tmp_path / "pilots.csv").write_text((RESULTS / "pilots.csv").read_text())
        export.write_pilot(row, [run], tmp_path)
    found, published = lines_of(tmp_path / "pilots.csv"), lines_of(RESULTS / "pilots.csv")
    (line,) = (line for line in found if line[0] == row.task)
    assert [float(x) for x in line[1:]] == [1.5, 10, 20, 50, 60]
    assert [x for x in found if x != line] == [x for x in published if x[0] != row.task]


def test_landings_are_those_of_the_agent_with_that_number(tmp_path, monkeypatch):
    args = make_args(sac, num_seeds=2, env_id="dm_control/quadruped-walk-v0")
    agent = sac.SAC(78, 12, args)
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter[1].zero_()  # the second one's mean action is 0
    monkeypatch.setattr(evaluate, "load", lambda run: (sac, args, agent, 0))
    monkeypatch.setattr(export, "LANDING_EPISODES", 1)
    export.write_landings(tmp_path / "landings.csv", tmp_path, 1)
    found = lines_of(tmp_path / "landings.csv")
    published = lines_of(RESULTS / "critics/landings.csv")  # of the policy without action, too
    (none,) = (line for line in published if line[:2] == ["none", "1"])
    assert found[0] == published[0] and found[1][0] == "agent"
    assert [float(x) for x in found[1][1:]] == pytest.approx([float(x) for x in none[1:]], rel=1e-3)


def test_a_row_that_was_on_a_gpu_is_not_begun_without_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        sweep.main(sweep.Args(rows=("critics-ftfl-paper-gpu",), run_dir=str(tmp_path / "runs")))
    said = capsys.readouterr().err
    assert (
        error.value.code == 2 and said.startswith("error: --rows critics-ftfl-paper-gpu") and "--gpus" in said
    )
    assert not list(tmp_path.iterdir())
