"""Figures and tables from run directories, one command for each of the paper's figures.

    python plots.py curves --runs runs               # Fig 4, 5: return over steps, a panel per task
    python plots.py summary --runs runs              # Fig 1: final return relative to SAC, a dot per task and algorithm
    python plots.py ablation --runs runs             # Fig 2c, 3c: return and mean Q of the four switch settings
    python plots.py forensics --runs runs/forensics  # Fig 2a, 2b, 3a, 3b: the model alone, and the critics
    python plots.py table --runs runs                # the paper's tables: final returns, as Markdown and CSV
    python plots.py export --runs runs --out all.csv # every number as CSV, which each command reads in place of runs
    python plots.py demo --runs runs/demo            # the figure of `make demo`

--runs takes folders (searched through), globs and exported CSV files. Runs are grouped by what their flags (args.json)
say, not by their names: by task, algorithm, switches and model width; and where runs of one such group differ in another
flag that matters for what is learned, by that flag too. Lines and dots are interquartile means (IQM) over seeds, shades
95 % bootstrap intervals (Agarwal et al. 2021). Every figure is written as PNG and as PDF.
"""

import csv
import glob
import itertools
import json
import logging
import math
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import scipy.stats
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

logging.getLogger("tensorboard").setLevel(
    logging.ERROR
)  # of a resumed run it warns that dropped steps are dropped
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

# Okabe and Ito's palette: told apart by colour-blind readers too
COLORS = {
    "SAC": "#000000",
    "MBPO": "#D55E00",
    "TUN only": "#009E73",
    "DNP only": "#CC79A7",
    "FTFL": "#0072B2",
    "Tuned FTFL": "#56B4E9",
}
SWITCHES = ("MBPO", "TUN only", "DNP only", "FTFL")
DEFAULT_WIDTH, TUNED_WIDTH = 200, 400  # --model-hidden-dim of FTFL and of Tuned FTFL
LINE_STYLES = ("-", "--", ":", "-.")

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
    """Say what is left out or missing, and go on."""
    print(message, file=sys.stderr)


# ------------------------------------------------------------------------------------------------ Runs
class Run(NamedTuple):
    """One seed's run: its folder, its flags (args.json), and {tag: (steps, values)} of its scalars."""

    name: str
    flags: dict
    scalars: dict


def read_run_dir(folder):
    """The Run in a folder with an args.json and TensorBoard event files. Of a step logged twice, the last value counts."""
    flags = json.loads((folder / "args.json").read_text())
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    scalars = {}
    for tag in events.Tags()["scalars"]:
        points = sorted({point.step: point.value for point in events.Scalars(tag)}.items())
        scalars[tag] = tuple(np.array(points, dtype=float).T)
    return Run(str(folder), flags, scalars)


