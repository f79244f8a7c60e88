"""Figures and tables from run directories, one command for each of the paper's figures.

    python plots.py curves --runs runs                # Fig 4, 5: return over steps, a panel per task
    python plots.py summary --runs runs               # Fig 1: final return in % of SAC's, a dot per algorithm
    python plots.py ablation --runs runs              # Fig 2c, 3c: return and mean Q of the switch settings
    python plots.py forensics                         # Fig 2a, 2b, 3a, 3b: the model alone, and the critics
    python plots.py table --runs runs                 # the paper's tables: final returns, as Markdown and CSV
    python plots.py export --runs runs --out all.csv  # every number as CSV, which --runs takes too
    python plots.py taxonomy --data FILE              # where MBPO fails, from benchmark/taxonomy.py's table
    python plots.py demo                              # the figure of `make demo`

--runs takes folders (searched through), globs and exported CSV files. Runs are grouped by what their flags
(args.json) say, not by their names: by task, algorithm, switches and model width; and where runs of one such
group differ in another flag that matters for what is learned, by that flag too. Lines and dots are
interquartile means (IQM) over seeds, shades 95 % bootstrap intervals (Agarwal et al. 2021), which are too
narrow for few seeds: the shades of two or three are their range. Values of different steps are never
averaged: a group ends at the last step that all its runs have. Every figure is written as PNG and as PDF.
"""

import contextlib
import csv
import functools
import glob
import itertools
import json
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import scipy.stats
import tyro
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.util.tensor_util import make_ndarray
from tqdm import tqdm

matplotlib.use("Agg")  # before pyplot is imported
import matplotlib.pyplot as plt

# Okabe and Ito's palette: told apart by colour-blind readers too
COLORS = {
    "SAC": "#000000",
    "MBPO": "#D55E00",
    "TUN only": "#009E73",
    "DNP only": "#CC79A7",
    "FTFL": "#0072B2",
    "Tuned FTFL": "#56B4E9",
}
OTHER_COLORS = ("#E69F00", "#F0E442", "#999999")  # of scripts with other names
SWITCHES = ("MBPO", "TUN only", "DNP only", "FTFL")
DEFAULT_WIDTH, TUNED_WIDTH = 200, 400  # --model-hidden-dim of FTFL and of Tuned FTFL
LINE_STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (8, 4)))
MARKERS = "oDs^vP*"  # of the same variants
RETURN = "eval/episodic_return"
PER_EPISODE = ("charts/episodic_return", "charts/episodic_length")  # logged at each run's own steps

# A figure of this width still has letters of 10 pixels when it is shown 400 pixels wide.
WIDTH, PANEL_HEIGHT = 6.4, 2.7
plt.rcParams |= {"font.size": 11.5, "axes.titlesize": 11.5, "legend.fontsize": 9.5, "pdf.fonttype": 42}
plt.rcParams |= {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.framealpha": 0.7,
    "figure.constrained_layout.use": True,
}


def fail(message):
    """Report a user's mistake in one line and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def note(message):
    """Say what is left out, cut or missing, and go on."""
    tqdm.write(message, file=sys.stderr)


def note_missing(where, named, expected):
    """Name those of `expected` that have no runs in `named`, {name: [runs]}.

    A variant that is itself expected does not stand for its algorithm.
    """
    there = {name if name in expected else base(name) for name in named}
    if missing := [name for name in expected if name not in there]:
        note(f"{where}: no runs of {', '.join(missing)}")


# ------------------------------------------------------------------------------------------------ Runs
class Run(NamedTuple):
    """One seed's run: its folder, its flags (args.json), and its scalars {tag: (steps, values)}, by step.
    `end` is the last step of the whole log where only some tags were exported."""

    name: str
    flags: dict
    scalars: dict
    end: int = 0


def read_run_dir(folder):
    """The Run in a folder with args.json and event files. Of a step logged twice, the last value counts."""
    flags = json.loads((folder / "args.json").read_text(encoding="utf-8"))
    parts = [read_events(path) for path in folder.glob("*tfevents*")]
    # A resumed run has an event file per part. They are ordered by their steps, since clocks differ: a part
    # that begins later is later, and of two that begin alike the one that goes on farther.
    parts.sort(key=lambda part: (part[0], max(part[1], default=0)))
    points = {}
    for start, by_step in parts:
        for tag, curve in points.items():  # what an earlier part logged behind this one's start is void
            points[tag] = {step: value for step, value in curve.items() if step < start}
        for step, values in by_step.items():
            for tag, value in values.items():
                points.setdefault(tag, {})[step] = value
    scalars = {tag: tuple(np.array(sorted(x.items()), dtype=float).T) for tag, x in points.items() if x}
    return Run(str(folder), flags, scalars)


def read_events(path):
    """The first step that an event file stands for, and what it logs, {step: {tag: value}}."""
    start, by_step = 0, {}
    for event in EventFileLoader(str(path)).Load():
        if event.session_log.status == SessionLog.START:
            start = event.step
        for value in event.summary.value:
            by_step.setdefault(event.step, {})[value.tag] = float(make_ndarray(value.tensor))
    return start, by_step


def read_csv(path):
    """The Runs in a file written by `export`."""
    flags, points, ends = {}, {}, {}
    with open(path, newline="", encoding="utf-8-sig") as file:  # also with a byte-order mark
        rows = csv.DictReader(file)
        if "tag" not in (rows.fieldnames or ()):
            raise ValueError("no file of `export`")
        for row in rows:
            if row["tag"] == "flags":
                flags[row["run"]], points[row["run"]] = json.loads(row["value"]), {}
                ends[row["run"]] = int(row["step"] or 0)
            else:
                points[row["run"]].setdefault(row["tag"], []).append((int(row["step"]), float(row["value"])))
    return [
        Run(
            name,
            flags[name],
            {tag: tuple(np.array(rows, dtype=float).T) for tag, rows in points[name].items()},
            ends[name],
        )
        for name in flags
    ]


def last_step(run):
    """The last step with a logged value, 0 if there is none."""
    return int(max([run.end, *(steps[-1] for steps, _ in run.scalars.values())]))


def is_study(run):
    """Whether this run trained no agent but fitted the model alone, to transitions that the flag names."""
    return bool(run.flags.get("model_study"))


def planned_steps(run):
    """The step at which a run is finished: every run logs something there."""
    return run.flags["gradient_steps" if is_study(run) else "total_timesteps"]


def find_runs(folder):
    """The args.json files in a folder and below, through links; without any, the CSV files there."""
    found, seen = {"args.json": [], ".csv": []}, set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(os.path.realpath(place))
        for ending, paths in found.items():
            paths += [Path(place) / file for file in files if file.endswith(ending)]
    return sorted(found["args.json"]) or sorted(found[".csv"])


def code_of(flags):
    """Which code a run is of: its commit, and of changed files also the script's own text."""
    commit = flags.get("commit") or "no commit"
    return f"{commit[:8]} changed, {flags.get('source', '?')}" if commit.endswith("-dirty") else commit[:8]


