"""Check your answers: `python check.py` for all exercises, `python check.py 3` for the third alone.

Each check is a line: `ok` or `no`, the exercise, what is checked, and if something is wrong a hint. The
exit code is 0 when all is right, 1 when something is wrong, 2 for a mistake in the command. A check has
limits of time and memory: an endless loop is a line, too.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
START_SECONDS = 120  # to import torch and the student's files, on a slow machine


def known_exercises():
    """The numbers of the exercises that have checks, in order."""
    return sorted(int(path.stem.split("_")[1]) for path in (FOLDER / "checks").glob("exercise_*.py"))


def start_worker(folder, options):
    """A process that runs checks in a folder, and a queue of what it says; None when it has ended."""
    command = [sys.executable, "-P", "-m", "checks.worker", json.dumps(options)]
    # No progress bars between the lines; and of all folders, its own is the one with the package `checks`
    quiet = os.environ | {"TQDM_DISABLE": "1", "PYTHONPATH": str(FOLDER)}
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    worker = subprocess.Popen(command, env=quiet, cwd=folder, text=True, **pipes)
    said = queue.Queue()

    def listen():
        for line in worker.stdout:
            said.put(json.loads(line))
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return worker, said


def hear(worker, said, seconds):
    """What the worker says next, or in words why it says nothing."""
    try:
        return said.get(timeout=max(seconds, 1)) or f"your code ended the process (exit code {worker.wait()})"
    except queue.Empty:
        return f"stopped after {seconds:.0f} seconds: an endless loop, or far too slow?"


def run_checks(exercises, folder=FOLDER, total_seconds=3_600, graded=False, user=""):
    """Run all checks. Yields one by one (all checks, this check, what is wrong or "")."""
    options = {"exercises": exercises, "first": 0, "failed": [], "graded": graded, "user": user}
    options["deadline"] = time.time() + total_seconds
    while True:
        worker, said = start_worker(folder, options)
        try:
            about = hear(worker, said, START_SECONDS)
            if isinstance(about, str):
                wrong = "the first check did not begin. Is all of requirements.txt installed?"
                check = {"number": str(exercises[0]), "what": "the checks can start", "points": 0}
                yield [check], check, wrong
                return
            for check in about["checks"][options["first"] :]:
                begins = hear(worker, said, START_SECONDS)
                grace = 10 if sys.platform == "linux" else 0  # there the worker itself ends a check in time
                seconds = min(check["seconds"], options["deadline"] - time.time()) + grace
                answer = hear(worker, said, seconds) if isinstance(begins, dict) else begins
                wrong = answer["wrong"] if isinstance(answer, dict) else answer
                options["first"] += 1
                options["failed"] += [check["number"][0]] if wrong else []
                yield about["checks"], check, wrong
                if isinstance(answer, str):
                    break  # the rest in a new process
            else:
                return
        finally:
            worker.kill()
            worker.wait()


def main():
    known = known_exercises()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("exercises", nargs="*", type=int, metavar="N", help=f"of {known}; none: all of them")
    args = parser.parse_args()
    for n in args.exercises:
        if n not in known:
            parser.error(f"exercise {n} has no checks; there are {', '.join(map(str, known))}")

    right, points = 0, 0
    for checks, check, wrong in run_checks(list(dict.fromkeys(args.exercises)) or known):
        right += not wrong
        points += 0 if wrong else check["points"]
        print(
            f"{'no' if wrong else 'ok'}   {check['number']:3s} {check['what']}{': ' if wrong else ''}{wrong}",
            flush=True,
        )
    all_points = sum(check["points"] for check in checks)
    print(f"{right} of {len(checks)} checks are right: {points} of {all_points} points")
    sys.exit(0 if right == len(checks) else 1)


if __name__ == "__main__":
    main()
