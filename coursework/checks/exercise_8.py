"""Exercise 8: a small study of one's own. The check computes its numbers again, from the runs' logs."""

import json
import warnings
from pathlib import Path

import numpy as np
import scipy.stats

from checks.common import check, hint

# Flags that change no number, or only how many there are and where
NOT_COMPARED = {
    *("seed", "num_seeds", "run_dir", "run_dirs", "resume", "versions", "commit"),
    *("log_interval", "checkpoint_interval", "device", "num_threads", "env_workers", "compile"),
}
KEYS = {"question", "metric", "A", "B", "difference", "interval", "conclusion"}


def read_study():
    """study.json, or a hint."""
    try:
        study = json.loads(Path("study.json").read_text())
    except FileNotFoundError:
        hint("there is no study.json here; the handout shows what to write into it")
    except ValueError as error:
        hint(f"study.json is no JSON ({error}): a comma too many, or a quote that is missing?")
    if not isinstance(study, dict) or KEYS - set(study):
        missing = KEYS - set(study) if isinstance(study, dict) else KEYS
        hint(f"study.json: {sorted(missing)[0]} is missing")
    return study


def read_arms(study):
    """The runs of A and of B; hints where they can't be compared."""
    import plots  # the student's copy, only here: it takes seconds to import

    arms = {}
    for arm in "AB":
        paths = study[arm]
        if not isinstance(paths, list) or not all(isinstance(x, str) for x in paths):
            hint(f'study.json: "{arm}" must be a list of run directories')
        if missing := [x for x in paths if not (Path(x) / "args.json").is_file()]:
            hint(f"study.json, {arm}: {missing[0]} is no run directory (a folder with args.json)")
        if len(paths) < 3:
            hint(f"study.json, {arm}: {len(paths)} runs; no spread can be seen from fewer than 3 seeds")
        arms[arm] = [plots.read_run_dir(Path(x)) for x in paths]
        seeds = [run.flags["seed"] for run in arms[arm]]
        if len(set(seeds)) < len(seeds):
            hint(f"study.json, {arm}: seed {max(seeds, key=seeds.count)} is there twice: one run, not two")
        for run in arms[arm]:
            if study["metric"] not in run.scalars:
                hint(f"study.json: {study['metric']} is not logged by {run.name}")
            if plots.last_step(run) < plots.planned_steps(run):
                hint(f"{run.name} has not finished: its log ends at step {plots.last_step(run)}")
    return arms


def differing_flags(runs):
    """The names of flags in which runs differ, of those that all have; the script counts as one."""
    names = set.intersection(*(set(run.flags) for run in runs)) - NOT_COMPARED
    return sorted(x for x in names if any(run.flags[x] != runs[0].flags[x] for run in runs))


def left_out(paths, runs):
    """Finished runs beside those of an arm that have its flags and are not in it."""
    import plots

    listed = {Path(x).resolve() for x in paths}
    beside = {file.parent for x in paths for file in Path(x).parent.glob("*/args.json")}
    found = [plots.read_run_dir(path) for path in sorted(beside) if path.resolve() not in listed]
    return [
        run
        for run in found
        if run.flags["seed"] not in {x.flags["seed"] for x in runs}
        and set(runs[0].flags) == set(run.flags)
        and not differing_flags([runs[0], run])
        and plots.last_step(run) >= plots.planned_steps(run)
    ]


def final_values(arms, metric):
    """The last logged value of each run, of A and of B."""
    return [np.array([run.scalars[metric][1][-1] for run in arms[arm]]) for arm in "AB"]


def bootstrap(a, b):
    """The 95 % bootstrap interval of mean(A) - mean(B): both arms are drawn anew, each from its own runs."""

    def difference(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arms without any spread
        result = scipy.stats.bootstrap((a, b), difference, method="percentile", rng=0)
    low, high = result.confidence_interval
    return float(low), float(high)


@check("8a", "study.json names a question and at least 3 finished runs per arm", seconds=30)
def study_is_there():
    study = read_study()
    if len(str(study["question"]).split()) < 5:
        hint('study.json: "question" is to be a sentence that the runs can answer')
    read_arms(study)


@check("8b", "the arms differ in one flag, and in nothing else", seconds=30)
def arms_are_comparable():
    study = read_study()
    arms = read_arms(study)
    for arm, runs in arms.items():
        if names := differing_flags(runs):
            hint(f"the runs of {arm} differ in {', '.join(names)}: an arm is one setting with several seeds")
        if missing := left_out(study[arm], runs):
            hint(f"{arm} leaves out {missing[0].name}, a finished run with its flags: take all that you ran")
    names = differing_flags(arms["A"] + arms["B"])
    if not names:
        hint("A and B have the same flags: there is nothing to compare")
    if len(names) > 1:
        hint(
            f"A and B differ in {', '.join(names)}: if a difference shows, nobody can say which of these "
            "made it. Change one flag, and keep the rest"
        )


@check("8c", "difference and interval are those of the runs", seconds=30)
def numbers_are_right():
    study = read_study()
    a, b = final_values(read_arms(study), study["metric"])
    difference, (low, high) = a.mean() - b.mean(), bootstrap(a, b)
    try:
        given, (given_low, given_high) = float(study["difference"]), map(float, study["interval"])
    except (TypeError, ValueError):
        hint('study.json: "difference" must be a number, and "interval" a list of two')
    close = 1e-3 * max(abs(a).max(), abs(b).max(), 1e-9)
    if abs(given - difference) > close:
        if abs(given + difference) <= close:
            hint("your difference has the wrong sign: it is mean(A) minus mean(B)")
        hint(
            "your difference is not that of the runs: take the last logged value of the metric in each run, "
            "then the mean of A's minus the mean of B's"
        )
    if given_low > given_high:
        hint("the interval's lower end comes first")
    allowed = 0.1 * (high - low) + close  # a bootstrap is random
    if max(abs(given_low - low), abs(given_high - high)) > allowed:
        if not given_low <= difference <= given_high:
            hint("your interval does not hold the difference: is it that of one arm, or of B minus A?")
        wider = "wider" if given_high - given_low > high - low else "narrower"
        hint(
            f"your interval is {wider} than the runs' 95 % bootstrap interval of mean(A) - mean(B): draw "
            "each arm's runs anew, with replacement, and take the 2.5 and 97.5 % quantiles of the differences"
        )


@check("8d", "the conclusion says what the interval says", seconds=30)
def conclusion_agrees():
    study = read_study()
    a, b = final_values(read_arms(study), study["metric"])
    low, high = bootstrap(a, b)
    right = "A" if low > 0 else "B" if high < 0 else "cannot decide"
    given = study["conclusion"]
    if given not in ("A", "B", "cannot decide"):
        hint('study.json: "conclusion" must be "A" (A\'s metric is larger), "B" or "cannot decide"')
    if given == right:
        return
    if right == "cannot decide":
        hint(
            f'you conclude "{given}", but the interval holds 0: other seeds could well show the opposite. '
            '"cannot decide" is a right answer, and here the only one'
        )
    if given == "cannot decide":
        hint("the interval does not hold 0: these data do decide")
    hint(f'you conclude "{given}", but the interval is on the other side of 0: "A" is for a larger mean(A)')