def load_runs(patterns, unfinished=False, by_commit=False):
    """The Runs in all folders (searched through), globs and CSV files of `patterns`. Of a folder without run
    directories, the CSV files in it.

    What can't be read, has not finished (unless `unfinished`) or repeats a run is named and left out. Runs
    of a group that are of different code are named, too, or kept apart (`by_commit`).
    """
    files, empty = {}, []
    for pattern in patterns:
        there, found = Path(pattern).exists(), []
        for path in [Path(pattern)] if there else map(Path, sorted(glob.glob(pattern, recursive=True))):
            if path.is_dir():
                found += find_runs(path)
            elif path.name == "args.json" or path.suffix == ".csv":
                found.append(path)
        files |= {file.resolve(): file for file in found}
        empty += [pattern] * (not found)
    for pattern in empty if files else ():
        note(f"--runs {pattern}: no runs there")
    runs = []
    for file in tqdm(files.values(), desc="reading", unit="run", leave=False, delay=2):
        try:
            for run in read_csv(file) if file.suffix == ".csv" else [read_run_dir(file.parent)]:
                if by_commit:
                    run.flags["changed"] = ", ".join(
                        filter(None, [run.flags.get("changed"), code_of(run.flags)])
                    )
                identity(run.flags), run.flags["seed"]  # a run without these flags is left out, too
                if (last := last_step(run)) < (planned := planned_steps(run)) and not unfinished:
                    note(f"left out {run.name}: unfinished, its log ends at step {last} of {planned}")
                else:
                    runs.append(run)
        except Exception as error:  # noqa: BLE001  (a broken file can raise anything, and must stop no other)
            note(f"left out {file}: {type(error).__name__}: {error}")
    # The farthest run of a seed counts, and of those the latest: a folder's name ends with the time
    runs.sort(key=lambda run: (last_step(run), run.name.rsplit("__", 1)[-1]))
    kept = {}
    for run in runs:
        # Beside other seeds a seed draws other random numbers than alone: another run, not the same one again
        key = (*identity(run.flags), run.flags["seed"], run.flags.get("num_seeds"))
        if key in kept:
            same = "is there twice" if run.name == kept[key].name else "is later"
            why = "goes on farther" if last_step(run) > last_step(kept[key]) else same
            note(f"left out {kept[key].name}: {run.name}, of the same seed and flags, {why}")
        kept[key] = run
    if not kept:
        fail(f"--runs {' '.join(patterns)}: no finished runs there (folders with args.json, or exported CSV)")
    codes = {}
    for run in kept.values():
        codes.setdefault(identity(run.flags), set()).add(code_of(run.flags))
    for (task, name, _), found in codes.items():
        if len(found) > 1:
            texts = "; ".join(sorted(found))
            note(f"{task}, {name}: runs of different code are mixed ({texts}); see --by-commit")
    return list(kept.values())


# ------------------------------------------------------------------------------------------------ Groups
# Flags that change no number, or only how many there are and where, or that a group's name shows anyway
NOT_COMPARED = {
    *("script", "env_id", "target_normalization", "next_state_prediction", "model_hidden_dim", "nll_beta"),
    *("seed", "num_seeds", "total_timesteps", "gradient_steps"),
    *("eval_interval", "eval_episodes", "log_interval", "checkpoint_interval"),
    *("device", "num_threads", "env_workers", "compile", "versions", "commit", "source"),
    *("run_dir", "run_dirs", "resume", "changed"),
}
# Flags that sac.py has not: with --real-ratio 1 the other two have no model either, and these do nothing
MODEL_FLAGS = {
    *("target_normalization", "next_state_prediction"),
    *("ensemble_size", "num_elites", "model_hidden_dim", "model_lr", "learned_logvar_bounds", "nll_beta"),
    *("model_train_interval", "model_train_steps", "model_batch_size"),
    *("real_ratio", "rollouts_per_step", "rollout_schedule", "synthetic_buffer_size"),
}


def algorithm(flags):
    """What a run's flags say it is: ftfl.py without its changes is MBPO; on real data alone, both are SAC.

    A script of another name is another algorithm, of that name."""
    if flags["script"] not in ("sac", "mbpo", "ftfl"):
        return flags["script"]
    if flags["script"] == "sac" or flags["real_ratio"] == 1:
        return "SAC"
    normalized = flags.get("target_normalization", False)
    direct = flags.get("next_state_prediction", "residual") == "direct"
    return {
        (False, False): "MBPO",
        (True, False): "TUN only",
        (False, True): "DNP only",
        (True, True): "FTFL",
    }[normalized, direct]


def label(flags):
    """The algorithm, the width of its model and the beta of its loss where these are not the defaults, and
    what a program of benchmark/ has changed in the script."""
    name, width = algorithm(flags), flags.get("model_hidden_dim", DEFAULT_WIDTH)
    beta = flags.get("nll_beta", 0)  # of runs from before the flag
    if name == "FTFL" and width == TUNED_WIDTH:
        name = "Tuned FTFL"
    elif name != "SAC" and width != DEFAULT_WIDTH:
        name += f", width {width}"
    if algorithm(flags) != "SAC" and beta > 0:
        name += f", beta {beta:g}"
    return f"{name}, {flags['changed']}" if flags.get("changed") else name


def identity(flags):
    """(task, label, ((flag, value), ...)): what matters for what is learned, the same for runs of a group."""
    name = label(flags)
    ignored = NOT_COMPARED | MODEL_FLAGS if base(name) == "SAC" else NOT_COMPARED
    return flags["env_id"], name, tuple(sorted((k, str(v)) for k, v in flags.items() if k not in ignored))


def group_runs(runs, tags):
    """{task: {name: [runs]}}, in the order of COLORS. If groups of a label differ in a flag, on the same task
    or on two, names say it.

    Each group is cut to the last step of `tags` that all its runs have.
    """
    groups, variants = {}, {}
    for run in runs:
        task, name, rest = identity(run.flags)
        groups.setdefault(task, {}).setdefault(name, {}).setdefault(rest, []).append(run)
        of_a_study = task if is_study(run) else ""  # whose transitions are another task's on another task
        variants.setdefault((name, of_a_study), {})[rest] = dict(rest)
    order, short = list(COLORS), short_names(groups)
    named = {task: {} for task in sorted(groups)}
    for task in named:
        known = {name: i for i, name in enumerate(order)}
        for name in sorted(groups[task], key=lambda name: (known.get(base(name), len(known)), name)):
            for rest, members in groups[task][name].items():
                others = variants[name, task if is_study(members[0]) else ""].values()
                differs = [f"{k} {v}" for k, v in rest if any(other.get(k) != v for other in others)]
                full_name = ", ".join([name, *differs])
                where = f"{short[task]}, {full_name}"
                for tag in tags:
                    lacking = [run.name for run in members if tag not in run.scalars]
                    if 0 < len(lacking) < len(members):
                        note(f"{where}: no {tag} in {', '.join(lacking)}")
                named[task] |= cut_to_common_step({full_name: members}, tags, where)
    return named


def load_agents(patterns, unfinished, by_commit, tags):
    """{task: {name: [runs]}} of the runs that trained an agent, see group_runs."""
    runs = [run for run in load_runs(patterns, unfinished, by_commit) if not is_study(run)]
    if not runs:
        fail(f"--runs {' '.join(patterns)}: only model studies there, see `forensics`")
    return group_runs(runs, tags)


def base(name):
    """The algorithm at the beginning of a group's name."""
    return name.split(",")[0]


