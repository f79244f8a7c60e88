"""All published figures and tables, drawn anew from benchmark/results/ without training anything.

    python benchmark/figures.py                 # what `make figures` runs

Writes the figures into benchmark/results/, and the tables into REPRODUCTION.md, between the comments that
name them. A number in a table that is not in the results can't stay: a test runs this and compares.
"""

import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmark")]

import critics  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402

import plots  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = ROOT / "benchmark/results"


# ---------------------------------------- Critics
def read_row(name):
    """{column: (steps after the random ones, values of each seed)} of a row of benchmark/critics.py."""
    with open(RESULTS / f"critics/{name}.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    seeds, found = sorted({line["seed"] for line in lines}, key=int), {}
    for column in critics.TAGS:
        points = [(x["seed"], int(x["step"]), float(x[column])) for x in lines if x[column]]
        steps = sorted({step for _, step, _ in points})
        values = {(seed, step): value for seed, step, value in points}
        found[column] = (
            np.array(steps) - critics.START,
            np.array([[values.get((s, t), np.nan) for t in steps] for s in seeds]),
        )
    return found


def complete_rows():
    """The rows of benchmark/critics.py whose runs are complete, in its order."""
    return [name for name in critics.ROWS if (RESULTS / f"critics/{name}.csv").exists()]


def at_end(row, column, last=4):
    """A column's mean over its last logged values, per seed (100 steps of them)."""
    return row[column][1][:, -last:].mean(1)


def span(values):
    """The smallest and the largest of some seeds' values, or the value of one."""
    low, high = f"{values.min():,.3g}", f"{values.max():,.3g}"
    low, high = (
        f"{x:,.0f}" if abs(x) >= 1000 else t for x, t in zip((values.min(), values.max()), (low, high))
    )
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


def walk_table():
    """A line per run that was to learn to walk: returns of evaluations over time, Q at its end."""
    lines = [
        "| row | steps | seeds | first evaluation | mean of the last three | highest | Q |",
        "|---" * 7 + "|",
    ]
    for name in complete_rows():
        if not name.startswith("walk-"):
            continue
        row = read_row(name)
        returns, q = row["return"][1], at_end(row, "q")
        parts = [returns[:, 0], at_end(row, "return", 3), returns.max(1), q]
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
    """Q, the temperature and the share out of range of FTFL, followed for 20,000 steps."""
    row = read_row("ftfl-long")
    panels = {
        "q": "Q of the batch",
        "alpha": "temperature",
        "out_of_range": "imagined numbers\nout of the data's range",
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 3))
    for axis, (column, text) in zip(axes, panels.items()):
        steps, values = row[column]
        axis.plot(steps / 1000, values.T, color=plots.COLORS["FTFL"], lw=1.2)
        plots.title(axis, text, "thousand steps after random")
    plots.save(figure, str(RESULTS / "critics_long"))


# ---------------------------------------- All
TABLES = {"critics": critics_table, "forces": forces_table, "walk": walk_table}
FIGURES = [draw_critics, draw_long]


def with_tables(text):
    """The text with each table between <!-- table NAME --> and <!-- end --> made anew."""

    def replaced(match):
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", replaced, text, flags=re.DOTALL)


def main():
    for figure in FIGURES:
        figure()
    path = ROOT / "REPRODUCTION.md"
    path.write_text(with_tables(path.read_text()))
    print(path)


if __name__ == "__main__":
    main()