def read_csv(path):
    """The Runs in a file written by `export`."""
    flags, points = {}, {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["tag"] == "flags":
                flags[row["run"]], points[row["run"]] = json.loads(row["value"]), {}
            else:
                points[row["run"]].setdefault(row["tag"], []).append((int(row["step"]), float(row["value"])))
    return [
        Run(
            name,
            flags[name],
            {tag: tuple(np.array(rows, dtype=float).T) for tag, rows in points[name].items()},
        )
        for name in flags
    ]


def last_step(run):
    """The last step with a logged value, 0 if there is none."""
    return int(max((steps[-1] for steps, _ in run.scalars.values()), default=0))


def planned_steps(flags):
    """The step at which a run is finished: every run logs something there."""
    return flags["model_train_steps"] if flags.get("fit_buffer") else flags["total_timesteps"]


def load_runs(patterns, unfinished=False):
    """The Runs in all folders (searched through), globs and CSV files of `patterns`.

    What can't be read, has not finished (unless `unfinished`) or repeats a seed with the same flags is named and left out.
    """
    files = {}
    for pattern in patterns:
        found = (
            [Path(pattern)]
            if Path(pattern).exists()
            else [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
        )
        for path in found:
            for file in sorted(path.rglob("args.json")) if path.is_dir() else [path]:
                if file.name == "args.json" or file.suffix == ".csv":
                    files[file.resolve()] = file
    runs = []
    for file in tqdm(files.values(), desc="reading", unit="run", leave=False, delay=2):
        try:
            for run in read_csv(file) if file.suffix == ".csv" else [read_run_dir(file.parent)]:
                label(run.flags), run.flags["env_id"], run.flags["seed"]
                if last_step(run) < planned_steps(run.flags) and not unfinished:
                    note(
                        f"left out {run.name}: unfinished, its log ends at step {last_step(run)} of "
                        f"{planned_steps(run.flags)} (--unfinished takes such runs as well)"
                    )
                else:
                    runs.append(run)
        except Exception as error:
            note(f"left out {file}: {type(error).__name__}: {error}")
    latest = {}
    for run in sorted(
        runs, key=lambda run: run.name.rsplit("__", 1)[-1]
    ):  # the folder's name ends with the time
        key = (*identity(run.flags), run.flags["seed"])
        if key in latest:
            note(
                f"left out {latest[key].name}: {run.name} is a later run of the same seed with the same flags"
            )
        latest[key] = run
    if not latest:
        fail(
            f"--runs {' '.join(patterns)}: no finished runs there (a run directory has an args.json; see `export` for CSV)"
        )
    return list(latest.values())


# ------------------------------------------------------------------------------------------------ Groups
# Flags that don't change what is learned, or that a figure shows anyway
NOT_COMPARED = set(
    "script env_id seed num_seeds total_timesteps run_dir device num_threads compile eval_interval eval_episodes log_interval "
    "checkpoint_interval resume run_dirs save_buffer save_model capture_video evaluate target_normalization next_state_prediction "
    "model_hidden_dim".split()
)


def algorithm(flags):
    """What a run's flags say it is. ftfl.py with its switches off is MBPO, with one of them on it is an ablation."""
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
    """The algorithm, and the width of its model where that is not the default."""
    name, width = algorithm(flags), flags.get("model_hidden_dim", DEFAULT_WIDTH)
    if name == "SAC" or width == DEFAULT_WIDTH:
        return name
    return "Tuned FTFL" if (name, width) == ("FTFL", TUNED_WIDTH) else f"{name}, width {width}"


def identity(flags):
    """What the runs of one group have in common: task, label, and all other flags that matter for what is learned."""
    rest = tuple(sorted((name, str(value)) for name, value in flags.items() if name not in NOT_COMPARED))
    return flags["env_id"], label(flags), rest


def group_runs(runs):
    """{task: {name: [runs]}}, in the order of COLORS. Where flags other than the label's differ, the name says which."""
    groups = {}
    for run in runs:
        task, name, rest = identity(run.flags)
        groups.setdefault(task, {}).setdefault(name, {}).setdefault(rest, []).append(run)
    order = list(COLORS)
    named = {}
    for task in sorted(groups):
        named[task] = {}
        for name in sorted(groups[task], key=lambda name: (order.index(base(name)), name)):
            variants = groups[task][name]
            for rest, members in variants.items():
                differs = [f"{k} {v}" for k, v in rest if any(dict(other).get(k) != v for other in variants)]
                named[task][", ".join([name, *differs])] = members
    return named


def base(name):
    """The algorithm at the beginning of a group's name."""
    return name.split(",")[0]


def short(task):
    """humanoid-stand for dm_control/humanoid-stand-v0, Hopper for Hopper-v5."""
    return task.split("/")[-1].rsplit("-v", 1)[0]


def styles(names):
    """{name: colour and line style}: the colour is the algorithm's, the line style tells its variants apart."""
    result, count = {}, {}
    for name in names:
        count[base(name)] = count.get(base(name), -1) + 1
        result[name] = {
            "color": COLORS[base(name)],
            "linestyle": LINE_STYLES[count[base(name)] % len(LINE_STYLES)],
        }
    return result


# ------------------------------------------------------------------------------------------------ Statistics
def iqm(x, axis=0):
    """Interquartile mean: the mean without the smallest and the largest quarter (each rounded down) of the seeds."""
    return scipy.stats.trim_mean(x, 0.25, axis=axis)


def interval(*samples, statistic=iqm, resamples=2_000):
    """95 % percentile bootstrap interval, (low, high), of a statistic of samples (seeds, ...) over their seeds.

    nan if a sample has one seed only: one seed says nothing about others.
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


def on_common_grid(runs, tag):
    """Steps, and values (seeds, steps), of `tag` in those runs that have it.

    The grid is that of the run with the fewest points, from the last first step to the first last step; other runs are
    interpolated between their points, and never extrapolated.
    """
    curves = [run.scalars[tag] for run in runs if tag in run.scalars]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    grid = min((steps for steps, _ in curves), key=len)
    grid = grid[
        (grid >= max(steps[0] for steps, _ in curves)) & (grid <= min(steps[-1] for steps, _ in curves))
    ]
    return grid, np.array([np.interp(grid, steps, values) for steps, values in curves])


def final_values(runs, tag, last):
    """Each seed's mean of its last `last` values of `tag`, (seeds,)."""
    return np.array([run.scalars[tag][1][-last:].mean() for run in runs if tag in run.scalars])


# ------------------------------------------------------------------------------------------------ Drawing
def seeds_text(count):
    return f"{count} seed" + "s" * (count != 1)


def draw(axis, name, runs, tag, style):
    """The IQM of `tag` over the seeds as a line, its interval as a shade. Returns whether there was anything to draw."""
    steps, values = on_common_grid(runs, tag)
    if not len(steps):
        return False
    axis.plot(steps, iqm(values), label=f"{name} ({seeds_text(len(values))})", lw=1.8, **style)
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
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    axis.xaxis.set_major_locator(plt.MaxNLocator(4))


def shared_legend(figure, axes):
    """One legend below all panels, if every name has the same number of seeds in each; else a legend in each panel."""
    handles = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels())}
    names = [text.rsplit(" (", 1)[0] for text in handles]
    if len(set(names)) == len(names):
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=2 if len(names) < 7 else 3
        )
    else:
        for axis in axes:
            axis.legend()