def short_names(tasks):
    """{task: name}, as short as tells them apart: Hopper for Hopper-v5, but Hopper-v5 beside Hopper-v4."""
    forms = (lambda task: task.split("/")[-1].rsplit("-v", 1)[0], lambda task: task.split("/")[-1], str)
    return {
        task: next(form(task) for form in forms if [form(other) for other in tasks].count(form(task)) == 1)
        for task in tasks
    }


def all_runs(named):
    """The runs of {name: [runs]} as one list."""
    return [run for members in named.values() for run in members]


def styles(groups):
    """{name: colour and line style} of all names in {task: {name: [runs]}}.

    The colour is the algorithm's, the line style tells its variants apart.
    """
    result, count = {}, {}
    colors = dict(COLORS)
    for name in dict.fromkeys(name for named in groups.values() for name in named):
        colors.setdefault(base(name), OTHER_COLORS[(len(colors) - len(COLORS)) % len(OTHER_COLORS)])
        count[base(name)] = count.get(base(name), -1) + 1
        result[name] = {
            "color": colors[base(name)],
            "linestyle": LINE_STYLES[count[base(name)] % len(LINE_STYLES)],
        }
    return result


# ------------------------------------------------------------------------------------------------ Steps
def on_common_grid(runs, tag):
    """Steps (steps,) that all runs with `tag` have, and its values there, (seeds, steps).

    What is logged per episode may have no step in common: there the grid is that of the run with the fewest
    points, and the others are interpolated between their points, never extrapolated.
    """
    curves = [run.scalars[tag] for run in runs if tag in run.scalars]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    if tag in PER_EPISODE:
        first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
        grid = min((steps for steps, _ in curves), key=len)
        grid = grid[(grid >= first) & (grid <= last)]
        return grid, np.array([np.interp(grid, steps, values) for steps, values in curves])
    grid = functools.reduce(np.intersect1d, (steps for steps, _ in curves))
    return grid, np.array([values[np.isin(steps, grid)] for steps, values in curves])


def cut_to_common_step(named, tags, where):
    """{name: [runs]} without what lies behind the last step that all these runs have, of each of `tags`; and
    without the tags of which they have no step in common.

    Says so, naming `where`, if there was anything to cut.
    """
    runs, ends, lost = all_runs(named), [], set()
    for tag in tags:
        last = {run.scalars[tag][0][-1] for run in runs if tag in run.scalars}
        if len(last) > 1:
            common, _ = on_common_grid(runs, tag)
            if len(common):
                # Up to the end of the shortest run there is something to interpolate between
                ends.append(min(last) if tag in PER_EPISODE else common[-1])
            else:
                note(f"{where}: {tag} left out, these runs have no step of it in common")
                lost.add(tag)
    end = min(ends, default=math.inf)
    if ends:
        note(f"{where}: cut to step {end:,.0f}, the last that all its runs have")

    def cut(run):
        kept = {tag: curve for tag, curve in run.scalars.items() if tag not in lost and curve[0][0] <= end}
        kept = {tag: (s[s <= end], values[s <= end]) for tag, (s, values) in kept.items()}
        return run._replace(scalars=kept)

    return {name: [cut(run) for run in members] for name, members in named.items()}


def final_values(named, tag, last=1):
    """The last step of `tag` that all runs in {name: [runs]} have, and {name: values (seeds,)}.

    A value is a seed's mean over the `last` last steps that all runs have. Without such steps: 0 and {}.
    """
    steps, _ = on_common_grid(all_runs(named), tag)
    if not len(steps):
        return 0, {}
    finals = {}
    for name, members in named.items():
        curves = [run.scalars[tag] for run in members if tag in run.scalars]
        if curves:
            finals[name] = np.array([values[np.isin(s, steps[-last:])].mean() for s, values in curves])
    return int(steps[-1]), finals


DERIVED = {  # tags that are made of two logged ones; without any reward there is no ratio
    "ratio": (lambda x, y: x / np.where(y == 0, np.nan, y), "rewards/synthetic", "rewards/real"),
    "bias": (np.subtract, "eval/q_start", "eval/discounted_return"),  # of the critics
}


def with_derived(run):
    """The run with the DERIVED tags, at the steps at which both their parts were logged."""
    scalars = dict(run.scalars)
    for tag, (function, *parts) in DERIVED.items():
        if all(part in scalars for part in parts):
            (x_steps, x), (y_steps, y) = (scalars[part] for part in parts)
            steps = np.intersect1d(x_steps, y_steps)
            if len(steps):
                scalars[tag] = steps, function(x[np.isin(x_steps, steps)], y[np.isin(y_steps, steps)])
    return run._replace(scalars=scalars)


# ------------------------------------------------------------------------------------------------ Statistics
def iqm(x, axis=0):
    """Interquartile mean: the mean without the lowest and the highest quarter (rounded down) of the seeds."""
    return scipy.stats.trim_mean(x, 0.25, axis=axis)


def relative(x, y, axis=0):
    """IQM of x as a percentage of the IQM of y."""
    return 100 * iqm(x, axis) / iqm(y, axis)


def interval(*samples, statistic=iqm, resamples=2_000):
    """95 % percentile bootstrap interval (low, high) of a statistic of samples (seeds, ...) over their seeds.

    nan if a sample has one seed only: one seed says nothing about others. Of one sample of two or three it is
    the lowest to the highest, and the truth is outside more often than in one case of twenty.
    """
    if min(len(sample) for sample in samples) < 2:
        return (np.full(np.shape(samples[0])[1:], np.nan),) * 2
    result = scipy.stats.bootstrap(
        samples,
        statistic,
        axis=0,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=200,
        rng=0,
    )
    return result.confidence_interval


# ------------------------------------------------------------------------------------------------ Drawing
def seeds_text(*counts):
    """1 seed, 2 seeds, 1-3 seeds."""
    span = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
    return f"{span} seed{'s' * (span != '1')}"


def number(x):
    """Three digits, and large numbers without an exponent."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def draw(axis, name, runs, tag, style, named=True):
    """The IQM of `tag` over seeds as a line, its interval as a shade. False if there is nothing to draw."""
    steps, values = on_common_grid(runs, tag)
    if not len(steps):
        return False
    text = f"{name} ({seeds_text(len(values))})" if named else None
    axis.plot(steps, iqm(values), label=text, lw=1.8, marker="o" if len(steps) == 1 else None, ms=4, **style)
    if len(values) > 1:
        axis.fill_between(steps, *interval(values), color=style["color"], alpha=0.2, lw=0)
    return True


def panels(count, columns=2, height=PANEL_HEIGHT):
    """A figure with `count` panels, (figure, list of axes)."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, max(height * rows, 3.2)), squeeze=False)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def title(axis, text, xlabel="environment steps"):
    axis.set_title(text)
    axis.set_xlabel(xlabel)
    axis.xaxis.set_major_locator(plt.MaxNLocator(4))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}")


def legend_below(figure, handles, texts, most=2, heading=None):
    """One legend below all panels, in as many columns, up to `most`, as the figure is wide enough for."""
    for columns in range(most, 0, -1):
        legend = figure.legend(handles, texts, loc="outside lower center", ncols=columns, title=heading)
        if legend.get_window_extent(figure.canvas.get_renderer()).width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    rows = math.ceil(len(texts) / columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, rows - 3))  # not at the cost of the panels


