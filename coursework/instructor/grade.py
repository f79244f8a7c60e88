"""Grade submissions with the kit that bundle.py makes. This file is in it, the solution is not:

    python kit/grade.py SUBMISSION --name "Ada Lovelace" --results results.json   # as Gradescope reads it
    python kit/grade.py SUBMISSIONS --class grades.csv                            # folders SUBMISSIONS/NAME

A submission is a folder. Only what is to be handed in is taken out of it, into a new folder. The results are
written after every check. In grades.csv, `look at` names what an honest answer has no use for: read the code
of those. Linux only.
"""

import argparse
import ast
import csv
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import check as check_script

KIT = Path(__file__).resolve().parent
HANDED_IN = ("ftfl.py", "toy.py", "predictions.json", "findings.json", "answers.json", "study.json", "runs")
LARGEST = 50e6  # bytes of a submission's runs
TOTAL_SECONDS = 480  # Gradescope stops after 10 minutes; starting takes some
ODD = {
    *(
        "sys",
        "gc",
        "inspect",
        "importlib",
        "ctypes",
        "subprocess",
        "builtins",
        "traceback",
        "modules",
        "checks",
    ),
    *(
        "exec",
        "eval",
        "compile",
        "open",
        "read_text",
        "read_bytes",
        "from_file",
        "__import__",
        "globals",
        "vars",
    ),
    *("getattr", "setattr", "hint", "mock", "atexit", "_exit", "fork", "f_back", "f_globals", "tb_frame"),
    *("__code__", "__globals__", "__closure__", "__subclasses__", "__builtins__", "__traceback__"),
}


def names_in(path):
    """How often each name stands in a Python file."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_text())))
    except (OSError, SyntaxError, ValueError):
        return Counter()
    return Counter(
        name
        for node in nodes
        for field in ("id", "attr", "name", "module")
        if isinstance(value := getattr(node, field, None), str)
        for name in value.split(".")
    )


def odd_names(submission):
    """The names of ODD that a student's files have more often than those handed out."""
    found = Counter()
    for file in ("ftfl.py", "toy.py"):
        found += names_in(submission / file) - names_in(KIT / "blank" / file)
    return sorted(ODD & set(found))


def make_folder(submission, name, folder):
    """The folder as it was handed out, with what was handed in."""
    shutil.copytree(KIT / "blank", folder)
    for file in HANDED_IN:
        source = submission / file
        if source.is_symlink() or not source.exists():
            continue
        if source.is_file():
            shutil.copy2(source, folder)  # with its time: 6b compares it with the runs'
        elif sum(path.lstat().st_size for path in source.rglob("*")) < LARGEST:
            shutil.copytree(source, folder / file, symlinks=True, copy_function=shutil.copy2)
    known = json.loads((KIT / "variants.json").read_text())
    if known:
        (folder / "variant.json").write_text(json.dumps(known[" ".join(name.lower().split())]))


def write_results(path, checks, answers, odd=()):
    """Gradescope's results.json. Checks that have not run yet have no points."""
    tests = []
    for check, wrong in zip(checks, answers + ["not run: grading was stopped before"] * len(checks)):
        score = {"score": 0 if wrong else check["points"], "max_score": check["points"]}
        test = {"name": f"{check['number']} {check['what']}", **score, "output": wrong or "ok"}
        hidden = check["number"].endswith("h")  # students see these when the grades are out
        tests.append(test | {"visibility": "after_published" if hidden else "visible"})
    extra = {"look_at": list(odd)}  # which only instructors see
    text = json.dumps({"tests": tests, "stdout_visibility": "hidden", "extra_data": extra}, indent=1)
    path.with_suffix(".tmp").write_text(text)
    os.replace(path.with_suffix(".tmp"), path)


def grade(submission, name, results, user="", total_seconds=TOTAL_SECONDS):
    """Grade a submission, and write results.json after each check. Returns (checks, answers, odd names)."""
    answers, checks, odd = [], [], odd_names(submission)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "folder"
        make_folder(submission, name, folder)
        (folder / "tmp").mkdir()
        if user:
            os.chmod(place, 0o755)
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, user)
        environment = {
            "PATH": "",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "MPLCONFIGDIR": str(folder),
        }
        environment |= {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        os.environ.clear()  # of what the instructor has there, nothing is for the student's code
        os.environ.update(environment | {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "disable"})
        run = check_script.run_checks(check_script.known_exercises(), folder, total_seconds, True, user)
        for checks, check, wrong in run:
            answers.append(wrong)
            print(f"{'no' if wrong else 'ok'}   {check['number']:3s} {check['what']}: {wrong}", flush=True)
            write_results(results, checks, answers, odd)
    return checks, answers, odd


def grade_class(submissions, table, user):
    """Grade all submissions, and write a line of the table for each."""
    exercises = check_script.known_exercises()
    out = table.parent / f"{table.stem}_results"
    out.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "points", *exercises, "look at"])
        for submission in sorted(path for path in submissions.iterdir() if path.is_dir()):
            print(f"---- {submission.name}", flush=True)
            try:
                checks, answers, odd = grade(
                    submission, submission.name, out / f"{submission.name}.json", user
                )
            except KeyError:
                writer.writerow([submission.name, "", *("" for _ in exercises), "not in the list of names"])
                continue
            points = Counter()
            for check, wrong in zip(checks, answers):
                points[int(check["number"][0])] += 0 if wrong else check["points"]
            row = [points[n] for n in exercises]
            writer.writerow([submission.name, sum(row), *row, " ".join(odd)])
            file.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", type=Path, help="a folder that was handed in, or one with many of them")
    parser.add_argument("--name", default="", help="whose variant it is; of no use without variants")
    parser.add_argument("--results", type=Path, metavar="FILE", help="where Gradescope's results.json goes")
    parser.add_argument("--class", dest="table", type=Path, metavar="CSV", help="a line for each submission")
    parser.add_argument(
        "--user", default="", help="if you are root: who runs the students' code, like nobody"
    )
    args = parser.parse_args()
    if bool(args.results) == bool(args.table):
        parser.error("either --results FILE, for one submission, or --class CSV, for a folder of them")
    if sys.platform != "linux":
        parser.error("grading needs Linux: use a container")
    if args.table:
        grade_class(args.submission, args.table.absolute(), args.user)
        return
    try:
        grade(args.submission, args.name, args.results.absolute(), args.user)
    except KeyError as error:
        parser.error(f"{error} is not in the list of names that the kit was made for")


if __name__ == "__main__":
    main()
