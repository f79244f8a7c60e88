"""Runs checks, for check.py: python -m checks.worker OPTIONS, in the student's folder.

OPTIONS is JSON: "exercises", a list; "first": so many checks are left out at the start, because an earlier
process has run them; "failed": the exercises in which one of those was wrong; "deadline": the time at which
no check may run any more; "graded": behind a fence, see instructor/fence.py; "user": who runs the student's
code then. What happens goes to the standard output as lines of JSON; what the student's code prints goes to
standard error.

On Linux each check runs in a process of its own, a copy of this one. So what it loads is loaded once, and a
crash, an endless loop or a changed module ends with its check.
"""

import importlib
import io
import json
import os
import secrets
import select
import signal
import sys
import time
import traceback
from pathlib import Path

from checks import common

if sys.platform == "linux":
    import resource

MEMORY, FILE_SIZE = 2 * 2**30, 100 * 2**20  # bytes that a check may take, and write into one file
OUTPUT = 20_000  # characters that a check may print


class Limited(io.TextIOBase):
    """A stream that passes on what is written, up to a number of characters."""

    def __init__(self, stream):
        self.stream, self.left = stream, OUTPUT

    def write(self, text):
        if self.left > 0:
            self.stream.write(text[: self.left])
            if len(text) >= self.left:
                self.stream.write("\n(what is printed beyond this is left out)\n")
        self.left -= len(text)
        return len(text)

    def flush(self):
        self.stream.flush()


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


def run_here(function):
    """Run a check in this process. Returns what is wrong, or ""."""
    sys.stdout = sys.stderr = Limited(sys.__stderr__)
    wrong = common.run_check(function)
    sys.stderr.flush()
    return wrong


def memory_in_use():
    """The bytes of this process that Linux counts for its limit."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData"))


def set_limit(kind, most):
    """A limit of this process from now on, which may have a smaller one already."""
    before = resource.getrlimit(kind)[1]
    most = most if before == resource.RLIM_INFINITY else min(most, before)
    resource.setrlimit(kind, (most, most))


def run_in_child(function, seconds, options, results):
    """Run a check in a copy of this process, for so many seconds at most. Returns what is wrong, or ""."""
    token = secrets.token_hex(16)  # what does not begin with it was not written by this function
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            os.close(results.fileno())
            set_limit(resource.RLIMIT_DATA, memory_in_use() + MEMORY)
            set_limit(resource.RLIMIT_FSIZE, FILE_SIZE)
            set_limit(resource.RLIMIT_CPU, int(seconds) + 5)  # if nobody is left to end it
            if options["graded"]:
                from checks import fence

                wrong = fence.run(run_here, function, options["user"])
            else:
                wrong = run_here(function)
            os.write(theirs, (token + wrong).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        ready, _, _ = select.select([ours], [], [], seconds)
        said = os.read(ours, 65_536).decode(errors="replace") if ready else ""
    finally:
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(ours)
    if said.startswith(token):
        return said.removeprefix(token)
    if said:
        return "your code wrote into the channel of the results"
    if ready:
        return f"your code ended the process (exit code {code})"
    return f"stopped after {seconds:.0f} seconds: an endless loop, or far too slow?"


def seconds_for(about, stopped, deadline):
    """How long a check may run: a third of its limit if one of the same part had to be stopped before."""
    share = 1 / 3 if about["number"] in stopped else 1
    return min(share * about["seconds"], deadline - time.time())


def main():
    options = json.loads(sys.argv[1])
    common.FOLDER = Path.cwd()
    sys.path.insert(0, str(common.FOLDER))
    failed = set(options["failed"])
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**what):
        results.write(json.dumps(what) + "\n")
        results.flush()

    mujoco = ["gymnasium.envs.mujoco.hopper_v5"] if options["graded"] else []  # starts a process when loaded
    for name in ("torch.utils.tensorboard", "gymnasium", "tyro", *mujoco):
        importlib.import_module(name)  # takes seconds: not at the cost of the first check

    checks = find_checks(options["exercises"])
    say(checks=[function.check for function in checks])
    stopped = set()
    for function in checks[options["first"] :]:
        about = function.check
        seconds = seconds_for(about, stopped, options["deadline"])
        exercise = about["number"][0]
        say(begins=about["number"])
        if about["slow"] and exercise in failed:
            wrong = f"not run: first make the other checks of exercise {exercise} right"
        elif seconds <= 0:
            wrong = "not run: the time for all checks is used up"
        elif sys.platform == "linux":
            wrong = run_in_child(function, seconds, options, results)
        else:
            wrong = run_here(function)
        if wrong:
            failed.add(exercise)
        if wrong.startswith("stopped after"):
            stopped.add(about["number"])
        say(wrong=wrong)


if __name__ == "__main__":
    main()
