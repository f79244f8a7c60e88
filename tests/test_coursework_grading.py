"""The homework's grading: the kit for an instructor's machine and for Gradescope, and what a submission that
cheats can not do."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile

import pytest
from conftest import ROOT

COURSEWORK = ROOT / "coursework"
sys.path[:0] = [str(COURSEWORK), str(COURSEWORK / "instructor")]
import blank  # noqa: E402
import bundle  # noqa: E402
from checks import common, worker  # noqa: E402

NAMES = ["Ada Lovelace", "Emmy Noether"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="grading needs Linux")


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A kit with the checks of exercise 6 alone, which are quick."""
    kit = tmp_path_factory.mktemp("grading") / "kit"
    bundle.make(kit, NAMES)
    for path in (kit / "checks").glob("exercise_*.py"):
        if path.stem != "exercise_6":
            path.unlink()
    return kit


def submit(folder, ftfl_py=None, name=NAMES[0]):
    """A submission in this folder: a solved one, or with this ftfl.py."""
    solved = blank.make(folder.parent / f"{folder.name} solved", student=name, solved=True)
    folder.mkdir(parents=True)
    for file in ("ftfl.py", "toy.py"):
        (folder / file).write_bytes((solved / file).read_bytes())
    if ftfl_py is not None:
        (folder / "ftfl.py").write_text(ftfl_py)
    return folder


