"""The figures and tables of the pages, drawn anew from benchmark/results/ without training anything.

    python benchmark/figures.py                 # what `make figures` runs

Writes the figures into benchmark/results/, and the tables into README.md and REPRODUCTION.md, between the
comments that name them. So no number in a table can differ from the results; a test compares.
"""

import csv
import os
import re
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmark")]

import experiments  # noqa: E402
import export  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402

import plots  # noqa: E402

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # PDFs without the time: unchanged if nothing has changed
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = ROOT / "benchmark/results"
PAGES = ("README.md", "REPRODUCTION.md")
ALGORITHMS = {"sac": "SAC", "mbpo": "MBPO", "tun": "TUN only", "dnp": "DNP only", "ftfl": "FTFL"}
COLORS = {short: plots.COLORS[name] for short, name in ALGORITHMS.items()}
BETA_COLOR, BOUNDS_COLOR, OTHER_COLOR = "#56B4E9", "#E69F00", "#999999"


# ---------------------------------------- What all have in common
def read_lines(path):
    """The lines of a CSV file, [{column: text}]."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(heads, rows):
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value):
    """Three digits, and no more than two behind the point."""
    if abs(value) < 10 and value != round(value):
        return f"{value:.2f}".replace("-0.00", "0.00")
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"


def span(values):
    """The smallest and the largest of some seeds' values, or the value of one; a dash for none."""
    values = np.asarray(values, dtype=float)
    if not values.size or np.isnan(values).all():
        return "-"
    low, high = number(np.min(values)), number(np.max(values))
    return low if low == high else f"{low} to {high}"


def row_of(values):
    """Seeds' values in the order of the seeds; a dash for those that are no number, and for none."""
    return ", ".join(number(value) if np.isfinite(value) else "-" for value in values) or "-"


def draw(axis, steps, values, color, label=None, style="-"):
    """All seeds as thin lines, their median as a thick one."""
    axis.plot(steps, np.transpose(values), style, color=color, lw=0.7, alpha=0.5)
    axis.plot(steps, np.median(values, 0), style, color=color, lw=2, label=label)


def finish(figure, axes, name, columns=4):
    """One legend for all panels, below them, and the file."""
    found = {}
    for axis in np.ravel(axes):
        handles, labels = axis.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels) if label not in found}
    figure.legend(found.values(), found, loc="outside lower center", ncols=columns)
    plots.save(figure, str(RESULTS / name))


# ---------------------------------------- The claims, and what was predicted
def facts():
    """{name: text}: the numbers that the verdicts of claims.csv name in braces."""
    hopper = {name: scores(runs) for name, runs in read_grid(("hopper",))["Hopper at the defaults"].items()}
    critics = {name: read_critics(f"humanoid-stand-{name}-paper") for name in ALGORITHMS}
    one_change = np.concatenate([at_end(critics[name], "q") for name in ("tun", "dnp")])
    found = {f"hopper {name}": row_of(values) for name, values in hopper.items()}
    found |= {f"q {name}": span(at_end(row, "q")) for name, row in critics.items()}
    found |= {"q one change": span(one_change)}
    for name in ("mbpo", "ftfl"):
        row = critics[name]
        for key, data in (("ratio", RANDOM), ("rare", SEEN)):
            fit = read_fit(f"{data}-{name}")
            found[f"{key} {name}"] = span(fit["ratio"][:, fit["step"][0] > 25_000].mean(1))
        found[f"q start {name}"] = span(row["q_start"][1][:, -1])
        found[f"obtained {name}"] = span(row["discounted_return"][1][:, -1])
        for task in ("humanoid-stand", "Walker2d", "HalfCheetah"):
            fit = read_fit(f"{task}-{name}")
            found[f"variance {task} {name}"] = span(at_step(fit, "variance_loss", 2_000))
    for name in ("ftfl", "ftfl-width400"):
        found[f"width {name}"] = span(read_fit(f"humanoid-stand-{name}")["reward_r2"][:, -1])
    return found


def claims_table():
    """A line per claim of the paper, with its verdict."""
    claims = read_lines(RESULTS / "claims.csv")
    rows = [[claim["claim"], claim["the paper says"], claim["verdict"]] for claim in claims]
    return markdown(["", "the paper says", "verdict"], rows)


def verdicts_table():
    """The same, with what was measured and on how many seeds and steps."""
    known, rows = facts(), []
    for claim in read_lines(RESULTS / "claims.csv"):
        measured = re.sub(r"\{(.+?)\}", lambda match: known[match[1]], claim["measured"])
        rows.append([f"{claim['claim']}: {claim['in short']}", measured, claim["runs"], claim["verdict"]])
    return markdown(["claim", "measured here", "seeds x steps", "verdict"], rows)


