"""The model alone at the paper's budget: the fits behind REPRODUCTION.md's pages on rewards and next states.

    python benchmark/studies.py --list                      # the fits, as the commands that they stand for
    python benchmark/studies.py                             # all, one after another: a day on one core
    python benchmark/studies.py --fits humanoid-stand       # those whose names begin so
    python benchmark/studies.py --device cuda               # seeds side by side on a GPU: minutes

50,000 gradient steps are what the paper's models get in the first 2,500 environment steps after the random
ones; a fit of one seed takes 20 to 25 minutes on one core. What is complete is skipped; a fit that was killed
begins again, the run of sac.py goes on. Several of these may run side by side: what another one has begun is
left to it. The numbers go to benchmark/results/studies/FIT__SEED.csv; `make figures` draws them.

Two kinds of fits are no commands: of *-fixed, the log-variance is held at 0, so that the loss is a squared
error; of *-cap, its upper bound is 5 instead of 0.5.
"""

import contextlib
import csv
import itertools
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import critics  # noqa: E402
import model_study  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402

import ftfl  # noqa: E402
import plots  # noqa: E402
import sac  # noqa: E402

TASKS = {
    "humanoid-stand": "dm_control/humanoid-stand-v0",
    "quadruped-walk": "dm_control/quadruped-walk-v0",
    "Walker2d": "Walker2d-v5",
    "HalfCheetah": "HalfCheetah-v5",
}
SETTINGS = {
    "ftfl": "",
    "mbpo": "--no-target-normalization --next-state-prediction residual",
    "tun": "--next-state-prediction residual",
    "dnp": "--no-target-normalization",
}
SEEDS = (1, 2, 3)
SHARED = "--collect 10000 --steps 50000 --log-interval 500 --compile"
# A buffer that has seen reward: sac.py's, after 200,000 steps of one update each (about an hour)
SAC = "--env-id dm_control/humanoid-stand-v0 --utd-ratio 1 --total-timesteps 200000 --eval-interval 20000"
SAC += " --checkpoint-interval 20000 --device cpu"

FITS = {
    f"{task}-{setting}": f"--env-id {TASKS[task]} {SETTINGS[setting]}"
    for task in TASKS
    for setting in SETTINGS
}
for setting in SETTINGS:
    FITS[f"rewarded-{setting}"] = f"--buffer SAC {SETTINGS[setting]}"
FITS["rewarded-ftfl-fixed"] = FITS["rewarded-ftfl"]
FITS["humanoid-stand-ftfl-width400"] = FITS["humanoid-stand-ftfl"] + "--model-hidden-dim 400"
FITS["humanoid-stand-mbpo-cap"] = FITS["humanoid-stand-mbpo"]
for setting in ("ftfl", "tun", "mbpo"):
    FITS[f"humanoid-stand-{setting}-bounds"] = FITS[f"humanoid-stand-{setting}"] + " --learned-logvar-bounds"

TAGS = {  # column: tag
    "nll": "model/nll",
    "mse_loss": "model/mse_loss",
    "variance_loss": "model/variance_loss",
    "holdout_mse": "model/holdout_mse",
    "reward_r2": "model/reward_r2",
    "next_state_r2": "model/next_state_r2",
    "reward_real": "rewards/real",
    "reward_synthetic": "rewards/synthetic",
    "reward_std": "rewards/synthetic_std",
}
for group in ("position", "velocity", "other", "reward"):
    TAGS[f"{group}_variance"] = f"model/predicted_variance_{group}"
    TAGS[f"{group}_trained"] = f"model/trained_variance_{group}"


@dataclass
class Args:
    fits: tuple[str, ...] = tuple(FITS)  # which fits: names, or how they begin
    seeds: tuple[int, ...] = SEEDS  # which seeds
    run_dir: str = "runs/studies"  # folder for what the fits log, and for the run of sac.py
    out: str = str(ROOT / "benchmark/results/studies")  # folder for a CSV per fit and seed
    device: str = "cpu"  # cpu fits one seed after another; cuda, or cuda:N, all of them side by side
    rewarded: str = ""  # an NPZ file of transitions for the fits rewarded-*, instead of sac.py's run
    list: bool = False  # print the commands, fit nothing


def flags_of(name, seeds, args):
    """The flags of model_study.py for one fit of some seeds, side by side."""
    flags = f"{SHARED} --device {args.device} {FITS[name]} --seed {seeds[0]} --num-seeds {len(seeds)}"
    buffer = args.rewarded or str(Path(args.run_dir) / "sac/RUN")
    words = [buffer if word == "SAC" else word for word in flags.split()]
    return [*words, "--run-dir", str(Path(args.run_dir) / name)]