def clip(axis, low, high):
    """Show nothing below `low` or above `high`, but write at the edge where a line out of sight ends.

    A reward head that is not normalized can be so far off that it would hide all else.
    """
    bottom, top = axis.get_ylim()
    bottom, top = axis.set_ylim(max(bottom, low), min(top, high))
    lines = [line for line in axis.lines if not line.get_label().startswith("_")]
    below = [line for line in lines if line.get_ydata()[-1] < bottom]
    above = [line for line in lines if line.get_ydata()[-1] > top]
    for outside, edge, arrow, up in ((below, 0, "↓", 1), (above, 1, "↑", -1)):
        for k, line in enumerate(outside):
            axis.annotate(
                f"{base(line.get_label()).split(' (')[0]} ends at {number(line.get_ydata()[-1])} {arrow}",
                xy=(1, edge),
                xycoords="axes fraction",
                xytext=(-5, up * (5 + 14 * k)),
                textcoords="offset points",
                ha="right",
                va="bottom" if up > 0 else "top",
                color=line.get_color(),
                fontsize=9.5,
                bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
            )


def shared_legend(figure, axes, heading=None):
    """One legend below all panels, with one entry for the lines of one name in several of them."""
    handles, counts = {}, {}
    for axis in axes:
        for handle, text in zip(*axis.get_legend_handles_labels()):
            name, *seeds = text.rsplit(" (", 1)
            handles[name] = handle
            counts.setdefault(name, []).extend(int(count.split()[0]) for count in seeds)
    texts = [f"{name} ({seeds_text(*counts[name])})" if counts[name] else name for name in handles]
    legend_below(figure, list(handles.values()), texts, 2 if len(texts) < 7 else 3, heading)