OUTCOMES = ("right", "wrong", "can't be judged", "not run")


def predictions_table():
    """How many predictions came out, by finding; predictions.csv has every one."""
    counts = {}
    for line in read_lines(RESULTS / "predictions.csv"):
        (outcome,) = (word for word in OUTCOMES if (line["came_out"] or "not run").startswith(word))
        counts.setdefault(line["finding"], Counter())[outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    rows = [[finding, *(count[outcome] for outcome in OUTCOMES)] for finding, count in counts.items()]
    return markdown(["predictions about", *OUTCOMES], rows)


# ---------------------------------------- The model alone
def read_fit(name):
    """{column: (seeds, steps)} of the fits by that name, `step` and `ratio` (imagined over real mean reward)
    too; {} if there is none."""
    paths = [RESULTS / f"studies/{name}__{seed}.csv" for seed in experiments.THREE]
    seeds = [read_lines(path) for path in paths if path.exists()]
    if not seeds:
        return {}
    columns = seeds[0][0]
    fit = {column: np.array([[float(x[column]) for x in lines] for lines in seeds]) for column in columns}
    return fit | {"ratio": fit["reward_synthetic"] / fit["reward_real"]}


def at_step(fit, column, step):
    """Each seed's value after that many gradient steps."""
    return fit[column][:, fit["step"][0].tolist().index(step)]


def first_above(fit, column, limits):
    """The first logged step at which each seed's value reaches its limit; inf if none does."""
    reached = [fit["step"][0][values >= limit] for values, limit in zip(fit[column], limits)]
    return np.array([found[0] if len(found) else np.inf for found in reached])


def steps_text(steps):
    """Each seed's step, or `never`."""
    return ", ".join(f"{step:,.0f}" if np.isfinite(step) else "never" for step in steps)


RANDOM, SEEN = "humanoid-stand", "rewarded"
REWARD_FITS = {  # {fit: (its data, what its lines say, colour)}
    f"{RANDOM}-mbpo": ("random", "MBPO", COLORS["mbpo"]),
    f"{RANDOM}-mbpo-cap": ("random", "MBPO, higher cap", OTHER_COLOR),
    f"{RANDOM}-mbpo-bounds": ("random", "MBPO, learned bounds", BOUNDS_COLOR),
    f"{RANDOM}-dnp": ("random", "DNP only", COLORS["dnp"]),
    f"{RANDOM}-tun": ("random", "TUN only", COLORS["tun"]),
    f"{RANDOM}-ftfl": ("random", "FTFL", COLORS["ftfl"]),
    f"{RANDOM}-ftfl-bounds": ("random", "FTFL, learned bounds", BOUNDS_COLOR),
    f"{SEEN}-mbpo": ("SAC's", "MBPO", COLORS["mbpo"]),
    f"{SEEN}-dnp": ("SAC's", "DNP only", COLORS["dnp"]),
    f"{SEEN}-tun": ("SAC's", "TUN only", COLORS["tun"]),
    f"{SEEN}-ftfl": ("SAC's", "FTFL", COLORS["ftfl"]),
    f"{SEEN}-ftfl-fixed": ("SAC's", "FTFL, squared error", BETA_COLOR),
}


def reward_table():
    """A line per fit of humanoid-stand: the reward's R2, and what a rollout would make of it."""
    heads = ["transitions", "model", "reward R2 at 2,000", "at 20,000", "at 50,000"]
    heads += ["imagined / real mean at 50,000", "noise / mean reward"]
    rows = []
    for name, (data, label, _) in REWARD_FITS.items():
        fit = read_fit(name)
        cells = [span(at_step(fit, "reward_r2", step)) for step in (2_000, 20_000, 50_000)]
        noise = fit["reward_std"][:, -1] / fit["reward_real"][:, -1]
        rows.append([data, label, *cells, span(fit["ratio"][:, -1]), span(noise)])
    return markdown(heads, rows)


def draw_reward():
    """humanoid-stand's reward: on random transitions, what is imagined there, and on SAC's transitions."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2))
    left_out = (f"{RANDOM}-ftfl-bounds", f"{RANDOM}-dnp", f"{RANDOM}-tun", f"{SEEN}-dnp")  # in the table
    for name, (data, label, color) in REWARD_FITS.items():
        if name not in left_out:
            fit = read_fit(name)
            panels = {"reward_r2": axes[0], "ratio": axes[1]} if data == "random" else {"reward_r2": axes[2]}
            for column, axis in panels.items():
                draw(axis, fit["step"][0], fit[column], color, label)
    titles = (
        "random transitions:\nreward $R^2$, held out",
        "random transitions:\nimagined / real mean reward",
    )
    for axis, text in zip(axes, (*titles, "SAC's transitions, rare rewards:\nreward $R^2$, held out")):
        plots.title(axis, text, "gradient steps of the model")
        axis.set_ylim(-0.5, 1.02)
    axes[1].set_ylim(-1, 3)
    axes[1].axhline(1, color="0.6", lw=1, zorder=0)
    figure.suptitle("humanoid-stand: targets and variance both decide whether the reward is learned")
    finish(figure, axes, "reward", columns=3)


# ---------------------------------------- The third cause: how the variance is trained
BETA_FITS = {  # {fit: (what its lines say, colour, style)}
    "mbpo": ("MBPO", COLORS["mbpo"], "-"),
    "mbpo-bounds": ("MBPO, learned bounds", BOUNDS_COLOR, "-"),
    "mbpo-beta0.5": ("MBPO, beta 0.5", COLORS["mbpo"], "--"),
    "ftfl": ("FTFL", COLORS["ftfl"], "-"),
    "ftfl-beta0.5": ("FTFL, beta 0.5", BETA_COLOR, "-"),
}
BETA_TASKS = {  # SAC's run was made again for them: these are other transitions than those of the fits above
    "humanoid-stand": "humanoid-stand, random transitions",
    "quadruped-walk": "quadruped-walk, random transitions",
    "rewarded2": "humanoid-stand, SAC's transitions",
}


def draw_beta():
    """R2 of rewards and of next states over the gradient steps, with and without beta-NLL."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), sharex=True, sharey=True)
    for column, (task, text) in zip(axes.T, BETA_TASKS.items()):
        for setting, (label, color, style) in BETA_FITS.items():
            if fit := read_fit(f"{task}-{setting}"):
                for axis, tag in zip(column, ("reward_r2", "next_state_r2")):
                    draw(axis, fit["step"][0], fit[tag], color, label, style)
        column[0].set_title(f"{text}:\nreward")
        column[1].set_title("next state")
        column[1].set_xlabel("gradient steps of the model")
        column[0].set(xscale="log", ylim=(-0.5, 1.02))
    for axis in axes[:, 0]:
        axis.set_ylabel("$R^2$, held out")
    figure.suptitle("With beta-NLL FTFL's model learns the reward sooner, and better")
    finish(figure, axes, "beta", columns=3)


def beta_fits():
    """(transitions, model, its fit, FTFL's fit to the same) for each line of the two tables."""
    for task, text in BETA_TASKS.items():
        without = read_fit(f"{task}-ftfl")
        for setting, (label, *_) in BETA_FITS.items():
            if fit := read_fit(f"{task}-{setting}"):
                yield text, label, fit, without


def beta_table():
    """A line per fit: how good it becomes, and how soon it is as good as FTFL's model without beta is after
    5,000 gradient steps (one training's budget)."""
    heads = ["transitions", "model", "steps", "reward R2 at 1,000", "at the end", "next-state R2 at the end"]
    heads += ["first step with FTFL's reward R2 of step 5,000", "the same of its next-state R2"]
    rows = []
    for text, label, fit, without in beta_fits():
        cells = [number(fit["step"][0, -1]), span(at_step(fit, "reward_r2", 1_000))]
        cells += [span(fit["reward_r2"][:, -1]), span(fit["next_state_r2"][:, -1])]
        for column in ("reward_r2", "next_state_r2"):
            cells.append(steps_text(first_above(fit, column, at_step(without, column, 5_000))))
        rows.append([text, label, *cells])
    return markdown(heads, rows)


def calibration_table():
    """A line per fit that has logged it: what a rollout would sample at the end, and how many of the held-out
    numbers lie within one and two predicted stds."""
    heads = ["transitions", "model", "imagined / real mean reward", "noise / mean reward"]
    heads += [f"{part} within {n} std" for part in ("states", "rewards") for n in ("one", "two")]
    rows = [["-", "a calibrated Gaussian", "1", "-", "0.68", "0.95", "0.68", "0.95"]]
    for text, label, fit, _ in beta_fits():
        if "state_within_one" in fit:
            cells = [span(fit["ratio"][:, -1]), span(fit["reward_std"][:, -1] / fit["reward_real"][:, -1])]
            for part in ("state", "reward"):
                cells += [span(fit[f"{part}_within_{n}"][:, -1]) for n in ("one", "two")]
            rows.append([text, label, *cells])
    return markdown(heads, rows)


BETA_AGENTS = {  # {task: folders of the grid's runs of it, and of those with beta}
    "finger-spin, 25,000 steps": ("grid_longer", "beta"),
    "cheetah-run": ("grid", "beta"),
    "cheetah-run, 25,000 steps": ("grid_longer", "beta_longer"),
}


def beta_agents_table():
    """What agents earn with the grid's settings: FTFL with and without beta on one machine; those said to be
    the grid's are of another one."""
    rows = []
    for task, (grid, beta) in BETA_AGENTS.items():
        found = read_grid((grid,)).get(task, {})
        agents = {f"{name} (the grid's)": found.get(name, []) for name in ("SAC", "MBPO")}
        starts = {"MBPO, learned bounds": "bounds/mbpo", "FTFL, run again": f"{beta}/ftfl"}
        for label, start in (starts | {"FTFL, beta 0.5": f"{beta}/ftfl-beta"}).items():
            paths = sorted(RESULTS.glob(f"{start}__*{task.split(',')[0]}*.csv"))
            agents[label] = [plots.read_csv(path)[0] for path in paths]
        for label, runs in agents.items():
            rows += [[task, label, row_of(scores(runs)), *known(runs)]] if runs else []
    return markdown(["task", "agent", "score", "reward R2", "next-state R2"], rows)


# ---------------------------------------- Critics
def read_critics(name):
    """{column: (steps after the random ones, values of each seed)} of a row of benchmark/experiments.py."""
    lines = read_lines(RESULTS / f"critics/{name}.csv")
    seeds, found = sorted({line["seed"] for line in lines}, key=int), {}
    for column in export.CRITICS:
        values = {(x["seed"], int(x["step"])): float(x[column]) for x in lines if x.get(column)}
        steps = sorted({step for _, step in values})
        table = np.array([[values.get((seed, step), np.nan) for step in steps] for seed in seeds])
        found[column] = np.array(steps) - experiments.START, table
    return found


def at_end(row, column, last=4):
    """A column's mean over its last logged values, per seed (100 steps of them)."""
    return row[column][1][:, -last:].mean(1)


DEFAULTS = {  # {end of a row's name: (what its lines say, colour, style)}
    "sac-paper": ("SAC", COLORS["sac"], "-"),
    "mbpo-paper": ("MBPO", COLORS["mbpo"], "-"),
    "tun-paper": ("TUN only", COLORS["tun"], "-"),
    "dnp-paper": ("DNP only", COLORS["dnp"], "-"),
    "ftfl-paper": ("FTFL", COLORS["ftfl"], "-"),
    "sac-paper-norm": ("SAC, layer norm", COLORS["sac"], "--"),
    "mbpo-paper-norm": ("MBPO, layer norm", COLORS["mbpo"], "--"),
    "ftfl-paper-norm": ("FTFL, layer norm", COLORS["ftfl"], "--"),
    "mbpo-paper-bounds": ("MBPO, learned bounds", BOUNDS_COLOR, "-"),
    "ftfl-paper-beta": ("FTFL, beta 0.5", BETA_COLOR, "-"),
}
TASKS = {"humanoid-stand": "humanoid-stand-", "quadruped-walk": ""}


def default_rows(task):
    """{label: (row, colour, style)} of a task's published rows at the scripts' defaults."""
    names = {f"{TASKS[task]}{end}": how for end, how in DEFAULTS.items()}
    there = {name: how for name, how in names.items() if (RESULTS / f"critics/{name}.csv").exists()}
    return {label: (read_critics(name), color, style) for name, (label, color, style) in there.items()}


def critics_table():
    """A line per algorithm at the defaults: its model after the last training, how much of what it imagined
    (over the whole run) is out of the range of the real states, its critics at the end, and what they say of
    the last evaluation's first states beside what is obtained from there; over the seeds."""
    heads = ["task", "algorithm", "reward R2", "imagined / real reward", "% out of the real range"]
    heads += ["Q", "critics' loss", "Q at the start", "discounted return"]
    rows = []
    for task in TASKS:
        for label, (row, *_) in default_rows(task).items():
            last = {column: values[:, -1] for column, (_, values) in row.items() if values.size}
            ratio = last["reward_synthetic"] / last["reward_real"] if "reward_real" in last else []
            outside = 100 * row["out_of_range"][1].mean(1) if "out_of_range" in last else []
            cells = [last.get("reward_r2", []), ratio, outside, at_end(row, "q"), at_end(row, "qf_loss")]
            cells += [last["q_start"], last["discounted_return"]]
            rows.append([task, label, *map(span, cells)])
    return markdown(heads, rows)


NOISE = {  # {row of quadruped-walk, small model, 10 updates: (algorithm, what is imagined)}
    "mbpo": ("MBPO", "a sample"),
    "mbpo-mean": ("MBPO", "the mean"),
    "mbpo-noforce": ("MBPO", "a sample, without forces"),
    "tun": ("TUN only", "a sample"),
    "dnp": ("DNP only", "a sample"),
    "ftfl": ("FTFL", "a sample"),
    "ftfl-mean": ("FTFL", "the mean"),
    "ftfl-cut": ("FTFL", "a sample, cut to the real range"),
    "ftfl-noforce": ("FTFL", "a sample, without forces"),
    "ftfl-beta": ("FTFL, beta 0.5", "a sample"),
    "ftfl-beta-mean": ("FTFL, beta 0.5", "the mean"),
}


def noise_table():
    """What holds critics: a line per row, with what is imagined, how well, and what Q becomes."""
    heads = ["algorithm", "imagined", "next-state R2", "% out of the real range", "Q", "critics' loss"]
    rows = []
    for name, labels in NOISE.items():
        row = read_critics(name)
        cells = [row["next_state_r2"][1][:, -1], 100 * at_end(row, "out_of_range")]
        cells += [at_end(row, "q"), at_end(row, "qf_loss")]
        rows.append([*labels, *map(span, cells)])
    return markdown(heads, rows)


STFL = {  # {file: (our row of the same setting, the setting)}
    "mbpo_utd10_small_model": ("mbpo-orthogonal", "MBPO, 10 updates, small model"),
    "ftfl_utd10_small_model": ("ftfl-orthogonal", "FTFL, 10 updates, small model"),
    "ftfl_defaults": ("ftfl-paper", "FTFL, defaults"),
}


def read_stfl(name):
    """What the authors' earlier code logged, in the form of `read_critics`."""
    lines = read_lines(RESULTS / f"stfl/{name}.csv")
    steps = np.array([int(line["trained_steps"]) for line in lines])
    columns = {"q": "q1", "qf_loss": "critic_loss", "alpha": "alpha"}
    return {ours: (steps, np.array([[float(x[name]) for x in lines]])) for ours, name in columns.items()}


def draw_critics():
    """Q at the defaults on two tasks; of a smaller model's agents for longer; and of the authors' code."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8.4))
    for axis, task in zip(axes[0], TASKS):
        for label, (row, color, style) in default_rows(task).items():
            draw(axis, *row["q"], color, label, style)
        plots.title(axis, f"{task}, the defaults", "steps after 10,000 random ones")
    for name in ("ftfl", "mbpo"):
        for end in ("long", "long-seeds23"):
            steps, q = read_critics(f"{name}-{end}")["q"]
            axes[1, 0].plot(steps, q.T, color=COLORS[name], lw=1.2)
    text = "quadruped-walk, small model, 10 updates:\nMBPO's do not come back"
    plots.title(axes[1, 0], text, "steps after 10,000 random ones")
    for file_name, (row_name, _) in STFL.items():
        color = COLORS[row_name.split("-")[0]]
        if row_name.endswith("-orthogonal"):
            steps, q = read_critics(row_name)["q"]
            draw(axes[1, 1], steps, q, color)
            steps, q = read_stfl(file_name)["q"]
            axes[1, 1].plot(steps, q[0], ":", color=color, lw=2.5)
    axes[1, 1].plot([], [], ":", color="0.3", lw=2.5, label="the authors' earlier code (STFL)")
    text = "the same settings, STFL's initial weights:\nthe authors' code does the same"
    plots.title(axes[1, 1], text, "steps after 10,000 random ones")
    for axis in axes.flat:
        axis.set_yscale("log")
        axis.set_ylim(5, None)
        axis.axhline(100, color="0.4", ls="-.", lw=1, label="the most that rewards can add up to")
    for axis in axes[:, 0]:
        axis.set_ylabel("Q of a batch")
    figure.suptitle("Critics run away on quadruped-walk; on humanoid-stand FTFL's come down")
    finish(figure, axes, "critics")


def stfl_table():
    """What the critics of the authors' earlier code say, beside our rows of the same settings (all seeds):
    after as many steps as both have, and when Q first passes 300."""
    heads = ["setting", "code", "steps", "Q", "critics' loss", "temperature", "Q above 300 after"]
    rows = []
    for file_name, (row_name, setting) in STFL.items():
        theirs = read_stfl(file_name)
        last = min(1_000, theirs["q"][0][-1])
        for code, row in (("STFL, one seed", theirs), (f"ours, `{row_name}`", read_critics(row_name))):
            columns = map(row.get, ("q", "qf_loss", "alpha"))
            cells = [span(values[:, steps.tolist().index(last)]) for steps, values in columns]
            steps, q = row["q"]
            first = [next((step for step, x in zip(steps, seed) if x > 300), np.inf) for seed in q]
            rows.append([setting, code, f"{last:,}", *cells, steps_text(first)])
    return markdown(heads, rows)


# ---------------------------------------- Variance, and direct targets
def from_then_on(steps, above):
    """The first of `steps` from which on `above` is true to the end; inf if it is not so at the end."""
    wrong = np.flatnonzero(~above)
    if not len(wrong):
        return steps[0]
    return steps[wrong[-1] + 1] if wrong[-1] + 1 < len(steps) else np.inf


def targets_table():
    """A line per task: from which gradient step on the direct target is ahead of the residual one, targets
    normalized; and the variance part of the loss, early and at the end."""
    heads = ["task", "step from which FTFL's next-state R2 is above TUN only's"]
    heads += ["TUN only's smallest holdout error at", "FTFL's"]
    parts = {"mbpo": "MBPO", "tun": "TUN only", "ftfl": "FTFL"}
    heads += [f"variance part of the loss, {name}" for name in parts.values()]
    rows = []
    for task in [*experiments.TASKS, SEEN]:
        fits = {name: read_fit(f"{task}-{name}") for name in parts}
        if not all(fits.values()):
            continue
        direct, residual = fits["ftfl"], fits["tun"]
        steps = direct["step"][0]
        ahead = direct["next_state_r2"] > residual["next_state_r2"]
        cells = [steps_text([from_then_on(steps, seed) for seed in ahead])]
        cells += [steps_text(steps[fit["holdout_mse"].argmin(1)]) for fit in (residual, direct)]
        for fit in fits.values():
            early, late = at_step(fit, "variance_loss", 2_000), fit["variance_loss"][:, -1]
            cells.append(f"{span(early)}; {span(late)}")
        name = "humanoid-stand, SAC's transitions" if task == SEEN else task
        rows.append([name, *cells])
    return markdown(heads, rows)


def draw_targets():
    """Next states with direct and residual targets, normalized, and the variance part of the loss."""
    tasks = [*experiments.TASKS]
    figure, axes = plt.subplots(2, len(tasks), figsize=(12, 6), sharex=True)
    for column, task in zip(axes.T, tasks):
        for name in ("mbpo", "tun", "ftfl"):
            fit, label = read_fit(f"{task}-{name}"), ALGORITHMS[name]
            if name != "mbpo":
                draw(column[0], fit["step"][0], fit["next_state_r2"], COLORS[name], label)
            draw(column[1], fit["step"][0], fit["variance_loss"], COLORS[name], label)
        top = read_fit(f"{task}-ftfl")["next_state_r2"].max()
        column[0].set_ylim(
            top - 0.6 if task in ("humanoid-stand", "quadruped-walk") else top - 0.12, top + 0.02
        )
        plots.title(column[0], f"{task}\nnext-state $R^2$, held out", None)
        plots.title(column[1], "variance part of the loss", "gradient steps of the model")
        column[1].set_ylim(-8, 1)
    figure.suptitle("Direct targets (FTFL) pass residual ones (TUN only) late, where they do")
    finish(figure, axes, "targets")


# ---------------------------------------- Returns
GRID_STEPS = {"grid": "", "grid_longer": ", 25,000 steps", "hopper": " at the defaults"}  # what its lines say


def read_grid(folders=tuple(GRID_STEPS)):
    """{task: {algorithm: runs, by seed}} of complete runs; longer runs and those at the defaults apart."""
    found = {}
    for folder in folders:
        runs = [run for path in (RESULTS / folder).glob("*.csv") for run in plots.read_csv(path)]
        for run in sorted(runs, key=lambda run: run.flags["seed"]):
            task = run.flags["env_id"].removeprefix("dm_control/").rsplit("-v", 1)[0] + GRID_STEPS[folder]
            found.setdefault(task, {}).setdefault(plots.algorithm(run.flags), []).append(run)
    return dict(sorted(found.items()))


def scores(runs):
    """The mean of the last two evaluations, per run."""
    return np.array([run.scalars[plots.RETURN][1][-2:].mean() for run in runs])


def beside(values, sac):
    """What the page's rule says of three scores beside SAC's three; bold where no seeds overlap."""
    if min(len(values), len(sac)) < 3:
        return ""
    middle = np.median(values)
    word = "behind" if middle < sac.min() else "ahead" if middle > sac.max() else ""
    apart = values.max() < sac.min() or values.min() > sac.max()
    return f" (**{word}**)" if apart else f" ({word})" if word else ""


def late(run, tag):
    """The mean of a run's values over its last 2,500 steps; nan if there are none: of rewards never seen."""
    steps, values = run.scalars.get(tag, (np.zeros(0), np.zeros(0)))
    values = values[steps > plots.last_step(run) - 2_500]
    return values.mean() if len(values) else np.nan


def known(runs):
    """[R2 of rewards, R2 of next states] of the runs' models over the last 2,500 steps; - without a model."""
    cells = [row_of([late(run, f"model/{part}_r2") for run in runs]) for part in ("reward", "next_state")]
    return ["-" if set(cell) <= set("-, ") else cell for cell in cells]


def returns_table():
    """A line per task: each seed's score, and whether an algorithm is behind or ahead of SAC."""
    rows = []
    for task, found in read_grid().items():
        of = {name: scores(found.get(name, [])) for name in ALGORITHMS.values()}
        cells = [row_of(x) + (beside(x, of["SAC"]) if name != "SAC" else "") for name, x in of.items()]
        rows.append([task, *cells])
    return markdown(["task", *ALGORITHMS.values()], rows)


def marks_table():
    """How often the rule marks an algorithm of the grid, and how often it would if all were equal."""
    marks = comparisons = 0
    for found in read_grid(("grid",)).values():
        sac = scores(found["SAC"])
        for name, runs in found.items():
            comparisons += name != "SAC"
            marks += name != "SAC" and beside(scores(runs), sac) != ""
    # if all are equal, SAC's three scores may be any three of the six
    orders = [set(sac) for sac in combinations(range(6), 3)]
    apart = [sac for sac in orders if not min(sac) < sorted(set(range(6)) - sac)[1] < max(sac)]
    chance = comparisons * len(apart) / len(orders)
    heads = ["comparisons with SAC in the grid", "marked", "marked by chance, if all were equal"]
    return markdown(heads, [[comparisons, marks, number(chance)]])


def draw_returns():
    """Each seed's score as a multiple of SAC's median. Where SAC has learned nothing there is no multiple."""
    found = {task: runs for task, runs in read_grid().items() if np.median(scores(runs["SAC"])) > 10}
    figure, axis = plt.subplots(figsize=(11, 4.4))
    for place, runs in enumerate(found.values()):
        sac = scores(runs["SAC"])
        for k, (short, name) in enumerate(ALGORITHMS.items()):
            values = scores(runs.get(name, [])) / np.median(sac)
            x = place + 0.15 * (k - 2)
            label = name if not place else None
            axis.plot(
                [x] * len(values), np.maximum(values, 0.01), "o", ms=5, color=COLORS[short], label=label
            )
    axis.axhline(1, color="0.6", lw=1, zorder=0)
    axis.set_yscale("log")
    axis.set_xticks(range(len(found)), [task.replace(", ", "\n").replace(" at", "\nat") for task in found])
    axis.tick_params(axis="x", labelsize=8)
    axis.set_ylabel("score / median of SAC's")
    figure.suptitle("Beside SAC: a dot per seed (0.01: less than that)")
    finish(figure, [axis], "returns", columns=5)


# ---------------------------------------- The simulator in the model's place
FINGER = {  # {row: (what its lines say, colour)}
    "bounds/mbpo__dm_control-finger-spin-v0": ("MBPO, learned bounds", BOUNDS_COLOR),
    "beta/ftfl-beta__dm_control-finger-spin-v0": ("FTFL, beta 0.5", BETA_COLOR),
    "oracle/finger-spin/oracle": ("MBPO, simulator instead of the model", "tab:purple"),
    "oracle/finger-spin/true-rewards": ("MBPO, simulator's rewards", OTHER_COLOR),
    "oracle/finger-spin/true-states": ("MBPO, simulator's next states", COLORS["dnp"]),
    "oracle/finger-spin/real50": ("MBPO, half of each batch real", "tab:brown"),
}


def finger_runs():
    """{what a row is: (runs by seed, colour, panel)} of finger-spin, each of 25,000 steps."""
    agents = read_grid(("grid_longer",)).get("finger-spin, 25,000 steps", {})
    found = {name: (agents[name], plots.COLORS[name], 0) for name in ALGORITHMS.values() if name in agents}
    for name, (label, color) in FINGER.items():
        if paths := sorted(RESULTS.glob(f"{name}__seed*.csv")):
            found[label] = [plots.read_csv(path)[0] for path in paths], color, int(name.startswith("oracle"))
    return found


def finger_table():
    """A line per row: each seed's score, after how many steps an evaluation first earned more than 100, and
    what its model knows, if there is one, of its holdout in the last 2,500 steps."""
    rows = []
    for name, (runs, *_) in finger_runs().items():
        returns = [run.scalars[plots.RETURN] for run in runs]
        first = [np.append(steps[values > 100], np.inf)[0] for steps, values in returns]
        rows.append([name, row_of(scores(runs)), steps_text(first), *known(runs)])
    return markdown(["agent", "score", "above 100 after", "reward R2", "next-state R2"], rows)


def draw_finger():
    """Returns over steps: the algorithms, and MBPO with the simulator in a part of the model's place."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    for name, (runs, color, panel) in finger_runs().items():
        steps = runs[0].scalars[plots.RETURN][0]
        values = np.array([run.scalars[plots.RETURN][1] for run in runs])
        draw(axes[panel], steps, values, color, name)
        if name == "MBPO":
            draw(axes[1], steps, values, color)
    plots.title(axes[0], "with learned models, 5 % real data")
    plots.title(axes[1], "MBPO, with parts of its model replaced")
    axes[0].set_ylabel("return")
    figure.suptitle(
        "finger-spin: FTFL with beta 0.5 learns to spin, and MBPO with the simulator in the model's place"
    )
    finish(figure, axes, "finger")


# ---------------------------------------- Mismatch
def read_taxonomy():
    """{task: {column: values of all seeds}}, with what the columns give together."""
    tasks = plots.read_taxonomy(RESULTS / "taxonomy.csv")
    for found in tasks.values():
        found["gain"] = found["ftfl_reward_r2"] - found["mbpo_reward_r2"]
    return tasks


def robot(task):
    """The body that a task moves, quadruped of dm_control/quadruped-walk-v0."""
    return task.removeprefix("dm_control/").split("-")[0]


def mismatch_table():
    """Rank correlations over tasks, with 95 % bootstrap intervals."""
    tasks = read_taxonomy()
    others = {task: x for task, x in tasks.items() if robot(task) not in ("humanoid", "humanoid_CMU", "dog")}
    columns = {
        "over all tasks": (tasks, str),
        "the same, robots drawn": (tasks, robot),
        "without humanoids and dogs": (others, str),
    }
    pairs = {f"{name}_reward_r2": f"reward R2 of {ALGORITHMS[name]}" for name in ("mbpo", "ftfl")}
    rows = []
    for column, text in (pairs | {"gain": "reward R2: FTFL's minus MBPO's"}).items():
        cells = []
        for some, group in columns.values():
            rho, low, high, count = plots.rank_correlation(some, "mismatch", column, group)
            cells.append(f"{rho:.2f} [{low:.2f}, {high:.2f}], {count} tasks")
        rows.append([text, *cells])
    return markdown(["mismatch with", *columns], rows)


def draw_taxonomy():
    """The figure and the table of all tasks that `plots.py taxonomy` makes."""
    plots.taxonomy(str(RESULTS / "taxonomy.csv"), str(RESULTS / "taxonomy"))


# ---------------------------------------- The picture of the README
def draw_overview():
    """humanoid-stand at the defaults: what MBPO's and FTFL's models imagine, and all settings' critics."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 4))
    obtained = []
    for short, name in ALGORITHMS.items():
        row, color = read_critics(f"humanoid-stand-{short}-paper"), COLORS[short]
        if short in ("mbpo", "ftfl"):
            steps, imagined = row["reward_synthetic"]
            axes[0].plot(steps, (imagined / row["reward_real"][1]).T, color=color, lw=1.4)
            steps, r2 = row["reward_r2"]
            axes[1].plot(steps, r2.T, color=color, lw=1.4)
        steps, q = row["q"]
        axes[2].plot(steps, q.T, color=color, lw=1.2)
        axes[2].plot([], [], color=color, label=name)
        obtained.append(np.nanmax(row["discounted_return"][1]))
    axes[0].axhline(1, color="0.6", lw=1)
    axes[0].set_title("imagined / real mean reward\n(MBPO and FTFL)")
    axes[0].set_ylim(-9, 21)
    axes[1].axhline(0, color="0.6", lw=1)
    axes[1].set_title("the model's reward: $R^2$\n(below -2: not shown)")
    axes[1].set_ylim(-2, 1)
    axes[2].set_yscale("log")
    axes[2].axhline(max(obtained), color="0.4", ls=":", label="largest return obtained")
    axes[2].set_ylim(5, None)
    axes[2].set_title("Q, as the critics say,\nand the discounted return obtained")
    for axis in axes:
        axis.set_xlabel("steps after 10,000 random ones")
    figure.suptitle("humanoid-stand, defaults, three seeds: FTFL's reward is steady, its Q falls below SAC's")
    finish(figure, axes, "overview", columns=6)


# ---------------------------------------- All
TABLES = {
    "claims": claims_table,
    "verdicts": verdicts_table,
    "marks": marks_table,
    "predictions": predictions_table,
    "reward": reward_table,
    "beta": beta_table,
    "calibration": calibration_table,
    "beta_agents": beta_agents_table,
    "critics": critics_table,
    "noise": noise_table,
    "stfl": stfl_table,
    "targets": targets_table,
    "returns": returns_table,
    "finger": finger_table,
    "mismatch": mismatch_table,
}
FIGURES = [draw_overview, draw_reward, draw_beta, draw_critics, draw_targets, draw_returns, draw_finger]
FIGURES += [draw_taxonomy]


def with_tables(text):
    """The text with each table between <!-- table NAME --> and <!-- end --> made anew."""

    def replaced(match):
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def main():
    for figure in FIGURES:
        figure()
    for page in PAGES:
        path = ROOT / page
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
