"""Make folders of the homework from the real files.

    python coursework/blank.py OUT                        # a student's folder
    python coursework/blank.py OUT --student "Ada Lovelace"
    python coursework/blank.py OUT --names names.txt      # OUT/NAME for each line of names.txt

The bodies of the functions in EXERCISES are replaced by `raise NotImplementedError("exercise 1a")`; their
docstrings stay, and so does all else. With --student or --names, the exercises are a variant that follows
from the name.
"""

import argparse
import ast
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "instructor"))
import variants  # noqa: E402

EXERCISES = {
    "1a": "ftfl.py:Ensemble.forward",
    "1b": "ftfl.py:Ensemble.update",
    "2a": "toy.py:r2",
    "2b": "toy.py:gradient_norms",
    "2c": "toy.py:fit",
    "3a": "ftfl.py:split_rows",
    "3b": "ftfl.py:train_model",
    "3c": "ftfl.py:choose_elites",
    "3d": "ftfl.py:evaluate_model",
    "4a": "ftfl.py:Ensemble.sample",
    "4b": "ftfl.py:imagine",
    "5a": "ftfl.py:Ensemble.targets",
    "5b": "ftfl.py:Ensemble.to_transition",
    "5c": "ftfl.py:Ensemble.fit_normalizers",
    "6a": "ftfl.py:Ensemble.raw_targets",
}
COPIES = (HERE / "check.py", HERE / "ANSWERS.md", ROOT / "plots.py", ROOT / "requirements.txt")
FOLLOW = "<!-- exercises 6 to 8 follow -->\n"
STUDY = [  # model_study.py in a folder without mbpo.py, whose model is ftfl.py's without its switches
    ("sys.path.insert(0, str(Path(__file__).parent.parent))\n", ""),
    ("import mbpo\n", ""),
    ('SCRIPTS = {"ftfl": ftfl, "mbpo": mbpo}', 'SCRIPTS = {"ftfl": ftfl}'),
    ('script: Literal["ftfl", "mbpo"] = "ftfl"', 'script: Literal["ftfl"] = "ftfl"'),
    ("python benchmark/model_study.py --env-id dm_control/humanoid-stand-v0 --script mbpo   # MBPO's\n",
     "python model_study.py --no-target-normalization --next-state-prediction residual        # MBPO's\n"),
    ("python benchmark/model_study.py --env-id", "python model_study.py --env-id"),
    ("python benchmark/model_study.py --buffer runs/", "python model_study.py --buffer runs/"),
]  # fmt: skip


def find(tree, name):
    """The function "f" or "Class.f" of a module's ast."""
    for part in name.split("."):
        (tree,) = (node for node in tree.body if getattr(node, "name", "") == part)
    return tree


def blank(text, functions):
    """Replace bodies in a module's text. functions: {"1a": "Ensemble.forward", ...}."""
    tree, lines = ast.parse(text), text.splitlines(keepends=True)
    nodes = [(find(tree, name), number) for number, name in functions.items()]
    for node, number in sorted(
        nodes, key=lambda item: -item[0].lineno
    ):  # from the end: lines keep their numbers
        docstring, body = node.body[0], node.body[1:]
        assert body and ast.get_docstring(node), (
            f"exercise {number}: {node.name} has no docstring, or no body"
        )
        raises = f'{" " * docstring.col_offset}raise NotImplementedError("exercise {number}")\n'
        lines[docstring.end_lineno : node.end_lineno] = [raises]
    return "".join(lines)


def replace_once(text, changes):
    """Each (old, new) in turn. Old must be there exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{text.count(old)} times, not once: {old}"
        text = text.replace(old, new)
    return text


def make(out, student=None, solved=False):
    """Make the folder `out`. solved: leave the real bodies in. Returns its path."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already, and is no empty folder")
    out.mkdir(parents=True, exist_ok=True)
    texts = {"ftfl.py": (ROOT / "ftfl.py").read_text(), "toy.py": (HERE / "toy.py").read_text()}
    if student is not None:
        variant = variants.variant_of(student)
        texts["ftfl.py"] = variants.solve(texts["ftfl.py"], variant)
        (out / "variant.json").write_text(json.dumps(variant, indent=2) + "\n")
    for name, text in texts.items():
        functions = {n: place.split(":")[1] for n, place in EXERCISES.items() if place.startswith(f"{name}:")}
        (out / name).write_text(text if solved else blank(text, functions))
    study = (ROOT / "benchmark" / "model_study.py").read_text()
    (out / "model_study.py").write_text(replace_once(study, STUDY))
    reference = (ROOT / "REFERENCE.md").read_text(encoding="utf-8")
    table = reference.split("## What is logged\n")[1].split("\n## ")[0]
    (out / "LOGS.md").write_text("# What is logged\n" + table, encoding="utf-8")
    handout = [(HERE / name).read_text() for name in ("HANDOUT.md", "HANDOUT_6_8.md")]
    (out / "HANDOUT.md").write_text(replace_once(handout[0], [(FOLLOW, handout[1])]))
    for file in COPIES:
        shutil.copy(file, out)
    for folder in (HERE / "checks", HERE / "data"):
        if folder.exists():
            shutil.copytree(folder, out / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    return out


def read_names(path):
    """The names in a file, one per line. Each becomes a folder."""
    names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    names = [name for name in names if name]
    for name in names:
        if Path(name).name != name or names.count(name) > 1:
            raise ValueError(f"{path}: the name {name} can't be a folder, or is there twice")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="a folder that is not there yet, or empty")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--student", metavar="NAME", help="whose variant; without it all students get the same exercises"
    )
    whose.add_argument("--names", metavar="FILE", help="a name per line: a folder with a variant for each")
    args = parser.parse_args()
    try:
        if args.names:
            folders = {Path(args.out) / name: name for name in read_names(args.names)}
        else:
            folders = {Path(args.out): args.student}
        for folder, student in folders.items():
            make(folder, student)
            print(f"{folder}: {len(EXERCISES)} functions to write. HANDOUT.md says how to begin")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
