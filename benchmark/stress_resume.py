"""Kill a run with SIGKILL at random moments, resume it each time, and compare all that it logged with a run never killed.

    python benchmark/stress_resume.py --kills 20             # all three scripts, a DMC and a Gym task each: 34 minutes

Every second kill waits for a file that is just being written, and after it the environments run in worker processes.
Prints one line per run; the exit code is 1 if any number differs. CPU, one thread: only there are two runs with the same
seed equal to the last bit.
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

import numpy as np
import torch
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # of a resumed run it warns that dropped steps are dropped
ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = "--hidden-dim 32 --batch-size 32 --eval-episodes 1 --log-interval 1 --save-buffer --save-model --device cpu --num-seeds 2"
MODEL = "--model-hidden-dim 32 --model-batch-size 32 --model-train-steps 20 --model-train-interval 100 --rollouts-per-step 20 \
--rollout-schedule 1:3:0:1000 --synthetic-buffer-size 2000 --utd-ratio 2"


@dataclass
class Args:
    kills: int = 20
    """kills per run"""
    steps: int = 2500
    """environment steps per run"""
    seed: int = 1
    """of the runs, and of the moments of the kills"""
    scripts: tuple[str, ...] = ("sac", "mbpo", "ftfl")
    """which scripts"""
    env_ids: tuple[str, ...] = ("dm_control/walker-walk-v0", "Hopper-v5")
    """which tasks"""


def flags(script, env_id, steps, seed=1):
    """The command line of one run, without --run-dir."""
    small = SMALL.split() + (MODEL.split() if script != "sac" else [])
    schedule = f"--total-timesteps {steps} --learning-starts 100 --eval-interval 400 --checkpoint-interval 50 --seed {seed}"
    return [str(ROOT / f"{script}.py"), "--env-id", env_id, *small, *schedule.split()]


def start(command):
    return subprocess.Popen([sys.executable, *command], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for the end of a run that must end well."""
    _, error = process.communicate()
    assert process.returncode == 0, error.decode()[-2000:]


def steps_done(run_dir):
    """The step of the newest checkpoint."""
    files = sorted(run_dir.glob("checkpoint-*.pt"))
    return int(files[-1].stem.split("-")[1]) if files else 0


def killed_run(command, folder, kills, rng):
    """The run directories of a run that is killed `kills` times on its way and resumed; and how many kills hit a write."""
    process, hits = start([*command, "--run-dir", str(folder)]), 0
    total = int(command[command.index("--total-timesteps") + 1])
    for kill in range(1, kills + 1):
        while not (run_dirs := sorted(folder.glob("*__1__*"))) or steps_done(run_dirs[0]) < total * kill // (kills + 2):
            assert process.poll() is None, process.communicate()[1].decode()[-2000:]
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        until = time.time() + 20
        while kill % 2 and not list(run_dirs[0].glob("*.tmp")) and process.poll() is None and time.time() < until:
            time.sleep(0.0001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "the run was over before all kills: give it more steps"
        hits += bool(list(run_dirs[0].glob("*.tmp")))
        process = start([str(command[0]), "--resume", str(run_dirs[0]), "--env-workers", "yes" if kill % 2 else "no"])
    finish(process)
    return sorted(folder.iterdir()), hits


def numbers(run_dir):
    """All that a run left: its scalars but for the speed (no step twice), its agent and its transitions."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    logged = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"] if tag != "charts/SPS"}
    for tag, values in logged.items():
        assert len({step for step, _ in values}) == len(values), f"{tag} has a step twice"
    return logged, torch.load(run_dir / "agent.pt", weights_only=True)["agent"], dict(np.load(run_dir / "buffer.npz"))


def differences(run_dir, reference):
    """What differs between two runs; an empty list if nothing does."""
    (logged, agent, buffer), (logged_ref, agent_ref, buffer_ref) = numbers(run_dir), numbers(reference)
    found = [f"tags {logged.keys() ^ logged_ref.keys()}"] if logged.keys() != logged_ref.keys() else []
    for tag in logged.keys() & logged_ref.keys():
        if logged[tag] != logged_ref[tag]:
            first = next((a for a, b in zip(logged[tag], logged_ref[tag]) if a != b), "one is shorter")
            found.append(f"{tag} from {first} on ({len(logged[tag])} and {len(logged_ref[tag])} values)")
    found += [name for name in agent_ref if not torch.equal(agent[name], agent_ref[name])]
    return found + [name for name in buffer_ref if not np.array_equal(buffer[name], buffer_ref[name])]


def main(args):
    failed = False
    for script in args.scripts:
        for env_id in args.env_ids:
            with tempfile.TemporaryDirectory() as folder:
                begin, command = time.time(), flags(script, env_id, args.steps, args.seed)
                reference = start([*command, "--run-dir", f"{folder}/reference"])
                run_dirs, hits = killed_run(command, Path(folder, "killed"), args.kills, random.Random(args.seed))
                finish(reference)
                found = []
                for run_dir, other in zip(run_dirs, sorted(Path(folder, "reference").iterdir()), strict=True):
                    found += differences(run_dir, other)
                what = f"{len(found)} differences: {'; '.join(found[:3])}" if found else "the same numbers to the last bit"
                print(f"{script} {env_id}: {args.kills} kills, {hits} of them in a write, {time.time() - begin:.0f} s: {what}", flush=True)
                failed |= bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