@contextlib.contextmanager
def output(out, *suffixes):
    """The path `out`, without a suffix that is one of `suffixes`; what fails in writing there is --out's."""
    path = Path(out).with_suffix("") if Path(out).suffix in suffixes else Path(out)
    if not path.name:
        fail(f"--out {out!r} names no file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        fail(f"--out {out} can't be written: {error}")


def save(figure, out):
    """Write `out` as PNG and PDF, and close the figure."""
    with output(out, ".png", ".pdf") as stem:
        for suffix in (".png", ".pdf"):
            figure.savefig(stem.with_name(stem.name + suffix), dpi=150)
    plt.close(figure)
    print(f"{stem}.png, {stem}.pdf")


# ------------------------------------------------------------------------------------------------ Commands
def curves(
    runs: tuple[str, ...] = ("runs",),
    out: str = "figures/curves",
    tag: str = RETURN,
    unfinished: bool = False,
    by_commit: bool = False,
):
    """Learning curves (Fig 4 and 5): IQM over seeds with its 95 % bootstrap interval, a panel per task.

    Example: python plots.py curves --runs runs 'old-runs/*hopper*' --out figures/curves

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        tag: what is drawn
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
        by_commit: keep runs of different code apart, instead of saying that they are mixed
    """
    groups = load_agents(runs, unfinished, by_commit, [tag])
    short, style = short_names(groups), styles(groups)
    figure, axes = panels(len(groups))
    for axis, (task, named) in zip(axes, groups.items()):
        note_missing(short[task], named, dict.fromkeys(map(base, style)))
        for name, members in named.items():
            if not draw(axis, name, members, tag, style[name]):
                note(f"{short[task]}, {name}: no values of {tag} on a common range of steps")
        title(axis, short[task])
    if not any(axis.lines for axis in axes):
        fail(f"--tag {tag}: no run has it")
    figure.supylabel("return" if tag == RETURN else tag, fontsize=11.5)
    shared_legend(figure, axes)
    save(figure, out)


def check_last(last):
    """Stop at a --last that would average nothing."""
    if last < 1:
        fail(f"--last must be at least 1, not {last}")


def summary(
    runs: tuple[str, ...] = ("runs",),
    out: str = "figures/summary",
    last: int = 1,
    unfinished: bool = False,
    by_commit: bool = False,
):
    """Final IQM return in percent of SAC's (Fig 1): a dot per task and algorithm with its 95 % interval.

    All algorithms of a task are compared at the last step at which all their runs were evaluated.

    Example: python plots.py summary --runs runs --out figures/summary

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        last: how many evaluations, up to the step of the comparison, are averaged
        unfinished: take runs that have not finished as well, with their last evaluation so far
        by_commit: keep runs of different code apart, instead of saying that they are mixed
    """
    check_last(last)
    groups = load_agents(runs, unfinished, by_commit, [RETURN])
    short, style, finals = short_names(groups), styles(groups), {}
    for task, named in groups.items():
        note_missing(short[task], named, dict.fromkeys(map(base, style)))
        named = cut_to_common_step(named, [RETURN], f"{short[task]}, all algorithms")
        _, values = final_values(named, RETURN, last)
        sac = [name for name in values if base(name) == "SAC"]
        if len(sac) != 1:
            note(f"left out {short[task]}: {'several kinds of SAC' if sac else 'no SAC to compare with'}")
        elif iqm(values[sac[0]]) <= 0:
            note(f"left out {short[task]}: SAC's return is not above 0")
        else:
            finals[task] = values, values[sac[0]]
    if not finals:
        fail(f"--runs {' '.join(runs)}: no task with runs of one kind of SAC, which is 100 % here")
    order = list(COLORS)
    names = sorted(
        {name for values, _ in finals.values() for name in values}, key=lambda n: (order.index(base(n)), n)
    )
    figure, (axis,) = panels(1)
    figure.set_figheight(1.6 + 0.45 * len(finals) + 0.12 * len(names))
    dots, counts = {}, {name: set() for name in names}
    for row, (task, (values, sac)) in enumerate(finals.items()):
        bounded = len(sac) > 1 and interval(sac)[0] > 0
        if len(sac) > 1 and not bounded:
            note(f"{short[task]}: no intervals, since that of SAC's return holds 0, and they are in % of it")
        for k, name in enumerate(names):
            if name not in values:
                continue
            y, color = row + 0.5 * (k - (len(names) - 1) / 2) / len(names), style[name]["color"]
            if base(name) != "SAC" and len(values[name]) > 1 and bounded:
                axis.plot(interval(values[name], sac, statistic=relative), [y, y], color=color, lw=1.5)
            marker = MARKERS[LINE_STYLES.index(style[name]["linestyle"])]
            (dots[name],) = axis.plot(relative(values[name], sac), y, marker, ms=8, color=color)
            counts[name].add(len(values[name]))
    if axis.get_xlim()[1] > 1000 and axis.dataLim.x0 > 0:
        axis.set_xscale("log")
    left, right = axis.get_xlim()
    axis.axvspan(left, 100, color="#D55E00", alpha=0.1, lw=0)
    axis.axvspan(100, right, color="#009E73", alpha=0.1, lw=0)
    axis.set_xlim(left, right)
    axis.axvline(100, color="gray", lw=1)
    axis.set_yticks(range(len(finals)), [short[task] for task in finals])
    axis.set_ylim(len(finals) - 0.5, -0.5)
    axis.set_xlabel("final return, % of SAC" + f" (mean of the last {last} evaluations)" * (last > 1))
    texts = [f"{name} ({seeds_text(*counts[name])})" for name in names]
    legend_below(figure, [dots[name] for name in names], texts)
    save(figure, out)


def ablation(
    runs: tuple[str, ...] = ("runs",),
    out: str = "figures/ablation",
    unfinished: bool = False,
    by_commit: bool = False,
):
    """The four switch settings of ftfl.py online (Fig 2c, 3c): return and mean Q of each task with ablations.

    Example: python plots.py ablation --runs runs --out figures/ablation

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
        by_commit: keep runs of different code apart, instead of saying that they are mixed
    """
    content = {RETURN: "return", "losses/qf1_values": "mean Q"}
    groups = load_agents(runs, unfinished, by_commit, content)
    short = short_names(groups)
    groups = {
        task: named for task, named in groups.items() if {"TUN only", "DNP only"} & set(map(base, named))
    }
    if not groups:
        fail(f"--runs {' '.join(runs)}: no run with just one of the two switches on (TUN only, DNP only)")
    style = styles(groups)
    figure, axes = panels(2 * len(groups))
    for row, (task, named) in enumerate(groups.items()):
        note_missing(short[task], named, SWITCHES)
        for axis, (tag, what) in zip(axes[2 * row :], content.items()):
            for name, members in named.items():
                if not draw(axis, name, members, tag, style[name]):
                    note(f"{short[task]}, {name}: no values of {tag} on a common range of steps")
            title(axis, f"{short[task]}: {what}")
    shared_legend(figure, axes)
    save(figure, out)


MODEL_PANELS = {  # tag of a model study: title of its panel in `forensics`
    "rewards/synthetic": "2a: mean reward, held out",
    "model/reward_r2": "reward $R^2$, held out",
    "model/variance_loss": "3a: variance loss of MBPO",
    "model/predicted_variance_velocity": "3b: variance, velocities",
    "model/predicted_variance_position": "variance, positions",
    "model/predicted_variance_reward": "variance, reward",
}
CRITIC_PANELS = {  # the same of training runs
    "eval/q_start": "2b: Q at the start (entropy counts),\nand return obtained (dotted)",
    "bias": "2b: Q $-$ return obtained",
}


def forensics(
    runs: tuple[str, ...] = ("runs/forensics*",),
    out: str = "figures/forensics",
    env_id: str = "dm_control/humanoid-stand-v0",
    unfinished: bool = False,
):
    """The model alone, fitted to given transitions (Fig 2a, 3a, 3b), and critics online (Fig 2b).

    Prints the numbers at the end of the fits beside the paper's claims.

    Example: python plots.py forensics --runs runs/forensics-20260101-120000 --out figures/forensics

    Args:
        runs: folders that are searched, globs, or CSV files from `export`; model studies and training runs
        out: the figure's name; .png and .pdf are added
        env_id: the task of all panels but Fig 3a, which compares tasks
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
    """
    loaded = [with_derived(run) for run in load_runs(runs, unfinished)]
    fits = group_runs([run for run in loaded if is_study(run)], MODEL_PANELS)
    agents = [run for run in loaded if not is_study(run) and run.flags["env_id"] == env_id]
    agents = group_runs(agents, [*CRITIC_PANELS, "eval/discounted_return"]).get(env_id, {})
    here, short = fits.get(env_id, {}), short_names(dict.fromkeys([env_id, *fits]))
    if not here and not agents:
        tasks = ", ".join(dict.fromkeys(run.flags["env_id"] for run in loaded))
        fail(f"--env-id {env_id}: neither a model study nor an agent of it there, only of {tasks}")
    note_missing(f"{short[env_id]}, model studies", here, SWITCHES)
    note_missing(f"{short[env_id]}, agents", agents, ("SAC", *SWITCHES))

    by_task = {  # {line of Fig 3a: runs}
        short[task] + name.removeprefix("MBPO"): members
        for task, named in fits.items()
        for name, members in named.items()
        if base(name) == "MBPO"
    }
    content = {}  # {tag: {line: runs}} of each panel
    for tag in (*MODEL_PANELS, *CRITIC_PANELS):
        lines = agents if tag in CRITIC_PANELS else by_task if tag == "model/variance_loss" else here
        having = {name: runs for name, runs in lines.items() if any(tag in run.scalars for run in runs)}
        if lacking := [name for name in lines if name not in having]:
            note(f"no values of {tag}: {', '.join(lacking)}")
        if having:
            content[tag] = having
    if not content:
        fail(f"--runs {' '.join(runs)}: nothing of what is drawn was logged there")
    figure, axes = panels(len(content), height=2.3)
    axes = dict(zip(content, axes))
    style = styles({"model": here, "agents": agents})
    of_mbpo = [{"color": COLORS["MBPO"], "linestyle": line} for line in LINE_STYLES]
    by_task_style = dict(zip(by_task, itertools.cycle(of_mbpo)))
    for tag, lines in content.items():
        line_style = by_task_style if tag == "model/variance_loss" else style
        for name, members in lines.items():
            draw(axes[tag], name, members, tag, line_style[name])
            if tag == "eval/q_start":
                obtained = style[name] | {"linestyle": ":"}
                draw(axes[tag], name, members, "eval/discounted_return", obtained, named=False)
        if tag in CRITIC_PANELS:
            title(axes[tag], CRITIC_PANELS[tag])
        else:
            title(axes[tag], MODEL_PANELS[tag], "gradient steps")
        if "predicted_variance" in tag:
            axes[tag].set_yscale("log")
            low, high = axes[tag].get_ylim()
            if high > 10 * low:  # within one decade only the minor ticks have a number
                axes[tag].yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    real = [run.scalars["rewards/real"][1].mean() for run in all_runs(here) if "rewards/real" in run.scalars]
    if "rewards/synthetic" in axes and real:
        axes["rewards/synthetic"].axhline(np.mean(real), color="black", ls=":", label="real")
        if scale := abs(np.mean(real)):
            clip(axes["rewards/synthetic"], np.mean(real) - 3 * scale, np.mean(real) + 4 * scale)
    for tag in {"model/reward_r2", "bias"} & set(axes):
        axes[tag].axhline(0, color="gray", lw=1)
    if "model/reward_r2" in axes:
        clip(axes["model/reward_r2"], -2, 1)
    if by_tasks := axes.pop("model/variance_loss", None):
        low, high = by_tasks.get_ylim()
        by_tasks.set_ylim(low, high + 0.2 * (1 + len(by_task)) * (high - low))  # room for the legend
        by_tasks.legend(loc="upper right")
    shared_legend(figure, axes.values())
    parts = ["the model alone"] * bool(here) + ["the agent"] * bool(agents)
    figure.suptitle(f"{short[env_id]}: {', and '.join(parts)}", fontsize=11.5)
    save(figure, out)
    print_claims(short[env_id], here, by_task)


def print_claims(task, here, by_task):
    """The numbers of the fits beside the paper's claims: the last value, and the range over the second half.

    here, by_task: {name: [runs]} of the task's algorithms, and of MBPO on all tasks.
    """

    def row(name, members, tags):
        text = f"{f'{name} ({seeds_text(len(members))})':34s}"
        for tag in tags:
            steps, values = on_common_grid(members, tag)
            middle = iqm(values) if len(steps) else [math.nan]
            late = middle[steps > steps[-1] / 2] if len(steps) else [math.nan]
            cell = f"{middle[-1]:.3g} ({min(late):.2g} to {max(late):.2g})"
            text += f"{cell.replace('nan (nan to nan)', '-'):>30s}"
        print(text)

    reward = {"ratio": "synthetic / real", "model/reward_r2": "reward R2"}
    states = {
        "model/predicted_variance_position": "positions",
        "model/predicted_variance_velocity": "velocities",
        "model/predicted_variance_reward": "reward",
        "model/next_state_r2": "next-state R2",
    }
    claims = [
        ("C4 (Fig 2a)  without target scaling the model underestimates reward, with it, it does not", reward),
        ("C8 (Fig 3b)  predicted variance: residual high, direct low and stable", states),
    ]
    here = cut_to_common_step(here, [*reward, *states], f"{task}, the numbers below")
    for claim, columns in claims if here else []:
        print(f"\n{claim}\n{task:34s}" + "".join(f"{text:>30s}" for text in columns.values()))
        for name, members in here.items():
            row(name, members, columns)
    ends = [run.scalars[tag][0][-1] for run in all_runs(here) for tag in states if tag in run.scalars]
    if (fitted := max(ends, default=20_000)) < 20_000:
        words = "direct targets have hardly learned to copy the state, so C8 and next-state R2 say little"
        print(f"{fitted:,.0f} gradient steps: below some 20,000, {words}.")
    if by_task:
        print("\nC7 (Fig 3a)  MBPO's variance loss is far higher for humanoid-stand than for walker2d")
        print(f"{'':34s}{'variance loss':>30s}")
        for name, members in cut_to_common_step(by_task, ["model/variance_loss"], "C7, all tasks").items():
            row(name, members, ["model/variance_loss"])
    if here or by_task:
        print(
            "\nIQM over seeds at the end of the fit (range over its second half), in the environment's units."
        )


def table(
    runs: tuple[str, ...] = ("runs",),
    out: str = "figures/table",
    last: int = 1,
    unfinished: bool = False,
    by_commit: bool = False,
):
    """Final returns: mean and std over seeds, IQM and 95 % bootstrap interval; printed, and as .md and .csv.

    Steps is the last step at which all runs of a row were evaluated, and where their returns are taken. UTD
    is the number of gradient updates per environment step: it says which SAC it is.

    Example: python plots.py table --runs runs --out figures/table

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the table's name; .md and .csv are added
        last: how many evaluations, up to the row's step, are averaged
        unfinished: take runs that have not finished as well, with their last evaluation so far
        by_commit: keep runs of different code apart, instead of saying that they are mixed
    """
    check_last(last)
    groups = load_agents(runs, unfinished, by_commit, [RETURN])
    short, algorithms = short_names(groups), dict.fromkeys(map(base, styles(groups)))
    header = ["task", "algorithm", "utd", "seeds", "steps", "mean", "std", "iqm", "low", "high"]
    rows = []
    for task, named in groups.items():
        note_missing(short[task], named, algorithms)
        for name, members in named.items():
            steps, values = final_values({name: members}, RETURN, last)
            if not values:
                note(f"left out {short[task]}, {name}: not evaluated")
                continue
            values = values[name]
            std = values.std(ddof=1) if len(values) > 1 else math.nan
            statistics = [values.mean(), std, iqm(values), *map(float, interval(values))]
            rows.append([task, name, members[0].flags.get("utd_ratio"), len(values), steps, *statistics])
    lines = [
        "| task | algorithm | UTD | seeds | steps | mean ± std | IQM [95 % interval] |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, name, utd, seeds, steps, mean, std, middle, low, high in rows:
        numbers = f"{mean:.1f} ± {std:.1f} | {middle:.1f} [{low:.1f}, {high:.1f}]"
        lines.append(f"| {short[task]} | {name} | {utd} | {seeds} | {steps:,} | {numbers} |")
    text = "\n".join(lines).replace(" ± nan", "").replace(" [nan, nan]", "") + "\n"
    with output(out, ".md", ".csv") as stem:
        stem.with_name(stem.name + ".md").write_text(text)
        with open(stem.with_name(stem.name + ".csv"), "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    print(f"{text}{stem}.md, {stem}.csv")


def write_csv(runs, out, tags=()):
    """Write Runs as `export` does, and return the file's name."""
    with output(out, ".csv") as stem, open(path := f"{stem}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "env_id", "algorithm", "seed", "tag", "step", "value"])
        for run in runs:
            start = [run.name, run.flags["env_id"], label(run.flags), run.flags["seed"]]
            writer.writerow([*start, "flags", last_step(run), json.dumps(run.flags)])
            for tag, (steps, values) in run.scalars.items():
                if not tags or tag in tags:
                    writer.writerows(
                        [*start, tag, int(step), value] for step, value in zip(steps, values.tolist())
                    )
    return path


def export(runs: tuple[str, ...] = ("runs",), out: str = "figures/runs.csv", tags: tuple[str, ...] = ()):
    """All logged values, of unfinished runs too, as one CSV file that --runs takes in place of folders.

    Columns: run, env_id, algorithm, seed, tag, step, value. A run's first row has the tag "flags", the last
    step of its log, and all its flags as JSON.

    Example: python plots.py export --runs runs --out all.csv --tags eval/episodic_return losses/qf1_values

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the CSV file; .csv is added
        tags: which values; all if none is named
    """
    loaded = load_runs(runs, unfinished=True)
    if missing := [tag for tag in tags if not any(tag in run.scalars for run in loaded)]:
        fail(f"--tags {' '.join(missing)}: no run has that")
    print(f"{write_csv(loaded, out, tags)}: {len(loaded)} runs")


# ------------------------------------------------------------------------------------------------ Taxonomy
# DMC tasks on which the paper says that MBPO fails
FAILING = ("hopper-hop", "hopper-stand", "quadruped-walk", "quadruped-run")
FAILING += ("humanoid-stand", "humanoid-walk", "humanoid-run")
SUITES = {"Gym": "#000000", "dm_control": "#009E73"}  # colours that are not MBPO's or FTFL's


def read_taxonomy(path):
    """{task: {column: values of all seeds}} of benchmark/taxonomy.py's table, by falling mismatch."""
    try:
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file))
        tasks = {}
        for line in lines:
            columns = tasks.setdefault(line.pop("env_id"), {})
            for column, text in line.items():
                columns.setdefault(column, []).append(float(text))
        tasks = {task: {c: np.array(x) for c, x in columns.items()} for task, columns in tasks.items()}
        for columns in tasks.values():  # no R2: the reward was nearly constant, and has no scale to compare
            columns["mismatch"][np.isnan(columns["mbpo_reward_r2"])] = np.nan
        if not tasks:
            raise ValueError("no line")
        order = sorted(tasks, key=lambda task: -np.nan_to_num(median(tasks[task]["mismatch"]), nan=np.inf))
        return {task: tasks[task] for task in order}
    except (OSError, KeyError, TypeError, ValueError) as error:
        fail(f"--data {path}: no table of benchmark/taxonomy.py ({type(error).__name__}: {error})")


def median(values):
    """The median over the seeds in which a number could be measured; nan if there is none."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else np.nan


def rank_correlation(tasks, x, y, group=lambda task: task):
    """Spearman's rank correlation over tasks of two columns' medians over seeds: rho, low, high, tasks, with
    a 95 % bootstrap interval. A task is left out where either was measured in no seed. Tasks of one `group`
    are not independent: the bootstrap draws them together."""
    groups = {}
    for task, columns in tasks.items():
        pair = [median(columns[c]) for c in (x, y)]
        if np.isfinite(pair).all():
            groups.setdefault(group(task), []).append(pair)
    pairs = list(map(np.array, groups.values()))

    def rho(i):
        return scipy.stats.spearmanr(np.concatenate([pairs[k] for k in i.astype(int)])).statistic

    rows = np.arange(len(pairs))
    result = scipy.stats.bootstrap(
        (rows,), rho, vectorized=False, method="percentile", rng=0, n_resamples=2_000
    )
    return rho(rows), *result.confidence_interval, sum(map(len, pairs))


def label_points(axis, points):
    """Write each text of {text: (x, y)} beside its point, where it is far from other texts and points."""
    axis.figure.draw_without_rendering()  # the layout decides how far apart they are
    here = {text: axis.transData.transform(xy) * 72 / axis.figure.dpi for text, xy in points.items()}
    taken = list(here.values())
    for text, xy in points.items():
        free = {}
        for offset in ((0, 9), (0, -9), (11, 0), (-11, 0), (9, 8), (9, -8), (-9, 8), (-9, -8)):
            away = np.abs(np.array(taken) - here[text] - offset) / (1.3, 1)  # texts are wider than high
            free[offset] = min(8, away.max(1).min())
        best = max(free, key=free.get)
        taken.append(here[text] + best)
        axis.annotate(
            text,
            xy,
            best,
            textcoords="offset points",
            fontsize=8,
            ha="center",
            va="center",
            annotation_clip=False,
        )


def taxonomy(data: str = "benchmark/results/taxonomy.csv", out: str = "figures/taxonomy"):
    """Each task in the plane of the paper's two causes, and the reward R2 of MBPO's and FTFL's model, ordered
    by the first cause; a table as Markdown beside it. Dots are medians over seeds, lines span all seeds.
    A task whose reward was nearly constant in every seed is not in the plane.

    Example: python plots.py taxonomy --data benchmark/results/taxonomy.csv --out figures/taxonomy

    Args:
        data: the table that benchmark/taxonomy.py has written
        out: the figure's name; .png, .pdf and .md are added
    """
    tasks = read_taxonomy(data)
    seeds = [len(columns["seed"]) for columns in tasks.values()]
    names = {task: task.removeprefix("dm_control/").rsplit("-v", 1)[0] for task in tasks}
    failing = {task for task, name in names.items() if task.startswith("dm_control/") and name in FAILING}
    colors = {task: SUITES["dm_control" if task.startswith("dm_control/") else "Gym"] for task in tasks}
    figure, (plane, ladder) = plt.subplots(1, 2, figsize=(11, max(5, 0.2 * len(tasks))), width_ratios=(5, 4))

    plane.set(xscale="log", yscale="log", xlabel="scale mismatch: largest std of s' - s / std of r")
    plane.set(ylabel="residual noise: median of var(s' - s) / var(s')")
    points = {}
    for number_, (task, columns) in enumerate(tasks.items(), 1):
        x, y = median(columns["mismatch"]), median(columns["noise_median"])
        if np.isfinite(x):
            plane.plot(x, y, "s" if task in failing else "o", color=colors[task], ms=6)
            points[str(number_)] = x, y
    for text, marker, color in (
        ("Gym", "o", SUITES["Gym"]),
        ("DeepMind Control Suite", "o", SUITES["dm_control"]),
        ("of these, those that MBPO fails on in the paper", "s", SUITES["dm_control"]),
    ):
        plane.plot([], [], marker, color=color, label=text)

    low = -1.0
    for row, (task, columns) in enumerate(tasks.items()):
        for name, setting, shift in (("MBPO", "mbpo", 0.15), ("FTFL", "ftfl", -0.15)):
            r2 = columns[f"{setting}_reward_r2"]
            if np.isfinite(r2).any():
                shown = np.clip(r2, low, 1)
                ladder.plot([np.nanmin(shown), np.nanmax(shown)], [row + shift] * 2, color=COLORS[name], lw=1)
                marker = "<" if median(r2) < low else "o"
                ladder.plot(max(low, median(r2)), row + shift, marker, color=COLORS[name], ms=4)
    for name in ("MBPO", "FTFL"):
        ladder.plot([], [], "o", color=COLORS[name], ms=4, label=f"{name}'s model")
    ladder.set_yticks(
        range(len(tasks)), [f"{names[task]}  {n}" for n, task in enumerate(tasks, 1)], fontsize=8
    )
    for tick, task in zip(ladder.get_yticklabels(), tasks):
        tick.set(color=colors[task], fontweight="bold" if task in failing else "normal")
    ladder.set(
        xlim=(low - 0.1, 1.05), ylim=(len(tasks), -1), xlabel=f"reward R2 ({low:g} and less at the edge)"
    )
    ladder.set_title("the model's reward, by falling mismatch")
    plane.set_title(f"the paper's two causes ({seeds_text(*seeds)})")
    handles = [*plane.get_legend_handles_labels()[0], *ladder.get_legend_handles_labels()[0]]
    texts = [*plane.get_legend_handles_labels()[1], *ladder.get_legend_handles_labels()[1]]
    figure.legend(handles, texts, loc="outside lower center", ncols=5)
    label_points(plane, points)
    save(figure, out)

    columns = ["mismatch", "reward_share", "noise_median", "noise_above_half", "reward_mean", "reward_zero"]
    columns += [f"{setting}_reward_r2" for setting in ("mbpo", "dnp", "tun", "ftfl")]
    columns += ["mbpo_reward_ratio", "ftfl_reward_ratio"]
    lines = ["| task | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for task, found in tasks.items():
        cells = [f"{median(found[column]):.3g}" for column in columns]
        lines.append(f"| {names[task]}{' *' * (task in failing)} | {' | '.join(cells)} |")
    lines += ["", "*: MBPO fails there in the paper"] * bool(failing)
    measured = sum(np.isfinite(median(found["mismatch"])) for found in tasks.values())
    for x, y in (("mismatch", "mbpo_reward_r2"), ("mismatch", "ftfl_reward_r2")) if measured > 2 else ():
        rho, least, most, count = rank_correlation(tasks, x, y)
        words = f"rank correlation of {x} with {y} over {count} tasks"
        lines += ["", f"{words}: {rho:.2f} [{least:.2f}, {most:.2f}]"]
    text = "\n".join(lines) + "\n"
    with output(out, ".png", ".pdf", ".md") as stem:
        stem.with_name(stem.name + ".md").write_text(text)
    print(f"{text}{stem}.md")


# ------------------------------------------------------------------------------------------------ Demo
STUDY, AGENT = "model study", "agent"
DEMO = {  # {task: (kind of run, algorithms)}
    "dm_control/humanoid-stand-v0": (STUDY, ("MBPO", "FTFL", "FTFL, beta 0.5")),
    "dm_control/quadruped-walk-v0": (STUDY, ("MBPO", "FTFL", "FTFL, beta 0.5")),
    "InvertedPendulum-v5": (AGENT, ("SAC", "MBPO", "FTFL")),
}
DEMO_PANELS = {  # {kind of run: {tag: title}}, the upper panel first
    STUDY: {
        "model/reward_r2": "reward $R^2$, held out\n(1: perfect, 0: no better than its mean)",
        "ratio": "synthetic / real mean reward\n(1: unbiased)",
    },
    AGENT: {
        RETURN: "return\n(all learn this task: it ranks nobody)",
        "bias": "bias of the critics: Q at the start\n$-$ discounted return obtained from there",
    },
}
DEMO_COLUMNS = {  # {kind of run: {tag: text}} of the printed table
    STUDY: {"model/reward_r2": "reward R2", "ratio": "synthetic / real reward"},
    AGENT: {
        RETURN: "return",
        "eval/q_start": "Q at the start",
        "eval/discounted_return": "return from there",
    },
}
STEPS = {STUDY: "gradient steps of the model", AGENT: "environment steps"}


def demo(runs: tuple[str, ...] = ("runs/demo*",), out: str = "figures/demo"):
    """The figure of `make demo`, and a table of its last values with a sentence on what each row shows.

    Model studies of MBPO, FTFL and FTFL with beta-NLL on humanoid-stand and quadruped-walk, and agents on
    InvertedPendulum.

    Example: python plots.py demo --runs runs/demo-20260101-120000 --out figures/demo

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
    """
    short, chosen = short_names(DEMO), {task: [] for task in DEMO}
    for run in map(with_derived, load_runs(runs)):
        task, kind = run.flags["env_id"], STUDY if is_study(run) else AGENT
        if kind == DEMO.get(task, (None,))[0]:
            chosen[task].append(run)
        else:
            note(f"left out {run.name}: the demo has no {kind} of {task}")
    groups = {}
    for task, (kind, expected) in DEMO.items():
        named = group_runs(chosen[task], DEMO_PANELS[kind]).get(task, {})
        note_missing(f"{short[task]}, {kind}", named, expected)
        if named:
            groups[task] = named
    if not groups:
        fail(f"--runs {' '.join(runs)}: no part of the demo there")

    style = styles(groups)
    figure, axes = plt.subplots(2, len(groups), figsize=(4.2 * len(groups), 7.4), squeeze=False)
    for column, (task, named) in zip(axes.T, groups.items()):
        kind = DEMO[task][0]
        for axis, (tag, text) in zip(column, DEMO_PANELS[kind].items()):
            for name, members in named.items():
                if not draw_seeds(axis, name, members, tag, style[name]):
                    note(f"{short[task]}, {name}: no values of {tag} on a common range of steps")
            title(axis, f"{short[task]}\n{text}", STEPS[kind])
            if tag == RETURN and math.isfinite(random := random_return(named)):
                axis.axhline(random, color="gray", ls=":", lw=1.8, label="random policy")
            elif tag != RETURN:
                axis.axhline(int(tag == "ratio"), color="gray", lw=1)
                clip(axis, *demo_limits(named, tag))
    shared_legend(figure, axes.flat, "thin: a seed, thick: the mean")
    save(figure, out)
    for task, named in groups.items():
        print_demo(short[task], DEMO[task][0], named)
    print("\nMean over seeds (lowest to highest seed). What a sentence says holds for every seed.")
    print("Q counts the entropy bonus too, the return does not.")


def draw_seeds(axis, name, runs, tag, style):
    """Each seed's `tag` as a thin line, their mean as a thick one. False if there is nothing to draw."""
    steps, values = on_common_grid(runs, tag)
    if not len(steps):
        return False
    axis.plot(steps, values.T, lw=0.8, alpha=0.6, **style)
    axis.plot(steps, values.mean(0), lw=2.4, label=f"{name} ({seeds_text(len(values))})", **style)
    return True


def demo_limits(named, tag):
    """The lowest and the highest value that a panel shows; of the bias twice the largest return obtained."""
    if tag != "bias":
        return {"model/reward_r2": (-2, 1), "ratio": (-2, 4)}[tag]
    obtained = on_common_grid(all_runs(named), "eval/discounted_return")[1]
    largest = 2 * np.abs(obtained).max(initial=0) or math.inf
    return -largest, largest


def random_return(named):
    """Mean return of the episodes that ended within the runs' first, random steps; nan without any."""
    returns = []
    for run in all_runs(named):
        if "charts/episodic_return" in run.scalars:
            steps, values = run.scalars["charts/episodic_return"]
            returns.extend(values[steps <= run.flags["learning_starts"]])
    return np.mean(returns) if returns else math.nan


def verdict(values, low, high, sentence, words):
    """The sentence with that of words (below low, between, above high) that is true of all values (seeds,).

    Where seeds are on different sides, that they do not decide between those.
    """
    sides = (values < low, (values >= low) & (values <= high), values > high)
    held = [word for word, side in zip(words, sides) if side.any() or np.isnan(values).any()]
    if len(held) == 1:
        return sentence.format(held[0])
    return f"these seeds do not decide whether {sentence.format(' or '.join(held))}"


def verdicts(name, finals, random):
    """What a group's last values, {tag: {name: (seeds,)}}, show; random is the random policy's return."""

    def judge(tag, *args):
        return [verdict(finals[tag][name], *args)] if name in finals.get(tag, {}) else []

    off = ("more than 10 % below", "within 10 % of", "more than 10 % above")
    better = ("worse than", "as well as", "better than")
    result = judge("model/reward_r2", 0, 0, "it predicts the reward {} its mean would", better)
    result += judge("ratio", 0.9, 1.1, "the mean reward it imagines is {} the real one", off)
    if random > 0:
        sentence = f"the return is {{}} the random policy's ({number(random)})"
        result += judge(RETURN, 0.9 * random, 1.1 * random, sentence, off)
    sacs = [values for other, values in finals.get(RETURN, {}).items() if base(other) == "SAC"]
    if len(sacs) == 1 and base(name) != "SAC":
        low, high, sides = sacs[0].min(), sacs[0].max(), ("below", "within", "above")
        result += judge(RETURN, low, high, "the return is {} the range of SAC's seeds", sides)
    return result + judge("bias", 0, 0, "Q is {} the return obtained", ("below", "equal to", "above"))


def print_demo(task, kind, named):
    """A row for each of {name: [runs]} with its last values, and a sentence on what they show."""
    columns = DEMO_COLUMNS[kind]
    named = cut_to_common_step(named, columns, f"{task}, the numbers printed")
    step, random = 0, random_return(named)
    finals = {}
    for tag in [*columns, "bias"]:
        at, finals[tag] = final_values(named, tag)
        step = max(step, at)
    print(f"\n{task}, {kind}: after {step:,} {STEPS[kind]}")
    print(f"{'':20s}" + "".join(f"{text:>30s}" for text in columns.values()))
    for name, members in named.items():
        line = f"{f'{name} ({seeds_text(len(members))})':20s}"
        for tag in columns:
            x = finals[tag].get(name, np.array([math.nan]))
            cell = f"{number(x.mean())} ({number(x.min())} to {number(x.max())})"
            line += f"{cell.replace('nan (nan to nan)', '-'):>30s}"
        print(line)
        if text := "; ".join(verdicts(name, finals, random)):
            print(f"  {text[0].upper()}{text[1:]}.")


if __name__ == "__main__":
    sys.stdout.reconfigure(
        errors="replace"
    )  # a terminal may not know the letters of a name, or a plus-minus sign
    commands = [curves, summary, ablation, forensics, table, taxonomy, export, demo]
    tyro.extras.subcommand_cli_from_dict(
        {command.__name__: command for command in commands}, description=__doc__
    )