@contextlib.contextmanager
def claimed(path):
    """True if the work that the file stands for is ours; False if a living process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and Path(f"/proc/{path.read_text()}").exists():
        yield False
        return
    path.write_text(str(os.getpid()))
    try:
        yield True
    finally:
        path.unlink()


def sac_run(args):
    """The directory of sac.py's run, which is brought to its end; None while another process does that."""
    folder = Path(args.run_dir) / "sac"
    runs = sorted(folder.glob("*__1__*/checkpoint.pt"))
    if runs and torch.load(runs[0], weights_only=True)["step"] == 200_000:
        return runs[0].parent
    with claimed(Path(args.run_dir) / "sac.pid") as ours:
        return critics.run(sac, SAC.split(), folder)[0] if ours else None


def export_sac(run_dir, path):
    """Write what the transitions of sac.py's run have seen as CSV: per evaluation its return, and of the
    transitions since the last one the mean reward and the share of rewards above 0.1."""
    steps, returns = plots.read_run_dir(Path(run_dir)).scalars["eval/episodic_return"]
    rewards = model_study.read_buffer(run_dir)[0].rewards
    with critics.whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "return", "reward", "rewarded"])
        for start, step, value in zip([0, *steps.astype(int)], steps.astype(int), returns):
            part = rewards[start:step]
            writer.writerow([step, *(f"{x:.4g}" for x in (value, part.mean(), (part > 0.1).mean()))])


class FixedVariance(ftfl.Ensemble):
    """An ensemble whose log-variance is 0: the likelihood is then the squared error."""

    def forward(self, obs, actions):
        mean, logvar = super().forward(obs, actions)
        return mean, torch.zeros_like(logvar)


class HighCap(ftfl.Ensemble):
    """An ensemble whose variance may be as large as a velocity's on humanoid-stand: up to e^5 = 148."""

    def __init__(self, *args):
        super().__init__(*args)
        self.max_logvar.data.fill_(5)


ENSEMBLES = {"-fixed": FixedVariance, "-cap": HighCap}


def export(run_dir, path):
    """Write a fit's numbers as CSV, a line per logged step, of four digits."""
    scalars = plots.read_run_dir(run_dir).scalars
    columns = {c: dict(zip(*scalars[tag])) for c, tag in TAGS.items() if tag in scalars}
    with critics.whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *columns])
        for step in sorted(set().union(*columns.values())):
            writer.writerow([int(step), *(f"{x.get(step, np.nan):.4g}" for x in columns.values())])


def fit(name, flags, outs, args):
    """Fit, and export what was logged of each seed."""
    if name.startswith("rewarded") and not args.rewarded:
        run_dir = sac_run(args)
        if run_dir is None:
            print(f"{outs[0].stem}: another process is at sac.py's run")
            return
        flags[flags.index("--buffer") + 1] = str(run_dir)
        export_sac(run_dir, Path(args.out) / "sac.csv")
    before = dict(vars(ftfl))
    try:
        for ending in (x for x in ENSEMBLES if name.endswith(x)):
            ftfl.Ensemble = ENSEMBLES[ending]
            critics.mark(ftfl, ending[1:])
        run_dirs = model_study.main(model_study.parse_args(flags))
    finally:
        vars(ftfl).update(before)
    for run_dir, out in zip(run_dirs, outs):
        export(run_dir, out)


def main(args):
    names = [name for name in FITS if any(name.startswith(start) for start in args.fits)]
    for start in args.fits:
        if not any(name.startswith(start) for name in FITS):
            plots.fail(f"--fits {start}: there are {', '.join(FITS)}")
    if not args.seeds:
        plots.fail("--seeds needs at least one")
    if not args.list:  # before hours of fits, and the hour of sac.py
        ftfl.choose_device(ftfl.Args(device=args.device))
        if args.rewarded and not Path(args.rewarded).is_file():
            plots.fail(f"--rewarded {args.rewarded}: no such file (model_study.py --save writes one)")
        with plots.output(args.out) as out:
            out.mkdir(exist_ok=True)
    groups = [[seed] for seed in args.seeds]
    if args.device != "cpu":
        groups = [args.seeds]
        if list(args.seeds) != list(range(args.seeds[0], args.seeds[0] + len(args.seeds))):
            plots.fail("--seeds must follow one another, like 1 2 3, to be fitted side by side")
    for seeds, name in itertools.product(groups, names):
        flags = flags_of(name, seeds, args)
        if args.list:
            numbers = ", ".join(map(str, seeds))
            no_command = "".join(f"  (no command: {x[1:]})" for x in ENSEMBLES if name.endswith(x))
            print(f"{name}, seed {numbers}: python benchmark/model_study.py {shlex.join(flags)}{no_command}")
            continue
        outs = [Path(args.out) / f"{name}__{seed}.csv" for seed in seeds]
        with claimed(Path(args.run_dir) / f"{name}__{seeds[0]}.pid") as ours:
            if all(out.exists() for out in outs):
                print(f"{outs[0].stem}: complete")
            elif ours:
                fit(name, flags, outs, args)
            else:
                print(f"{outs[0].stem}: another process is at it")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
