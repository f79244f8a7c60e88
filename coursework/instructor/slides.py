"""Two slides' worth of figures for the lecture, as PDF.

    python coursework/instructor/slides.py                 # writes to coursework/instructor/slides
    python coursework/instructor/slides.py --remake        # fits the models of the horizon figure first

dataflow.pdf   where data go in MBPO, with FTFL's two changes marked
horizon.pdf    how the error of imagined states grows over a rollout, MBPO's model and FTFL's
taxonomy.pdf   on which tasks the model fails, if benchmark/results/taxonomy.csv is there
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
import tyro

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmark")]
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

plt.rcParams |= {"font.size": 14, "pdf.fonttype": 42}
HORIZON = HERE.parent / "data" / "horizon.csv"
TAXONOMY = ROOT / "benchmark" / "results" / "taxonomy.csv"
SETTINGS = {"MBPO": (False, "residual", "#D55E00"), "FTFL": (True, "direct", "#0072B2")}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.35"


@dataclass
class Args:
    out: str = str(HERE / "slides")  # folder for the PDF files
    remake: bool = False  # fit the models of the horizon's figure anew, and write coursework/data/horizon.csv
    env_id: str = "HalfCheetah-v5"  # of the horizon's figure
    steps: int = 5_000  # gradient steps of its models
    horizon: int = 10  # imagined steps


# ---------------------------------------- Data flow
BOXES = {  # name: (x, y, text)
    "env": (0.0, 2.0, "environment"),
    "real": (3.2, 2.0, "real buffer\n(s, a, r, s')"),
    "targets": (6.6, 2.0, "targets\ny = (s', r)\nz = (y - mean) / std"),
    "model": (10.2, 2.0, "ensemble\np(z | s, a)"),
    "back": (10.2, -0.4, "back to a transition\ny = z std + mean\ns' = y"),
    "synthetic": (6.6, -0.4, "synthetic buffer\n(s, a, r, s')"),
    "sac": (3.2, -0.4, "SAC\ncritics, actor"),
    "policy": (0.0, -0.4, "policy"),
}
ARROWS = (
    ("env", "real", ""),
    ("real", "targets", ""),
    ("targets", "model", "train"),
    ("model", "back", "sample"),
    ("back", "synthetic", ""),
    ("synthetic", "sac", "95 %"),
    ("real", "sac", "5 %"),
    ("sac", "policy", ""),
    ("policy", "env", "act"),
)


def draw_dataflow(path):
    """Boxes and arrows of MBPO. The two boxes that FTFL changes are coloured."""
    figure, axis = plt.subplots(figsize=(13, 5.4), layout="constrained")
    for name, (x, y, text) in BOXES.items():
        changed = name in ("targets", "back")
        style = {"facecolor": "#DCEBF7" if changed else "white", "edgecolor": BLUE if changed else "black"}
        box = {"boxstyle": "round,pad=0.5", "linewidth": 2.5 if changed else 1.2} | style
        axis.text(x, y, text, ha="center", va="center", bbox=box, zorder=3)
    for start, end, text in ARROWS:
        (x0, y0, _), (x1, y1, _) = BOXES[start], BOXES[end]
        gap = np.array([1.2 if x0 != x1 else 0, 0.6 if y0 != y1 else 0]) * np.sign([x1 - x0, y1 - y0])
        tip, tail = np.array([x1, y1]) - gap, np.array([x0, y0]) + gap
        axis.annotate("", tip, tail, arrowprops={"arrowstyle": "-|>", "linewidth": 1.6, "color": GREY})
        axis.text(*((tip + tail) / 2 + [0.1, 0.12]), text, color=GREY, fontsize=12)
    note = "Target Unit Normalization: MBPO has z = y\nDirect Next-state Prediction: MBPO has y = (s' - s, r)"
    axis.text(8.4, 3.45, note, color=BLUE, ha="center", va="center")
    axis.text(8.4, 0.8, "actions: policy in imagined states", color=GREY, ha="center", fontsize=12)
    axis.set(xlim=(-1.5, 12.2), ylim=(-1.3, 4.0))
    axis.axis("off")
    figure.savefig(path)
    plt.close(figure)


# ---------------------------------------- Error over the horizon
@torch.no_grad()
def rollout_errors(model, batch, horizon, num_rollouts=500, seed=0):
    """Root mean squared error of imagined states, in units of each number's std, after 1 to `horizon` steps
    from real states with the real actions, (horizon,): the median over rollouts."""
    starts = np.arange(len(batch.obs) - horizon)
    steps = np.arange(horizon)
    # Only rollouts within an episode: where each next state is the following row's state
    joined = np.abs(batch.next_obs[:-1] - batch.obs[1:]).max(1) < 1e-6
    starts = starts[joined[starts[:, None] + steps[:-1]].all(1)]
    starts = np.random.default_rng(seed).choice(starts, num_rollouts)
    torch.manual_seed(seed)
    scale, obs, errors = batch.obs.std(0) + 1e-6, torch.as_tensor(batch.obs[starts])[None], []
    for t in range(horizon):
        obs, _ = model.sample(obs, torch.as_tensor(batch.actions[starts + t])[None])
        error = (obs[0].numpy() - batch.next_obs[starts + t]) / scale
        errors.append(np.median(np.sqrt((error**2).mean(1))))
    return np.array(errors)


def make_horizon(args, path):
    """Fit MBPO's and FTFL's model to random transitions, and write the errors on other ones as CSV."""
    import model_study

    import ftfl

    # As in exercise 6
    small = {"ensemble_size": 3, "num_elites": 2, "model_hidden_dim": 64, "model_batch_size": 64}
    small["model_lr"] = 1e-3
    rows = []
    for name, (normalize, prediction, _) in SETTINGS.items():
        flags = ftfl.Args(
            env_id=args.env_id,
            device="cpu",
            target_normalization=normalize,
            next_state_prediction=prediction,
            log_interval=args.steps,
            **small,
        )
        batch = model_study.collect(ftfl, flags, 10_000)
        others = model_study.collect(ftfl, flags, 3_000, seed=1)
        groups = model_study.observation_groups(args.env_id, False)
        model = model_study.fit(ftfl, flags, batch, groups, args.steps, lambda step, logs: None)
        errors = rollout_errors(model, others, args.horizon)
        rows += [[name, args.env_id, args.steps, t + 1, f"{error:.5g}"] for t, error in enumerate(errors)]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["model", "env_id", "gradient_steps", "step", "error"], *rows])


def draw_horizon(data, path):
    """Error over imagined steps, a line per model."""
    with open(data, newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axis = plt.subplots(figsize=(9, 5.4), layout="constrained")
    for name, (_, _, color) in SETTINGS.items():
        points = [(int(row["step"]), float(row["error"])) for row in rows if row["model"] == name]
        axis.plot(*zip(*points), color=color, marker="o", label=f"{name}'s model")
    axis.set(xlabel="imagined steps", ylabel="error, in units of each number's std", ylim=(0, None))
    axis.set_title(f"{rows[0]['env_id']}, {int(rows[0]['gradient_steps']):,} gradient steps", fontsize=13)
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path)
    plt.close(figure)


def main(args):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.remake:
        make_horizon(args, HORIZON)
    draw_dataflow(out / "dataflow.pdf")
    draw_horizon(HORIZON, out / "horizon.pdf")
    if TAXONOMY.exists():
        import plots

        plots.taxonomy(str(TAXONOMY), str(out / "taxonomy"))
    else:
        print("no taxonomy.pdf: benchmark/results/taxonomy.csv is not there (benchmark/taxonomy.py makes it)")
    print("\n".join(str(path) for path in sorted(out.glob("*.pdf"))))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
