"""Kill a run with SIGKILL at random moments, resume it each time, and compare it with a run never killed.

    python tests/stress_resume.py --kills 20             # all three scripts, a DMC and a Gym task each

Every second kill waits for a checkpoint that is just being written, and the environments then go on in worker
processes. Prints one line per run; the exit code is 1 if any number differs, of those logged or of those in
the last checkpoint (networks, optimizers, buffers, random numbers). CPU, one thread: only there are two runs
with the same seed equal to the last bit.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # warns that steps of before the kill are dropped
ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = "--hidden-dim 32 --batch-size 32 --eval-episodes 1 --log-interval 1 --device cpu --num-seeds 2"
MODEL = "--model-hidden-dim 32 --model-batch-size 32 --model-train-steps 20 --model-train-interval 100 "
MODEL += "--rollouts-per-step 20 --rollout-schedule 1:3:0:1000 --synthetic-buffer-size 2000"


@dataclass
class Args:
    kills: int = 20  # kills per run
    steps: int = 2500  # environment steps per run
    seed: int = 1  # of the runs, and of the moments of the kills
    scripts: tuple[str, ...] = ("sac", "mbpo", "ftfl")  # which scripts
    env_ids: tuple[str, ...] = ("dm_control/walker-walk-v0", "Hopper-v5")  # which tasks


def flags(script, env_id, steps, seed=1):
    """The command line of one run, without --run-dir."""
    small = SMALL.split() + (MODEL.split() if script != "sac" else [])
    schedule = f"--total-timesteps {steps} --learning-starts 100 --eval-interval 400 --utd-ratio 2"
    schedule += f" --checkpoint-interval 50 --seed {seed}"
    return [str(ROOT / f"{script}.py"), "--env-id", env_id, *small, *schedule.split()]


# runs a script whose checkpoints stay half-finished for a moment, so that a kill can be aimed there
PAUSE = """import os, runpy, sys, time
replace, sys.argv = os.replace, sys.argv[1:]
os.replace = lambda *paths: (time.sleep(0.2), replace(*paths))
runpy.run_path(sys.argv[0], run_name="__main__")"""


def start(command):
    arguments = [sys.executable, "-c", PAUSE, *map(str, command)]
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for the end of a run that must end well."""
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()[-2000:]


def steps_done(run_dir):
    """The step of the checkpoint; 0 before the first."""
    path = run_dir / "checkpoint.pt"
    return torch.load(path, weights_only=True)["step"] if path.exists() else 0


def written_since(path, begin):
    """Is the file there, and not one that an earlier kill has left?"""
    try:
        return path.stat().st_mtime > begin
    except FileNotFoundError:
        return False


def killed_run(command, folder, kills, rng):
    """The directories of a run that is killed and resumed `kills` times; how many kills hit a write."""
    process, hits, begin = start([*command, "--run-dir", folder]), 0, time.time()
    total = int(command[command.index("--total-timesteps") + 1])
    for kill in range(1, kills + 1):
        while not (run_dirs := sorted(folder.glob("*__1__*"))) or (
            steps_done(run_dirs[0]) < total * kill // (kills + 2)
        ):
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            time.sleep(0.1)
        time.sleep(rng.uniform(0, 0.3))
        tmp, until = run_dirs[0] / "checkpoint.tmp", time.time() + 20
        while kill % 2 and not written_since(tmp, begin) and process.poll() is None and time.time() < until:
            time.sleep(0.002)  # a write takes 0.2 s
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it was over before all kills: give it more steps"
        process.stderr.close()
        hits += written_since(tmp, begin)
        workers = "--env-workers" if kill % 2 else "--no-env-workers"
        process, begin = start([command[0], "--resume", run_dirs[0], workers]), time.time()
    finish(process)
    return sorted(folder.iterdir()), hits


def scalars(run_dir):
    """{tag: [(step, value), ...]} but for the speed; no step may be there twice."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "charts/SPS"]
    logged = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}
    for tag, values in logged.items():
        assert len({step for step, _ in values}) == len(values), f"{tag} has a step twice"
    return logged


def numbers(state, name=""):
    """{name: number, text or tensor} of all that is in a checkpoint."""
    if isinstance(state, (dict, list, tuple)):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: x for key, value in pairs for path, x in numbers(value, f"{name}/{key}").items()}
    return {name: state}


def differences(run_dirs, references):
    """What differs between two runs, of any number of seeds; an empty list if nothing does."""
    found = []
    for logged, expected in zip(map(scalars, run_dirs), map(scalars, references), strict=True):
        found += [f"{tag} is logged by one only" for tag in logged.keys() ^ expected.keys()]
        for tag in logged.keys() & expected.keys():
            if logged[tag] != expected[tag]:
                first = next((a for a, b in zip(logged[tag], expected[tag]) if a != b), "one's end")
                lengths = f"{len(logged[tag])} and {len(expected[tag])} values"
                found.append(f"{tag} from {first} on ({lengths})")
    paths = [next(d / "checkpoint.pt" for d in dirs if (d / "checkpoint.pt").exists())
             for dirs in (run_dirs, references)]  # fmt: skip
    state, expected = (numbers(torch.load(path, weights_only=True)) for path in paths)
    found += [f"{name} is in one checkpoint only" for name in state.keys() ^ expected.keys()]
    names = [
        name for name in state.keys() & expected.keys() if not name.startswith(("/flags/", "/run_dirs/"))
    ]
    for name in sorted(names):
        tensor = isinstance(state[name], torch.Tensor)
        if not (torch.equal(state[name], expected[name]) if tensor else state[name] == expected[name]):
            found.append(f"checkpoint{name}")
    return found


def main(args):
    failed = False
    for script in args.scripts:
        for env_id in args.env_ids:
            with tempfile.TemporaryDirectory() as folder:
                begin, command = time.time(), flags(script, env_id, args.steps, args.seed)
                reference = start([*command, "--run-dir", f"{folder}/reference"])
                killed = killed_run(command, Path(folder, "killed"), args.kills, random.Random(args.seed))
                run_dirs, hits = killed
                finish(reference)
                found = differences(run_dirs, sorted(Path(folder, "reference").iterdir()))
                what = "the same numbers to the last bit"
                if found:
                    what = f"{len(found)} differences: {'; '.join(found[:3])}"
                kills = f"{args.kills} kills, {hits} of them in a write"
                print(f"{script} {env_id}: {kills}, {time.time() - begin:.0f} s: {what}", flush=True)
                failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
