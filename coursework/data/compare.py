"""Draw a log of exercise 7 beside the correct script's: a panel per tag, grey for the six correct seeds.

python data/compare.py C            # writes C.png
python data/compare.py C D --tags losses/qf1_values losses/alpha
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

LOGS = Path(__file__).parent / "bugs"


def read(letter):
    """{tag: {seed: [(step, value), ...]}} of a log."""
    log = {}
    with open(LOGS / f"{letter}.csv", newline="") as file:
        for row in csv.DictReader(file):
            points = log.setdefault(row["tag"], {}).setdefault(row["seed"], [])
            points.append((int(row["step"]), float(row["value"])))
    return log


def draw(letter, tags=()):
    """Write LETTER.png. Returns its name."""
    log, correct = read(letter), read("correct")
    tags = tags or sorted(set(log) | set(correct))
    rows = -(-len(tags) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(15, 2.3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(tags) :]:
        axis.axis("off")
    for axis, tag in zip(axes.flat, tags):
        for points in correct.get(tag, {}).values():
            axis.plot(*zip(*points), color="0.6", marker=".", markersize=2)
        for points in log.get(tag, {}).values():
            axis.plot(*zip(*points), color="#D55E00", marker=".", markersize=3)
        axis.set_title(tag, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.suptitle(f"{letter} (orange) and the correct script (grey)")
    figure.savefig(f"{letter}.png", dpi=80)
    plt.close(figure)
    return f"{letter}.png"


if __name__ == "__main__":
    words = sys.argv[1:]
    split = words.index("--tags") if "--tags" in words else len(words)
    known = sorted(path.stem for path in LOGS.glob("*.csv") if path.stem != "correct")
    if not words[:split] or set(words[:split]) - set(known):
        sys.exit(f"error: name one of the logs {' '.join(known)}")
    for letter in words[:split]:
        print(draw(letter, words[split + 1 :]))
