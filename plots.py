"""Figures from TensorBoard run directories.

    python plots.py demo --runs runs/demo      # the figure of `make demo`: both models, and both agents
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

# Okabe and Ito's palette: told apart by colour-blind readers too
COLORS = {"SAC": "#000000", "MBPO": "#D55E00", "FTFL": "#0072B2", "TUN only": "#009E73", "DNP only": "#CC79A7"}


def fail(message):
    """Report a user's mistake in one line and exit with code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class Run(NamedTuple):
    """One run directory: its flags (args.json), and {tag: (steps, values)} of its scalars."""

    flags: dict
    scalars: dict


def load_runs(folder):
    """All runs below `folder`, in the order of their names. A run that can't be read is named and left out."""
    runs = []
    for path in sorted(Path(folder).rglob("args.json")):
        try:
            flags = json.loads(path.read_text())
            events = EventAccumulator(str(path.parent), size_guidance={"scalars": 0}).Reload()
            scalars = {}
            for tag in events.Tags()["scalars"]:
                points = events.Scalars(tag)
                scalars[tag] = np.array([p.step for p in points]), np.array([p.value for p in points])
        except Exception as error:
            print(f"left out {path.parent}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        runs.append(Run(flags, scalars))
    if not runs:
        fail(f"--runs {folder} holds no run directories (a run directory has an args.json)")
    return runs


def algorithm(flags):
    """What a run's flags say it is. ftfl.py with its switches off is MBPO, with one of them on it is an ablation."""
    if flags["script"] != "ftfl":
        return flags["script"].upper()
    normalized, direct = flags["target_normalization"], flags["next_state_prediction"] == "direct"
    return {(True, True): "FTFL", (True, False): "TUN only", (False, True): "DNP only", (False, False): "MBPO"}[
        normalized, direct
    ]


def demo(runs: str = "runs/demo", out: str = "runs/demo/demo.png"):
    """The figure of `make demo`, and a table of its last values.

    Above, both models fitted to the same random transitions of humanoid-stand; below, both agents on walker-walk.

    Args:
        runs: folder that is searched for run directories
        out: the figure, PNG or PDF
    """
    loaded = load_runs(runs)
    fits = [run for run in loaded if run.flags.get("fit_buffer")]
    agents = [run for run in loaded if "eval/episodic_return" in run.scalars and run.flags["script"] != "sac"]
    panels = [
        (fits, "model/reward_r2", "reward $R^2$ on held-out rows\n(1: perfect; 0: the mean; from -2)", "gradient steps"),
        (fits, "ratio", "synthetic / real mean\nreward on held-out rows (1: unbiased)", "gradient steps"),
        (agents, "eval/episodic_return", "return", "environment steps"),
        (agents, "losses/qf1_values", "mean Q", "environment steps"),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    rows = {}
    for axis, (group, tag, title, xlabel) in zip(axes.flat, panels):
        for run in group:
            name = algorithm(run.flags)
            if tag == "ratio":
                steps, real = run.scalars["rewards/real"]
                values = run.scalars["rewards/synthetic"][1] / real
            else:
                steps, values = run.scalars[tag]
            axis.plot(steps, values, color=COLORS[name], marker="o" if len(steps) < 30 else None, ms=4, label=name)
            rows.setdefault((name, run.flags["seed"]), {})[tag] = values[-1]
        kind = "Model alone" if group is fits else "Agent"
        tasks = sorted({run.flags["env_id"].split("/")[-1].rsplit("-v", 1)[0] for run in group})
        axis.set_title(f"{kind}, {', '.join(tasks)}: {title}", fontsize=10)
        axis.set_xlabel(xlabel)
        axis.grid(alpha=0.3)
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles))
        axis.legend(unique.values(), unique.keys())
    axes[0, 0].axhline(0, color="gray", lw=1)
    axes[0, 0].set_ylim(max(axes[0, 0].get_ylim()[0], -2), 1)  # an unnormalized reward head can be far below
    axes[0, 1].axhline(1, color="gray", lw=1)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)

    print(f"\n{'':12s}{'reward R2':>12s}{'synth/real':>12s}{'return':>12s}{'mean Q':>12s}")
    for (name, seed), values in rows.items():
        cells = "".join(f"{values[tag]:12.2f}" if tag in values else f"{'-':>12s}" for _, tag, _, _ in panels)
        print(f"{name + ' seed ' + str(seed):12s}{cells}")
    print(f"figure: {out}")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"demo": demo}, description=__doc__)
