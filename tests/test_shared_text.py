"""A piece that means the same is the same text in each script, so that the diffs between the scripts are the lesson."""

import ast
import difflib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["Args", "Random numbers", "Environment", "Networks", "Buffer", "Model", "Rollouts", "Updates", "Evaluation",
         "Files and logs", "Checkpoints", "Main"]  # fmt: skip

# The exceptions: everything else that two scripts both have must be the same, byte for byte.
DIFFERENT = {
    ("sac", "mbpo"): {"main"},  # the hot loop gains the model
    ("mbpo", "ftfl"): {"Ensemble.__init__", "Ensemble.targets", "Ensemble.to_transition", "Ensemble.update_normalizer",
                       "Ensemble"},  # the two changes; "Ensemble" is the class's docstring  # fmt: skip
}
DIFFERENT_FLAGS = {("sac", "mbpo"): {"utd_ratio"}, ("mbpo", "ftfl"): set()}  # sac.py updates once a step


def pieces(name):
    """{name: text} of a script's functions, methods, classes' remaining text and constants; and of its flags."""
    text = (ROOT / f"{name}.py").read_text()
    lines, found, flags = text.splitlines(keepends=True), {}, {}

    def source(node):
        first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
        comments = first - 1
        while lines[comments - 1].lstrip().startswith("#") and "-----" not in lines[comments - 1]:
            comments -= 1
        return "".join(lines[comments : node.end_lineno])

    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = source(node)
        elif isinstance(node, ast.ClassDef) and node.name == "Args":
            fields = [(f, doc) for f, doc in zip(node.body, node.body[1:]) if isinstance(f, ast.AnnAssign)]
            flags = {f.target.id: source(f) + source(doc) for f, doc in fields}
        elif isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found |= {f"{node.name}.{item.name}": source(item) for item in methods}
            found[node.name] = "".join(source(item) for item in node.body if item not in methods)
        elif isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = source(node)
    return found, flags


@pytest.mark.parametrize("pair", [("sac", "mbpo"), ("mbpo", "ftfl")], ids="->".join)
def test_shared_pieces_are_the_same_text(pair):
    (a, flags_a), (b, flags_b) = pieces(pair[0]), pieces(pair[1])
    assert a.keys() <= b.keys() and flags_a.keys() <= flags_b.keys(), "each script keeps all that the one before it has"
    assert len(a) > 40 and len(flags_a) > 20
    assert {name for name in a if a[name] != b[name]} == DIFFERENT[pair]
    assert {name for name in flags_a if flags_a[name].split("=")[1] != flags_b[name].split("=")[1]} == DIFFERENT_FLAGS[pair]


def test_sections_come_in_the_same_order():
    for name in ("sac", "mbpo", "ftfl"):
        banners = [line.split("---- ")[-1] for line in (ROOT / f"{name}.py").read_text().splitlines() if "-----" in line]
        assert banners == [b for b in ORDER if name != "sac" or b not in ("Model", "Rollouts")]


def test_the_change_from_mbpo_to_ftfl_is_under_60_lines():
    def body(name):  # without the header: the docstring at the top
        text = (ROOT / f"{name}.py").read_text()
        return text[text.index("import copy") :].splitlines()

    changed = [d for d in difflib.unified_diff(body("mbpo"), body("ftfl"), n=0, lineterm="") if d[0] in "+-" and d[:3] not in ("+++", "---")]
    assert 10 < len(changed) < 60


def test_the_readme_points_at_the_two_changes():
    """The lines of ftfl.py that README.md names are those of the methods that it names."""
    named = dict(re.findall(r"`Ensemble\.(\w+)`[^()]*?\(lines (\d+-\d+)\)", (ROOT / "README.md").read_text(), re.S))
    (ensemble,) = [
        node for node in ast.parse((ROOT / "ftfl.py").read_text()).body if getattr(node, "name", "") == "Ensemble"
    ]
    lines = {node.name: f"{node.lineno}-{node.end_lineno}" for node in ensemble.body if isinstance(node, ast.FunctionDef)}
    assert named == {name: lines[name] for name in ("targets", "to_transition", "update_normalizer")}


def test_no_script_imports_another():
    for name in ("sac", "mbpo", "ftfl"):
        imported = {
            alias.name.split(".")[0] if isinstance(node, ast.Import) else (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert not imported & {"sac", "mbpo", "ftfl", "plots"}
