"""Exercise 6: direct or residual targets; predicted first, then measured."""

import csv
import json
from pathlib import Path

import numpy as np

from checks.common import check, hint, unchanged, variant

METRIC = "model/next_state_r2"
RUNS = Path("runs/exercise6")
SHIPPED = Path("data/direct_or_residual.csv")
BUDGETS = (1_000, 3_000, 20_000)  # gradient steps
TARGETS = ("direct", "residual")
CLOSE = 0.0055  # numbers rounded to two digits pass; at 20,000 steps direct and residual are 0.008 apart


def read_json(path, keys):
    """The dict in a JSON file, or a hint."""
    try:
        found = json.loads(Path(path).read_text())
    except FileNotFoundError:
        hint(f"there is no {path} here; the handout shows what to write into it")
    except ValueError as error:
        hint(f"{path} is no JSON ({error}): a comma too many, or a quote that is missing?")
    if missing := [key for key in keys if not isinstance(found, dict) or key not in found]:
        hint(f"{path}: {missing[0]} is missing")
    return found


def model_flags(num_seeds, direct, normalize=False):
    """Flags of a model, small."""
    import ftfl

    prediction = "direct" if direct else "residual"
    return ftfl.Args(
        num_seeds=num_seeds,
        ensemble_size=2,
        num_elites=1,
        model_hidden_dim=8,
        target_normalization=normalize,
        next_state_prediction=prediction,
    )


@check("6a", "raw_targets returns the next state or the state's change, and the reward last", seconds=15)
def raw_targets():
    import torch

    import ftfl

    share = variant()["residual"]
    change = "s' - s" if share == 1 else f"s' - {share} s"
    generator = torch.Generator().manual_seed(0)
    for lead in [(2, 5), (2, 3, 4)]:
        obs, next_obs = (torch.randn(*lead, 3, generator=generator) for _ in range(2))
        rewards = torch.rand(*lead, generator=generator) + 5
        batch = ftfl.Batch(obs, torch.zeros(*lead, 2), rewards, next_obs, torch.zeros(lead))
        results = {}
        for direct in (True, False):
            model = ftfl.Ensemble(3, 2, model_flags(2, direct))
            with unchanged("raw_targets", *batch):
                results[direct] = model.raw_targets(batch)
        for direct, result in results.items():
            name = "direct" if direct else "residual"
            if not isinstance(result, torch.Tensor) or result.shape != (*lead, 4):
                shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
                hint(
                    f"raw_targets of a batch {(*lead, 3)} must have the shape {(*lead, 4)}: the numbers of a "
                    f"state and one reward; yours: {shape}. rewards.unsqueeze(-1) gives it a dimension"
                )
            if torch.allclose(result[..., 0], rewards):
                hint("your reward is first; it must be last, where to_transition looks for it")
            if not torch.allclose(result[..., -1], rewards):
                hint("the last number must be the reward, in the environment's units, not changed")
            states = result[..., :-1]
            if torch.allclose(states, next_obs if direct else next_obs - share * obs):
                continue
            if torch.allclose(states, share * obs - next_obs) or torch.allclose(states, obs - next_obs):
                hint(f"{name}: your state's change has the wrong sign; it is {change}")
            if not direct and torch.allclose(states, next_obs - obs):
                hint(f"residual: you return s' - s; in your variant it is {change}")
            if torch.allclose(states, obs):
                hint(f"{name}: you return s, the state that the model sees already; it is to predict s'")
            if torch.allclose(results[True], results[False]):
                hint("direct and residual targets are the same: look at self.direct")
            if torch.allclose(states, next_obs - share * obs if direct else next_obs):
                hint(f"direct and residual are swapped: direct is s', residual is {change}")
            hint(f"{name}: the state's part is neither s' nor {change}")


@check("6b", "predictions.json is filled in, and older than the study's runs", seconds=15)
def predicted_first():
    keys = [f"ahead_at_{budget}" for budget in BUDGETS] + ["because"]
    predictions = read_json("predictions.json", keys)
    for key in keys[:-1]:
        if predictions[key] not in TARGETS:
            hint(f'predictions.json: "{key}" must be "direct" or "residual", whichever you expect')
    if len(str(predictions["because"]).split()) < 5:
        hint('predictions.json: "because" is to be a sentence. It may turn out wrong: that costs no points')
    # The last number of a run directory's name is the time of its start, in nanoseconds
    starts = [int(file.parent.name.rsplit("__", 1)[-1]) / 1e9 for file in RUNS.glob("*/args.json")]
    if starts and Path("predictions.json").stat().st_mtime > min(starts):
        hint(
            f"predictions.json is younger than your runs in {RUNS}: a prediction made after "
            "seeing the answer is none. If you only mended it, delete the runs and make them again"
        )


