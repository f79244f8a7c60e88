"""A published run's numbers as CSV, in benchmark/results' formats: what `sweep.py --export` writes.

Every format belongs to a kind of row of experiments.py, and each has one set of tags or columns:

    critics           a line per seed and logged step, a column per tag; all seeds in one file
    studies           the same of one seed's fit, in a file of its own
    studies-sac       what the transitions of this run of sac.py have seen, per evaluation
    pilots            one line of pilots.csv: returns before and after learning
    oracle/...        what plots.py reads, a file per seed: the tags ORACLE
    all other rows    the same: the tags RETURNS; of quadruped-walk, in landings/, how its agents land and
                      what that earns

A file is replaced at once or not at all.
"""

import contextlib
import csv
import os
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import evaluate  # noqa: E402
import model_study  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import plots  # noqa: E402

RETURNS = ("eval/episodic_return", "eval/q_start", "eval/discounted_return", "losses/qf1_values")
RETURNS += ("model/reward_r2", "model/next_state_r2", "rewards/real", "rewards/synthetic")
ORACLE = (*RETURNS, "charts/episodic_return")  # of the rows in oracle/
RETURNS += ("losses/qf_loss", "losses/entropy", "model/mse_loss")  # of all others
CRITICS = {  # column: tag
    "q": "losses/qf1_values",
    "qf_loss": "losses/qf_loss",
    "alpha": "losses/alpha",
    "entropy": "losses/entropy",
    "action_size": "losses/action_size",
    "out_of_range": "model/out_of_range",
    "reward_real": "rewards/real",
    "reward_synthetic": "rewards/synthetic",
    "reward_r2": "model/reward_r2",
    "next_state_r2": "model/next_state_r2",
    "return": "eval/episodic_return",
    "q_start": "eval/q_start",
    "discounted_return": "eval/discounted_return",
    "episode": "charts/episodic_return",
}
FITS = {  # column: tag
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
    FITS[f"{group}_variance"] = f"model/predicted_variance_{group}"
    FITS[f"{group}_trained"] = f"model/trained_variance_{group}"
for group in ("state", "reward"):
    for count in ("one", "two"):  # shares of what lies within so many predicted std
        FITS[f"{group}_within_{count}"] = f"model/within_{count}_std_{group}"
PILOT = ("env_id", "random", "after_5000", "after_10000", "after_25000", "after_30000")
LANDING_EPISODES = 100
PILOTS_LOCK = threading.Lock()  # runs that end at the same time write to one file


@contextlib.contextmanager
def whole(path):
    """The csv.writer of a file that becomes `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.tmp")
    try:
        with open(part, "w", newline="") as file:
            yield csv.writer(file, lineterminator="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def by_step(run, columns):
    """[(step, [a number per column, nan where none was logged])] of a plots.Run."""
    found = [dict(zip(*run.scalars.get(tag, ((), ())))) for tag in columns.values()]
    steps = sorted(set().union(*found))
    return [(int(step), [values.get(step, np.nan) for values in found]) for step in steps]


def write_critics(row, runs, out):
    with whole(out / row.file(runs[0].flags["seed"])) as writer:
        writer.writerow(["seed", "step", *CRITICS])
        for run in runs:
            for step, values in by_step(run, CRITICS):
                cells = ["" if np.isnan(x) else f"{x:.4g}" for x in values]
                writer.writerow([run.flags["seed"], step, *cells])


def write_fits(row, runs, out):
    for run in runs:
        columns = {column: tag for column, tag in FITS.items() if tag in run.scalars}
        with whole(out / row.file(run.flags["seed"])) as writer:
            writer.writerow(["step", *columns])
            for step, values in by_step(run, columns):
                writer.writerow([step, *(f"{x:.4g}" for x in values)])


def write_seen(row, runs, out):
    """Per evaluation its return, and of the transitions since the last one the mean reward and the share of
    rewards above 0.1."""
    rewards = model_study.read_buffer(runs[0].name)[0].rewards
    start = 0
    with whole(out / row.file(runs[0].flags["seed"])) as writer:
        writer.writerow(["step", "return", "reward", "rewarded"])
        for step, value in zip(*runs[0].scalars["eval/episodic_return"]):
            part = rewards[start : int(step)]
            numbers = (value, part.mean(), (part > 0.1).mean())
            writer.writerow([int(step), *(f"{x:.4g}" for x in numbers)])
            start = int(step)


def write_pilot(row, runs, out):
    """Returns of the random policy's episodes, and of the evaluations that a column names; nothing for one
    that there was not. Other tasks' lines stay."""
    path = out / row.file(runs[0].flags["seed"])
    scalars = runs[0].scalars
    evaluations = dict(zip(*scalars["eval/episodic_return"]))
    steps, episodes = scalars["charts/episodic_return"]
    values = [episodes[steps <= runs[0].flags["learning_starts"]].mean()]
    values += [evaluations.get(int(column.removeprefix("after_")), np.nan) for column in PILOT[2:]]
    line = [row.task, *("" if np.isnan(x) else f"{x:.4g}" for x in values)]
    with PILOTS_LOCK:
        lines = []
        if path.exists():
            with open(path, newline="") as file:
                lines = list(csv.reader(file))[1:]
        places = [i for i, known in enumerate(lines) if known[0] == row.task] or [len(lines)]
        lines[places[0] : places[0] + 1] = [line]
        with whole(path) as writer:
            writer.writerows([PILOT, *lines])


def tags_of(row):
    """The tags in a row's files, but for those of a model where there is none."""
    return ORACLE if row.folder.startswith("oracle/") else RETURNS


def write_returns(row, runs, out):
    for number, run in enumerate(runs):
        path = out / row.file(run.flags["seed"])
        if row.task == "dm_control/quadruped-walk-v0":
            write_landings(path.parent / "landings" / path.name, Path(runs[0].name), number)
        here = str(Path(run.name).parent)  # the run's folder, of which the file must not know
        with tempfile.TemporaryDirectory() as temporary:
            written = plots.write_csv([run], f"{temporary}/run.csv", tags_of(row))
            text = Path(written).read_text().replace(here, f"{row.full_name}/seed{run.flags['seed']}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.tmp")
        part.write_text(text)
        os.replace(part, path)


@torch.no_grad()
def write_landings(path, run_dir, number):
    """How upright quadruped-walk's robot is when an episode begins, after four seconds (200 steps) and at its
    end (1: on its feet, -1: on its back), and what the episode earns with the mean action. The task drops its
    robot in a random orientation. Of several agents in a run, `number` says which, from 0."""
    script, args, agent, _ = evaluate.load(run_dir)
    env = script.make_env(args.env_id, args.full_observation)
    physics = env.unwrapped._env.physics
    with whole(path) as writer:
        writer.writerow(["policy", "episode", "start", "after_200", "end", "return"])
        for episode in range(1, LANDING_EPISODES + 1):
            obs, _ = env.reset(seed=episode)
            upright = [physics.torso_upright()]
            rewards = []
            over = False
            while not over:
                obs = torch.as_tensor(obs, dtype=torch.float32)
                mean, _ = agent.actor(obs.expand(args.num_seeds, 1, -1))
                action = torch.tanh(mean)[number, 0].numpy()
                obs, reward, _, over, _ = env.step(action)
                upright.append(physics.torso_upright())
                rewards.append(reward)
            numbers = (upright[0], upright[min(200, len(rewards))], upright[-1], sum(rewards))
            writer.writerow(["agent", episode, *(f"{float(x):.4g}" for x in numbers)])


WRITERS = {"critics": write_critics, "studies": write_fits, "pilots": write_pilot}


def export(row, run_dirs, out):
    """Write what a row's complete run has logged, given its seeds' directories, in order of the seeds."""
    runs = [plots.read_run_dir(Path(run_dir)) for run_dir in run_dirs]
    for run in runs:
        if (there := plots.last_step(run)) != (wanted := plots.planned_steps(run)):
            raise ValueError(f"{run.name} has logged {there} steps, not {wanted}")
    writer = WRITERS.get(row.folder, write_returns)
    if row.full_name == "studies-sac":
        writer = write_seen
    writer(row, runs, Path(out))
