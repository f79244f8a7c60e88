"""Which tasks does SAC learn within minutes? The pilots that choose the laptop grid's tasks.

    python benchmark/pilots.py --jobs 2                                      # as many as the rule needs
    python benchmark/pilots.py --env-ids dm_control/cheetah-run-v0           # these
    python benchmark/pilots.py --list                                        # what they have shown so far

The rule, written down before the first pilot. DMC's tasks are ordered by the gap in the taxonomy: FTFL's
reward R2 minus MBPO's. A pilot is one run of sac.py, with layer norm in the critics as in the grid, 30,000
steps, 4 updates per step. It lifts the task if its last two evaluations earn at least 100 (of at most 1,000)
more, as a mean, than the random policy, and than the untrained mean action in either of its two evaluations.
The grid takes the two lifted tasks with the largest gap and the one with the smallest; quadruped-walk is in
it anyway. So pilots go on from both ends of the order until these three are found.

Added after four pilots, before the others, to spare hours: a task that SAC does not lift elsewhere with more
steps is not piloted, but taken as not lifted. That is so if in public curves of three seeds no seed gains 20
by 100,000 steps, and for the other tasks of a robot whose tasks are all like this.

A task whose line is in --out is not run again; a run that was killed goes on.
"""

import csv
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import tyro  # noqa: E402

import plots  # noqa: E402
import sac  # noqa: E402

FLAGS = "--critic-layer-norm --utd-ratio 4 --total-timesteps 30000 --eval-interval 5000 --eval-episodes 5"
FLAGS += " --device cpu --compile"
LIFT = 100
IN_ANYWAY = "dm_control/quadruped-walk-v0"
# The largest gain of three seeds in TD-MPC2's SAC curves (nicklashansen/tdmpc2, results/sac, commit e9f5932):
# the return at 100,000 frames, two per action, minus that at 0
PUBLIC_GAINS = {"humanoid-stand": 2.1, "humanoid-walk": 0.6, "humanoid-run": 0.4, "quadruped-run": 3.7}
PUBLIC_GAINS |= {"dog-stand": 14.8, "dog-walk": 7.2, "dog-trot": 3.9, "dog-run": 4.3, "hopper-stand": 1.8}
ALIKE = ("humanoid-run_pure_state", "humanoid_CMU-", "dog-fetch")  # other tasks of humanoid and dog
EVALUATED = (5_000, 10_000, 25_000, 30_000)  # the first two untrained: before any update, and after four
COLUMNS = ["env_id", "random", *(f"after_{step}" for step in EVALUATED)]


@dataclass
class Args:
    env_ids: tuple[str, ...] = ()  # pilots of these tasks; by default of those that the rule asks for
    jobs: int = 1  # pilots side by side, of one thread each
    run_dir: str = "runs/pilots"  # folder with a folder per task
    out: str = str(ROOT / "benchmark/results/pilots.csv")  # the table
    list: bool = False  # print what the pilots have shown and what they choose, run nothing


def order(taxonomy=ROOT / "benchmark/results/taxonomy.csv"):
    """[(gap, DMC task)] by falling gap of the taxonomy's medians; without tasks whose reward was not seen."""
    tasks = plots.read_taxonomy(taxonomy)
    gaps = [(plots.median(x["ftfl_reward_r2"] - x["mbpo_reward_r2"]), task) for task, x in tasks.items()]
    found = [(float(gap), task) for gap, task in gaps if task.startswith("dm_control/") and np.isfinite(gap)]
    return sorted(((gap, task) for gap, task in found if task != IN_ANYWAY), reverse=True)


def read(path):
    """{task: {column: number}} of the pilots so far."""
    if not Path(path).exists():
        return {}
    with open(path, newline="") as file:
        return {row.pop("env_id"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}


def is_hopeless(task):
    """Whether SAC is known not to lift the task in more steps than a pilot has."""
    name = task.removeprefix("dm_control/").rsplit("-v", 1)[0]
    return name in PUBLIC_GAINS or name.startswith(ALIKE)


def lift(pilot):
    """How much more is earned in the end than without training."""
    end = (pilot["after_25000"] + pilot["after_30000"]) / 2
    return end - max(pilot["random"], pilot["after_5000"], pilot["after_10000"])


def choose(tasks, pilots):
    """The rule. tasks: by falling gap. Returns the tasks chosen so far, and those whose pilot comes next."""
    chosen, missing = [], []
    for wanted, ordered in ((2, tasks), (1, tasks[::-1])):
        found = 0
        for task in ordered:
            if found == wanted:
                break
            if is_hopeless(task):
                continue
            if task not in pilots:
                missing.append(task)
                break
            if lift(pilots[task]) >= LIFT and task not in chosen:
                chosen.append(task)
                found += 1
    return chosen, missing


def run(task, args):
    """One pilot, from where it is. Returns its line."""
    folder = Path(args.run_dir) / task.removeprefix("dm_control/")
    done = sorted(folder.glob("*/checkpoint.pt"))
    flags = f"--resume {done[0].parent}" if done else f"--env-id {task} {FLAGS} --run-dir {folder}"
    if not done or plots.read_run_dir(done[0].parent).scalars["eval/episodic_return"][0][-1] < EVALUATED[-1]:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / "sac.py"), *shlex.split(flags)]
        with open(folder / "log.txt", "a") as log:
            ended = subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if ended.returncode:
            plots.fail(f"{task}: sac.py ended with exit code {ended.returncode}; see {folder}/log.txt", 1)
        done = sorted(folder.glob("*/checkpoint.pt"))
    scalars = plots.read_run_dir(done[0].parent).scalars
    steps, returns = scalars["charts/episodic_return"]
    evaluations = dict(zip(*scalars["eval/episodic_return"]))
    values = [returns[steps <= EVALUATED[1]].mean(), *(evaluations[step] for step in EVALUATED)]
    return dict(zip(COLUMNS, [task, *(f"{value:.4g}" for value in values)]))


def main(args):
    if args.jobs < 1:
        plots.fail(f"--jobs must be at least 1, not {args.jobs}")
    for task in args.env_ids:  # a mistake in the last one is found before the first is run
        sac.full_env_id(task)
    tasks = [task for _, task in order()]
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    while not args.list:
        pilots = read(out)
        wanted = [task for task in args.env_ids or choose(tasks, pilots)[1] if task not in pilots]
        if not wanted:
            break
        with ThreadPoolExecutor(args.jobs) as pool:
            for future in [pool.submit(write_line, task, out, args) for task in wanted]:
                future.result()
    pilots = read(out)
    for gap, task in order():
        if task in pilots:
            numbers = ", ".join(f"{column} {value:.4g}" for column, value in pilots[task].items())
            print(f"{task}: gap {gap:.3f}, {numbers}; lift {lift(pilots[task]):.4g}")
    chosen, missing = choose(tasks, pilots)
    print(f"chosen: {', '.join(chosen) or 'none'}; still to run: {', '.join(missing) or 'none'}")


def write_line(task, out, args):
    """Run a pilot and append its line to the table."""
    row = run(task, args)
    with open(out, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
