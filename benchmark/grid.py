"""The laptop grid of REPRODUCTION.md, run by run, and its numbers as CSV.

    python benchmark/grid.py --jobs 2                             # all of it: days of two cores
    python benchmark/grid.py --tasks Hopper-v5 --algos sac mbpo   # a part
    python benchmark/grid.py --list                               # what is missing
    python benchmark/grid.py --tasks Hopper-v5 --total-timesteps 25000 --out OTHER  # go on to these
    python benchmark/grid.py --preset hopper --run-dir runs/hopper --out benchmark/results/hopper  # another
    python benchmark/grid.py --tasks Hopper-v5 --run-dir runs/OTHER --out OTHER -- --learned-logvar-bounds

What stands after -- goes to the scripts, as in sweep.py.

The runs are those of `benchmark/sweep.py --preset PRESET`, in a folder that both can work on: where Ray is at
hand, take the sweep, and this to write down what is complete. A run whose CSV is in --out is not run again; a
run that was killed goes on, and Ctrl-C has what is running leave a checkpoint. Of quadruped-walk's agents it
also writes how their robots land, and what that earns (100 episodes).
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import critics  # noqa: E402
import sweep  # noqa: E402

import plots  # noqa: E402

TAGS = ["eval/episodic_return", "eval/q_start", "eval/discounted_return"]
TAGS += ["model/reward_r2", "model/next_state_r2", "rewards/real", "rewards/synthetic", "losses/qf1_values"]
TAGS += ["losses/qf_loss", "losses/entropy", "model/mse_loss"]


@dataclass
class Args:
    preset: str = "laptop"  # of benchmark/sweep.py
    algos: tuple[str, ...] = ()  # sac, mbpo, tun, dnp, ftfl; by default all of the preset
    tasks: tuple[str, ...] = ()  # by default all of the preset
    seeds: tuple[int, ...] = ()  # by default all of the preset
    total_timesteps: int = 0  # the runs' length where it is not the preset's: complete runs go on to it
    num_seeds: int = 1  # seeds side by side in one process; on a GPU, take all
    gpus: float = 0  # with more than 0 the runs are on a GPU; --jobs says how many at once
    jobs: int = 1  # runs side by side, of one thread each
    run_dir: str = "runs/grid"  # the sweep's folder
    out: str = str(ROOT / "benchmark/results/grid")  # folder for a CSV per run
    list: bool = False  # print the runs that are missing, run nothing


def csvs_of(run, out):
    """The CSV files of a run's seeds, in their order."""
    algo, task, _ = run.name.split("/")
    first = run.flags["seed"]
    return [Path(out) / f"{algo}__{task}__seed{first + k}.csv" for k in range(run.flags["num_seeds"])]


def is_written(run, out):
    return all(path.exists() for path in csvs_of(run, out))


def export_as(path, run_dir, tags, folder, name):
    """Write a run's numbers as CSV, in which `name` stands for the folder on this machine."""
    with critics.whole(path) as file, tempfile.TemporaryDirectory() as here:
        written = plots.write_csv([plots.read_run_dir(run_dir)], f"{here}/all.csv", tags)
        file.write(Path(written).read_text().replace(str(folder), str(name)))
    print(path)


def export(run, out):
    """Write the CSV of each of a complete run's seeds. The file of its landings comes first: with the CSV,
    all is there."""
    run_dir = sweep.progress(run.folder)[1]
    about = plots.read_run_dir(run_dir)
    if (there := plots.last_step(about)) != (wanted := plots.planned_steps(run)):
        plots.fail(
            f"--run-dir: {run.name} has gone on to {there} steps already, so that {wanted} can't be had"
        )
    tags = tuple(tag for tag in TAGS if tag in about.scalars)
    for k, path in enumerate(csvs_of(run, out)):
        if path.exists():
            continue
        if "quadruped-walk" in run.name:
            landed = path.with_name("landings") / path.name
            landed.parent.mkdir(parents=True, exist_ok=True)
            critics.landings(landed, str(run_dir), k, policies=())
        export_as(path, run_dir.with_name(about.flags["run_dirs"][k]), tags, run.folder, run.name)


def complete(run, out):
    """Bring a run to its end, and write its CSV."""
    if code := sweep.attempt(run):
        sweep.ftfl.fail(f"{run.name} failed with exit code {code}; see {run.folder}/log.txt", 1)
    export(run, out)


def main(args, passed=()):
    if args.jobs < 1:
        plots.fail(f"--jobs must be at least 1, not {args.jobs}")
    if args.total_timesteps and Path(args.out).resolve() == Path(Args.out).resolve():
        plots.fail(
            "--total-timesteps needs an --out of its own: in that folder are the runs of the preset's length"
        )
    if args.preset != Args.preset and Path(args.out).resolve() == Path(Args.out).resolve():
        plots.fail(f"--preset {args.preset} needs an --out of its own: in that folder is the laptop's grid")
    if passed and Path(args.out).resolve() == Path(Args.out).resolve():
        plots.fail(f"{passed[0]} needs an --out of its own: in that folder is the grid without it")
    names = ("preset", "algos", "tasks", "seeds", "run_dir", "num_seeds", "gpus")
    wanted = {name: getattr(args, name) for name in names}
    longer = ["--total-timesteps", str(args.total_timesteps)] if args.total_timesteps else []
    runs = sweep.plan(sweep.Args(**wanted), [*passed, *longer])
    runs.sort(key=lambda run: run.flags["seed"])  # all of the first seed before the second
    missing = [run for run in runs if not is_written(run, args.out)]
    for run in missing if args.list else ():
        print(run.name)
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are complete")
    if not args.list:
        for flag, folder in (("--out", args.out), ("--run-dir", args.run_dir)):
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                plots.fail(f"{flag} {folder} can't be made: {error}")
        with ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(complete, run, args.out) for run in missing]
            try:
                errors = [error for future in futures if (error := future.exception())]
            except KeyboardInterrupt:
                words = "stopped: what is running leaves a checkpoint; the same command goes on"
                print(words, file=sys.stderr)
                os._exit(130)  # threads can't be stopped; their end tells the scripts (START of sweep.py)
        for error in errors:
            if not isinstance(error, SystemExit):  # those have said it
                print(f"error: {error}", file=sys.stderr)
        if errors:
            sys.exit(getattr(errors[0], "code", 1))


if __name__ == "__main__":
    main(*sweep.read_command_line(Args, __doc__))