def read_runs():
    """{target: {seed: (steps, values)}} of the metric: the student's own runs, or the log that is shipped."""
    curves = {target: {} for target in TARGETS}
    if list(RUNS.glob("*/args.json")):
        import plots

        for file in sorted(RUNS.glob("*/args.json")):
            run = plots.read_run_dir(file.parent)
            if not run.flags["target_normalization"]:
                hint(
                    f"{file.parent}: its targets are not normalized; compare the two with normalized targets"
                )
            if run.flags["gradient_steps"] < BUDGETS[-1]:
                continue  # a trial
            if METRIC not in run.scalars or run.scalars[METRIC][0][-1] < run.flags["gradient_steps"]:
                hint(f"{file.parent} has not finished; wait for it, or delete it")
            curves[run.flags["next_state_prediction"]][run.flags["seed"]] = run.scalars[METRIC]
        for target, seeds in curves.items():
            if not seeds:
                hint(f"{RUNS} has no run of {BUDGETS[-1]:,} gradient steps with {target} targets")
    else:
        points = {target: {} for target in TARGETS}
        with open(SHIPPED, newline="") as file:
            for row in csv.DictReader(file):
                if row["tag"] == METRIC:
                    seed = points[row["next_state_prediction"]].setdefault(int(row["seed"]), [])
                    seed.append((int(row["step"]), float(row["value"])))
        curves = {target: {k: np.array(v).T for k, v in seeds.items()} for target, seeds in points.items()}
    return curves


def means(curves):
    """The logged steps that all seeds have, and the mean over seeds of each target at these."""
    all_steps = [set(steps.astype(int)) for seeds in curves.values() for steps, _ in seeds.values()]
    steps = sorted(set.intersection(*all_steps))
    if not set(BUDGETS) <= set(steps):
        hint("your runs have no numbers at 1,000, 3,000 and 20,000 gradient steps: use --log-interval 500")
    average = {}
    for target, seeds in curves.items():
        values = [[v[list(s.astype(int)).index(step)] for step in steps] for s, v in seeds.values()]
        average[target] = np.mean(values, axis=0)
    return np.array(steps), average


def crossing(steps, average):
    """The first logged step from which on direct stays ahead, or None if it is behind at the end."""
    ahead = average["direct"] > average["residual"]
    if not ahead[-1]:
        return None
    behind = np.flatnonzero(~ahead)
    return int(steps[behind[-1] + 1]) if len(behind) else int(steps[0])


@check("6c", "findings.json holds what the runs show", seconds=30)
def findings():
    found = read_json("findings.json", ["next_state_r2", "crossing", "hint", "paper"])
    steps, average = means(read_runs())
    table = found["next_state_r2"]
    for target in TARGETS:
        right = [average[target][list(steps).index(budget)] for budget in BUDGETS]
        try:
            given = [float(x) for x in table[target]]
            assert len(given) == len(BUDGETS)
        except (AssertionError, KeyError, TypeError, ValueError):
            hint('findings.json: "next_state_r2" must hold "direct" and "residual", with three numbers each')
        if np.allclose(given, right, atol=CLOSE):
            continue
        if np.allclose(given, right[::-1], atol=CLOSE):
            hint(f"findings.json, {target}: the numbers are in the wrong order: 1,000, 3,000, 20,000 steps")
        other = [average[x][list(steps).index(b)] for x in TARGETS if x != target for b in BUDGETS]
        if np.allclose(given, other, atol=CLOSE):
            hint("findings.json: the numbers of direct and residual are swapped")
        hint(f"findings.json, {target}: these are not the means over seeds of {METRIC}")
    right = crossing(steps, average)
    given = found["crossing"]
    if given is not None and not isinstance(given, (int, float)):
        hint('findings.json: "crossing" must be a number of gradient steps, or null if they do not cross')
    if (given is None) != (right is None):
        which = "is ahead" if right is not None else "is still behind"
        hint(
            f"findings.json: look at the last point: there direct {which} of residual, in the mean over seeds"
        )
    if right is not None and abs(given - right) > 2_000:
        hint("findings.json: the crossing is the first step from which on direct stays ahead; yours is off")
    for key in ("hint", "paper"):
        if len(str(found[key]).split()) < 10:
            hint(f'findings.json: "{key}" is to say in ten words or more how it agrees with what you saw')
        if not any(word in str(found[key]) for word in ("step", "budget", "train", "long", "short")):
            hint(
                f'findings.json, "{key}": which target is better depends on something that you varied. Say '
                "for which budget of gradient steps the sentence holds"
            )
