"""A piece that means the same is the same text in each script: the diffs between the scripts are the lesson.

What only those who publish the scripts must keep is marked `maintainer`: after an edit of your own, run
pytest -m "not maintainer"."""

import ast
import difflib
import re

import pytest
from conftest import ROOT

SCRIPTS = ("sac", "mbpo", "ftfl")
REST = "The rest: environments, evaluation, files"
ORDER = ["Args", "Networks", "Buffer", "Model", "Rollouts", "SAC", "Main", REST]

# The exceptions: everything else that two scripts both have must be the same, byte for byte. A class's own
# name stands for its bases, its docstring and what else is neither method nor flag
DIFFERENT = {
    ("sac", "mbpo"): {
        *("Args", "main"),  # the model's flags, and the hot loop that gains the model
        "check_args",  # the model's flags are checked
    },
    ("mbpo", "ftfl"): {
        "Args",  # the switches
        *("Ensemble", "Ensemble.__init__"),
        *("Ensemble.targets", "Ensemble.to_transition", "Ensemble.fit_normalizers"),  # the two changes
    },
}
NEW = {("mbpo", "ftfl"): {"FtflArgs", "FtflArgs.target_normalization", "FtflArgs.next_state_prediction"}}
NEW["mbpo", "ftfl"] |= {"Ensemble.raw_targets"}


def read(name):
    return (ROOT / f"{name}.py").read_bytes().decode()


def pieces(name):
    """{name: text} of a script's functions, methods, constants, flags, rest of classes, and end."""
    text, found = read(name), {}
    lines = text.splitlines(keepends=True)

    def source(node):
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        while lines[first - 1].lstrip().startswith("#") and not lines[first - 1].startswith("# -----"):
            first -= 1
        return "".join(lines[first : node.end_lineno])

    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            members = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AnnAssign))]
            for item in members:
                found[f"{node.name}.{getattr(item, 'name', '') or item.target.id}"] = source(item)
            head = source(node)
            for item in members:
                head = head.replace(source(item), "")
            found[node.name] = head
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = source(node)
        elif isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = source(node)
        elif isinstance(node, ast.If):
            found[ast.unparse(node.test)] = source(node)
    return found


def banners(name):
    return re.findall(r"^# -+ (.*)$", read(name), re.M)


def changed_lines(a, b):
    """As many as `diff a.py b.py` begins with < or >."""
    diff = difflib.ndiff(read(a).splitlines(), read(b).splitlines())
    return [line for line in diff if line[:2] in ("- ", "+ ")]


def lines_of_ensemble():
    """{method: "FIRST-LAST"} of ftfl.py's Ensemble."""
    (ensemble,) = (node for node in ast.parse(read("ftfl")).body if getattr(node, "name", "") == "Ensemble")
    methods = [node for node in ensemble.body if isinstance(node, ast.FunctionDef)]
    return {node.name: f"{node.lineno}-{node.end_lineno}" for node in methods}


@pytest.mark.maintainer
@pytest.mark.parametrize("pair", [("sac", "mbpo"), ("mbpo", "ftfl")], ids="->".join)
def test_shared_pieces_are_the_same_text(pair):
    a, b = map(pieces, pair)
    assert len(a) > 60 and "__name__ == '__main__'" in a and "RunArgs.env_id" in a and "STD_FLOOR" in b
    assert a.keys() <= b.keys(), "each script keeps all that the one before it has"
    assert {name for name in a if a[name] != b[name]} == DIFFERENT[pair]
    if pair in NEW:
        assert b.keys() - a.keys() == NEW[pair]


@pytest.mark.maintainer
def test_the_change_from_mbpo_to_ftfl_is_under_70_lines():
    assert 10 < len(changed_lines("mbpo", "ftfl")) < 70


@pytest.mark.maintainer
def test_the_readme_points_at_the_two_changes():
    """The methods that README.md names are there."""
    named = re.findall(r"`Ensemble\.(\w+)`", (ROOT / "README.md").read_text())
    assert set(named) >= {"raw_targets", "targets", "to_transition", "update"}
    assert set(named) <= set(lines_of_ensemble())


@pytest.mark.maintainer
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_files_sections(name):
    assert banners(name) == [b for b in ORDER if name != "sac" or b not in ("Model", "Rollouts")]
    assert all(
        re.fullmatch("# -{40} .*", line) for line in read(name).splitlines() if line.startswith("# --")
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_imports_another(name):
    imported = set()
    for node in ast.walk(ast.parse(read(name))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {(node.module or "").split(".")[0], *(alias.name for alias in node.names)}
    assert "torch" in imported
    assert not imported & {*SCRIPTS, "plots", "benchmark", "tests", ""}