def save(figure, out):
    """Write `out` as PNG and PDF, and close the figure."""
    stem = Path(out).with_suffix("") if Path(out).suffix in (".png", ".pdf") else Path(out)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".png", ".pdf"):
            figure.savefig(stem.with_name(stem.name + suffix), dpi=150)
    except OSError as error:
        fail(f"--out {out} can't be written: {error}")
    plt.close(figure)
    print(f"{stem}.png, {stem}.pdf")


def load_training_runs(patterns, unfinished):
    """{task: {name: [runs]}} of the runs that trained an agent."""
    runs = [run for run in load_runs(patterns, unfinished) if not run.flags.get("fit_buffer")]
    if not runs:
        fail(f"--runs {' '.join(patterns)}: only model studies (--fit-buffer) there, see `forensics`")
    return group_runs(runs)


# ------------------------------------------------------------------------------------------------ Commands
def curves(
    runs: tuple[str, ...] = ("runs",),
    out: str = "figures/curves",
    tag: str = "eval/episodic_return",
    unfinished: bool = False,
):
    """Learning curves (Fig 4 and 5): IQM over seeds with its 95 % bootstrap interval, a panel per task.

    Example: python plots.py curves --runs runs 'old-runs/*hopper*' --out figures/curves

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        tag: what is drawn
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
    """
    groups = load_training_runs(runs, unfinished)
    style = styles(dict.fromkeys(name for named in groups.values() for name in named))
    figure, axes = panels(len(groups))
    for axis, (task, named) in zip(axes, groups.items()):
        for name, members in named.items():
            if not draw(axis, name, members, tag, style[name]):
                note(f"{short(task)}, {name}: no values of {tag} on a common range of steps")
        title(axis, short(task))
    if not any(axis.lines for axis in axes):
        fail(f"--tag {tag}: no run has it")
    figure.supylabel("return" if tag == "eval/episodic_return" else tag, fontsize=11.5)
    shared_legend(figure, axes)
    save(figure, out)


def check_last(last):
    """Stop at a --last that would average nothing."""
    if last < 1:
        fail(f"--last must be at least 1, not {last}")


def relative(x, y, axis=0):
    """IQM of x as a percentage of the IQM of y."""
    return 100 * iqm(x, axis) / iqm(y, axis)