def grade(kit, *words, **environment):
    """`python kit/grade.py ...`"""
    command = [sys.executable, str(kit / "grade.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)


def outputs(kit, submission, tmp_path):
    """{check's name: what is wrong, or "ok"} of a submission."""
    run = grade(kit, submission, "--name", NAMES[0], "--results", tmp_path / "results.json")
    assert run.returncode == 0, run.stderr
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    return {test["name"][:2]: test["output"] for test in tests}, run


# ---------------------------------------- The kit
def test_the_kit_has_what_students_get_and_no_solution(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    out = tmp_path / "autograder.zip"
    command = [sys.executable, str(COURSEWORK / "instructor/bundle.py"), str(out), "--names"]
    command.append(str(tmp_path / "names.txt"))
    subprocess.run(command, check=True)
    assert subprocess.run(command, capture_output=True).returncode == 2, "it is there already"
    with zipfile.ZipFile(out) as file:
        texts = {name: file.read(name).decode(errors="replace") for name in file.namelist()}
    assert {"setup.sh", "run_autograder", "grade.py", "check.py", "checks/fence.py"} <= texts.keys()
    assert "torch" in texts["requirements.txt"] and "grade.py" in texts["run_autograder"]
    assert json.loads(texts["variants.json"]).keys() == {name.lower() for name in NAMES}
    for number, place in blank.EXERCISES.items():
        assert f'raise NotImplementedError("exercise {number}")' in texts[f"blank/{place.split(':')[0]}"]
    line = "logvar = self.max_logvar - nn.functional.softplus"
    assert line in (ROOT / "ftfl.py").read_text() and not any(line in text for text in texts.values())
    assert "hidden_rollouts" in texts["checks/exercise_4.py"] and not any("bugs.py" in name for name in texts)


def test_each_check_has_its_points():
    points = json.loads((COURSEWORK / "checks/points.json").read_text())
    found = {}
    for n in range(1, 9):
        checks = common.checks_of(importlib.import_module(f"checks.exercise_{n}"))
        found[str(n)] = {function.__name__ for function in checks}
        hidden = COURSEWORK / f"instructor/hidden/exercise_{n}.py"
        if hidden.exists():
            found[str(n)] |= set(re.findall(r"^def (hidden\w+)", hidden.read_text(), re.M))
    assert {n: set(names) for n, names in points.items()} == found
    assert sum(sum(names.values()) for names in points.values()) == 100 - 8 * 2, (
        "and two for each answer in words"
    )


# ---------------------------------------- Grading
def test_a_class_is_a_table_with_a_line_for_each_submission(kit, tmp_path):
    submit(tmp_path / "class" / NAMES[0])
    submit(tmp_path / "class" / NAMES[1], name=NAMES[0])  # copied from Ada, whose variant is another
    submit(tmp_path / "class" / "A stranger")
    text = (tmp_path / "class" / NAMES[0] / "ftfl.py").read_text()
    (tmp_path / "class" / NAMES[0] / "ftfl.py").write_text(f"import inspect\n{text}")
    run = grade(kit, tmp_path / "class", "--class", tmp_path / "grades.csv")
    assert run.returncode == 0, run.stderr
    with open(tmp_path / "grades.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows[NAMES[0]] == {"name": NAMES[0], "points": "3", "6": "3", "look at": "inspect"}
    assert rows[NAMES[1]]["points"] == "0"
    assert rows["A stranger"]["look at"] == "not in the list of names"
    results = json.loads((tmp_path / "grades_results" / f"{NAMES[0]}.json").read_text())
    tests = {test["name"][:2]: test for test in results["tests"]}
    assert tests["6a"]["score"] == tests["6a"]["max_score"] == 2 and tests["6a"]["visibility"] == "visible"
    assert tests["6h"]["score"] == 1 and tests["6h"]["visibility"] == "after_published"
    assert tests["6b"]["score"] == 0 and "predictions.json" in tests["6b"]["output"]


def test_gradescopes_command_runs_as_it_stands(kit, tmp_path):
    place = tmp_path / "autograder"
    (place / "results").mkdir(parents=True)
    (place / "source").symlink_to(kit)
    submit(place / "submission")
    (place / "submission_metadata.json").write_text(json.dumps({"users": [{"name": "ada  lovelace "}]}))
    command = (kit / "run_autograder").read_text()
    if os.geteuid():  # who is not root can't run anything as nobody
        command = command.replace("--user nobody", "")
    else:
        assert "--user nobody" in command
        command = command.replace("--user nobody", "--user root")
    environment = os.environ | {"AUTOGRADER": str(place), "PYTHON": sys.executable}
    subprocess.run(["bash", "-c", command], env=environment, check=True, capture_output=True)
    tests = json.loads((place / "results/results.json").read_text())["tests"]
    assert sum(test["score"] for test in tests) == 3


def test_results_are_written_after_every_check_and_all_of_them_have_a_limit(kit, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(kit))
    module = importlib.import_module("grade")
    monkeypatch.setattr(module.check_script, "FOLDER", kit)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    seen, write = [], module.write_results

    def note(path, checks, answers, odd):
        write(path, checks, answers, odd)
        seen.append([test["output"] for test in json.loads(path.read_text())["tests"]])

    monkeypatch.setattr(module, "write_results", note)
    solved = submit(tmp_path / "solved")
    module.grade(solved, NAMES[0], tmp_path / "results.json")
    assert [len(outputs) for outputs in seen] == [4] * 4
    assert seen[0] == ["ok"] + ["not run: grading was stopped before"] * 3
    assert seen[3][3] == "ok" and seen[3][:3] == seen[2][:3]
    seen.clear()
    module.grade(solved, NAMES[0], tmp_path / "results.json", total_seconds=0.1)
    assert seen[-1] == ["not run: the time for all checks is used up"] * 4


def test_a_part_that_loops_leaves_time_for_the_others():
    about, now = {"number": "1a", "seconds": 30}, time.time()
    assert worker.seconds_for(about, set(), now + 600) == 30
    assert worker.seconds_for(about, {"1b"}, now + 600) == 30
    assert worker.seconds_for(about, {"1a"}, now + 600) == 10
    assert worker.seconds_for(about, set(), now + 5) <= 5


# ---------------------------------------- What a submission can not do
SOLUTION = str(ROOT / "ftfl.py")
TO_OPEN, CHANGES = "not possible when it is graded: to open", "your code changes what checks it"
CHEATS = [
    (f"exec(open({SOLUTION!r}).read())", TO_OPEN),
    (f"import runpy\nglobals().update(runpy.run_path({SOLUTION!r}))", TO_OPEN),
    (f"import sys\nsys.path.insert(0, {str(ROOT)!r})\ndel sys.modules['ftfl']\nimport ftfl", TO_OPEN),
    (f"import os\nos.symlink({SOLUTION!r}, 'mine')", "not possible when it is graded: os.symlink"),
    (f"import os\nos.link({SOLUTION!r}, 'mine')", "not possible when it is graded: os.link"),
    ("import subprocess\nsubprocess.run(['true'])", "not possible when it is graded: subprocess.Popen"),
    ("import os\nopen(f'/proc/{os.getppid()}/fd/1', 'w')", TO_OPEN),
    ("import os\nos.kill(os.getppid(), 9)", "not possible when it is graded: os.kill"),
    ("import checks.exercise_6\nopen(checks.exercise_6.__file__, 'a')", TO_OPEN),
    ("import checks.exercise_6 as e\ne.hint = lambda text: None", CHANGES),
    ("import checks.common as c\nc.run_check = lambda function: ''", CHANGES),
    ("import torch\ntorch.allclose = lambda *x: True", CHANGES),
    ("import os\nos._exit(0)", "your code ended the process (exit code 0)"),
    (
        'import os\nfor fd in range(3, 99):\n    try:\n        os.write(fd, b\'{"wrong": ""}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "your code wrote into the channel of the results",
    ),
    (
        "with open('large', 'wb') as file:\n    while True:\n        file.write(b'x' * 2**20)",
        "File too large",
    ),
]


EACH = """
import json, os, sys
from pathlib import Path
import gymnasium, torch.utils.tensorboard, tyro
from checks import common, exercise_6, worker
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path[0], common.FOLDER = folder, Path(folder)
    with open(os.devnull, "w") as results:
        options = {"graded": True, "user": ""}
        print(json.dumps(worker.run_in_child(exercise_6.raw_targets, 20, options, results)), flush=True)
"""


@pytest.fixture(scope="module")
def found(kit, tmp_path_factory):
    """What check 6a says of each cheat, all in copies of one process, as a worker makes them."""
    folders = [tmp_path_factory.mktemp("cheat") for _ in CHEATS]
    for folder, (text, _) in zip(folders, CHEATS):
        (folder / "ftfl.py").write_text(f"{text}\n{(ROOT / 'ftfl.py').read_text()}")
    command = [sys.executable, "-c", EACH, *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(kit)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("i", range(len(CHEATS)))
def test_a_cheat_gets_no_points(i, found):
    assert CHEATS[i][1] in found[i], CHEATS[i][0]


def test_lines_in_the_channel_of_the_results_are_no_points(kit, tmp_path):
    """Into every open file, what check.py reads of its worker; then the process ends as if all were right."""
    forge = """
import os
for file in range(3, 99):
    try:
        os.write(file, b'{"wrong": ""}\\n')
    except OSError:
        pass
os._exit(0)
"""
    found, _ = outputs(kit, submit(tmp_path / "forged", forge), tmp_path)
    assert found["6a"] == found["6h"] == "your code wrote into the channel of the results"


def test_only_what_is_to_be_handed_in_is_taken(kit, tmp_path):
    folder = submit(tmp_path / "mine", "")
    for name in ("check.py", "variant.json", "json.py", "checks/common.py", "data/bugs/key.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit")
    (folder / "ftfl.py").unlink()
    (folder / "ftfl.py").symlink_to(ROOT / "ftfl.py")
    found, _ = outputs(kit, folder, tmp_path)
    assert found["6a"] == "exercise 6a is not written yet", "the file that was handed out is there instead"
    assert "there is no predictions.json" in found["6b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run code as nobody")
def test_root_can_let_nobody_run_the_code(kit, tmp_path):
    code = "import os, torch\nraise RuntimeError(f'{os.geteuid()} {os.getegid()} {os.getgroups()}')\n"
    run = grade(kit, submit(tmp_path / "mine", code), "--name", NAMES[0], "--user", "nobody",
                "--results", tmp_path / "results.json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    tests = json.loads((tmp_path / "results.json").read_text())["tests"]
    assert "RuntimeError: 65534 65534 []" in tests[0]["output"], run.stderr
