"""All published figures and tables, drawn anew from benchmark/results/ without training anything.

    python benchmark/figures.py                 # what `make figures` runs

Writes the figures into benchmark/results/, and the tables into README.md and REPRODUCTION.md, between the
comments that name them. A number in a table that is not in the results can't stay: a test compares.
"""

import csv
import glob
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmark")]

import experiments  # noqa: E402
import export  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import taxonomy  # noqa: E402

import plots  # noqa: E402

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # PDFs without the time: unchanged if nothing has changed
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = ROOT / "benchmark/results"


def names_in(folder):
    """The names of the rows whose numbers are in a folder of benchmark/results, in order and once each."""
    return list(dict.fromkeys(row.name for row in experiments.ROWS if row.folder == folder))


# The fits of 50,000 gradient steps, and not the run that some of them take transitions of
FITS = [
    name for name in names_in("studies") if name != "sac" and "beta" not in name and "rewarded2" not in name
]


# ---------------------------------------- Critics
def read_row(name):
    """{column: (steps after the random ones, values of each seed)} of a row of benchmark/experiments.py."""
    with open(RESULTS / f"critics/{name}.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    seeds, found = sorted({line["seed"] for line in lines}, key=int), {}
    for column in export.CRITICS:
        points = [(x["seed"], int(x["step"]), float(x[column])) for x in lines if x.get(column)]
        steps = sorted({step for _, step, _ in points})
        values = {(seed, step): value for seed, step, value in points}
        found[column] = (
            np.array(steps) - experiments.START,
            np.array([[values.get((s, t), np.nan) for t in steps] for s in seeds]),
        )
    return found


def complete_rows():
    """The rows of benchmark/experiments.py whose runs are complete, in its order."""
    return [name for name in names_in("critics") if (RESULTS / f"critics/{name}.csv").exists()]


def at_end(row, column, last=4):
    """A column's mean over its last logged values, per seed (100 steps of them)."""
    return row[column][1][:, -last:].mean(1)


def span(values):
    """The smallest and the largest of some seeds' values, or the value of one."""
    ends = np.min(values), np.max(values)
    low, high = (f"{x:,.0f}" if 1e3 <= abs(x) < 1e9 else f"{x:.3g}" for x in ends)
    return low if low == high else f"{low} to {high}"


def critics_table():
    """A line per row: the spread over seeds at the end."""
    columns = {
        "q": "Q",
        "qf_loss": "critics' loss",
        "alpha": "temperature",
        "action_size": "mean \\|a\\|",
        "out_of_range": "out of range",
    }
    lines = [
        "| row | steps | seeds | away | " + " | ".join(columns.values()) + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for name in complete_rows():
        if name.startswith("walk-"):
            continue
        row = read_row(name)
        q = at_end(row, "q")
        cells = [name, f"{row['q'][0][-1]:,}", len(q), f"{(np.abs(q) > AWAY).sum()} of {len(q)}"]
        for column in columns:
            values = at_end(row, column) if row[column][1].size else np.array([])
            cells.append(span(values) if values.size else "-")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def paper_table():
    """A line per row at the scripts' defaults, each seed's numbers: of its model at the last training; of the
    critics at the end; and at the first states of the last evaluation (on the GPU, after 1,000 steps)."""
    heads = ["row", "reward R2", "imagined / real reward", "next-state R2", "Q", "critics' loss"]
    heads += ["Q at the start", "discounted return"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    names = [name for name in complete_rows() if "-paper" in name and "norm" not in name]
    for name in sorted(names, key=lambda name: "humanoid" not in name):
        row = read_row(name)
        last = {column: values[:, -1] for column, (_, values) in row.items() if values.size}
        if "reward_real" in last:
            last["ratio"] = last["reward_synthetic"] / last["reward_real"]
        last |= {column: at_end(row, column) for column in ("q", "qf_loss")}
        columns = ("reward_r2", "ratio", "next_state_r2", "q", "qf_loss", "q_start", "discounted_return")
        cells = [row_of(last[column]) if column in last else "-" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def walk_table():
    """A line per run that was to learn to walk: returns of evaluations before training, the mean of the last
    three, and the highest after training; what Q says of their first states and what was obtained from there
    (mean of the last three); Q of the batch."""
    heads = ["row", "steps", "seeds", "untrained", "last returns", "highest", "Q at their start"]
    heads += ["discounted return", "Q of the batch at half time", "at the end"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in complete_rows():
        if not name.startswith("walk-"):
            continue
        row = read_row(name)
        (steps, returns), q = row["return"], at_end(row, "q")
        half = row["q"][1][:, row["q"][1].shape[1] // 2]
        parts = [returns[:, steps <= 0], at_end(row, "return", 3), returns[:, steps > 0].max(1)]
        parts += [at_end(row, "q_start", 3), at_end(row, "discounted_return", 3), half, q]
        cells = [name, f"{row['q'][0][-1]:,}", len(q), *map(span, parts)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def forces_table():
    """Shares of toe forces near 0 and far from it, and of states in which all twelve are away from 0."""
    with open(RESULTS / "critics/forces.csv", newline="") as file:
        *bins, whole = csv.DictReader(file)
    within = [line for line in bins if -2 <= float(line["from"]) and float(line["to"]) <= 2]
    beyond = [line for line in bins if float(line["from"]) >= 8 or float(line["to"]) <= -8]
    lines = [f"| toe forces | between -2 and 2 | beyond 8 | {whole['from']}, of a state |", "|---" * 4 + "|"]
    for column, name in {"real": "real", "ftfl": "imagined, FTFL", "mbpo": "imagined, MBPO"}.items():
        shares = [sum(float(line[column]) for line in part) for part in (within, beyond, [whole])]
        lines.append(f"| {name} | " + " | ".join(f"{share:.2%}" for share in shares) + " |")
    return "\n".join(lines)


POLICIES = {"none": "no action", "random": "random", "agent": "SAC, mean action"}


def read_landings(path=None):
    """{policy: {column: values of its episodes}} of `benchmark/experiments.py --landings`."""
    with open(path or RESULTS / "critics/landings.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    found = {line["policy"]: [x for x in lines if x["policy"] == line["policy"]] for line in lines}
    columns = ("start", "after_200", "end", "return")
    return {name: {c: np.array([float(x[c]) for x in part]) for c in columns} for name, part in found.items()}


def landings_table():
    """A line per policy: how many robots are on their feet, and the returns of these and of the others."""
    heads = [
        "policy",
        "episodes",
        "on its feet after 200 steps",
        "at the end",
        "return of these",
        "of the others",
    ]
    heads += ["mean return", "standard error of a mean of five"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, x in read_landings().items():
        up, returns = x["after_200"] > 0.9, x["return"]
        cells = [
            POLICIES[name],
            len(up),
            up.sum(),
            (x["end"] > 0.9).sum(),
            span(returns[up]),
            span(returns[~up]),
        ]
        cells += [f"{returns.mean():.3g}", f"{returns.std(ddof=1) / 5**0.5:.3g}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def sb3_table():
    """The evaluations of Stable-Baselines3's SAC."""
    with open(RESULTS / "sb3_sac/fish-upright.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    heads = ["steps", "return", "Q at their start", "discounted return", "the last five training episodes"]
    table = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for line in lines:
        numbers = (float(line[c]) for c in ("return", "q_start", "discounted_return", "training_return"))
        table.append(f"| {int(line['step']):,} | {' | '.join(map(span, numbers))} |")
    return "\n".join(table)


AWAY = (
    200  # a |Q| that no discounted sum of rewards in [0, 1] can reach, and no entropy at these temperatures
)
COMPARED = {"FTFL": "ftfl", "MBPO": "mbpo", "SAC": "sac"}


def draw_critics():
    """Q, the share of imagined numbers out of range and the size of actions, without and with layer norm."""
    panels = {"q": "Q of the batch", "out_of_range": "imagined numbers\nout of the data's range"}
    panels["action_size"] = "mean |a|"
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
    for axis, (column, text) in zip(axes, panels.items()):
        for algorithm, name in COMPARED.items():
            for suffix, style in {"": "-", "-norm": "--"}.items():
                if name + suffix not in complete_rows():
                    continue
                steps, values = read_row(name + suffix)[column]
                label = f"{algorithm}{', layer norm' if suffix else ''}"
                for seed, line in enumerate(values):
                    axis.plot(
                        steps,
                        line,
                        style,
                        color=plots.COLORS[algorithm],
                        lw=1.2,
                        label=None if seed else label,
                    )
        plots.title(axis, text, "steps after the random ones")
    axes[0].set_yscale("symlog", linthresh=100)
    axes[0].axhspan(-AWAY, AWAY, color="0.9", zorder=0)
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=6)
    plots.save(figure, str(RESULTS / "critics"))


def draw_long():
    """Q, the temperature and the share out of range of FTFL and MBPO, a line per seed."""
    rows = [(name, end) for name in ("FTFL", "MBPO") for end in ("", "-seeds23")]
    panels = {
        "q": "Q of the batch",
        "alpha": "temperature",
        "out_of_range": "imagined numbers\nout of the data's range",
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3))
    for axis, (column, text) in zip(axes, panels.items()):
        for name, end in rows:
            steps, values = read_row(f"{name.lower()}-long{end}")[column]
            axis.plot(steps / 1000, values.T, color=plots.COLORS[name], lw=1.2)
        plots.title(axis, text, "thousand steps after random")
    for axis in axes[:2]:
        axis.set_yscale("log")
    axes[0].legend([plt.Line2D([], [], color=plots.COLORS[x]) for x in ("FTFL", "MBPO")], ["FTFL", "MBPO"])
    plots.save(figure, str(RESULTS / "critics_long"))


def draw_landings():
    """What episodes of quadruped-walk earn by how upright they begin, and the training episodes of SAC."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), width_ratios=[1, 2])
    for (name, x), colour in zip(read_landings().items(), ("#E69F00", "0.6", plots.COLORS["SAC"])):
        axes[0].plot(x["start"], x["return"], ".", ms=4, color=colour, label=POLICIES[name])
    axes[0].legend(frameon=False)
    plots.title(axes[0], "return", "how upright the episode begins")
    steps, returns = read_row("walk-sac-utd1")["episode"]
    axes[1].plot((steps + experiments.START) / 1000, returns[0], ".", color=plots.COLORS["SAC"])
    axes[1].axvline(experiments.START / 1000, color="0.6", lw=1)
    plots.title(axes[1], "returns of SAC's training episodes", "thousand steps; to the line: random")
    plots.save(figure, str(RESULTS / "critics_landings"))


# ---------------------------------------- Taxonomy
REWARD_R2 = {name: f"{name.lower()}_reward_r2" for name in ("MBPO", "DNP", "TUN", "FTFL")}


def read_taxonomy():
    """{task: {column: values of all seeds}}, with what the columns give together."""
    tasks = plots.read_taxonomy(RESULTS / "taxonomy.csv")
    for found in tasks.values():
        found["reward_gain"] = found["ftfl_reward_r2"] - found["mbpo_reward_r2"]
        found["direct_gain"] = found["ftfl_next_state_r2"] - found["tun_next_state_r2"]
    return tasks


def taxonomy_table():
    """The paper's 13 tasks, by falling mismatch: medians over seeds. All tasks are in taxonomy.md."""
    columns = {"mismatch": "mismatch", "noise_median": "noise", "noise_velocity_median": "of velocities"}
    columns |= {column: f"reward R2: {name}" for name, column in REWARD_R2.items()}
    columns |= {f"{name.lower()}_reward_ratio": f"synthetic / real: {name}" for name in ("MBPO", "FTFL")}
    lines = ["| task | " + " | ".join(columns.values()) + " |", "|---" * (1 + len(columns)) + "|"]
    for task, found in read_taxonomy().items():
        if task in taxonomy.PAPER:
            name = task.removeprefix("dm_control/").rsplit("-v", 1)[0]
            cells = [span(plots.median(found[column])) for column in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def robot(task):
    """The body that a task moves, quadruped of dm_control/quadruped-walk-v0."""
    return task.removeprefix("dm_control/").split("-")[0]


def ranks():
    """{what of the tasks: (the tasks, what the bootstrap draws together)}, columns of `ranks_table`."""
    tasks = read_taxonomy()
    of_dmc = {task: x for task, x in tasks.items() if task.startswith("dm_control/")}
    left_out = [task for task in of_dmc if robot(task) in ("humanoid", "humanoid_CMU", "dog")]
    others = {task: x for task, x in tasks.items() if task not in left_out}
    return {
        "over all tasks": (tasks, str),
        "over DMC's": (of_dmc, str),
        "over all, robots drawn": (tasks, robot),
        "without humanoids and dogs": (others, str),
    }


def ranks_table():
    """Rank correlations over tasks, with 95 % bootstrap intervals."""
    pairs = [("mismatch", column, f"reward R2 of {name}") for name, column in REWARD_R2.items()]
    pairs += [("mismatch", "reward_gain", "reward R2: FTFL's minus MBPO's")]
    pairs += [("noise_median", "direct_gain", "next-state R2: FTFL's minus TUN's")]
    columns = ranks()
    lines = ["| | with | " + " | ".join(columns) + " |", "|---" * 6 + "|"]
    for x, y, text in pairs:
        cells = []
        for tasks, group in columns.values():
            rho, low, high, count = plots.rank_correlation(tasks, x, y, group)
            cells.append(f"{rho:.2f} [{low:.2f}, {high:.2f}], {count} tasks")
        lines.append(f"| {x.removesuffix('_median')} | {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def widths_table():
    """Three tasks at the taxonomy's width and at the scripts': medians over the same seeds."""
    narrow, wide = read_taxonomy(), plots.read_taxonomy(RESULTS / "taxonomy_width200.csv")
    heads = [f"{text}: {name}" for text in ("reward R2", "next-state R2") for name in REWARD_R2]
    lines = ["| task | width | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for task, at_200 in wide.items():
        same = np.isin(narrow[task]["seed"], at_200["seed"])
        at_100 = {column: values[same] for column, values in narrow[task].items()}
        for width, found in ((100, at_100), (200, at_200)):
            columns = [
                f"{name.lower()}_{number}_r2" for number in ("reward", "next_state") for name in REWARD_R2
            ]
            cells = [span(plots.median(found[column])) for column in columns]
            lines.append(f"| {task.removeprefix('dm_control/')} | {width} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_taxonomy():
    """The figure and the table of all tasks that `plots.py taxonomy` makes."""
    plots.taxonomy(str(RESULTS / "taxonomy.csv"), str(RESULTS / "taxonomy"))


# ---------------------------------------- The laptop grid
GRID_ALGORITHMS = ("SAC", *plots.SWITCHES)
GRID_STEPS = {"grid": "", "grid_longer": ", 25,000 steps", "hopper": " at the defaults"}  # what its lines say


def grid_files(folder="grid"):
    """The CSV files of benchmark/grid.py that plots.py reads."""
    return (str(RESULTS / folder / "*.csv"),)


def read_grid(folders=tuple(GRID_STEPS)):
    """{task: {algorithm: runs, by seed}} of complete runs; longer runs and those at the defaults apart."""
    found = {}
    for folder in folders:
        runs = plots.load_runs(grid_files(folder)) if glob.glob(*grid_files(folder)) else []
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


def row_of(values):
    """Seeds' values in the order of the seeds; a dash for those that are no number, and for none."""
    return ", ".join(span(value) if np.isfinite(value) else "-" for value in values) or "-"


def grid_table():
    """A line per task: each seed's score, and whether an algorithm is behind or ahead of SAC."""
    lines = ["| task | " + " | ".join(GRID_ALGORITHMS) + " |", "|---" * (1 + len(GRID_ALGORITHMS)) + "|"]
    for task, found in read_grid().items():
        of = {name: scores(found.get(name, [])) for name in GRID_ALGORITHMS}
        cells = [row_of(of[x]) + (beside(of[x], of["SAC"]) if x != "SAC" else "") for x in GRID_ALGORITHMS]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def grid_model_table():
    """A line per task: the model's reward R2 on its holdout, the mean imagined reward over the real one, and
    the next-state R2, as means over the last 2,500 steps, each seed's; a dash if no reward is among the real
    ones."""
    heads = ("reward R2", "imagined / real reward", "next-state R2")
    heads = [f"{text}: {name}" for text in heads for name in plots.SWITCHES]
    lines = ["| task | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for task, found in read_grid().items():
        r2, next_r2 = (
            [[late(run, f"model/{tag}_r2") for run in found.get(name, [])] for name in plots.SWITCHES]
            for tag in ("reward", "next_state")
        )
        imagined, real = (
            [np.array([late(run, tag) for run in found.get(name, [])]) for name in plots.SWITCHES]
            for tag in ("rewards/synthetic", "rewards/real")
        )
        ratio = [x / np.where(y == 0, np.nan, y) for x, y in zip(imagined, real)]
        lines.append(f"| {task} | {' | '.join(map(row_of, r2 + ratio + next_r2))} |")
    return "\n".join(lines)


def grid_critics_table():
    """A line per task: what the critics say at the first states of the last two evaluations, and the
    discounted rewards that are obtained from there, each seed's."""
    heads = [f"{text}: {name}" for text in ("Q", "obtained") for name in GRID_ALGORITHMS]
    lines = ["| task | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for task, found in read_grid().items():
        cells = [
            row_of([run.scalars[tag][1][-2:].mean() for run in found.get(name, [])])
            for tag in ("eval/q_start", "eval/discounted_return")
            for name in GRID_ALGORITHMS
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


UNIFORM = {"cheetah-run": 6, "finger-spin": 2, "walker-stand": 6}  # their numbers of actions


def random_until(run, num_actions):
    """The last logged step at which a policy's entropy is within 0.05 per action of log 2 (uniform)."""
    steps, entropy = run.scalars["losses/entropy"]
    return steps[entropy > num_actions * (np.log(2) - 0.05)].max(initial=0)


def uniform_table():
    """A line per task: until when each seed's policy is as good as uniform. Of finger-spin the runs that have
    gone on, where there are any (those of cheetah-run that are as long were begun anew)."""
    lines = ["| task | " + " | ".join(GRID_ALGORITHMS) + " |", "|---" * (1 + len(GRID_ALGORITHMS)) + "|"]
    grid, longer = read_grid(("grid",)), read_grid(("grid_longer",))
    for task, num_actions in UNIFORM.items():
        found = grid.get(task, {})
        if task == "finger-spin":
            found = found | longer.get(f"{task}, 25,000 steps", {})
        known = {
            name: [random_until(run, num_actions) for run in runs if "losses/entropy" in run.scalars]
            for name, runs in found.items()
        }
        cells = [", ".join(f"{step:,.0f}" for step in known.get(name, [])) or "-" for name in GRID_ALGORITHMS]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def noise_table():
    """A line per algorithm on Hopper, with fixed and with learned bounds of the predicted variance: scores,
    and as means over the last 2,500 steps (mu - y)^2 / sigma^2, the critics' loss and the next-state R2."""
    lines = [
        "| algorithm | bounds | score | model/mse_loss | losses/qf_loss | next-state R2 |",
        "|---" * 6 + "|",
    ]
    files = grid_files("bounds")
    learned = plots.load_runs(files) if glob.glob(*files) else []
    for bounds, found in (
        ("fixed", read_grid(("grid",)).get("Hopper", {})),
        ("learned", {x: [r for r in learned if plots.algorithm(r.flags) == x] for x in plots.SWITCHES}),
    ):
        for name in GRID_ALGORITHMS:
            if runs := sorted(found.get(name, []), key=lambda run: run.flags["seed"]):
                tags = ("model/mse_loss", "losses/qf_loss", "model/next_state_r2")
                cells = [row_of([late(run, tag) for run in runs]) for tag in tags]
                kind = bounds if name != "SAC" else "-"
                lines.append(f"| {name} | {kind} | {row_of(scores(runs))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def defaults_table():
    """A line per run of Hopper at the scripts' defaults: at each evaluation after the random steps the
    return, Q at the first states and the discounted return that was obtained from there."""
    steps = (12_500, 15_000, 17_500, 20_000)
    heads = ["score", *(f"at {step:,}" for step in steps), "highest Q, at step", "critics' loss"]
    lines = [f"| algorithm | seed | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    files = grid_files("hopper_utd1")
    once = sorted(plots.load_runs(files), key=lambda run: run.flags["seed"]) if glob.glob(*files) else []
    found = read_grid(("hopper",)).get("Hopper at the defaults", {})
    for name, runs in [("SAC, 1 update", once), *((name, found.get(name, [])) for name in GRID_ALGORITHMS)]:
        for run in runs:
            tags = (plots.RETURN, "eval/q_start", "eval/discounted_return")
            at = [dict(zip(*run.scalars[tag])) for tag in tags]
            cells = ["{:.0f}; {:.0f}, {:.0f}".format(*(values[step] for values in at)) for step in steps]
            logged, q = run.scalars["losses/qf1_values"]
            cells += [f"{q.max():.0f}, {logged[q.argmax()]:,.0f}", f"{late(run, 'losses/qf_loss'):.0f}"]
            lines.append(f"| {name} | {run.flags['seed']} | {scores([run])[0]:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def grid_rewards_table():
    """A line per algorithm: how its model's reward comes along on quadruped-walk, each seed's, in the
    trainings of the model at these environment steps."""
    steps = (5_000, 7_500, 10_000, 12_500)
    heads = [f"{text} at {step:,}" for text in ("reward R2", "imagined / real") for step in steps]
    lines = ["| model | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, runs in read_grid(("grid",)).get("quadruped-walk", {}).items():
        if name != "SAC":
            at = [{tag: dict(zip(*run.scalars[tag])) for tag in run.scalars} for run in runs]
            r2 = [[run["model/reward_r2"][step] for run in at] for step in steps]
            ratio = [
                [run["rewards/synthetic"][step] / run["rewards/real"][step] for run in at] for step in steps
            ]
            lines.append(f"| {name} | {' | '.join(map(row_of, r2 + ratio))} |")
    return "\n".join(lines)


def grid_landings_table():
    """A line per agent of quadruped-walk, of the grid and of its runs that have gone on: 100 episodes by
    whether the robot is on its feet after 200 steps; of the run's last three evaluations what Q said at their
    first states, and what was obtained from there; and the model's next-state R2."""
    heads = ["algorithm", "steps", "seed", "on its feet", "mean return of these", "of the others"]
    heads += ["of all", "standard error", "Q at the start", "discounted return", "next-state R2"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in GRID_ALGORITHMS:
        for folder, steps in zip(GRID_STEPS, ("12,500", "25,000")):
            pattern = f"{name.split()[0].lower()}__dm_control-quadruped-walk-v0__seed*.csv"
            for path in sorted((RESULTS / folder).glob(pattern)):
                (run,) = plots.read_csv(path)
                episodes = read_landings(path.parent / "landings" / path.name)["agent"]
                up, returns = episodes["after_200"] > 0.9, episodes["return"]
                parts = [span(returns[part].mean()) if part.any() else "-" for part in (up, ~up)]
                cells = [name, steps, run.flags["seed"], up.sum(), *parts, span(returns.mean())]
                cells.append(f"{returns.std(ddof=1) / len(returns) ** 0.5:.2g}")
                for tag in ("eval/q_start", "eval/discounted_return"):
                    cells.append(span(run.scalars[tag][1][-3:].mean()))
                cells.append("-" if name == "SAC" else span(late(run, "model/next_state_r2")))
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw_grid():
    """Learning curves, returns beside SAC's, and the four switch settings."""
    found = read_grid(("grid",))
    if found:
        plots.curves(grid_files(), str(RESULTS / "grid_curves"))
    if any("SAC" in algorithms for algorithms in found.values()):
        plots.summary(grid_files(), str(RESULTS / "grid_summary"), last=2)
    if any({"TUN only", "DNP only"} & set(algorithms) for algorithms in found.values()):
        plots.ablation(grid_files(), str(RESULTS / "grid_ablation"))


# ---------------------------------------- The simulator in the model's place
TRAINED = "charts/episodic_return"


def read_oracle(task="cheetah-run"):
    """{row of benchmark/experiments.py: its complete runs, by seed}."""
    folder = RESULTS / "oracle" / task
    paths = {name: sorted(folder.glob(f"{name}__seed*.csv")) for name in names_in(f"oracle/{task}")}
    return {name: [plots.read_csv(path)[0] for path in paths[name]] for name in paths if paths[name]}


def cheetah_scores(runs):
    """Per run the mean of its last two evaluations, and that of its training episodes that ended last."""
    return scores(runs), np.array([run.scalars[TRAINED][1][-2:].mean() for run in runs])


def cheetah_table():
    """A line per row: each seed's score by evaluations and by training episodes, and how much of the gap
    between MBPO's median and SAC's the median closes, by either. No gap is said of fewer than three seeds."""
    heads = ["row", "evaluations", "of the gap", "training episodes", "of the gap"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    found = {name: cheetah_scores(runs) for name, runs in read_oracle().items()}
    for name, both in found.items():
        cells = [name]
        for kind, values in enumerate(both):
            low, high = (np.median(found[other][kind]) for other in ("mbpo", "sac"))
            closed = f"{100 * (np.median(values) - low) / (high - low):.0f} %" if len(values) > 2 else "-"
            cells += [row_of(values), closed]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_effects(task="cheetah-run", name="effects"):
    """The lines of `oracle.py --effects` or --fits, [{column: text}]; none if they are not there."""
    path = RESULTS / "oracle" / task / f"{name}.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def spinner_r2(algorithm):
    """What the models of finger-spin's agents know of the spinner's velocity, each seed's."""
    lines = [
        x for x in read_effects("finger-spin") if (x["algorithm"], x["actions"]) == (algorithm, "policy")
    ]
    return [float(line["r2_by_number"].split()[-1]) for line in lines]


def finger_fits_table():
    """A line per data and model of the new fits on finger-spin: each seed's share of rewarded transitions
    and of those that change the spinner's velocity, R2 of the reward, and of that change."""
    names = {"sac": "SAC", "mbpo": "MBPO", "tun": "TUN only", "ftfl": "FTFL"}
    lines = [
        "| transitions of | rewarded | change by more than 1 rad/s | model | reward R2 | R2 of that change |",
        "|---" * 6 + "|",
    ]
    found = {}
    for line in read_effects("finger-spin", "fits"):
        found.setdefault((line["data"], line["model"]), []).append(line)
    for (data, model), fits in sorted(found.items(), key=lambda item: list(names).index(item[0][0])):
        shares = [[float(line["rewarded"]), float(line["changed_by_number"].split()[-1])] for line in fits]
        rewarded, changed = (", ".join(f"{x:.2%}" for x in column) for column in zip(*shares))
        for prefix, name in (("", names[model]), ("linear_", "linear regression")):
            known = [row_of([float(line[f"{prefix}reward_r2"]) for line in fits])]
            known.append(row_of([float(line[f"{prefix}r2_by_number"].split()[-1]) for line in fits]))
            line = f"| {names[data]} | {rewarded} | {changed} | {name} | {' | '.join(known)} |"
            lines += [line] if line not in lines else []
    return "\n".join(lines)


def finger_table():
    """A line per row of finger-spin, each of 25,000 steps: each seed's score, after how many steps an
    evaluation first earned more than 100, and what the model knows, if there is one: of its holdout in the
    last 2,500, and of the spinner's velocity after an action of the policy, at the end."""
    heads = ["row", "score", "above 100 after", "reward R2", "next-state R2", "R2 of the spinner's velocity"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    agents = read_grid(("grid_longer",)).get("finger-spin, 25,000 steps", {})
    found = {name: agents[name] for name in GRID_ALGORITHMS if name in agents} | read_oracle("finger-spin")
    for name, runs in found.items():
        firsts = []
        for run in runs:
            steps, returns = run.scalars[plots.RETURN]
            firsts.append(f"{steps[np.argmax(returns > 100)]:,.0f}" if returns.max() > 100 else "never")
        known = [row_of([late(run, f"model/{of}_r2") for run in runs]) for of in ("reward", "next_state")]
        known = ["-" if set(cell) <= set("-, ") else cell for cell in known]
        known.append(row_of(spinner_r2(name)))
        lines.append(f"| {' | '.join([name, row_of(scores(runs)), ', '.join(firsts), *known])} |")
    return "\n".join(lines)


def effects_table():
    """A line per model and kind of actions: what it knows of all the variance, how much of that is the
    action's, and what it knows of this part; over the seeds."""
    parts = {"reward": "reward", "next_state": "next state", "value": "value of the next state"}
    columns = {f"{part}_r2": f"R2: {text}" for part, text in parts.items()}
    columns |= {f"{part}_effect_share": f"the action's share: {text}" for part, text in parts.items()}
    columns |= {f"{part}_effect_r2": f"R2 of the action's effect: {text}" for part, text in parts.items()}
    columns["value_sampled_effect_r2"] = "the last, sampled"
    lines = [f"| model | actions | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    groups = {}
    for line in read_effects():
        name = line["script"] if line["width"] == "100" else "paper-model"
        groups.setdefault((name, line["actions"]), []).append(line)
    for (name, actions), group in groups.items():
        cells = [span([float(line[column]) for line in group]) for column in columns]
        lines.append(f"| {name} | {actions} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------- The model alone
NAMES = {"mbpo": "MBPO", "tun": "TUN only", "dnp": "DNP only", "ftfl": "FTFL"}
SHOWN_STEPS = (2_000, 10_000, 20_000, 50_000)


def read_fit(name):
    """{column: (seeds, steps)} of the fits by that name, `step` too; {} if none is complete."""
    seeds = []
    for seed in experiments.THREE:
        path = RESULTS / f"studies/{name}__{seed}.csv"
        if path.exists():
            with open(path, newline="") as file:
                lines = list(csv.DictReader(file))
            seeds.append({column: [float(line[column]) for line in lines] for column in lines[0]})
    return {column: np.array([seed[column] for seed in seeds]) for column in seeds[0]} if seeds else {}


def from_then_on(steps, above):
    """The first of `steps` from which on `above` is true to the end; inf if it is not so at the end."""
    wrong = np.flatnonzero(~above)
    if not len(wrong):
        return steps[0]
    return steps[wrong[-1] + 1] if wrong[-1] + 1 < len(steps) else np.inf


def studies_table():
    """A line per fit: R2 of rewards and of next states as the training goes on, over all seeds."""
    heads = [f"{text} at {step:,}" for text in ("reward R2", "next-state R2") for step in SHOWN_STEPS]
    lines = ["| fit | seeds | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for name in FITS:
        if fit := read_fit(name):
            at = [fit["step"][0].tolist().index(step) for step in SHOWN_STEPS]
            cells = [span(fit[column][:, i]) for column in ("reward_r2", "next_state_r2") for i in at]
            lines.append(f"| {name} | {len(fit['step'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def follows_table():
    """A line per fit of humanoid-stand: imagined over real mean reward, early and at the end; the std that an
    imagined reward has by sampling, over the real mean reward; and both R2 at the end."""
    heads = [f"imagined / real reward at {step:,}" for step in (SHOWN_STEPS[0], SHOWN_STEPS[-1])]
    heads += ["noise of a reward / real reward", "reward R2", "next-state R2"]
    lines = ["| fit | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name in FITS:
        if (fit := read_fit(name)) and name.startswith(("humanoid-stand", "rewarded")):
            early, real = fit["step"][0].tolist().index(SHOWN_STEPS[0]), fit["reward_real"][:, -1]
            ratio = fit["reward_synthetic"] / fit["reward_real"]
            values = [ratio[:, early], ratio[:, -1], fit["reward_std"][:, -1] / real]
            values += [fit["reward_r2"][:, -1], fit["next_state_r2"][:, -1]]
            lines.append(f"| {name} | {' | '.join(map(span, values))} |")
    return "\n".join(lines)


def crossing_table():
    """A line per task: from which gradient step on the direct target is ahead of the residual one, targets
    normalized; and where each has its smallest error on the holdout."""
    heads = ["next-state R2", "variance of velocities", "in trained units"]
    heads += ["best step, residual", "best step, direct"]
    lines = ["| task | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for task in [*experiments.TASKS, "rewarded"]:
        direct, residual = read_fit(f"{task}-ftfl"), read_fit(f"{task}-tun")
        if not direct or not residual:
            continue
        both, steps = range(min(len(direct["step"]), len(residual["step"]))), direct["step"][0]
        ahead = {"next_state_r2": np.greater, "velocity_variance": np.less, "velocity_trained": np.less}
        values = [
            [from_then_on(steps, better(direct[c][k], residual[c][k])) for k in both]
            for c, better in ahead.items()
        ]
        values += [steps[fit["holdout_mse"].argmin(1)] for fit in (residual, direct)]
        cells = [", ".join("never" if np.isinf(x) else f"{x:,.0f}" for x in found) for found in values]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def variances_table():
    """A line per fit: the variance part of the loss, and the predicted variance of velocities in the
    environment's units, squared, and in the trained ones; early and at the end."""
    steps = (SHOWN_STEPS[0], SHOWN_STEPS[-1])
    columns = {"variance_loss": "variance part of the loss", "velocity_variance": "variance of velocities"}
    columns["velocity_trained"] = "in trained units"
    heads = [f"{text} at {step:,}" for text in columns.values() for step in steps]
    lines = ["| fit | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name in (f"{task}-{setting}" for task in experiments.TASKS for setting in experiments.SETTINGS):
        if fit := read_fit(name):
            at = [fit["step"][0].tolist().index(step) for step in steps]
            cells = [span(fit[column][:, i]) for column in columns for i in at]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_fits(out, columns, names, rows):
    """A column of panels per {title: fits' first name}, a row per {number: (title, lowest, highest shown)};
    all seeds as thin lines, the median thick."""
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(max(5, 3 * len(columns)), 2.3 * len(rows)), squeeze=False
    )
    for axis_column, (title, first) in zip(axes.T, columns.items()):
        for axis, (number, (text, low, high)) in zip(axis_column, rows.items()):
            for setting, (label, color) in names.items():
                fit = read_fit(f"{first}-{setting}")
                if fit:
                    values = fit[number] if number in fit else fit["reward_synthetic"] / fit["reward_real"]
                    steps = fit["step"][0] / 1000
                    axis.plot(steps, values.T, color=color, lw=0.5, alpha=0.6)
                    axis.plot(steps, np.median(values, 0), color=color, lw=1.5, label=label)
            if low is None:
                axis.set_yscale("log")
            else:
                axis.set_ylim(low, high)
            plots.title(axis, f"{title}\n{text}", "thousand gradient steps")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    ncols = (len(texts) or 1) if len(columns) > 1 else 3
    figure.legend(handles, texts, loc="outside lower center", ncols=ncols)
    plots.save(figure, str(RESULTS / out))


def draw_studies():
    """What the model learns of four tasks; and of one whose transitions have seen reward."""
    names = {setting: (name, plots.COLORS[name]) for setting, name in NAMES.items()}
    rows = {"reward_r2": ("reward R2", -1, 1), "next_state_r2": ("next-state R2", -1, 1)}
    more = {"ratio": ("synthetic / real reward", -1, 2)}
    more["velocity_variance"] = ("variance of velocities", None, None)
    more["velocity_trained"] = ("the same in trained units", None, None)
    more["variance_loss"] = ("variance part of the loss", -8, 2)
    if any(read_fit(f"{task}-ftfl") for task in experiments.TASKS):
        draw_fits("studies", {task: task for task in experiments.TASKS}, names, rows | more)
    if read_fit("rewarded-ftfl"):
        names["ftfl-fixed"] = ("FTFL, fixed variance", plots.COLORS["Tuned FTFL"])
        rows = {"ratio": more["ratio"]} | rows
        draw_fits("rewarded", {"humanoid-stand, SAC's transitions": "rewarded"}, names, rows)
    if read_fit("humanoid-stand-mbpo-cap"):
        names = {"mbpo": ("std below 1.3", plots.COLORS["MBPO"]), "mbpo-cap": ("below 12", "#000000")}
        names["mbpo-bounds"] = ("learned bounds", plots.COLORS["DNP only"])
        rows = {number: (rows | more)[number] for number in ("ratio", "reward_r2")}
        draw_fits("bounds", {"MBPO's model, humanoid-stand": "humanoid-stand"}, names, rows)


# ---------------------------------------- All
# ---------------------------------------- The picture of the README
def draw_overview():
    """humanoid-stand at the defaults: what MBPO's and FTFL's models imagine, and all settings' critics."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 4))
    rows = {name: read_row(f"humanoid-stand-{name}-paper") for name in ("sac", *NAMES)}
    names = {"sac": "SAC"} | NAMES
    obtained = []
    for setting, row in rows.items():
        color = plots.COLORS[names[setting]]
        if setting in ("mbpo", "ftfl"):
            steps, imagined = row["reward_synthetic"]
            ratio = imagined / row["reward_real"][1]
            axes[0].plot(steps, ratio.T, color=color, lw=1.4)
            steps, r2 = row["reward_r2"]
            axes[1].plot(steps, r2.T, color=color, lw=1.4)
        steps, q = row["q"]
        axes[2].plot(steps, q.T, color=color, lw=1.2)
        axes[2].plot([], [], color=color, label=names[setting])
        obtained.append(np.nanmax(row["discounted_return"][1]))
    axes[0].axhline(1, color="0.6", lw=1)
    axes[0].set_title("imagined / real mean reward\n(MBPO and FTFL)")
    axes[0].set_ylim(-9, 21)
    axes[1].axhline(0, color="0.6", lw=1)
    axes[1].set_title("the model's reward: $R^2$\n(below -2: not shown)")
    axes[1].set_ylim(-2, 1)
    axes[2].set_yscale("log")
    axes[2].axhline(max(obtained), color="0.4", ls=":", label="at most obtained")
    axes[2].set_ylim(5, None)
    axes[2].set_title("Q, as the critics say,\nand the discounted return obtained")
    for axis in axes:
        axis.set_xlabel("steps after 10,000 random ones")
    figure.suptitle("humanoid-stand, defaults, three seeds: FTFL's reward is steady, its Q falls below SAC's")
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    plots.save(figure, str(RESULTS / "overview"))


# ---------------------------------------- What the paper leaves out
BETA_FITS = {  # {fit: (what its lines say, colour)}
    "mbpo": ("MBPO", plots.COLORS["MBPO"]),
    "mbpo-bounds": ("MBPO, learned bounds", plots.COLORS["DNP only"]),
    "ftfl": ("FTFL", plots.COLORS["FTFL"]),
    "ftfl-beta0.5": ("FTFL, beta 0.5", plots.COLORS["TUN only"]),
}
BETA_TASKS = {  # of its own, because these were fitted to other transitions than the fits rewarded-*
    "humanoid-stand": "humanoid-stand, random transitions",
    "quadruped-walk": "quadruped-walk, random transitions",
    "rewarded2": "humanoid-stand, SAC's transitions",
}


def draw_beta():
    """R2 of rewards and of next states over the gradient steps, with and without beta-NLL."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True)
    for column, task in zip(axes.T, BETA_TASKS):
        for setting, (label, color) in BETA_FITS.items():
            if fit := read_fit(f"{task}-{setting}"):
                for axis, tag in zip(column, ("reward_r2", "next_state_r2")):
                    axis.plot(fit["step"][0], fit[tag].T, color=color, lw=0.7, alpha=0.5)
                    axis.plot(fit["step"][0], np.median(fit[tag], 0), color=color, lw=2, label=label)
        column[0].set_title(f"{BETA_TASKS[task]}:\nreward")
        column[1].set_title("next state")
        column[1].set_xlabel("gradient steps of the model")
        for axis in column:
            axis.set_xscale("log")
            axis.set_ylim(-0.5, 1.02)
            axis.set_ylabel("$R^2$, held out")
    figure.suptitle("Beta-NLL: the reward is learned after a tenth of the gradient steps (three seeds)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    plots.save(figure, str(RESULTS / "beta"))


def beta_table():
    """A line per fit: when its reward R2 first reaches 0.9, R2 early and late, and the imagined rewards."""
    heads = ["fit", "steps", "reward R2 of 0.9 after", "reward R2 at 2,000", "at the end"]
    heads += ["next-state R2 at 2,000", "at the end", "imagined / real reward at 2,000", "at the end"]
    heads += ["noise / mean reward at the end"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for task in BETA_TASKS:
        for setting, (label, _) in BETA_FITS.items():
            fit = read_fit(f"{task}-{setting}")
            if not fit:
                continue
            steps = fit["step"][0].tolist()
            early, late = steps.index(2_000), -1
            first = [
                next((step for step, x in zip(steps, r2) if x >= 0.9), np.inf) for r2 in fit["reward_r2"]
            ]
            ratio = fit["reward_synthetic"] / fit["reward_real"]
            noise = fit["reward_std"] / fit["reward_real"]
            reached = [step for step in first if np.isfinite(step)]
            words = span(np.array(reached)) if reached else "never"
            if 0 < len(reached) < len(first):
                words += f" ({len(reached)} of {len(first)})"
            cells = [f"{steps[-1]:,.0f}", words]
            for values in (fit["reward_r2"], fit["next_state_r2"], ratio):
                cells += [span(values[:, early]), span(values[:, late])]
            cells.append(span(noise[:, late]))
            lines.append(f"| {BETA_TASKS[task]}: {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration_table():
    """Which share of what is held out lies within one and two predicted std."""
    heads = ["fit", "gradient steps", "states within one std", "two", "rewards within one std", "two"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines.append("| a calibrated Gaussian | | 0.683 | 0.954 | 0.683 | 0.954 |")
    for task in BETA_TASKS:
        for setting in ("ftfl", "ftfl-beta0.5"):
            lines += calibration_lines(task, setting)
    return "\n".join(lines)


def calibration_lines(task, setting):
    """Those of one fit, early and at the end; none of fits from before it was logged."""
    lines, fit = [], read_fit(f"{task}-{setting}")
    if "state_within_one" in fit:
        for step in (2_000, fit["step"][0][-1]):
            at = fit["step"][0].tolist().index(step)
            columns = [f"{group}_within_{count}" for group in ("state", "reward") for count in ("one", "two")]
            cells = [span(fit[column][:, at]) for column in columns]
            lines.append(
                f"| {BETA_TASKS[task]}: {BETA_FITS[setting][0]} | {step:,.0f} | {' | '.join(cells)} |"
            )
    return lines


def claims_table():
    """A line per claim of the paper, with its verdict."""
    with open(RESULTS / "claims.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| | the paper says | verdict |", "|---|---|---|"]
    lines += [f"| {row['claim']} | {row['the paper says']} | {row['verdict']} |" for row in rows]
    return "\n".join(lines)


def predictions_table():
    """How many of the predictions in predictions.csv came out, by finding."""
    with open(RESULTS / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| prediction | came out |", "|---|---|"]
    lines += [f"| {row['what']} | {row['came_out'] or 'not run yet'} |" for row in rows]
    return "\n".join(lines)


TABLES = {"critics": critics_table, "paper": paper_table, "forces": forces_table, "walk": walk_table}
TABLES |= {"landings": landings_table, "sb3": sb3_table}
TABLES |= {"taxonomy": taxonomy_table, "ranks": ranks_table, "widths": widths_table}
TABLES |= {
    "grid": grid_table,
    "grid_model": grid_model_table,
    "grid_critics": grid_critics_table,
}
TABLES |= {
    "uniform": uniform_table,
    "noise": noise_table,
    "defaults": defaults_table,
    "grid_rewards": grid_rewards_table,
    "grid_landings": grid_landings_table,
}
TABLES |= {
    "cheetah": cheetah_table,
    "effects": effects_table,
    "finger": finger_table,
    "finger_fits": finger_fits_table,
}
TABLES |= {"studies": studies_table, "crossing": crossing_table, "follows": follows_table}
TABLES |= {"variances": variances_table}


def stfl_table():
    """What the critics of the authors' earlier code say, beside our rows of the same settings (all seeds)."""
    heads = ["code", "setting", "trained steps", "Q", "critics' loss", "temperature"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    pairs = [("mbpo_utd10_small_model", "mbpo-orthogonal", "MBPO, 10 updates, small model")]
    pairs += [("ftfl_utd10_small_model", "ftfl-orthogonal", "FTFL, 10 updates, small model")]
    pairs += [("ftfl_defaults", "ftfl-paper", "FTFL, defaults")]
    for file_name, row_name, setting in pairs:
        with open(RESULTS / f"stfl/{file_name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        step = min(1_000, int(rows[-1]["trained_steps"]))
        (theirs,) = (row for row in rows if int(row["trained_steps"]) == step)
        cells = [f"{float(theirs[column]):.3g}" for column in ("q1", "critic_loss", "alpha")]
        lines.append(f"| STFL, one seed | {setting} | {step:,} | {' | '.join(cells)} |")
        ours = read_row(row_name)
        cells = []
        for column in ("q", "qf_loss", "alpha"):
            steps, values = ours[column]
            cells.append(span(values[:, steps.tolist().index(step)]))
        lines.append(f"| ours, {row_name} | {setting} | {step:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES |= {
    "stfl": stfl_table,
    "claims": claims_table,
    "beta": beta_table,
    "calibration": calibration_table,
    "predictions": predictions_table,
}
FIGURES = [
    draw_overview,
    draw_beta,
    draw_critics,
    draw_long,
    draw_landings,
    draw_taxonomy,
    draw_studies,
    draw_grid,
]


PAGES = ("README.md", "REPRODUCTION.md")


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
        path.write_text(with_tables(path.read_text()))
        print(path)


if __name__ == "__main__":
    main()
