"""Runs checks in a process of its own, for check.py: python -m checks.worker EXERCISES FIRST

EXERCISES as "1,4"; FIRST: so many checks are left out at the start, because an earlier process has run
them. What happens goes to the standard output as lines of JSON; what the student's code prints goes to
standard error.
"""

import importlib
import json
import os
import sys

from checks import common


def find_checks(exercises):
    """The checks of these exercises; for a module that can't be imported, a check that says why."""
    found = []
    for n in exercises:
        try:
            found += common.checks_of(importlib.import_module(f"checks.exercise_{n}"))
        except BaseException as error:
            text = common.explain(error)

            @common.check(f"{n}", "the checks can be read")
            def broken(text=text):
                common.hint(text)

            found.append(broken)
    return found


def main():
    exercises, first = sys.argv[1].split(","), int(sys.argv[2])
    failed = set(filter(None, sys.argv[3].split(","))) if len(sys.argv) > 3 else set()
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**what):
        results.write(json.dumps(what) + "\n")
        results.flush()

    for name in ("torch.utils.tensorboard", "gymnasium", "tyro"):
        importlib.import_module(name)  # takes seconds: not at the cost of the first check

    checks = find_checks(exercises)
    say(checks=[function.check for function in checks])
    for function in checks[first:]:
        about = function.check
        say(begins=about["number"])
        if about["slow"] and about["number"][0] in failed:
            wrong = f"not run: first make the other checks of exercise {about['number'][0]} right"
        else:
            wrong = common.run_check(function)
        if wrong:
            failed.add(about["number"][0])
        say(wrong=wrong)


if __name__ == "__main__":
    main()
