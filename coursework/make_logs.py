"""Make the logs of the bug hunt, exercise 7: of ftfl.py and of every variant in instructor/bugs.py.

    python coursework/make_logs.py                       # all: 16 runs of 19 to 79 seconds each
    python coursework/make_logs.py --only logvar_sign    # one variant, or several: --only ID ID
    python coursework/make_logs.py --key                 # only the key, after a change of the tags in bugs.py

Each variant trains three seeds side by side on Hopper-v5, with small networks and the same flags. The logs
go to coursework/data/bugs: correct.csv (six seeds), and LETTER.csv for each bug. descriptions.json lists what
the bugs do, in the order of their ids. key.json holds salted hashes of which letter has which bug and what
betrays it: whoever wants to can find out by trying all ids, but nobody reads it by chance.
"""

import contextlib
import csv
import importlib.util
import io
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

HERE = Path(__file__).resolve().parent
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(HERE / "instructor"))
sys.path.insert(0, str(HERE / "checks"))
from bug_logs import answer_hash  # noqa: E402
from bugs import BUGS, LOGS, SALT, SCRIPT, letters, variant  # noqa: E402

# Small, and with larger learning rates, so that a minute of one core shows what an hour would at the defaults
FLAGS = """--env-id Hopper-v5 --num-seeds 3 --total-timesteps 2000 --learning-starts 1000 --utd-ratio 2
    --batch-size 64 --hidden-dim 64 --actor-lr 1e-3 --critic-lr 1e-3 --alpha-lr 1e-3 --tau 0.02
    --ensemble-size 4 --num-elites 1 --model-hidden-dim 64 --model-lr 1e-3 --model-batch-size 64
    --model-train-steps 120 --rollouts-per-step 30 --rollout-schedule 3:3:0:1 --synthetic-buffer-size 30000
    --eval-interval 500 --eval-episodes 2 --checkpoint-interval 100000 --device cpu""".split()
MOST_POINTS = 24  # of a tag and seed: of more, means of neighbours are written


@dataclass
class Args:
    only: tuple[str, ...] = ()  # ids of bugs, or "correct"; all if none is named
    key: bool = False  # write only key.json, descriptions.json and flags.txt
    out: str = str(LOGS)  # the folder


def write_key(out):
    """What bugs there are, in the ids' order, and which letter is which, as hashes."""
    by_id = sorted(BUGS)
    key = {"salt": SALT, "letters": {}}
    for letter, bug in letters().items():
        evidence = sorted(answer_hash(SALT, letter, bug.id, tag) for tag in bug.tags)
        key["letters"][letter] = {"bug": answer_hash(SALT, letter, bug.id), "evidence": evidence}
    (out / "key.json").write_text(json.dumps(key, indent=1) + "\n")
    (out / "flags.txt").write_text("python ftfl.py " + " ".join(FLAGS) + "\n")
    descriptions = {bug.id: bug.description for bug in by_id}
    (out / "descriptions.json").write_text(json.dumps(descriptions, indent=1) + "\n")


def thin(points):
    """At most MOST_POINTS (step, value): means of neighbours, at the last one's step."""
    groups = np.array_split(np.array(points, dtype=float), min(MOST_POINTS, len(points)))
    return [(int(group[-1, 0]), group[:, 1].mean()) for group in groups]


def read_run(run_dir):
    """The rows (seed, tag, step, value) of a run directory. Without the speed, which differs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    seed = json.loads((run_dir / "args.json").read_text())["seed"]
    for tag in sorted(events.Tags()["scalars"]):
        if tag != "charts/SPS":
            for step, value in thin([(point.step, point.value) for point in events.Scalars(tag)]):
                yield seed, tag, step, f"{value:.5g}"


def train(text, *flags):
    """Run a variant of the script, given as text. Returns the rows of its seeds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ftfl.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("variant", path)
        script = importlib.util.module_from_spec(spec)
        sys.modules["variant"] = script  # where its classes say that they are from
        spec.loader.exec_module(script)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_dirs = script.main(script.parse_args([*FLAGS, *flags, "--run-dir", folder]))
        return sorted(row for run_dir in run_dirs for row in read_run(run_dir))


def write_log(path, rows):
    """A CSV file of rows (seed, tag, step, value)."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "tag", "step", "value"])
        writer.writerows(rows)


def main(args):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    write_key(out)
    if args.key:
        return
    named = {"correct": "correct"} | {bug.id: letter for letter, bug in letters().items()}
    texts = {"correct": SCRIPT.read_text()} | {bug.id: variant(bug) for bug in BUGS}
    if unknown := set(args.only) - set(named):
        sys.exit(f"error: no bug is called {', '.join(sorted(unknown))}")
    for name in args.only or named:
        start = time.time()
        rows = train(texts[name])
        if name == "correct":  # more seeds: what a letter shows must lie outside of their range
            rows = sorted(rows + train(texts[name], "--seed", "4"))
        write_log(out / f"{named[name]}.csv", rows)
        print(f"{name}: {time.time() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
