"""benchmark/sweep.py: what it would run, one attempt of one run, and whole sweeps with kills.

Where Ray is installed, whole sweeps are run on it, too: make test-sweep does that.
"""

import dataclasses
import importlib.util
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import stress_resume
import sweep
import torch
from conftest import ROOT

import ftfl

NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
TASK = "InvertedPendulum-v5"


def plan(folder, *passed, **flags):
    return sweep.plan(sweep.Args(run_dir=str(folder), **flags), passed)


def run_sweep(folder, *words):
    command = [sys.executable, ROOT / "benchmark/sweep.py", "--run-dir", folder, *words]
    return subprocess.Popen(
        list(map(str, command)),
        env=stress_resume.ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    """Its output, once it has ended with this exit code."""
    out, error = process.communicate(timeout=400)
    assert process.returncode == code and "Traceback" not in error, out + error[-3000:]
    return out + error


def save_checkpoint(folder, step, name="run"):
    (folder / name).mkdir(parents=True)
    torch.save({"step": step, "buffer": torch.zeros(100)}, folder / name / "checkpoint.pt")
    return folder / name


# ---------------------------------------- What is to be run
@pytest.mark.parametrize("preset", sweep.PRESETS)
def test_a_preset_makes_commands_that_the_scripts_understand(preset, tmp_path):
    runs = plan(tmp_path, preset=preset)
    data = sweep.PRESETS[preset]
    processes = len(data["seeds"]) // data.get("num_seeds", 1)
    assert len(runs) == len(data["algos"]) * len(data["tasks"]) * processes
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs[::processes]:
        python, script, *words = sweep.command(run)
        assert python == sys.executable and script == str(ROOT / f"{run.script}.py")
        flags = dataclasses.asdict(sweep.PROGRAMS[run.script].parse_args(words))
        assert flags | {"run_dir": run.flags["run_dir"]} == run.flags
        assert flags["run_dir"] == str(run.folder)
    if preset == "paper":
        assert_the_papers({run.name: run for run in runs})


def assert_the_papers(runs):
    assert len(runs) == 13 * 4 * 6
    run = runs["tuned/dm_control-humanoid-stand-v0/seed6"]
    assert (run.script, run.flags["model_hidden_dim"], run.flags["total_timesteps"]) == ("ftfl", 400, 500_000)
    assert runs["sac/Ant-v5/seed1"].flags["total_timesteps"] == 300_000
    defaults = dataclasses.asdict(ftfl.Args(env_id="Ant-v5", seed=2, device="cpu", total_timesteps=300_000))
    assert runs["ftfl/Ant-v5/seed2"].flags == defaults


def test_the_switches_of_the_ablation(tmp_path):
    runs = plan(tmp_path, algos=("tun", "dnp", "ftfl"), tasks=(TASK,), seeds=(1,))
    switches = [(run.flags["target_normalization"], run.flags["next_state_prediction"]) for run in runs]
    assert switches == [(True, "residual"), (False, "direct"), (True, "direct")]


def test_the_decisive_runs_have_six_seeds_each_and_the_defaults(tmp_path):
    runs = {run.name.split("/")[0]: run for run in plan(tmp_path, preset="decisive", gpus=1)}
    assert list(runs) == ["ftfl", "mbpo", "mbpo-bounds", "ftfl-beta", "sac"]
    for name, run in runs.items():
        own = {"mbpo-bounds": {"learned_logvar_bounds": True}, "ftfl-beta": {"nll_beta": 0.5}}.get(name, {})
        about = {"env_id": "dm_control/humanoid-stand-v0", "num_seeds": 6, "device": "cuda"}
        about |= {"total_timesteps": 150_000} | own
        assert run.flags == dataclasses.asdict(sweep.PROGRAMS[run.script].Args(**about))


def test_flags_after_the_dashes_reach_the_scripts_that_have_them(tmp_path):
    """They count more than the preset's, and less than what makes an algorithm what it is."""
    passed = "--utd-ratio 7 --model_train_steps=30 --model-hidden-dim 32 --critic-layer-norm".split()
    kind = {"preset": "smoke", "algos": ("sac", "tuned"), "tasks": ("Hopper",)}
    sac, tuned = plan(tmp_path, *passed, **kind)
    assert sac.flags["utd_ratio"] == tuned.flags["utd_ratio"] == 7
    assert "--model-train-steps" not in sac.words and sac.words.count("--utd-ratio") == 1
    assert tuned.flags["model_train_steps"] == 30 and tuned.flags["model_hidden_dim"] == 400
    assert sac.flags["critic_layer_norm"] and tuned.flags["critic_layer_norm"]
    assert sac.name == "sac/Hopper-v5/seed1" and sac.flags["total_timesteps"] == 300


def test_seeds_side_by_side_and_gpus(tmp_path):
    kind = {"algos": ("sac",), "tasks": (TASK,), "seeds": (4, 3, 1, 2), "num_seeds": 2, "gpus": 0.5}
    try:
        runs = plan(tmp_path, **kind)
    except SystemExit:
        pytest.fail("a machine without a GPU may plan for one that has it")
    assert [run.folder.name for run in runs] == ["seed1-2", "seed3-4"]
    assert [(run.flags["seed"], run.flags["num_seeds"], run.flags["device"]) for run in runs] == [
        (1, 2, "cuda"),
        (3, 2, "cuda"),
    ]


GOOD = {"algos": ("sac",), "tasks": (TASK,), "seeds": (1, 2)}


@pytest.mark.parametrize("flags, passed, named", [
    ({"preset": "big"}, [], "--preset big"),
    ({}, [], "--algos"),
    (GOOD | {"tasks": ()}, [], "--tasks"),
    (GOOD | {"seeds": (1, 1)}, [], "--seeds"),
    (GOOD | {"algos": ("sac", "ppo")}, [], "--algos ppo"),
    (GOOD | {"tasks": (TASK, "Nothing-v0")}, [], "--env-id Nothing-v0"),
    (GOOD | {"algos": ("ftfl",), "tasks": ("InvertedDoublePendulum-v5",)}, [], "termination_rule"),
    (GOOD | {"num_seeds": -1}, [], "--num-seeds -1"),
    (GOOD | {"seeds": (1, 3), "num_seeds": 2}, [], "--num-seeds 2"),
    (GOOD | {"seeds": (1, 2, 3), "num_seeds": 2}, [], "--num-seeds 2"),
    (GOOD | {"cpus": 0}, [], "--cpus"),
    (GOOD | {"cpus": float("nan")}, [], "--cpus"),
    (GOOD | {"cpus": 1e-5}, [], "--cpus"),
    (GOOD | {"gpus": -1}, [], "--gpus"),
    (GOOD | {"gpus": 1.5}, [], "--gpus"),
    (GOOD | {"jobs": -1}, [], "--jobs"),
    (GOOD | {"export": True}, [], "--export"),
    ({"rows": ("nothing",)}, [], "--rows nothing"),
    ({"rows": ("critics-ftfl",), "preset": "smoke"}, [], "--preset"),
    ({"rows": ("critics-ftfl",), "seeds": (7,)}, [], "--seeds 7"),
    ({"rows": ("critics-ftfl",), "export": True}, ["--utd-ratio", "1"], "--utd-ratio"),
    ({"rows": ("critics-ftfl",)}, ["--utd-ratio", "0"], "--utd-ratio"),
    (GOOD | {"seeds": (-1, 1)}, [], "--seeds"),
    (GOOD | {"seeds": (1, 5_000_000_000)}, [], "--seeds"),
    (GOOD | {"tasks": (TASK, TASK[:-3])}, [], "--tasks"),
    (GOOD, ["--num-threads", "0"], "--num-threads"),
    (GOOD, ["--seed", "3"], "--seed"),
    (GOOD, ["--run_dir=x"], "--run-dir"),
    (GOOD, ["3", "--utd-ratio"], "3"),
    (GOOD, ["--utd-ratio", "0"], "--utd-ratio"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(flags, passed, named, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        plan(tmp_path / "runs", *passed, **flags)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1 and named in error
    assert not list(tmp_path.iterdir())


def test_a_folder_with_runs_of_other_flags_is_refused(tmp_path, capsys):
    """But not one whose runs may go on so: longer, on another device, or with more checkpoints."""
    (run,) = plan(tmp_path, algos=("sac",), tasks=(TASK,), seeds=(1,))
    folder = run.folder / "there"
    folder.mkdir(parents=True)
    (folder / "args.json").write_text(sweep.json.dumps(run.flags | {"script": "sac"}))
    passed = "--total-timesteps 600000 --checkpoint-interval 7".split()
    plan(tmp_path, *passed, algos=("sac",), tasks=(TASK,), seeds=(1, 2))
    for flags, passed, named in [
        ({"seeds": (1,)}, ["--utd-ratio", "3"], "sac's --utd-ratio is 3, but was 20"),
        ({"seeds": (1, 2), "num_seeds": 2}, [], "sac's --num-seeds is 2, but was 1"),
    ]:
        with pytest.raises(SystemExit):
            plan(tmp_path, *passed, algos=("sac",), tasks=(TASK,), **flags)
        assert named in capsys.readouterr().err
    others = {"algos": ("ftfl", "tun", "tuned"), "tasks": (TASK,), "seeds": (1,)}
    plan(tmp_path, *passed, **others)  # their model's flags are others than SAC's, which has none
    with pytest.raises(SystemExit):
        plan(tmp_path, *passed, "--critic-layer-norm", **others)
    assert "ftfl's --critic-layer-norm is True, but was False" in capsys.readouterr().err
    plan(tmp_path, "--critic-layer-norm", **others | {"tasks": ("Hopper-v5",)})  # no figure has both
    (tuned,) = plan(tmp_path, *passed, **others | {"algos": ("tuned",)})
    (tuned.folder / "there").mkdir(parents=True)
    (tuned.folder / "there/args.json").write_text(sweep.json.dumps(tuned.flags))
    plan(tmp_path, *passed, **others)  # 400 wide is what makes it "tuned"
    (folder / "args.json").write_text("")  # killed while it was written
    (tuned.folder / "there/args.json").unlink()
    plan(tmp_path, "--utd-ratio", "3", algos=("sac",), tasks=(TASK,), seeds=(1,))


def test_the_folder_is_named_by_the_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [({"preset": "smoke"}, "smoke"), (GOOD, "sweep"), (GOOD | {"run_dir": "x"}, "../x")]
    for flags, folder in [*named, ({"rows": ("critics-ftfl",)}, "rows")]:
        assert sweep.plan(sweep.Args(**flags))[0].run_dir == (tmp_path / "runs" / folder).resolve()


def test_the_estimate(tmp_path, monkeypatch):
    """An update takes 0.1 s, the rest of a step 0.01 s, or 0.4 s with 20 gradient steps of the model."""
    for script, else_ in {"sac": 0.01, "ftfl": 0.4}.items():
        monkeypatch.setitem(sweep.RATES, ("walker", script), (1 / (else_ + 0.1), 1 / (else_ + 2)))
        monkeypatch.setitem(sweep.RATES, ("humanoid", script), (0.5 / (else_ + 0.1), 0.5 / (else_ + 2)))
    kind = {"algos": ("sac", "ftfl"), "tasks": ("Hopper-v5", "Humanoid-v5"), "seeds": (1, 2)}
    passed = "--total-timesteps 1100 --learning-starts 100 --utd-ratio 5 --model-train-steps 500".split()
    found = {run.name: sweep.seconds(run) for run in plan(tmp_path, *passed, **kind)}
    assert found["sac/Hopper-v5/seed2"] == pytest.approx(1000 * (0.01 + 5 * 0.1))
    assert found["ftfl/Hopper-v5/seed1"] == pytest.approx(1000 * (0.4 * 2 / 20 + 5 * 0.1))
    assert found["ftfl/Humanoid-v5/seed1"] == pytest.approx(2 * found["ftfl/Hopper-v5/seed1"])
    (tuned,) = plan(tmp_path, *passed, algos=("tuned",), tasks=("Hopper-v5",), seeds=(1,))
    assert sweep.seconds(tuned) == pytest.approx(1000 * (sweep.WIDE * 0.4 * 2 / 20 + 5 * 0.1))
    pair = plan(tmp_path, *passed, num_seeds=2, **kind)[0]
    assert sweep.seconds(pair) == pytest.approx(2 * found["sac/Hopper-v5/seed1"])


def test_the_rates_are_those_of_the_readme():
    text = (ROOT / "benchmark/README.md").read_text()
    for task, env_id in {"walker": "walker-walk", "humanoid": "humanoid-stand"}.items():
        row = re.search(rf"\| 1 \| {env_id} \| (.*) \|", text)[1].split(" | ")
        named = [sweep.RATES[task, script] for script in ("sac", "mbpo", "ftfl")]
        assert [float(x) for x in row[:6]] == [rate for pair in named for rate in pair]


def test_dry_run_prints_what_is_left_and_what_it_costs(tmp_path, capsys):
    flags = {"algos": ("sac",), "tasks": (TASK,), "seeds": (1, 2, 3), "run_dir": str(tmp_path)}
    first, second, third = sweep.plan(sweep.Args(**flags))
    save_checkpoint(first.folder, 500_000)
    run_dir = save_checkpoint(second.folder, 1000)
    sweep.main(sweep.Args(**flags, dry_run=True))
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert commands == [sweep.command(second), sweep.command(third)]
    assert commands[0][-2:] == ["--resume", str(run_dir)]
    assert commands[1][-2:] == ["--run-dir", str(third.folder)]
    assert lines[-4] == "# 2 runs, and 1 that are complete"
    assert f"{2 * sweep.seconds(first) / 3600:,.1f} core-hours" in lines[-3]
    assert lines[-1].startswith(f"# {sweep.seconds(first) / 3600:,.1f} hours at least")
    for run in (second, third):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "log.txt").write_text("sac: 60%|# | 300000/500000 [00:02<00:06, 1s/step]")
    sweep.main(sweep.Args(**flags, dry_run=True))
    assert f"\n# {0.4 * sweep.seconds(first) / 3600:,.1f} hours at least" in capsys.readouterr().out


def test_the_longest_runs_begin_first(tmp_path, capsys):
    flags = {"algos": ("sac", "ftfl", "tuned"), "tasks": (TASK,), "seeds": (1, 2), "run_dir": str(tmp_path)}
    sweep.main(sweep.Args(**flags, dry_run=True))
    folders = [line.split("/")[-3:] for line in capsys.readouterr().out.splitlines() if line[0] != "#"]
    assert [f"{folder[0]} {folder[2]}" for folder in folders] == [
        f"{algo} seed{k}" for algo in ("tuned", "ftfl", "sac") for k in (1, 2)
    ]


# ---------------------------------------- One run
def test_what_counts_as_complete_and_as_partial(tmp_path):
    (run,) = plan(tmp_path, "--total-timesteps", "50000", algos=("sac",), tasks=(TASK,), seeds=(1,))
    assert sweep.progress(run.folder) == (0, None) and not sweep.is_complete(run)
    (run.folder / "begun").mkdir(parents=True)
    assert sweep.progress(run.folder) == (0, None)
    partial = save_checkpoint(run.folder, 49_999, "partial")
    assert sweep.progress(run.folder) == (49_999, partial) and not sweep.is_complete(run)
    complete = save_checkpoint(run.folder, 50_000, "complete")
    assert sweep.progress(run.folder) == (50_000, complete) and sweep.is_complete(run)
    damaged = run.folder / "damaged/checkpoint.pt"
    damaged.parent.mkdir()
    damaged.write_bytes((complete / "checkpoint.pt").read_bytes()[:200])
    assert sweep.progress(run.folder) == (50_000, complete)
    shutil.rmtree(complete)
    shutil.rmtree(partial)
    assert sweep.progress(run.folder) == (0, damaged.parent), "the script says what is wrong with it"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A run whose script is a line of Python. Returns (run, function that sets the line)."""
    (run,) = plan(tmp_path, algos=("sac",), tasks=(TASK,), seeds=(1,))

    def script(code):
        monkeypatch.setattr(sweep, "command", lambda run: [sys.executable, "-c", code])

    return run, script


@pytest.mark.parametrize("code, attempts", [(0, 1), (1, 3), (2, 1), (143, 3)])
def test_a_failure_is_retried_twice_and_a_mistake_is_not(code, attempts, fake):
    run, script = fake
    script(f"import sys; print('what is wrong'); sys.exit({code})")
    assert sweep.attempt(run) == code
    assert sweep.end_of_log(run).count("what is wrong\n") == attempts


def test_a_beginning_without_a_checkpoint_is_removed_and_one_with_it_kept(fake):
    run, script = fake
    (run.folder / "begun").mkdir(parents=True)
    script("")
    sweep.attempt(run)
    assert sorted(path.name for path in run.folder.iterdir()) == ["lock", "log.txt"]
    save_checkpoint(run.folder, 10, "partial")
    (run.folder / "second-seed").mkdir()
    sweep.attempt(run)
    assert (run.folder / "partial").exists() and (run.folder / "second-seed").exists()


def test_a_run_completed_by_another_attempt_is_not_run_again(fake):
    run, script = fake
    script("print('again')")
    save_checkpoint(run.folder, 500_000)
    assert sweep.attempt(run) == 0 and sweep.end_of_log(run) == ""


# A worker of Ray's, as far as a run can see: it waits for its script in the main thread
WORKER = """import pickle, sys
sys.path.insert(0, "benchmark")
import sweep
run, code = pickle.load(sys.stdin.buffer)
sweep.command = lambda run: [sys.executable, "-c", code]
sys.exit(sweep.attempt(run))"""


def start_worker(run, code):
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, cwd=ROOT)
    worker.stdin.write(pickle.dumps((run, code)))
    worker.stdin.close()
    return worker


def output(run):
    """What its scripts printed; their commands stand in the log, too."""
    return [line for line in sweep.end_of_log(run).splitlines() if line in ("begins", "ends", "another")]


def wait_for(condition, seconds=120):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "it took too long"
        time.sleep(0.05)


# Writes its name, then works on until it is told to stop, and needs a second for its checkpoint
SLOW = """import os, signal, sys, time
def stop(*_):
    time.sleep(1); print("ends", flush=True); sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("begins", flush=True)
time.sleep(60)"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_script_ends_with_its_worker_and_no_other_attempt_begins_before(fake):
    run, script = fake
    worker = start_worker(run, SLOW)
    wait_for(lambda: "begins" in output(run))
    assert sweep.is_running(run)
    worker.kill()
    worker.wait()
    script("print('another')")
    assert sweep.attempt(run) == 0
    assert output(run) == ["begins", "ends", "another"]
    assert not sweep.is_running(run)


# A worker of Ray's, as far as code is concerned: it gets what sweep.py, as a program, pickles, and has none
# of this folder's modules
PICKLED = """import sys, cloudpickle
_, __file__, run_dir = sys.argv
exec(open(__file__).read().split('if __name__ == "__main__"')[0])
(run,) = plan(Args(algos=("sac",), tasks=("InvertedPendulum-v5",), seeds=(1,), run_dir=run_dir))
sys.stdout.buffer.write(cloudpickle.dumps((attempt, run)))"""
LOADED = """import pickle, sys
attempt, run = pickle.load(sys.stdin.buffer)
sys.exit(attempt(run))"""


def test_what_a_worker_of_ray_gets_is_whole(tmp_path):
    """Ray pickles as cloudpickle does. The run is complete, so that the worker only looks at it."""
    save_checkpoint(tmp_path / "sac/InvertedPendulum-v5/seed1", 500_000)
    words = [sys.executable, "-c", PICKLED, ROOT / "benchmark/sweep.py", tmp_path]
    sent = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd="/").stdout
    subprocess.run([sys.executable, "-c", LOADED], input=sent, check=True, cwd="/")


def test_an_interrupt_from_ray_ends_the_script_in_order(fake):
    run, _ = fake
    worker = start_worker(run, SLOW)
    wait_for(lambda: "begins" in output(run))
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) != 0
    assert output(run) == ["begins", "ends"] and not sweep.is_running(run)


def test_the_share_done_is_that_of_the_last_progress_bar(fake):
    run, _ = fake
    run.flags["total_timesteps"] = 1000
    assert sweep.share_done(run) == 0
    run.folder.mkdir(parents=True)
    (run.folder / "log.txt").write_text(
        "sac:  1%| | 10/1000 [00:01<00:02]\rsac: 25%|# | 250/1000 [00:02<00:06, 1s/step]"
    )
    assert sweep.share_done(run) == 0.25
    with open(run.folder / "log.txt", "a") as log:
        print("\rmodel:  80%|8 | 1600/2000 [00:09<00:02]" * 100, file=log)
    assert sweep.share_done(run) == 0.25, "a training of the model is no share of the run"
    run.flags["total_timesteps"] = 5000
    assert sweep.share_done(run) == 0.05, "it goes on to more steps than the bar was for"
    run.flags["total_timesteps"] = 100
    assert sweep.share_done(run) == 1


def test_the_time_left_is_that_of_the_runs_that_have_not_failed(tmp_path, capsys, monkeypatch):
    runs = plan(tmp_path, algos=("sac",), tasks=(TASK,), seeds=(1, 2, 3))
    names = [run.name for run in runs]
    shares = dict(zip(names, (0.9, 0.1, 1)))
    monkeypatch.setattr(sweep, "share_done", lambda run: shares[run.name])
    monkeypatch.setattr(sweep, "seconds", lambda run: 100)
    before = sweep.work_done(runs, {names[2]})
    assert before == dict(zip(names, (90, 10, 100)))
    sweep.show(runs, {names[2]}, {}, 600, before)
    shares[names[1]] = 0.4
    sweep.show(runs, {names[2]}, {names[0]: "it failed"}, 600, before)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1:] == ["0", "2", "1", "0", "unknown"]
    assert second.split()[1:] == ["0", "1", "1", "1", "0:20:00"], "30 % took ten minutes, 60 % are left"


def test_only_the_cores_of_this_process_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep.os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    flags = {"algos": ("sac",), "tasks": (TASK,), "seeds": (1,), "run_dir": str(tmp_path)}
    sweep.main(sweep.Args(**flags, dry_run=True))
    assert "days on the 3 cores" in capsys.readouterr().out
    machine = sweep.Machine(sweep.Args(cpus=1.5))
    assert machine.pool._max_workers == 2


def test_gpus_are_shared_as_the_flag_says_and_a_run_sees_one(monkeypatch):
    monkeypatch.setattr(sweep.torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    seen = []
    monkeypatch.setattr(sweep, "attempt", lambda run, environment, _: seen.append(environment) or 0)
    machine = sweep.Machine(sweep.Args(gpus=0.5))
    assert machine.pool._max_workers == 4
    machine.work(None)
    assert seen == [{"CUDA_VISIBLE_DEVICES": "2"}]
    places = [machine.gpus.get() for _ in range(4)]
    assert sorted(places) == ["2", "2", "5", "5"], "the place is free again after a run"


def test_a_node_without_the_sweeps_folder_does_not_make_one_of_its_own(fake, tmp_path):
    run, script = fake
    script("")
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no {tmp_path}")):
        sweep.attempt(run)
    assert not tmp_path.exists()


def test_what_a_node_calls_complete_must_be_so_here(fake):
    run, _ = fake
    assert not sweep.is_seen_complete(run, patience=0)
    save_checkpoint(run.folder, 500_000)
    assert sweep.is_seen_complete(run, patience=0)


# A node's sitecustomize.py: no file can be locked there, as on Lustre without -o flock
NO_LOCKS = """import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock"""


@pytest.fixture
def no_locks(tmp_path_factory):
    """A folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("no_locks")
    (folder / "sitecustomize.py").write_text(NO_LOCKS)
    return str(folder)


def test_a_folder_whose_files_can_not_be_locked_is_one_line(no_locks, tmp_path, fake, monkeypatch):
    monkeypatch.setitem(stress_resume.ENVIRONMENT, "PYTHONPATH", no_locks)
    error = finish(run_sweep(tmp_path / "runs", "--preset", "smoke"), code=2)
    assert f"--run-dir {tmp_path}/runs" in error and "locked" in error and len(error.splitlines()) == 1
    assert not list((tmp_path / "runs").iterdir())
    run, _ = fake
    run.folder.mkdir(parents=True)

    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(sweep.fcntl, "flock", flock)
    assert not sweep.is_running(run)


def test_a_folder_that_cannot_be_made_is_one_line():
    error = finish(run_sweep("/dev/null/runs", "--preset", "smoke"), code=2)
    assert "--run-dir /dev/null/runs" in error and len(error.splitlines()) == 1


def test_without_ray_one_line_says_so(tmp_path):
    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed")
    error = finish(run_sweep(tmp_path / "runs", "--preset", "smoke", "--address", "auto"), code=2)
    assert "requirements-sweep.txt" in error and len(error.splitlines()) == 1


# ---------------------------------------- Whole sweeps
@pytest.fixture(params=["here", pytest.param("on Ray", marks=NEEDS_RAY)])
def place(request):
    """Flags for two runs side by side."""
    if request.param == "here":
        return ["--jobs", "2"]
    return ["--address", request.getfixturevalue("cluster").address]


@pytest.fixture
def cluster():
    """Two nodes of one core each, on this machine."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.second = nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield nodes
    nodes.shutdown()


def assert_whole(runs):
    """Every run is complete, in one run directory, and each number is logged once per interval."""
    for run in runs:
        flags = run.flags
        assert sweep.is_complete(run) and not sweep.is_running(run)
        (run_dir,) = run.folder.glob("*/")
        logged = stress_resume.scalars(run_dir)  # it looks for repeated steps
        first, total, interval = (flags[x] for x in ("learning_starts", "total_timesteps", "log_interval"))
        steps = [step for step in range(first, total + 1) if step % interval == 0]
        assert [step for step, _ in logged["losses/qf_loss"]] == steps
        evaluated = [step for step in range(1, total + 1) if step % flags["eval_interval"] == 0]
        assert [step for step, _ in logged["eval/episodic_return"]] == evaluated


def commands(run):
    """Those that were started, by the log."""
    lines = (run.folder / "log.txt").read_text().splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


LONG = "--total-timesteps 1500 --log-interval 1 --eval-interval 500 --learning-starts 100".split()
TWO = "--preset smoke --algos sac ftfl --tasks".split() + [TASK]


def test_a_sweep_is_run_by_the_commands_of_dry_run_and_only_once(place, tmp_path):
    runs = plan(tmp_path, preset="smoke", algos=("sac", "ftfl"), tasks=(TASK,))
    printed = finish(run_sweep(tmp_path, *TWO, "--dry-run")).splitlines()
    assert not list(tmp_path.iterdir())
    finish(run_sweep(tmp_path, *TWO, *place))
    assert_whole(runs)
    started = [command for run in runs for command in commands(run)]
    assert sorted(started) == sorted(line for line in printed if not line.startswith("#"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    finish(run_sweep(tmp_path, *TWO, *place))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@NEEDS_RAY
def test_the_runs_of_a_killed_node_go_on_elsewhere(cluster, tmp_path):
    runs = plan(tmp_path, *LONG, preset="smoke", algos=("sac", "ftfl"), tasks=(TASK,))
    process = run_sweep(tmp_path, *TWO, "--address", cluster.address, "--", *LONG)
    wait_for(lambda: all(sweep.progress(run.folder)[0] > 100 for run in runs))
    cluster.remove_node(cluster.second, allow_graceful=False)
    finish(process)
    assert_whole(runs)
    counts = sorted(len(commands(run)) for run in runs)
    assert counts == [1, 2], "one run was on the node, the other one not"
    (moved,) = (run for run in runs if len(commands(run)) == 2)
    assert "--resume" in commands(moved)[1]


@NEEDS_RAY
def test_a_node_that_cannot_work_in_the_folder_gets_no_runs_and_loses_none(no_locks, tmp_path):
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1, object_store_memory=100_000_000, env_vars={"PYTHONPATH": no_locks})
    try:
        out = finish(run_sweep(tmp_path, "--preset", "smoke", "--address", nodes.address))
    finally:
        nodes.shutdown()
    assert out.count("What it can't begin goes to other nodes") == 1 and "Function not implemented" in out
    assert_whole(plan(tmp_path, preset="smoke"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_sweep_that_is_told_to_stop_and_one_that_is_killed_go_on(place, tmp_path):
    runs = plan(tmp_path, *LONG, preset="smoke", algos=("sac", "ftfl"), tasks=(TASK,))

    def start(above):
        process = run_sweep(tmp_path, *TWO, *place, "--", *LONG)
        wait_for(lambda: all(sweep.progress(run.folder)[0] > above for run in runs))
        return process

    process = start(100)
    process.send_signal(signal.SIGTERM)
    out = finish(process, code=143)
    assert "waiting for the checkpoints" in out and not any(map(sweep.is_running, runs))
    stopped = [int(re.findall(r"after step (\d+)", sweep.end_of_log(run))[-1]) for run in runs]
    assert stopped == [sweep.progress(run.folder)[0] for run in runs]
    process = start(max(stopped) + 200)
    process.kill()
    process.communicate()
    finish(run_sweep(tmp_path, *TWO, *place, "--", *LONG))
    assert_whole(runs)
    assert [len(commands(run)) for run in runs] == [3, 3]


def test_a_failing_run_does_not_stop_the_others_and_the_exit_code_says_so(place, tmp_path):
    """The model's learning rate breaks MBPO."""
    sac, mbpo = plan(tmp_path, "--model-lr", "1e12", preset="smoke", algos=("sac", "mbpo"), tasks=(TASK,))
    words = f"--preset smoke --algos sac mbpo --tasks {TASK}".split()
    out = finish(run_sweep(tmp_path, *words, *place, "--", "--model-lr", "1e12"), code=1)
    assert_whole([sac])
    assert [len(commands(run)) for run in (sac, mbpo)] == [1, 3]
    assert f"{mbpo.name} failed (exit code 1)" in out and "NaN or infinity" in out


NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("words, named", [
    pytest.param(["--address", "127.0.0.1:1"], "--address 127.0.0.1:1", marks=NEEDS_RAY),
    pytest.param(["--gpus", "1"], "--gpus 1", marks=NO_GPU),
    (["--cpus", "9999"], "--cpus 9999"),
])  # fmt: skip
def test_a_machine_that_is_not_there_is_one_line(words, named, tmp_path):
    out = finish(run_sweep(tmp_path / "runs", "--preset", "smoke", *words), code=2)
    assert named in out and len(out.splitlines()) == 1
    assert not list((tmp_path / "runs").iterdir())