def summary(
    runs: tuple[str, ...] = ("runs",), out: str = "figures/summary", last: int = 1, unfinished: bool = False
):
    """Final IQM return relative to SAC = 100 % (Fig 1): a dot per task and algorithm, with its 95 % bootstrap interval.

    Example: python plots.py summary --runs runs --out figures/summary

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        last: how many evaluations at the end of each run are averaged
        unfinished: take runs that have not finished as well, with their last evaluation so far
    """
    check_last(last)
    groups, tag = load_training_runs(runs, unfinished), "eval/episodic_return"
    for task in list(groups):
        sac = [name for name in groups[task] if base(name) == "SAC"]
        if len(sac) != 1 or iqm(final_values(groups[task][sac[0]], tag, last)) <= 0:
            why = (
                "no SAC to compare with"
                if not sac
                else "several kinds of SAC"
                if len(sac) > 1
                else "SAC's return is not above 0"
            )
            note(f"left out {short(task)}: {why}")
            del groups[task]
    if not groups:
        fail(f"--runs {' '.join(runs)}: no task with runs of SAC, which is 100 % here")
    names = sorted(
        {name for named in groups.values() for name in named}, key=lambda n: (list(COLORS).index(base(n)), n)
    )
    style = styles(names)
    figure, (axis,) = panels(1)
    figure.set_figheight(1.6 + 0.45 * len(groups) + 0.12 * len(names))
    labels, counts = {}, {name: set() for name in names}
    for row, (task, named) in enumerate(groups.items()):
        sac = final_values(next(named[name] for name in named if base(name) == "SAC"), tag, last)
        for k, name in enumerate(names):
            values = final_values(named.get(name, []), tag, last)
            if not len(values):
                note(f"{short(task)}: no runs of {name}")
                continue
            y = row + 0.5 * (k - (len(names) - 1) / 2) / len(names)
            percent = relative(values, sac)
            if name != "SAC" and min(len(values), len(sac)) > 1:
                axis.plot(
                    interval(values, sac, statistic=relative), [y, y], color=style[name]["color"], lw=1.5
                )
            (labels[name],) = axis.plot(
                percent, y, "o" if style[name]["linestyle"] == "-" else "D", ms=8, color=style[name]["color"]
            )
            counts[name].add(len(values))
    if axis.get_xlim()[1] > 1000 and axis.get_xlim()[0] >= 0:
        axis.set_xscale("log")
    left, right = axis.get_xlim()
    axis.axvspan(left, 100, color="#D55E00", alpha=0.1, lw=0)
    axis.axvspan(100, right, color="#009E73", alpha=0.1, lw=0)
    axis.set_xlim(left, right)
    axis.axvline(100, color="gray", lw=1)
    axis.set_yticks(range(len(groups)), [short(task) for task in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_xlabel("final return, % of SAC")
    names = {
        name: "-".join(str(n) for n in sorted({min(counts[name]), max(counts[name])})) for name in labels
    }
    texts = [f"{name} ({count} seed{'s' * (count != '1')})" for name, count in names.items()]
    figure.legend([labels[name] for name in names], texts, loc="outside lower center", ncols=2)
    save(figure, out)


def ablation(runs: tuple[str, ...] = ("runs",), out: str = "figures/ablation", unfinished: bool = False):
    """The four switch settings of ftfl.py online (Fig 2c and 3c): return, and mean Q; a row per task that has ablations.

    Example: python plots.py ablation --runs runs --out figures/ablation

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
    """
    groups = load_training_runs(runs, unfinished)
    present = {task: {base(name) for name in named} for task, named in groups.items()}
    groups = {task: named for task, named in groups.items() if present[task] & {"TUN only", "DNP only"}}
    if not groups:
        fail(f"--runs {' '.join(runs)}: no run with just one of the two switches on (TUN only, DNP only)")
    style = styles(dict.fromkeys(name for named in groups.values() for name in named))
    figure, axes = panels(2 * len(groups))
    for row, (task, named) in enumerate(groups.items()):
        for missing in [name for name in SWITCHES if name not in present[task]]:
            note(f"{short(task)}: no runs of {missing}")
        for axis, tag, what in zip(
            axes[2 * row :], ("eval/episodic_return", "losses/qf1_values"), ("return", "mean Q")
        ):
            for name, members in named.items():
                if not draw(axis, name, members, tag, style[name]):
                    note(f"{short(task)}, {name}: no values of {tag} on a common range of steps")
            title(axis, f"{short(task)}: {what}")
    shared_legend(figure, axes)
    save(figure, out)


def forensics(
    runs: tuple[str, ...] = ("runs/forensics",),
    out: str = "figures/forensics",
    env_id: str = "dm_control/humanoid-stand-v0",
    unfinished: bool = False,
):
    """The model alone, fitted to saved transitions (Fig 2a, 3a, 3b), and online critics (Fig 2b) where there are any.

    Prints the numbers at the end of the fits beside the paper's claims.

    Example: python plots.py forensics --runs runs/forensics --out figures/forensics

    Args:
        runs: folders that are searched, globs, or CSV files from `export`; of --fit-buffer runs, and of training runs
        out: the figure's name; .png and .pdf are added
        env_id: the task of all panels but Fig 3a, which compares tasks
        unfinished: take runs that have not finished as well; a curve ends where its first seed ends
    """
    loaded = load_runs(runs, unfinished)
    fits = group_runs([run for run in loaded if run.flags.get("fit_buffer")])
    agents = group_runs([run for run in loaded if not run.flags.get("fit_buffer")]).get(env_id, {})
    agents = {
        name: members
        for name, members in agents.items()
        if any("losses/qf1_values" in run.scalars for run in members)
    }
    if env_id not in fits:
        fail(
            f"--env-id {env_id}: no model was fitted to its transitions; there are {', '.join(fits) or 'no such runs'}"
        )
    here, task = fits[env_id], short(env_id)
    for missing in [name for name in SWITCHES if name not in {base(name) for name in here}]:
        note(f"{task}: no model study of {missing}")

    content = [
        ("2a: mean reward, held out", "rewards/synthetic"),
        ("reward $R^2$, held out", "model/reward_r2"),
        ("3a: variance loss of MBPO", "model/variance_loss"),
        ("3b: variance, velocities", "model/predicted_variance_velocity"),
        ("variance, positions", "model/predicted_variance_position"),
        ("variance, reward", "model/predicted_variance_reward"),
    ]
    online = (
        [("2b: mean Q, online", "losses/qf1_values"), ("2b: Q $-$ return obtained", "critic/bias")]
        if agents
        else []
    )
    figure, axes = panels(len(content) + len(online), height=2.3)
    style = styles(dict.fromkeys([*here, *agents]))
    for axis, (text, tag) in zip(axes, content + online):
        if tag == "model/variance_loss":
            lines = [
                (short(t), members) for t in fits for name, members in fits[t].items() if base(name) == "MBPO"
            ]
            for i, (name, members) in enumerate(lines):
                draw(
                    axis,
                    name,
                    members,
                    tag,
                    {"color": list(COLORS.values())[i % len(COLORS)], "linestyle": "-"},
                )
            axis.legend()
        else:
            for name, members in (agents if (text, tag) in online else here).items():
                draw(axis, name, members, tag, style[name])
        title(axis, text, "environment steps" if (text, tag) in online else "gradient steps")
        if "variance_" in tag and tag != "model/variance_loss":
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    real = np.mean([run.scalars["rewards/real"][1].mean() for members in here.values() for run in members])
    axes[0].axhline(real, color="black", ls=":", label="real")
    for axis, low, high in (
        (axes[0], -2 * real, 5 * real),
        (axes[1], -2, 1),
    ):  # unnormalized heads can be far off
        bottom, top = axis.get_ylim()
        axis.set_ylim(max(bottom, low), min(top, high))
    axes[1].axhline(0, color="gray", lw=1)
    shared_legend(
        figure, [axis for axis, (_, tag) in zip(axes, content + online) if tag != "model/variance_loss"]
    )
    figure.suptitle(f"{task}: the model alone" + (", and the agent" if agents else ""), fontsize=11.5)
    save(figure, out)
    print_claims(fits, env_id)


def print_claims(fits, env_id):
    """The numbers of the fits beside the claims of the paper: the last value, and the range over the second half."""

    def cell(members, tag):
        steps, values = on_common_grid(members, tag)
        if tag == "ratio":
            steps, synthetic = on_common_grid(members, "rewards/synthetic")
            values = synthetic / on_common_grid(members, "rewards/real")[1]
        if not len(steps):
            return f"{'-':>24s}"
        middle = iqm(values)
        second_half = middle[steps > steps[-1] / 2]
        return f"{middle[-1]:9.3g} {f'({second_half.min():.2g} to {second_half.max():.2g})':>14s}"

    claims = [
        ("C4 (Fig 2a)  without target scaling the model underestimates reward, with it, it does not", [
            ("synthetic / real", "ratio"), ("reward R2", "model/reward_r2")]),
        ("C8 (Fig 3b)  predicted variance: residual high, direct low and stable", [
            ("positions", "model/predicted_variance_position"), ("velocities", "model/predicted_variance_velocity"),
            ("reward", "model/predicted_variance_reward"), ("next-state R2", "model/next_state_r2")]),
    ]  # fmt: skip
    for claim, columns in claims:
        print(f"\n{claim}\n{short(env_id):34s}" + "".join(f"{text:>24s}" for text, _ in columns))
        for name, members in fits[env_id].items():
            print(
                f"{f'{name} ({seeds_text(len(members))})':34s}"
                + "".join(cell(members, tag) for _, tag in columns)
            )
    print(
        "\nC7 (Fig 3a)  the variance part of MBPO's loss is far higher for humanoid-stand than for walker2d"
    )
    print(f"{'':34s}{'variance loss':>24s}")
    for task, named in fits.items():
        for name, members in named.items():
            if base(name) == "MBPO":
                print(
                    f"{f'{short(task)} ({seeds_text(len(members))})':34s}"
                    + cell(members, "model/variance_loss")
                )
    print(
        "\nAt the end of the fit, and in brackets the range over its second half; IQM over seeds; environment's units."
    )


def table(
    runs: tuple[str, ...] = ("runs",), out: str = "figures/table", last: int = 1, unfinished: bool = False
):
    """Final returns: mean and std over seeds, IQM and its 95 % bootstrap interval; printed, and as .md and .csv.

    Example: python plots.py table --runs runs --out figures/table

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the table's name; .md and .csv are added
        last: how many evaluations at the end of each run are averaged
        unfinished: take runs that have not finished as well, with their last evaluation so far
    """
    check_last(last)
    header = ["task", "algorithm", "seeds", "steps", "mean", "std", "iqm", "low", "high"]
    rows = []
    for task, named in load_training_runs(runs, unfinished).items():
        for name, members in named.items():
            values = final_values(members, "eval/episodic_return", last)
            if not len(values):
                note(f"left out {short(task)}, {name}: not evaluated")
                continue
            steps = min(last_step(run) for run in members)
            std = values.std(ddof=1) if len(values) > 1 else math.nan
            rows.append(
                [
                    task,
                    name,
                    len(values),
                    steps,
                    values.mean(),
                    std,
                    iqm(values),
                    *map(float, interval(values)),
                ]
            )
    lines = [
        "| task | algorithm | seeds | steps | mean ± std | IQM [95 % interval] |",
        "|---|---|---|---|---|---|",
    ]
    for task, name, seeds, steps, mean, std, middle, low, high in rows:
        lines.append(
            f"| {short(task)} | {name} | {seeds} | {steps:,} | {mean:.1f} ± {std:.1f} | {middle:.1f} [{low:.1f}, {high:.1f}] |"
        )
    text = "\n".join(lines).replace(" ± nan", "").replace(" [nan, nan]", "") + "\n"
    stem = Path(out).with_suffix("") if Path(out).suffix in (".md", ".csv") else Path(out)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_name(stem.name + ".md").write_text(text)
        with open(stem.with_name(stem.name + ".csv"), "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    except OSError as error:
        fail(f"--out {out} can't be written: {error}")
    print(f"{text}{stem}.md, {stem}.csv")


def export(runs: tuple[str, ...] = ("runs",), out: str = "figures/runs.csv", tags: tuple[str, ...] = ()):
    """All logged values, of unfinished runs too, as one CSV file that every command reads in place of run directories.

    Columns: run, env_id, algorithm, seed, tag, step, value. A run's first row has the tag "flags" and all flags as JSON.

    Example: python plots.py export --runs runs --out results.csv --tags eval/episodic_return losses/qf1_values

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the CSV file
        tags: which values; all if none is named
    """
    loaded = load_runs(runs, unfinished=True)
    if missing := [tag for tag in tags if not any(tag in run.scalars for run in loaded)]:
        fail(f"--tags {' '.join(missing)}: no run has that")
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "env_id", "algorithm", "seed", "tag", "step", "value"])
            for run in loaded:
                start = [run.name, run.flags["env_id"], label(run.flags), run.flags["seed"]]
                writer.writerow([*start, "flags", "", json.dumps(run.flags)])
                for tag, (steps, values) in run.scalars.items():
                    if not tags or tag in tags:
                        writer.writerows(
                            [*start, tag, int(step), value] for step, value in zip(steps, values.tolist())
                        )
    except OSError as error:
        fail(f"--out {out} can't be written: {error}")
    print(f"{out}: {len(loaded)} runs")


def demo(runs: tuple[str, ...] = ("runs/demo",), out: str = "runs/demo/demo"):
    """The figure of `make demo`, and a table of its last values.

    Above, both models fitted to the same random transitions of humanoid-stand; below, both agents on walker-walk: each seed
    as a thin line, and their mean.

    Example: python plots.py demo --runs runs/demo-20260101-120000 --out figures/demo

    Args:
        runs: folders that are searched, globs, or CSV files from `export`
        out: the figure's name; .png and .pdf are added
    """
    loaded = sorted(
        load_runs(runs), key=lambda run: (list(COLORS).index(algorithm(run.flags)), run.flags["seed"])
    )
    fits = [run for run in loaded if run.flags.get("fit_buffer")]
    agents = [run for run in loaded if "eval/episodic_return" in run.scalars and run.flags["script"] != "sac"]
    layout = [
        (
            fits,
            "model/reward_r2",
            "reward $R^2$ on held-out rows\n(1: perfect; 0: the mean; from -2)",
            "gradient steps",
        ),
        (fits, "ratio", "synthetic / real mean\nreward on held-out rows (1: unbiased)", "gradient steps"),
        (agents, "eval/episodic_return", "return", "environment steps"),
        (agents, "losses/qf1_values", "mean Q", "environment steps"),
    ]
    for run in fits:
        steps, real = run.scalars["rewards/real"]
        run.scalars["ratio"] = steps, run.scalars["rewards/synthetic"][1] / real
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5))
    rows = {}
    for axis, (group, tag, text, xlabel) in zip(axes.flat, layout):
        for name, members in itertools.groupby(group, key=lambda run: algorithm(run.flags)):
            members = list(members)
            several, color = len(members) > 1, COLORS[name]
            for run in members:
                steps, values = run.scalars[tag]
                marker = "o" if len(steps) < 30 and not several else None
                style = {"lw": 0.8, "alpha": 0.6} if several else {"label": name}
                axis.plot(steps, values, color=color, marker=marker, ms=4, **style)
                rows.setdefault((name, f"seed {run.flags['seed']}"), {})[tag] = values[-1]
            if several:
                grid, values = on_common_grid(members, tag)
                mean = values.mean(0)
                axis.plot(
                    grid,
                    mean,
                    color=color,
                    marker="o" if len(grid) < 30 else None,
                    ms=4,
                    lw=2.2,
                    label=f"{name}, mean of {len(members)} seeds",
                )
                rows[name, "mean"] = rows.get((name, "mean"), {}) | {tag: mean[-1]}
        kind = "Model alone" if group is fits else "Agent"
        tasks = sorted({short(run.flags["env_id"]) for run in group})
        axis.set_title(f"{kind}, {', '.join(tasks)}: {text}", fontsize=10)
        axis.set_xlabel(xlabel)
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles))
        axis.legend(unique.values(), unique.keys())
    axes[0, 0].axhline(0, color="gray", lw=1)
    axes[0, 0].set_ylim(max(axes[0, 0].get_ylim()[0], -2), 1)  # an unnormalized reward head can be far below
    axes[0, 1].axhline(1, color="gray", lw=1)

    print(f"\n{'':12s}{'reward R2':>12s}{'synth/real':>12s}{'return':>12s}{'mean Q':>12s}")
    for name, which in sorted(rows, key=lambda row: (list(COLORS).index(row[0]), row[1] == "mean")):
        cells = "".join(
            f"{rows[name, which][tag]:12.2f}" if tag in rows[name, which] else f"{'-':>12s}"
            for _, tag, _, _ in layout
        )
        print(f"{name + ' ' + which:12s}{cells}")
    save(figure, out)


if __name__ == "__main__":
    commands = [curves, summary, ablation, forensics, table, export, demo]
    tyro.extras.subcommand_cli_from_dict(
        {command.__name__: command for command in commands}, description=__doc__
    )
