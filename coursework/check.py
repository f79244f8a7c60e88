"""Check your answers: `python check.py` for all exercises, `python check.py 3` for the third alone.

Each check is a line: `ok` or `no`, the exercise, what is checked, and if something is wrong a hint. The
exit code is 0 when all is right, 1 when something is wrong, 2 for a mistake in the command. --gradescope
FILE also writes the results in the form that Gradescope reads. A check has a time limit: an endless loop is
a line, too.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
START_SECONDS = 120  # to import torch and the student's files, on a slow machine


def known_exercises():
    """The numbers of the exercises that have checks, in order."""
    return sorted(int(path.stem.split("_")[1]) for path in (FOLDER / "checks").glob("exercise_*.py"))


def start_worker(exercises, first, failed):
    """A process that runs the checks from `first` on, and a queue of what it says; None when it has ended."""
    command = [
        sys.executable,
        "-m",
        "checks.worker",
        ",".join(map(str, exercises)),
        str(first),
        ",".join(failed),
    ]
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # no progress bars between the lines
    worker = subprocess.Popen(
        command, env=quiet, cwd=FOLDER, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
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
        return said.get(timeout=seconds) or f"your code ended the process (exit code {worker.wait()})"
    except queue.Empty:
        return f"stopped after {seconds} seconds: an endless loop, or far too slow?"


def run_checks(exercises):
    """Run all checks. Yields (check, what is wrong or "") one by one."""
    done, failed = 0, []
    while True:
        worker, said = start_worker(exercises, done, failed)
        try:
            about = hear(worker, said, START_SECONDS)
            if isinstance(about, str):
                wrong = "the first check did not begin. Is all of requirements.txt installed?"
                yield {"number": str(exercises[0]), "what": "the checks can start"}, wrong
                return
            for check in about["checks"][done:]:
                begins = hear(worker, said, START_SECONDS)
                answer = hear(worker, said, check["seconds"]) if isinstance(begins, dict) else begins
                wrong = answer["wrong"] if isinstance(answer, dict) else answer
                done += 1
                failed += [check["number"][0]] if wrong else []
                yield check, wrong
                if isinstance(answer, str):
                    break  # the rest in a new process
            else:
                return
        finally:
            worker.kill()
            worker.wait()


def gradescope(results):
    """Gradescope's results.json: a point per check."""
    tests = []
    for check, wrong in results:
        score = {"score": 0 if wrong else 1, "max_score": 1}
        test = {"name": f"{check['number']} {check['what']}", **score, "output": wrong or "ok"}
        hidden = check["number"].endswith("h")  # students see these when the grades are out
        tests.append(test | {"visibility": "after_published" if hidden else "visible"})
    return {"tests": tests}


def main():
    known = known_exercises()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("exercises", nargs="*", type=int, metavar="N", help=f"of {known}; none: all of them")
    parser.add_argument(
        "--gradescope", metavar="FILE", help="write the results there, as Gradescope reads them"
    )
    args = parser.parse_args()
    for n in args.exercises:
        if n not in known:
            parser.error(f"exercise {n} has no checks; there are {', '.join(map(str, known))}")
    if args.gradescope:
        try:
            Path(args.gradescope).write_text("")
        except OSError as error:
            parser.error(f"--gradescope {args.gradescope} can't be written: {error.strerror}")

    results = []
    for check, wrong in run_checks(list(dict.fromkeys(args.exercises)) or known):
        results.append((check, wrong))
        print(
            f"{'no' if wrong else 'ok'}   {check['number']:3s} {check['what']}{': ' if wrong else ''}{wrong}",
            flush=True,
        )
    right = sum(not wrong for _, wrong in results)
    print(f"{right} of {len(results)} checks are right")
    if args.gradescope:
        Path(args.gradescope).write_text(json.dumps(gradescope(results), indent=2))
    sys.exit(0 if right == len(results) else 1)


if __name__ == "__main__":
    main()
