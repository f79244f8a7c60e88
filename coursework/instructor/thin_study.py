"""Write the log that exercise 6 ships: next-state R2 and predicted variances of its runs, as CSV.

python coursework/instructor/thin_study.py runs/exercise6
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
import plots  # noqa: E402

OUT = HERE.parent / "data" / "direct_or_residual.csv"
TAGS = ["model/next_state_r2", "model/reward_r2", "model/holdout_mse", "model/variance_loss"]
TAGS += ["model/predicted_variance_position", "model/predicted_variance_velocity"]


def main(folder, out=OUT):
    """Every tag of every run in `folder`, a row per logged step."""
    rows = []
    for file in Path(folder).glob("*/args.json"):
        run = plots.read_run_dir(file.parent)
        start = [run.flags["next_state_prediction"], run.flags["seed"]]
        for tag in TAGS:
            rows += [[*start, tag, int(step), f"{value:.5g}"] for step, value in zip(*run.scalars[tag])]
    with open(out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["next_state_prediction", "seed", "tag", "step", "value"], *sorted(rows)])


if __name__ == "__main__":
    main(*sys.argv[1:])
