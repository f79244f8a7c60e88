"""What the checks share: how a check is written, how it is run, and small models, data and stand-ins.

A check is a function of a module `exercise_N.py`. It returns when all is right, and calls `hint` when not:

    @check("5a", "every target is divided by its own spread", seconds=10)
    def targets_have_unit_variance():
        import ftfl  # the student's file; inside the function, so that a mistake in it is a line

        ...
        hint("the reward is left in its own unit: normalize the last column too")
"""

import inspect
import json
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).parent.parent  # the student's
PLAIN = {"normalization": "std", "residual": 1.0, "bounds_weight": 0.01, "noise": 1.0}
PLAIN |= {"max_logvar": 0.5, "min_logvar": -10.0}
OBS, ACT = 4, 2


class Hint(Exception):
    """What is wrong with an answer, in words."""


def hint(text):
    """Say what is wrong, and end the check."""
    raise Hint(text)


def check(number, what, seconds=10, slow=False):
    """Make a check of a function without arguments. number: of the exercise and its part, as "5a". what: is
    checked, in words. seconds: after so many it is stopped. slow: not run if one before it in the exercise
    failed."""

    def decorate(function):
        function.check = {"number": number, "what": what, "seconds": seconds, "slow": slow}
        return function

    return decorate


def checks_of(module):
    """The checks of a module, in the order in which they are written, each with its points."""
    functions = [f for f in vars(module).values() if inspect.isfunction(f) and hasattr(f, "check")]
    points = json.loads((Path(__file__).parent / "points.json").read_text())
    for f in functions:
        f.check["points"] = points[module.__name__.split("_")[-1]].get(f.__name__, 1)
    return sorted(functions, key=lambda f: f.__code__.co_firstlineno)


def explain(error):
    """An exception of a check as a line in words."""
    if isinstance(error, Hint):
        return str(error)
    if isinstance(error, NotImplementedError) and str(error).startswith("exercise "):
        return f"{error} is not written yet"
    checks, place = Path(__file__).parent, ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.parent != checks and path.parent == Path(os.path.abspath(FOLDER)) and path.name != "check.py":
            place = f" (line {frame.lineno} of {path.name})"
    if isinstance(error, SyntaxError) and error.filename:
        place = f" (line {error.lineno} of {Path(error.filename).name})"
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SystemExit):
        return f"your code called sys.exit({text}){place}"
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if place:
        return f"your code raised {told}{place}"
    return f"the check could not use what your code gave it: {told}"


def run_check(function):
    """Run a check. Returns "" if all is right, else what is wrong in words."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    try:
        function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit is not an Exception
        return explain(error)
    return ""


def variant():
    """What this student's variant is: PLAIN, but for what variant.json says."""
    path = FOLDER / "variant.json"
    return PLAIN | (json.loads(path.read_text()) if path.exists() else {})


# ---------------------------------------- Small models and data
def make_args(**flags):
    """Flags of ftfl.py for a small model of two seeds."""
    import ftfl

    small = dict(num_seeds=2, ensemble_size=7, num_elites=5, model_hidden_dim=16, model_batch_size=16)
    small |= dict(model_train_steps=5, rollouts_per_step=10, hidden_dim=16)
    return ftfl.Args(**small | flags)


def make_model(**flags):
    """An untrained Ensemble for 4 observations and 2 actions."""
    import ftfl

    return ftfl.Ensemble(OBS, ACT, make_args(**flags))


def random_batch(*shape, seed=0):
    """Transitions with states of order 1 and rewards of order 0.01: a Batch (*shape, ...)."""
    import torch

    import ftfl

    g = torch.Generator().manual_seed(seed)
    obs, change = torch.randn(2, *shape, OBS, generator=g)
    actions = 2 * torch.rand(*shape, ACT, generator=g) - 1
    rewards = 0.01 * torch.rand(*shape, generator=g)
    return ftfl.Batch(obs, actions, rewards, obs + 0.1 * change, torch.zeros(shape))


def numbered_batch(seeds, rows):
    """Transitions whose obs[..., 0] is their row number, obs[..., 1] their seed's: (seeds, rows, ...)."""
    import torch

    batch = random_batch(seeds, rows)
    batch.obs[..., 0] = torch.arange(rows)
    batch.obs[..., 1] = torch.arange(seeds).unsqueeze(-1)
    return batch


def make_buffer(batch):
    """A ReplayBuffer that holds this Batch (seeds, rows, ...), and has room for as much again: all numbers
    of its rows that are not filled yet are -1."""
    import ftfl

    seeds, rows, obs_dim = batch.obs.shape
    buffer = ftfl.ReplayBuffer(seeds, 2 * rows, obs_dim, batch.actions.shape[-1])
    for stored in buffer.data:
        stored.fill_(-1)
    buffer.add(batch)
    return buffer


def expect_filled(states):
    """A hint if states whose first number is a row's are taken from rows of `make_buffer` without data."""
    if (states[..., 0] == -1).any():
        hint(
            "rows of the buffer that are not filled yet are used: it has room for buffer.capacity rows, but "
            "holds buffer.size"
        )


def raw_columns(batch):
    """Next state and reward side by side, (..., obs + 1): stands in for `targets`, which is exercise 5."""
    import torch

    return torch.cat([batch.next_obs, batch.rewards.unsqueeze(-1)], -1)


def use_raw_targets(model):
    """Make the model do without exercise 5: its targets are next state and reward as they are."""
    model.targets = raw_columns
    model.to_transition = lambda obs, prediction: (prediction[..., :-1], prediction[..., -1])
    model.fit_normalizers = lambda batch: None


@contextmanager
def replaced(name, value):
    """For a while, a function of the student's ftfl.py is another one."""
    import ftfl

    with mock.patch.object(ftfl, name, value):
        yield


# ---------------------------------------- What is often looked at
def expect_shape(what, x, shape):
    """A hint if x is no tensor of this shape."""
    if x is None:
        hint(f"{what}: your function returns None (is a `return` missing?)")
    found = tuple(getattr(x, "shape", ()))
    if found != tuple(shape):
        hint(f"{what} must have the shape {tuple(shape)}, yours has {found}")


def expect_axes(what, x, axes=4):
    """A hint if what a stand-in is given has not the axes that the real function needs."""
    shapes = {3: "(seeds, rows, ...)", 4: "(seeds, networks or 1, rows, ...), as its statistics have"}
    if x.dim() != axes:
        hint(f"{what} must have {axes} axes, {shapes[axes]}; yours has {x.dim()} axes")


@contextmanager
def unchanged(name, *given):
    """A hint if, in this block, a function of the student's changes the tensors that it is given."""
    import torch

    before = [x.clone() for x in given]
    yield
    if not all(map(torch.equal, given, before)):
        hint(f"{name} changes what it is given, in place: others still need it as it was. Make new tensors")


def expect_pair(what, x):
    """A hint if x is not two things."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        hint(f"{what}: two values must be returned, yours returns {type(x).__name__}")
    return x


def close(a, b, tolerance=1e-4):
    """True if no number differs by more than this, relative to the larger of 1 and b."""
    import torch

    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance * b.abs().clamp(min=1)).all())


def numbers(x):
    """A tensor's numbers for a hint: three digits."""
    return ", ".join(f"{v:.3g}" for v in x.detach().flatten().tolist())


if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))
