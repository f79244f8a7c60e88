"""Any combination of flags either starts or stops with one clear line, and never with a traceback."""

import ast
import os
import re
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import model_study
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ftfl
import mbpo
import sac

EXAMPLES = int(os.environ.get("FLAG_EXAMPLES", 60))  # if named here, they are drawn anew at each run
DRAWING = settings(
    max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
COUNT = [-1, 0, 1, 2, 13, 10**13, 2**70]
FRACTION = [-0.1, 0.0, 0.05, 0.5, 1.0, 1.1, float("nan"), float("inf")]
RATE = [-1.0, 0.0, 1e-3, 1e30, float("nan"), float("inf")]
VALUES = {
    "env_id": [
        *("InvertedPendulum-v5", "Hopper-v5", "dm_control/cartpole-balance-v0", "Pendulum-v1", "CartPole-v1"),
        *(
            "Nonsense-v0",
            "",
            "dm_control/",
            "a/b/c",
            "dm_control/humanoid-fly-v0",
            "Scripted-v0",
            "Pixels-v0",
        ),
        *("dm_control/lqr-lqr_2_1-v0", "InvertedDoublePendulum-v5"),
    ],
    "seed": [-1, 0, 3, 2**31, 2**32 - 1, 2**32, 2**63, 2**70],
    "num_seeds": [-1, 0, 1, 2],
    "total_timesteps": [-1, 0, 1, 12, 40, 10**12, 2**70],
    "learning_starts": [-1, 0, 1, 10, 25, 10**12],
    "utd_ratio": COUNT[:4],
    "batch_size": [*COUNT, 40],
    "eval_interval": COUNT,
    "eval_episodes": COUNT[:4],
    "log_interval": COUNT,
    "checkpoint_interval": COUNT,
    "num_threads": [-1, 0, 1, 10**6],
    "env_workers": [True, False],
    "tf32": [True, False],
    "critic_layer_norm": [True, False],
    "compile": [False],  # compiling takes half a minute for each shape; test_equivalence does it
    "hidden_dim": [*COUNT[:5], 10**10],
    "gamma": FRACTION,
    "tau": FRACTION,
    "actor_lr": RATE,
    "critic_lr": RATE,
    "alpha_lr": RATE,
    "target_entropy_scale": RATE,
    "device": ["auto", "cpu", "cuda:99", "meta", "abacus", ""],
    "full_observation": [True, False],
    "run_dir": ["runs", "", "/dev/null/runs", "a file", "a file/runs"],
    "resume": ["", "nowhere", ".", "a file"],
}
MODEL_VALUES = {
    "real_ratio": FRACTION,
    "ensemble_size": COUNT[:5],
    "num_elites": COUNT[:5],
    "model_hidden_dim": [*COUNT[:5], 10**10],
    "model_lr": RATE,
    "model_train_interval": COUNT,
    "model_train_steps": COUNT[:4],
    "model_batch_size": COUNT,
    "rollouts_per_step": COUNT[:5],
    "synthetic_buffer_size": [*COUNT, 400, 10**12],
    "rollout_schedule": [
        *("1:1:0:1", "1:3:0:20", "3:1:5:6", "1:99:0:1", "", ":::", "1:1:0", "0:1:0:1", "1:1:5:5", "1:2:3:x"),
        *("1:1:-1:1", "1:9:0:1e3"),
    ],
    "learned_logvar_bounds": [True, False],
    "nll_beta": [*FRACTION, -1.0],
    "target_normalization": [True, False],
    "next_state_prediction": ["direct", "residual"],
}
# What a run that starts is made of, so that it takes no time; each may be drawn anew
TINY = {"env_id": "InvertedPendulum-v5", "total_timesteps": 25, "learning_starts": 15, "hidden_dim": 4}
TINY |= {"batch_size": 20, "eval_episodes": 1, "utd_ratio": 1, "model_hidden_dim": 4, "model_train_steps": 2}
TINY |= {"model_batch_size": 8, "rollouts_per_step": 5, "synthetic_buffer_size": 400, "device": "cpu"}


def run_as_main(script, args):
    """What `python SCRIPT.py` does with these flags, the turning of errors into lines included."""
    last = ast.parse((ROOT / f"{script.__name__}.py").read_text()).body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    code = compile(ast.Module(last.body, []), f"{script.__name__}.py", "exec")
    exec(code, vars(script) | {"parse_args": lambda: args})


def drawn_flags(script):
    """A few flags at a time, else one of them is nearly always wrong and nothing else is looked at."""
    values = {name: v for name, v in (VALUES | MODEL_VALUES).items() if hasattr(script.Args, name)}
    pairs = {name: st.tuples(st.just(name), st.sampled_from(v)) for name, v in values.items()}
    pair = st.sampled_from(sorted(values)).flatmap(pairs.get)
    return st.lists(pair, max_size=3).map(dict)


@pytest.mark.maintainer
def test_every_flag_has_values_to_draw(script):
    assert vars(script.Args()).keys() <= (VALUES | MODEL_VALUES).keys()


@pytest.mark.parametrize("script", [sac, mbpo, ftfl], ids=lambda module: module.__name__)
def test_any_flags_start_or_stop_with_one_line(script):
    outcomes = {0: 0, 1: 0, 2: 0}

    @settings(DRAWING, derandomize="FLAG_EXAMPLES" not in os.environ)
    @given(drawn_flags(script))
    def check(flags):
        args = script.Args(**{name: v for name, v in (TINY | flags).items() if hasattr(script.Args, name)})
        errors, output, code = StringIO(), StringIO(), 0
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            with redirect_stderr(errors), redirect_stdout(output):
                Path("a file").write_text("not a file of ours")
                try:
                    run_as_main(script, args)
                except SystemExit as stop:
                    code = stop.code
            left = sorted(os.listdir())
        printed = errors.getvalue().replace("\r", "\n").splitlines()
        lines = [line for line in printed if line.startswith("error: ")]
        assert code in outcomes and len(lines) == (code != 0), (flags, code, errors.getvalue())
        if code == 2:
            assert left == ["a file"], (flags, left, "something was written")
        if code == 1:
            assert "NaN" in lines[0], (flags, lines)
        outcomes[code] += 1

    check()
    assert min(outcomes[0], outcomes[2]) > EXAMPLES / 5, outcomes


def hyperparameters():
    """{flag: (the value, the flags)}: the two cells of its row in REFERENCE.md's table of hyperparameters."""
    rows = {}
    text = (ROOT / "REFERENCE.md").read_text().split("## Hyperparameters")[1].split("\n## ")[0]
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == 4 and "--" in cells[2]:
            for flag in re.findall(r"--([a-z-]+)", cells[2]):
                rows.setdefault(flag.replace("-", "_"), (cells[1], cells[2]))  # not that of Tuned FTFL
    return rows


def numbers_in(text):
    """The numbers of a cell: 1,000,000, 3e-4, and 5 % as 0.05."""
    found = re.findall(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?(?:e-\d+)?)( %)?", text)
    return [float(number.rstrip(",").replace(",", "")) / (100 if percent else 1) for number, percent in found]


@pytest.mark.maintainer
def test_the_defaults_are_those_that_the_readme_states(script):
    """All numbers but those that say how a run is watched, and every row of the table."""
    table, args = hyperparameters(), script.Args()
    assert len(table) >= 29
    by_hand = {"next_state_prediction": "direct", "rollout_schedule": "1:1:0:1", "target_normalization": True}
    by_hand |= {"critic_layer_norm": False, "learned_logvar_bounds": False, "num_seeds": 1}
    by_hand |= {"target_entropy_scale": 0.5}  # −(action dims)/2
    unstated = {"seed", "num_threads", "log_interval", "checkpoint_interval", "env_id", "run_dir", "resume"}
    unstated |= {"full_observation", "device", "env_workers", "tf32", "compile"}
    for name, value in vars(args).items():
        if name in by_hand:
            assert value == by_hand[name] and name in table
        elif name not in unstated:
            value_cell, flag_cell = table[name]
            assert value in numbers_in(value_cell), f"--{name} is {value}, REFERENCE.md says {value_cell}"
    assert f"(default {args.num_seeds})" in table["num_seeds"][1]
    assert f"(default {args.total_timesteps:,})" in table["total_timesteps"][1]
    assert set(table) <= set().union(*(vars(module.Args()) for module in (sac, mbpo, ftfl)))


def test_a_model_study_has_the_defaults_of_ftfl():
    study, args = vars(model_study.Args()), vars(ftfl.Args())
    other = {"env_id", "run_dir"}  # of --buffer, and a folder of its own
    shared = study.keys() & args.keys() - other
    assert len(shared) > 10 and {name: study[name] for name in shared} == {
        name: args[name] for name in shared
    }
    assert study["steps"] == args["model_train_steps"]
