"""Make the kit that grades: a folder, or the zip file that Gradescope takes.

    python coursework/instructor/bundle.py kit --names names.txt
    python coursework/instructor/bundle.py autograder.zip --names names.txt

--names is the file that blank.py got; without it there are no variants. The kit holds the folder as students
get it, the checks with those in hidden/, and grade.py, which says how to grade with it. It holds no solution.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import blank  # noqa: E402
import variants  # noqa: E402

SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, as root, to make the image
set -e
apt-get update && apt-get install -y python3-pip
pip3 install uv || pip3 install --break-system-packages uv
export UV_PYTHON_INSTALL_DIR=/autograder/python  # where the user nobody can read it, too
uv venv --python 3.12 /autograder/venv
uv pip install --python /autograder/venv/bin/python --torch-backend cpu -r /autograder/source/requirements.txt
"""
RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for each submission. Students' code runs as nobody, who can't write the results
place="${AUTOGRADER:-/autograder}"
python="${PYTHON:-$place/venv/bin/python}"
name=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["users"][0]["name"])' \\
    "$place/submission_metadata.json")
chmod 700 "$place/source" "$place/submission" "$place/results"
"$python" "$place/source/grade.py" "$place/submission" --name "$name" --user nobody \\
    --results "$place/results/results.json"
"""


def make(kit, names=None):
    """Make the kit as a folder."""
    kit = Path(kit)
    blank.make(kit / "blank")
    shutil.move(kit / "blank" / "checks", kit / "checks")
    shutil.move(kit / "blank" / "check.py", kit / "check.py")
    for path in (HERE / "hidden").glob("exercise_*.py"):
        with open(kit / "checks" / path.name, "a") as file:
            file.write("\n\n" + path.read_text())
    shutil.copy(HERE / "fence.py", kit / "checks")
    shutil.copy(HERE / "grade.py", kit)
    shutil.copy(kit / "blank" / "requirements.txt", kit)
    known = {" ".join(name.lower().split()): variants.variant_of(name) for name in names or []}
    (kit / "variants.json").write_text(json.dumps(known, indent=1))
    for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
        (kit / name).write_text(text)
        (kit / name).chmod(0o755)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="a folder, or a file that ends in .zip; must not be there yet")
    parser.add_argument("--names", metavar="FILE", help="a name per line, each with a variant")
    args = parser.parse_args()
    try:
        if args.out.exists():
            raise FileExistsError(f"{args.out} is there already")
        names = blank.read_names(args.names) if args.names else None
        if args.out.suffix == ".zip":
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder) / "kit", names)
                shutil.make_archive(str(args.out.with_suffix("")), "zip", Path(folder) / "kit")
        else:
            make(args.out, names)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{args.out}: {len(names or [])} variants")


if __name__ == "__main__":
    main()
