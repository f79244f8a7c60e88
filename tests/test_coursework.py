"""The homework: blanked from the real files, every check fails; with the real bodies, or others that are
right, every check passes; typical wrong answers get a hint that names the mistake."""

import ast
import dataclasses
import importlib
import json
import re
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch
from conftest import ROOT

COURSEWORK = ROOT / "coursework"
sys.path.insert(0, str(COURSEWORK))
import blank  # noqa: E402
import make_data  # noqa: E402
import variants  # noqa: E402
from checks import common  # noqa: E402

import ftfl  # noqa: E402

REAL = {"ftfl": (ROOT / "ftfl.py").read_text(), "toy": (COURSEWORK / "toy.py").read_text()}
MINE = (1, 2, 3, 4, 5)  # the exercises of this file


def load(name, text, monkeypatch, folder=COURSEWORK):
    """Make a module of a student's file, under its name."""
    module = types.ModuleType(name)
    module.__file__ = str(folder / f"{name}.py")
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, module.__file__, "exec"), vars(module))


def run_exercise(n, slow=False, until_wrong=True):
    """{check's function: what is wrong in words, or ""}, in this process: starting one takes seconds."""
    results = {}
    for function in common.checks_of(importlib.import_module(f"checks.exercise_{n}")):
        if function.check["slow"] and not slow:
            continue
        results[function.__name__] = common.run_check(function)
        if results[function.__name__] and until_wrong:
            break
    return results


def check_py(folder, *args):
    """`python check.py ...` in the student's folder."""
    command = [sys.executable, "check.py", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def with_function(text, name, new):
    """A file's text with another function in the place of the one with this name."""
    node, lines = blank.find(ast.parse(text), name), text.splitlines(keepends=True)
    indent = " " * node.col_offset
    new = "".join(
        indent + line if line.strip() else line for line in new.strip("\n").splitlines(keepends=True)
    )
    lines[node.lineno - 1 : node.end_lineno] = [new + "\n"]
    return "".join(lines)


# ---------------------------------------- The student's folder
def test_blanked_files_are_the_real_ones_but_for_the_bodies(tmp_path):
    out = blank.make(tmp_path / "out")
    for name, text in REAL.items():
        blanked = (out / f"{name}.py").read_text()
        for number, place in blank.EXERCISES.items():
            file, function = place.split(":")
            if file == f"{name}.py":
                node = blank.find(ast.parse(blanked), function)
                assert ast.unparse(node.body[1:]) == f"raise NotImplementedError('exercise {number}')"
                real = blank.find(ast.parse(text), function)
                assert ast.get_docstring(node) == ast.get_docstring(real)
                assert 2 <= real.end_lineno - real.body[1].lineno + 1 <= 25, "lines to write"
                source = "".join(text.splitlines(keepends=True)[real.lineno - 1 : real.end_lineno])
                blanked = with_function(blanked, function, dedent(source, real.col_offset))
        assert blanked == text
    names = {path.name for path in out.iterdir()}
    assert names >= {"ftfl.py", "toy.py", "check.py", "checks", "data", "HANDOUT.md"}
    assert names >= {"plots.py", "requirements.txt", "model_study.py"}
    assert not names & {"mbpo.py", "instructor", "blank.py"}, "solutions"


def dedent(source, columns):
    return "".join(line[columns:] if line.strip() else line for line in source.splitlines(keepends=True))


def test_blanked_all_checks_fail_and_with_the_real_bodies_all_pass(tmp_path):
    out = blank.make(tmp_path / "blank")
    run = check_py(out, *map(str, MINE))
    lines = run.stdout.splitlines()
    assert run.returncode == 1 and len(lines) > 30 and not run.stderr
    assert all(line.startswith("no   ") for line in lines[:-1])
    assert all("is not written yet" in line or "not run: first" in line for line in lines[:-1])
    assert lines[-1] == f"0 of {len(lines) - 1} checks are right: 0 of 65 points"

    out = blank.make(tmp_path / "solved", solved=True)
    run = check_py(out, *map(str, MINE))
    assert run.returncode == 0 and not run.stderr, run.stdout + run.stderr
    assert all(line.startswith("ok   ") for line in run.stdout.splitlines()[:-1])
    assert run.stdout.splitlines()[-1].endswith("65 of 65 points")


def test_loops_exceptions_exits_and_crashes_are_lines(tmp_path):
    out = blank.make(tmp_path / "out", solved=True)
    text = with_function(
        REAL["toy"], "r2", "def r2(predicted, real):\n    while True:\n        time.sleep(0.01)\n"
    )
    text = with_function(
        text, "gradient_norms", "def gradient_norms(network, x, y):\n    raise ValueError('no\\nidea')\n"
    )
    text = with_function(
        text,
        "fit",
        "def fit(x, y, x_test, unit_variance):\n    (os._exit if unit_variance else sys.exit)(3)\n",
    )
    (out / "toy.py").write_text(text.replace("import sys\n", "import os\nimport sys\nimport time\n"))
    started = time.time()
    run = check_py(out, "2")
    assert time.time() - started < 120
    lines = run.stdout.splitlines()
    line = 1 + (out / "toy.py").read_text().splitlines().index("    raise ValueError('no\\nidea')")
    assert run.returncode == 1 and len(lines) == 5 and "Traceback" not in run.stderr
    assert lines[0].endswith("stopped after 10 seconds: an endless loop, or far too slow?")
    assert lines[1].endswith(f"your code raised ValueError: no idea (line {line} of toy.py)")
    assert "your code called sys.exit(3) (line" in lines[2]
    assert lines[3].endswith("your code ended the process (exit code 3)")
    assert lines[4] == "0 of 4 checks are right: 0 of 8 points"


def test_endless_prints_and_arrays_without_end_have_limits(tmp_path):
    out = blank.make(tmp_path / "out", solved=True)
    text = with_function(
        REAL["toy"], "r2", "def r2(predicted, real):\n    while True:\n        print('x' * 99)\n"
    )
    text = with_function(
        text, "gradient_norms", "def gradient_norms(network, x, y):\n    return torch.zeros(2**32)\n"
    )
    text = with_function(text, "fit", "def fit(x, y, x_test, unit_variance):\n    return None\n")
    (out / "toy.py").write_text(text)
    run = check_py(out, "2")
    lines = run.stdout.splitlines()
    assert lines[0].endswith("stopped after 10 seconds: an endless loop, or far too slow?")
    assert len(run.stderr) < 25_000 and "(what is printed beyond this is left out)" in run.stderr
    if sys.platform == "linux":
        assert "your code raised RuntimeError" in lines[1] and "allocate memory" in lines[1]


@pytest.mark.parametrize(
    "line,said",
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("exit(5)", "sys.exit"),
    ],
)
def test_a_file_that_can_not_be_imported_is_a_line(line, said, monkeypatch, tmp_path):
    out = blank.make(tmp_path / "out", solved=True)
    (out / "ftfl.py").write_text(f"import torch\n{line}\n")
    monkeypatch.setattr(common, "FOLDER", out)
    monkeypatch.delitem(sys.modules, "ftfl")
    monkeypatch.syspath_prepend(str(out))
    results = run_exercise(1, until_wrong=False)
    assert len(results) > 5
    assert all(said in wrong and "line 2 of ftfl.py" in wrong for wrong in results.values()), results


def test_mistakes_in_the_command_have_exit_code_2(tmp_path):
    out = blank.make(tmp_path / "out")
    for args, said in [
        (["77"], "exercise 77 has no checks"),
        (["two"], "invalid int"),
    ]:
        run = check_py(out, *args)
        assert run.returncode == 2 and said in run.stderr and not run.stdout
    names = tmp_path / "names.txt"
    for text, said in (("Ada\nAda\n", "is there twice"), ("../Ada\n", "can't be a folder")):
        names.write_text(text)
        command = [sys.executable, str(COURSEWORK / "blank.py"), "class", "--names", str(names)]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 2 and said in run.stderr and not (tmp_path / "class").exists()
    (out / "ftfl.py").write_text("half solved")
    for target in (out, out / "check.py"):
        command = [sys.executable, str(COURSEWORK / "blank.py"), str(target)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert (out / "ftfl.py").read_text() == "half solved", "a student's work is not written over"
    assert blank.make(tmp_path / "deep" / "er", student="Ada").exists(), "folders above are made"


def test_an_exercise_whose_checks_fail_does_not_run_its_slow_one(tmp_path):
    out = blank.make(tmp_path / "out", solved=True)
    text = REAL["ftfl"].replace(
        "(targets - self.target_mean) / self.target_std", "targets - self.target_mean"
    )
    (out / "ftfl.py").write_text(text)
    lines = check_py(out, "5").stdout.splitlines()
    assert "the targets are not divided by target_std" in lines[1]
    assert lines[-2].endswith("not run: first make the other checks of exercise 5 right")


# ---------------------------------------- Wrong answers
CLAMP = """\
        logvar = self.max_logvar - nn.functional.softplus(self.max_logvar - logvar)
        logvar = self.min_logvar + nn.functional.softplus(logvar - self.min_logvar)
"""
BOOTSTRAP = "torch.randint(num_rows, (*stack, num_rows), device=device)"
CHOICES = "torch.randint(num_elites, obs.shape[:2], device=obs.device)"
NOISE = "prediction = mean + (0.5 * logvar).exp() * torch.randn_like(mean)"
FIT = "model.fit_normalizers(buffer.take(train_rows))"
ALL_ROWS = "torch.arange(buffer.size).expand(args.num_seeds, 1, -1)"
HOLDOUT = "holdout = take_holdout(buffer, holdout_rows)"
RESTART = "obs = torch.where(terminals.unsqueeze(-1), draw_real_obs(), next_obs)"
CONSTANT = "            prediction = torch.where(self.target_is_constant, self.target_mean, prediction)\n"
SQUARED = "squared_error = (self.targets(batch) - mean).square()"
TOWARDS = "prediction = prediction * self.target_std + self.target_mean"
START = "buffer.take(torch.randint(buffer.size, shape, device=device)).obs"
CHOOSE = "model.elites.copy_(holdout_mse.argsort(dim=1)[:, :num_elites])"
PICK_MEAN = "mean = torch.take_along_dim(mean, networks, dim=1)"
WRONG = [  # exercise, its right text, a wrong one, what the hint must say
    (1, CLAMP, "", "the clamp is missing"),
    (1, CLAMP, "        logvar = logvar.clamp(self.min_logvar, self.max_logvar)\n", "the clamp is hard"),
    (1, CLAMP.splitlines(True)[0], "", "beyond max_logvar"),
    (1, CLAMP.splitlines(True)[1], "", "below min_logvar"),
    (1, "self.net((inputs - self.input_mean) / self.input_std)", "self.net(inputs)", "raw inputs"),
    (1, "nll = weighted_error + logvar", "nll = weighted_error - logvar", "wrong sign of the log-variance"),
    (1, '"model/variance_loss": logvar', '"model/variance_loss": (-logvar)',
     "wrong sign of the log-variance"),
    (1, "(-logvar).exp()", "logvar.exp()", "multiplied by the variance"),
    (1, "(-logvar).exp()", "(-0.5 * logvar).exp()", "divided by the std"),
    (1, " * (-logvar).exp()", "", "not divided by the predicted variance"),
    (1, "minimize(loss + bounds_loss)", "minimize(loss)", "the bounds' loss is missing"),
    (1, "(weight * nll).mean((2, 3)).sum()", "(weight * nll).mean()", "a mean over seeds and networks"),
    (1, "loss = (weight * nll)", "loss = 0.2 * (weight * nll)", "must get nll's sum"),
    (1, '"model/nll": nll.detach()', '"model/nll": nll', "detach what is logged"),
    (1, "loss = (weight * nll)", "loss = nll", "self.nll_beta has no effect"),
    (1, "(self.nll_beta * logvar.detach()).exp()", "(-self.nll_beta * logvar.detach()).exp()",
     "1 / variance^beta"),
    (1, "(self.nll_beta * logvar.detach()).exp()", "(self.nll_beta * logvar).exp()",
     "a gradient flows through the factor"),
    (1, "loss = (weight * nll)", "loss = (weight * weighted_error + logvar)", "belongs to both terms"),
    (1, "loss = (weight * nll)", "nll = weight * nll\n        loss = nll",
     "must not depend on self.nll_beta"),
    (2, "return network(x_test).detach() * std + mean", "return network(x_test).detach()", "scaled back"),
    (2, "(y.mean(0), y.std(0))", "(y.mean(), y.std())", "its own mean and std"),
    (2, "return 1 - error / real.var(0, correction=0)", "return 1 - error.sqrt() / real.std(0)", "squares"),
    (2, "(network(x) - y).square().mean()", "(network(x) - y).square().sum()", "times the right ones"),
    (3, "torch.Generator().manual_seed(args.seed)",
     "torch.Generator().manual_seed(torch.randint(10**6, ()).item())", "drawn anew"),
    (3, "(num_blocks, args.num_seeds), generator=generator)",
     "(args.num_seeds, num_blocks), generator=generator).T", "when the buffer grows"),
    (3, "== places_by_row", "== 0 * places_by_row", "at a random place"),
    (3, "== places_by_row", "== places_by_row[:1].expand(args.num_seeds, -1)", "same rows"),
    (3, FIT, f"model.fit_normalizers(buffer.take({ALL_ROWS}))", "statistics are taken over the holdout too"),
    (3, BOOTSTRAP, "torch.randint(num_rows, (args.num_seeds, 1, num_rows)).expand(*stack, -1)",
     "every network trains on the same rows"),
    (3, BOOTSTRAP, "torch.arange(num_rows).expand(*stack, -1)", "no bootstrap"),
    (3, "bootstraps = torch.take_along_dim(train_rows, resampled, dim=2)",
     "bootstraps = torch.randint(buffer.size, (*stack, num_rows))", "held-out rows are trained on"),
    (3, HOLDOUT, "holdout = take_holdout(buffer, train_rows[:, 0])", "judged on rows that are not held out"),
    (3, HOLDOUT, HOLDOUT.replace("holdout_rows", "holdout_rows[:, 1:]"), "a part of the held-out rows only"),
    (3, HOLDOUT, "holdout = buffer.take(holdout_rows)", "needs a Batch (seeds, 1, rows, ...)"),
    (3, HOLDOUT, "holdout = holdout_rows", "needs the held-out transitions, a Batch"),
    (3, HOLDOUT, "holdout = buffer.take(holdout_rows.unsqueeze(1))",
     "5,000 are to judge, at random; yours takes 6,000"),
    (3, HOLDOUT, "holdout = buffer.take(holdout_rows[:, :5_000].unsqueeze(1))", "not the first or the last"),
    (3, HOLDOUT,
     "holdout = buffer.take(holdout_rows[:, torch.randperm(holdout_rows.shape[1])[:5_000]].unsqueeze(1))",
     "the random numbers of the run"),
    (3, """    logs["model/holdout_mse"] = choose_elites(model, holdout)
    return logs | evaluate_model(model, holdout)
""", """    logs |= evaluate_model(model, holdout)
    return logs | {"model/holdout_mse": choose_elites(model, holdout)}
""", "before choose_elites"),
    (3, 'logs["model/holdout_mse"] = choose_elites(model, holdout)', "choose_elites(model, holdout)",
     "as model/holdout_mse what choose_elites returns"),
    (3, "holdout_mse.argsort(dim=1)", "holdout_mse.argsort(dim=1, descending=True)", "the worst networks"),
    (3, "holdout_mse = (model.targets(holdout) - mean).square()",
     "holdout_mse = ((model.targets(holdout) - mean) * model.target_std).square()",
     "the environment's units"),
    (3, "return holdout_mse", "return holdout_mse.sqrt()", "must return the mean squared error"),
    (3, "elites = model.elites[:, :, None, None]", "elites = torch.arange(7).view(1, 7, 1, 1)",
     "of all networks"),
    (3, "elites = model.elites[:, :, None, None]",
     "elites = choose_elites(model, holdout).argsort(1)[:, :5, None, None]", "changes model.elites"),
    (3, "next_obs, rewards = model.to_transition(holdout.obs, mean)",
     "next_obs, rewards = mean[..., :-1], mean[..., -1]", "push predictions through to_transition"),
    (3, "reward_mse = (rewards - holdout.rewards).square()",
     "reward_mse = (mean - model.targets(holdout))[..., -1].square()",
     "push predictions through to_transition"),
    (3, "(0.5 * logvar).exp(), elites, dim=1)", "(0.5 * logvar).exp(), 0 * elites, dim=1)",
     "model/predicted_std is not the elites'"),
    (3, "std = torch.take_along_dim((0.5 * logvar).exp(), elites, dim=1)",
     "std = (0.5 * logvar).exp().mean(1, keepdim=True).expand_as(mean)",
     "predicted_std is that of all networks"),
    (3, "torch.cat([next_obs_std, rewards_std.unsqueeze(-1)], dim=-1)", "std",
     "model/predicted_std is in the units trained in"),
    (3, '"rewards/synthetic_std": rewards_std,',
     '"rewards/synthetic_std": std[..., -1] * model.target_std[..., -1],',
     "its std is 0 in the environment's units"),
    (3, '"rewards/real": holdout.rewards,', '"rewards/real": 0 * holdout.rewards,', "rewards/real are not"),
    (3, '"rewards/synthetic": rewards,', '"rewards/synthetic": 0 * rewards,', "rewards/synthetic are not"),
    (3, '"rewards/synthetic_std": rewards_std,', '"rewards/synthetic_std": 0 * rewards_std,',
     "rewards/synthetic_std is not"),
    (3, "r_squared(reward_mse, holdout.rewards.var((1, 2)))", "1 - reward_mse / holdout.rewards.var((1, 2))",
     "must be NaN"),
    (4, NOISE, "prediction = mean", "the noise is missing"),
    (4, NOISE, NOISE.replace("0.5 * ", ""), "std is exp(logvar / 2)"),
    (4, NOISE, NOISE.replace("torch.randn_like(mean)", "torch.randn_like(mean[..., :1])"), "the same noise"),
    (4, CHOICES, "torch.randint(num_elites, (len(obs), 1)).expand(obs.shape[:2])",
     "one elite imagines the whole batch"),
    (4, "self.elites.gather(1, choices)[:, None, :, None]", "choices[:, None, :, None]", "are no elites"),
    (4, "next_obs, rewards = self.to_transition(obs.unsqueeze(1), prediction)",
     "next_obs, rewards = prediction[..., :-1], prediction[..., -1]", "returned as it is"),
    (4, RESTART, "obs = next_obs", "goes on after a terminal state"),
    (4, RESTART, "obs = draw_real_obs()", "every step starts at a real state"),
    (4, RESTART, RESTART.replace("draw_real_obs()", "draw_real_obs().flip(0)"), "not its own seed's"),
    (4, RESTART, RESTART.replace("draw_real_obs()", "0 * draw_real_obs() + buffer.data.obs[:, :1]"),
     "a real state drawn at random"),
    (4, "int(np.interp(step, [first_step, last_step], [start, end]))",
     "round(start + (end - start) * (step - first_step) / (last_step - first_step))",
     "the length that of rollout_schedule"),
    (4, "int(np.interp(step, [first_step, last_step], [start, end]))",
     "int(start + (end - start) * (step - first_step) / (last_step - first_step))",
     "the length that of rollout_schedule"),
    (4, "    return batch\n",
     "    synthetic_buffer.data.terminations[:, synthetic_buffer.pos - args.rollouts_per_step :] = 1\n"
     "    return batch\n", "a time limit"),
    (4, "next_obs, terminals.float())", "next_obs, 0.0 * terminals)", "no terminal state is stored"),
    (4, "terminals = is_terminal(next_obs)", "terminals = is_terminal(obs)", "the state before the step"),
    (4, "noise = torch.randn(*shape, act_dim", "noise = torch.zeros(*shape, act_dim", "the policy's mean"),
    (5, "return next_obs, prediction[..., -1]",
     "return next_obs, ((prediction - self.target_mean) / self.target_std)[..., -1]",
     "your rewards are not scaled back"),
    (5, "prediction = prediction * self.target_std + self.target_mean",
     "prediction = (prediction + self.target_mean) * self.target_std", "the order is wrong"),
    (5, CONSTANT, "", "constant so far"),
    (5, CONSTANT, CONSTANT.replace("self.target_mean", "0"), "the next states that come back are not"),
    (5, "next_obs = obs + prediction[..., :-1]", "next_obs = prediction[..., :-1]", "added back"),
    (5, "next_obs = obs + prediction[..., :-1]",
     "next_obs = prediction[..., :-1] + torch.where(self.target_is_constant[..., :-1], 0, obs)",
     "the mean of a constant target, too"),
    (5, "(targets - self.target_mean) / self.target_std",
     "(targets - self.target_mean) / self.target_std / torch.where(self.target_is_constant, 1e-6, 1)",
     "huge numbers"),
    (5, "(targets - self.target_mean) / self.target_std",
     "torch.where(self.target_is_constant, 0, (targets - self.target_mean) / self.target_std)",
     "trained on like the others"),
    (5, "(targets - self.target_mean) / self.target_std", "targets - self.target_mean",
     "not divided by target_std"),
    (5, "targets = (targets - self.target_mean) / self.target_std",
     "targets[..., :-1] = ((targets - self.target_mean) / self.target_std)[..., :-1]",
     "the reward is left in its own unit"),
    (5, "self.target_mean.copy_(mean)", "self.target_mean.lerp_(mean, 0.5)", "target_mean is not"),
    (5, "self.target_std.copy_(torch.where(std < STD_FLOOR, 1, std))",
     "self.target_std.copy_(torch.where(std < STD_FLOOR, 1, std**2))", "the variance, not"),
    (5, "self.target_std.copy_(torch.where(std < STD_FLOOR, 1, std))", "self.target_std.copy_(std + 1e-6)",
     "nearly constant target"),
    (5, "self.target_std.copy_(torch.where(std < STD_FLOOR, 1, std))",
     "self.target_std.copy_(torch.where(std < STD_FLOOR, 0, std))", "must get target_std 1"),
    (5, "            self.target_is_constant.copy_(std < STD_FLOOR)\n", "", "target_is_constant is not set"),
    (5, "self.target_is_constant.copy_(std < STD_FLOOR)", "self.target_is_constant.copy_(std > STD_FLOOR)",
     "target_is_constant must be True where"),
    (5, "self.target_is_constant.copy_(std < STD_FLOOR)",
     "self.target_is_constant.logical_or_(std < STD_FLOOR)", "False elsewhere"),
    (5, "self.input_std.copy_(torch.where(std < STD_FLOOR, 1, std))", "self.input_std.copy_(std + 1e-6)",
     "nearly constant input"),
    (5, FIT, f"model.fit_normalizers(buffer.take({ALL_ROWS}))", "statistics are taken over the holdout too"),
    # Without what the exercise before has made
    (1, SQUARED,
     SQUARED.replace("self.targets(batch)", "torch.cat([batch.next_obs, batch.rewards[..., None]], 3)"),
     "does not ask self.targets"),
    (5, "        if self.direct:  # DNP: s' instead of s' - s\n            state_target = batch.next_obs\n",
     "", "exercise 6a first: direct and residual targets are the same"),
    (5, "batch.rewards.unsqueeze(-1)], dim=-1)", "0.1 * batch.rewards.unsqueeze(-1)], dim=-1)",
     "exercise 6a first: the last number must be the reward"),
    # A buffer that is not full
    (3, "split_rows(args, buffer.size)", "split_rows(args, buffer.capacity)", "not filled yet"),
    (4, START, START.replace("buffer.size", "buffer.capacity"), "not filled yet"),
    # What must go on, or start anew
    (3, FIT, f"{FIT}\n    for x in model.net.parameters():\n        nn.init.normal_(x, std=0.1)",
     "its last weights"),
    (3, BOOTSTRAP, BOOTSTRAP.replace("device=device", "generator=torch.Generator().manual_seed(0)"),
     "every training draws the same bootstraps"),
    (4, RESTART, "obs = draw_real_obs() if terminals.any() else next_obs", "all rollouts start again"),
    (4, RESTART, RESTART.replace("terminals.un", "terminals.any(1, keepdim=True).expand_as(terminals).un"),
     "all rollouts start again"),
    # By which errors, and compared with what
    (3, CHOOSE, CHOOSE.replace("holdout_mse.", "(model.targets(holdout) - mean)[..., -1].square().mean(2)."),
     "ranked by the reward's error alone"),
    (3, CHOOSE,
     CHOOSE.replace("holdout_mse.", "(model.targets(holdout) - mean)[..., :-1].square().mean((2, 3))."),
     "ranked without the reward's error"),
    (3, ".square().mean((2, 3))\n    num_elites", ".mean(2).square().mean(2)\n    num_elites",
     "cancel"),
    (3, "(holdout.next_obs - holdout.obs).var((1, 2))", "holdout.next_obs.var((1, 2))", "not of s'"),
    (4, PICK_MEAN, "mean = mean.mean(1, keepdim=True)", "a mean of several networks"),
    (4, PICK_MEAN, "mean = mean.gather(1, self.elites[:, :, None, None].expand(-1, -1, *mean.shape[2:]))"
     ".mean(1, keepdim=True)", "a mean of several networks"),
    (4, "logvar = torch.take_along_dim(logvar, networks, dim=1)", "logvar = logvar.mean(1, keepdim=True)",
     "the std of the same network"),
    # The same for all rows or seeds
    (1, "self.net((inputs - self.input_mean) / self.input_std)",
     "self.net((inputs - self.input_mean[:1]) / self.input_std[:1])", "another seed's"),
    (1, CLAMP, CLAMP.replace("max_logvar", "max_logvar[:1]"), "another seed's"),
    (3, BOOTSTRAP, "torch.randint(num_rows, (1, args.ensemble_size, num_rows)).expand(*stack, -1)",
     "all seeds draw the same bootstraps"),
    (4, CHOICES, "torch.randint(num_elites, (1, obs.shape[1])).expand(obs.shape[:2])",
     "all seeds draw the same elites"),
    (4, NOISE, NOISE.replace("randn_like(mean)", "randn_like(mean[:, :, :1])"),
     "all rows get the same noise"),
    (4, NOISE, NOISE.replace("randn_like(mean)", "randn_like(mean[:1])"), "all seeds get the same noise"),
    (4, START, START.replace("shape, ", "shape[1:], ").replace("=device)", "=device).expand(shape)"),
     "all seeds start at rows of the same numbers"),
    (4, "noise = torch.randn(*shape, act_dim, device=device)\n        actions, _ = agent",
     "noise = torch.randn(1, shape[1], act_dim).expand(*shape, -1)\n        actions, _ = agent",
     "for each step, rollout and seed"),
    (5, "(targets - self.target_mean) / self.target_std",
     "(targets - self.target_mean[:1]) / self.target_std[:1]", "another seed's statistics"),
    (5, TOWARDS, "prediction = prediction * self.target_std[:1] + self.target_mean[:1]",
     "another seed's statistics"),
    # Shapes that the real file has, and no other
    (3, "next_obs, rewards = model.to_transition(holdout.obs, mean)\n",
     "parts = [model.to_transition(holdout.obs[k], mean[k]) for k in range(len(mean))]\n"
     "    next_obs, rewards = (torch.stack(x) for x in zip(*parts))\n", "yours has 3 axes"),
    (4, "next_obs, rewards = self.to_transition(obs.unsqueeze(1), prediction)\n"
     "        return next_obs.squeeze(1), rewards.squeeze(1)",
     "return self.to_transition(obs, prediction.squeeze(1))", "yours has 3 axes"),
    (5, "return next_obs, prediction[..., -1]", "return next_obs, prediction[..., -1].squeeze()",
     "rewards must have the shape"),
    (5, "return next_obs, prediction[..., -1]", "return next_obs, prediction[..., -1:]",
     "rewards must have the shape"),
    # In place
    (1, "inputs = torch.cat([obs, actions], dim=-1)\n        mean",
     "inputs = torch.cat([obs, actions], dim=-1)\n"
     "        obs /= self.input_std[..., : obs.shape[-1]]\n        mean", "forward changes what it is given"),
    (1, SQUARED, f"{SQUARED}\n        batch.rewards.zero_()", "update changes what it is given"),
    (2, "(predicted - real).square()", "predicted.sub_(real).square()", "r2 changes what it is given"),
    (2, "loss = (network(x) - y).square().mean()\n    (gr",
     "loss = y.sub_(network(x)).square().mean()\n    (gr",
     "gradient_norms changes what it is given"),
    (2, "    network = make_network()\n    opt",
     "    x /= 2\n    x_test = x_test / 2\n    network = make_network()\n    opt",
     "fit changes what it is given"),
    (3, FIT, f"{FIT}\n    buffer.data.rewards.mul_(2)", "train_model changes what it is given"),
    (3, "return holdout_mse", "holdout.rewards.mul_(2)\n    return holdout_mse",
     "choose_elites changes what it is given"),
    (3, "(holdout.next_obs - holdout.obs).var", "holdout.next_obs.sub_(holdout.obs).var",
     "evaluate_model changes what it is given"),
    (4, "return next_obs.squeeze(1), rewards.squeeze(1)",
     "obs.copy_(next_obs.squeeze(1))\n        return obs, rewards.squeeze(1)",
     "sample changes what it is given"),
    (4, "    obs = draw_real_obs()\n", "    obs = draw_real_obs()\n    buffer.data.rewards.mul_(2)\n",
     "imagine changes what it is given"),
    (4, RESTART, "next_obs[terminals] = draw_real_obs()[terminals]\n        obs = next_obs",
     "the Batch returned is not the one stored"),
    (5, "targets = self.raw_targets(batch)\n        if", "targets = self.raw_targets(batch)\n"
     "        batch.rewards.sub_(1)\n        if", "targets changes what it is given"),
    (5, TOWARDS, "prediction *= self.target_std\n            prediction += self.target_mean",
     "to_transition changes what it is given"),
    (5, "std, mean = torch.std_mean(inputs", "batch.obs.sub_(1)\n        std, mean = torch.std_mean(inputs",
     "fit_normalizers changes what it is given"),
]  # fmt: skip


@pytest.mark.parametrize("n,right,wrong,phrase", WRONG, ids=[f"{n}: {phrase}" for n, *_, phrase in WRONG])
def test_a_typical_wrong_answer_gets_a_hint_that_names_it(n, right, wrong, phrase, monkeypatch):
    file = "toy" if n == 2 else "ftfl"
    assert REAL[file].count(right) == 1
    load(file, REAL[file].replace(right, wrong), monkeypatch)
    started = time.process_time()  # not the clock on the wall: other processes may run beside this one
    results = run_exercise(n)
    assert time.process_time() - started < 15
    *before, hint = results.values()
    assert phrase in hint and not any(before), results


def test_what_no_check_of_a_single_function_sees_shows_in_a_short_run(monkeypatch, tmp_path):
    checks, out = importlib.import_module("checks.exercise_5"), blank.make(tmp_path / "out", solved=True)
    monkeypatch.setattr(common, "FOLDER", out)
    load("ftfl", REAL["ftfl"], monkeypatch, out)
    assert common.run_check(checks.whole_run) == ""
    right = "return next_obs, prediction[..., -1]"
    wrong = REAL["ftfl"].replace(right, f"return (x.double() for x in ({right[7:]}))")
    load("ftfl", wrong, monkeypatch, out)
    wrong = common.run_check(checks.whole_run)
    assert "with --num-seeds 1, your code raised RuntimeError" in wrong and "dtype" in wrong


# ---------------------------------------- Right answers, written in another way
OTHERWISE = {
    "Ensemble.forward": '''
def forward(self, obs, actions):
    """With names of its own, and softplus as a log of a sum of exponentials."""
    state_and_action = torch.concatenate((obs, actions), dim=obs.dim() - 1)
    out = self.net((state_and_action - self.input_mean) * (1 / self.input_std))
    n = out.shape[-1] // 2
    v = out[..., n:]
    zero = torch.zeros(())
    v = self.min_logvar + torch.logaddexp(v - self.min_logvar, zero)
    v = self.max_logvar - torch.logaddexp(self.max_logvar - v, zero)
    return out[..., :n], v
''',
    "Ensemble.update": '''
def update(self, batch):
    """Network by network."""
    mu, lv = self(batch.obs, batch.actions)
    y = self.targets(batch)
    names = ("nll", "mse_loss", "variance_loss")
    table, total = {name: torch.zeros(mu.shape[:2]) for name in names}, 0.0
    for s in range(mu.shape[0]):
        for n in range(mu.shape[1]):
            precision, weight = 1 / torch.exp(lv[s, n]), torch.exp(lv[s, n].detach()) ** self.nll_beta
            errors = (mu[s, n] - y[s, n]) ** 2 * precision
            mse, var = torch.mean(errors), torch.mean(lv[s, n])
            total = total + torch.mean(errors * weight) + torch.mean(lv[s, n] * weight)
            for name, value in zip(names, (mse + var, mse, var)):
                table[name][s, n] = value.item()
    total = total + 0.01 * torch.sum(self.max_logvar) - 0.01 * torch.sum(self.min_logvar)
    self.optimizer.minimize(total)
    return {f"model/{name}": x for name, x in table.items()}
''',
    "split_rows": '''
def split_rows(args, size):
    """numpy, seed by seed, block by block."""
    train, held = [], []
    for k in range(args.num_seeds):
        rng = np.random.default_rng([args.seed, k])
        train.append([])
        held.append([])
        for block in range(size // 5):
            chosen = int(rng.integers(5))
            for i in range(5):
                (held if i == chosen else train)[k].append(5 * block + i)
    return torch.tensor(train), torch.tensor(held)
''',
    "train_model": '''
def train_model(model, buffer, args):
    """Bootstraps as lists of numpy arrays; transitions are read from the buffer's data itself."""
    train, held_out = split_rows(args, buffer.size)
    seeds, networks = args.num_seeds, args.ensemble_size

    def at(rows):  # (seeds, n, rows)
        return Batch(*(torch.stack([x[k][rows[k]] for k in range(seeds)]) for x in buffer.data))

    model.fit_normalizers(at(train[:, None]))
    n = train.shape[1]
    own = [[train[k][np.random.randint(n, size=n)] for _ in range(networks)] for k in range(seeds)]
    for _ in range(args.model_train_steps):
        rows = [
            torch.stack([x[np.random.permutation(n)[: args.model_batch_size]] for x in own[k]])
            for k in range(seeds)
        ]
        logs = model.update(at(torch.stack(rows)))
    chosen = np.random.default_rng(7).permutation(held_out.shape[1])[:5000]
    judges = at(held_out[:, None, chosen])
    logs.update({"model/holdout_mse": choose_elites(model, judges)})
    logs.update(evaluate_model(model, judges))
    return logs
''',
    "choose_elites": '''
@torch.no_grad()
def choose_elites(model, holdout):
    """numpy, seed by seed."""
    error = ((model(holdout.obs, holdout.actions)[0] - model.targets(holdout)) ** 2).numpy().mean((2, 3))
    for k in range(len(error)):
        for i, network in enumerate(np.argsort(error[k])[: model.elites.shape[1]]):
            model.elites[k, i] = int(network)
    return torch.tensor(error)
''',
    "evaluate_model": '''
@torch.no_grad()
def evaluate_model(model, holdout):
    """numpy, seed by seed, with the std by its formula."""
    mean, logvar = model(holdout.obs, holdout.actions)
    next_obs, rewards = model.to_transition(holdout.obs, mean)
    next_obs, rewards = next_obs.numpy(), rewards.numpy()
    std = (torch.exp(logvar / 2) * torch.where(model.target_is_constant, 0, model.target_std)).numpy()
    names = ["model/reward_r2", "model/next_state_r2", "model/predicted_std"]
    names += ["rewards/real", "rewards/synthetic", "rewards/synthetic_std"]
    rows = {name: [] for name in names}
    for k in range(len(rewards)):
        elites = model.elites[k].numpy()
        real, s, s2 = (x[k, 0].numpy() for x in (holdout.rewards, holdout.obs, holdout.next_obs))
        r2 = 1 - ((rewards[k, elites] - real) ** 2).mean() / real.var(ddof=1) if np.ptp(real) else np.nan
        rows["model/reward_r2"].append(r2)
        scores = []
        for j in range(s.shape[1]):
            if (variance := (s2 - s)[:, j].var(ddof=1)) > 1e-8:
                scores.append(1 - ((next_obs[k, elites, :, j] - s2[:, j]) ** 2).mean() / variance)
        rows["model/next_state_r2"].append(np.sort(scores)[(len(scores) - 1) // 2])
        rows["model/predicted_std"].append(std[k, elites])
        rows["rewards/real"].append(real)
        rows["rewards/synthetic"].append(rewards[k, elites])
        rows["rewards/synthetic_std"].append(std[k, elites, :, -1])
    return {name: torch.tensor(np.array(x)) for name, x in rows.items()}
''',
    "Ensemble.sample": '''
def sample(self, obs, actions):
    """Row by row, with numpy's random numbers."""
    mean, logvar = self(obs[:, None], actions[:, None])
    z = torch.empty(obs.shape[0], 1, obs.shape[1], mean.shape[-1])
    for k in range(obs.shape[0]):
        for row in range(obs.shape[1]):
            i = int(self.elites[k, np.random.randint(self.elites.shape[1])])
            noise = torch.as_tensor(np.random.standard_normal(z.shape[-1]), dtype=torch.float32)
            z[k, 0, row] = mean[k, i, row].detach() + noise * logvar[k, i, row].detach().exp().sqrt()
    s, r = self.to_transition(obs[:, None], z)
    return s[:, 0], r[:, 0]
''',
    "imagine": '''
@torch.no_grad()
def imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args):
    """One rollout after the other."""
    first, last, begin, end = [int(x) for x in args.rollout_schedule.split(":")]
    share = min(max((step - begin) / (end - begin), 0), 1)
    length, ends = int(first + share * (last - first)), []

    def real_state():
        rows = np.random.randint(buffer.size, size=args.num_seeds)
        return torch.stack([buffer.data.obs[k, row] for k, row in enumerate(rows)])

    for _ in range(args.rollouts_per_step):
        s = real_state()
        for _ in range(length):
            z = torch.randn(args.num_seeds, 1, buffer.data.actions.shape[-1])
            a, _ = agent.actor.sample(s[:, None], z)
            s2, r = model.sample(s[:, None], a)
            over = is_terminal(s2)
            batch = Batch(s[:, None], a, r, s2, over * 1.0)
            synthetic_buffer.add(batch)
            s, fresh = s2[:, 0].clone(), real_state()
            for k in range(args.num_seeds):
                if over[k, 0]:
                    s[k] = fresh[k]
        ends.append(batch)
    return Batch(*(torch.cat(xs, 1) for xs in zip(*ends)))
''',
    "Ensemble.targets": '''
def targets(self, batch):
    """Column by column."""
    y = self.raw_targets(batch).clone()
    if not self.normalize:
        return y
    for k in range(len(y)):
        for j in range(y.shape[-1]):
            y[k, ..., j] -= float(self.target_mean[k, 0, 0, j])
            y[k, ..., j] /= float(self.target_std[k, 0, 0, j])
    return y
''',
    "Ensemble.to_transition": '''
def to_transition(self, obs, prediction):
    """With an early return and slices from the other end."""
    back, n = prediction, obs.shape[-1]
    if self.normalize:
        back = self.target_mean + self.target_std * (~self.target_is_constant) * prediction
    if self.direct:
        return back[..., :n], back[..., n]
    return torch.add(back[..., :n], obs), back[..., n]
''',
    "Ensemble.fit_normalizers": '''
def fit_normalizers(self, batch):
    """numpy, seed by seed, with the other definition of the std."""
    for k in range(len(batch.obs)):
        x = np.concatenate([batch.obs[k, 0].numpy(), batch.actions[k, 0].numpy()], 1).astype(np.float64)
        y = self.raw_targets(batch)[k, 0].numpy().astype(np.float64)
        std = x.std(0)
        std[std < STD_FLOOR] = 1
        self.input_mean[k, 0, 0], self.input_std[k, 0, 0] = torch.as_tensor(x.mean(0)), torch.as_tensor(std)
        if self.normalize:
            std = y.std(0)
            self.target_mean[k, 0, 0] = torch.as_tensor(y.mean(0))
            self.target_std[k, 0, 0] = torch.as_tensor(np.where(std < STD_FLOOR, 1, std))
            self.target_is_constant[k, 0, 0] = torch.as_tensor(std < STD_FLOOR)
''',
}
TOY_OTHERWISE = {
    "r2": '''
def r2(predicted, real):
    """Target by target."""
    scores = []
    for p, y in zip(predicted.T, real.T):
        scores.append(1 - ((p - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return torch.stack(scores)
''',
    "gradient_norms": '''
def gradient_norms(network, x, y):
    """With backward."""
    network.zero_grad()
    nn.functional.mse_loss(network(x), y).backward()
    return torch.stack([row.norm() for row in network[-1].weight.grad])
''',
    "fit": '''
def fit(x, y, x_test, unit_variance, steps=1_000):
    """With copies of the targets, and shuffled indices."""
    center, scale = torch.zeros(6), torch.ones(6)
    if unit_variance:
        scale, center = torch.std_mean(y, dim=0)
    z, net = (y - center) / scale, make_network()
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        i = torch.randperm(len(x))[:64]
        adam.zero_grad()
        nn.functional.mse_loss(net(x[i]), z[i]).backward()
        adam.step()
    with torch.no_grad():
        return center + scale * net(x_test)
''',
}  # fmt: skip


@pytest.mark.parametrize("n", MINE)
def test_right_answers_written_in_another_way_pass(n, monkeypatch):
    for file, answers in (("ftfl", OTHERWISE), ("toy", TOY_OTHERWISE)):
        text = REAL[file]
        for name, new in answers.items():
            text = with_function(text, name, new).replace(
                "@torch.no_grad()\n@torch.no_grad()", "@torch.no_grad()"
            )
        load(file, text, monkeypatch)
    results = run_exercise(n)
    assert not any(results.values()), results


# ---------------------------------------- Variants
STUDENTS = ("Ada Lovelace", "Sofia Kovalevskaya", "Emmy Noether")


@pytest.mark.parametrize("student", STUDENTS)
def test_a_variant_is_solved_by_its_own_solution_and_not_by_the_plain_one(student, tmp_path, monkeypatch):
    out = blank.make(tmp_path / "out", student=student)
    blanked = (out / "ftfl.py").read_text()
    assert blanked.count("Your variant: ") == 5, "what differs is in the docstrings of the blanked functions"
    variant = json.loads((out / "variant.json").read_text())
    assert variant == variants.variant_of(f"  {student.upper()} ")
    first, second = variant.pop("bugs")
    assert first < second and {first, second} <= set(variants.LETTERS)
    assert variant.keys() == common.PLAIN.keys()
    assert all(variant[key] != common.PLAIN[key] for key in variant)
    monkeypatch.setattr(common, "FOLDER", out)
    load("ftfl", variants.solve(REAL["ftfl"], variant), monkeypatch, out)
    for n in (1, 3, 4, 5):
        assert not any((results := run_exercise(n)).values()), results
    load("ftfl", REAL["ftfl"], monkeypatch, out)
    wrong = list(run_exercise(1, until_wrong=False).values())
    assert f"the bounds must be {variant['min_logvar']}" in wrong[1]
    assert any(f"is not {variant['bounds_weight']} times the sum" in hint for hint in wrong), wrong
    wrong = list(run_exercise(4, until_wrong=False).values())
    assert any(f"{variant['noise']} times the std" in hint for hint in wrong), wrong
    wrong = list(run_exercise(5, until_wrong=False).values())
    assert any("your variant" in hint for hint in wrong), wrong
    # Only the one body is the plain one: the hint says what the variant asks
    solved = variants.solve(REAL["ftfl"], variant)
    c = variant["residual"]
    load("ftfl", solved.replace(f"next_obs = {c} * obs + ", "next_obs = obs + "), monkeypatch, out)
    assert f"{c} s must be added back" in list(run_exercise(5).values())[-1]
    load(
        "ftfl",
        solved.replace(variants.INSTEAD[variant["normalization"]], variants.STATISTICS),
        monkeypatch,
        out,
    )
    wrong = list(run_exercise(5).values())[-1]
    assert "your variant asks for" in wrong or "middle of smallest and largest" in wrong, wrong


def test_a_list_of_names_makes_a_folder_each(tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffAda Lovelace\r\n\n  Emmy Nöther".encode())  # no last newline
    command = [sys.executable, str(COURSEWORK / "blank.py"), "folders", "--names", "names.txt"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "folders").iterdir()) == ["Ada Lovelace", "Emmy Nöther"]
    for folder in (tmp_path / "folders").iterdir():
        assert json.loads((folder / "variant.json").read_text()) == variants.variant_of(folder.name)


def test_variants_differ_between_students():
    names = [f"student {i}" for i in range(100)]
    found = [variants.variant_of(name) for name in names]
    letters = ["".join(variant.pop("bugs")) for variant in found]
    keys = ("normalization", "residual", "bounds_weight", "noise")
    many = [variants.variant_of(f"student {i}") for i in range(5_000)]
    assert len({tuple(variant[key] for key in keys) for variant in many}) == 256, "in what a student writes"
    assert len(set(letters)) > 50 and set("".join(letters)) == set(variants.LETTERS), "91 pairs of 14"
    assert variants.LETTERS == "".join(json.loads((COURSEWORK / "data/bugs/key.json").read_text())["letters"])
    assert {variants.variant_of(name)["normalization"] for name in STUDENTS} == set(variants.NORMALIZATIONS)


# ---------------------------------------- Data and handout
def test_the_data_are_what_the_command_makes(tmp_path, monkeypatch):
    path = COURSEWORK / "data" / "humanoid_stand.npz"
    assert path.stat().st_size < 1e6
    monkeypatch.setattr(make_data, "ROWS", 60)
    with np.load(path) as file, np.load(make_data.main(tmp_path / "new" / "data.npz")) as new:
        assert file["obs"].shape == (3000, 67) and file["actions"].shape == (3000, 21)
        for name in ("obs", "actions", "rewards", "next_obs", "terminations"):
            assert np.allclose(file[name][:60].astype(float), new[name].astype(float), rtol=1e-2, atol=1e-2)
        assert str(file["env_id"]) == str(new["env_id"]) == "dm_control/humanoid-stand-v0"


def test_the_model_study_runs_in_the_students_folder(tmp_path):
    out = blank.make(tmp_path / "out", solved=True)
    assert "mbpo.py" not in {path.name for path in out.iterdir()}
    command = "model_study.py --buffer data/humanoid_stand.npz --steps 2 --model-hidden-dim 8 --run-dir runs"
    run = subprocess.run([sys.executable, *command.split()], cwd=out, capture_output=True, text=True)
    assert run.returncode == 0 and "reward R2" in run.stdout, run.stderr
    assert "benchmark/" not in (out / "model_study.py").read_text()


def test_experiments_need_no_later_exercise(monkeypatch):
    """What noise, leak and horizon do with the model, where exercises 5 and 6 are not yet written."""
    later = {n: place.split(":")[1] for n, place in blank.EXERCISES.items() if n[0] in "56"}
    load("ftfl", blank.blank(REAL["ftfl"], later), monkeypatch)
    load("toy", REAL["toy"], monkeypatch)
    import toy

    import ftfl

    args = ftfl.Args(ensemble_size=2, num_elites=1, model_hidden_dim=8, rollouts_per_step=10)
    args = dataclasses.replace(args, model_train_steps=3, model_batch_size=8)
    model, imagined = toy.raw_ensemble(3, 1, args), ftfl.ReplayBuffer(1, 10, 3, 1)
    obs, actions = torch.randn(50, 3), torch.zeros(50, 1)
    buffer = toy.make_buffer(ftfl.Batch(obs, actions, obs[:, 0], 2 * obs, torch.zeros(50)))
    assert ftfl.train_model(model, buffer, args)["model/nll"].isfinite().all()
    never = lambda s: torch.zeros(s.shape[:-1], dtype=torch.bool)  # noqa: E731
    ftfl.imagine(ftfl.SAC(3, 1, args), model, buffer, imagined, never, 0, args)
    targets = model.targets(buffer.data)[0]
    assert torch.equal(targets, torch.cat([2 * obs, obs[:, :1]], 1)), "the next state and the reward"
    with pytest.raises(NotImplementedError, match="exercise 6a"):
        ftfl.Ensemble(3, 1, args).raw_targets(buffer.data)


def test_the_handouts_commands_have_flags_that_are_there_and_name_the_cpu(tmp_path):
    import model_study
    import tyro

    text = (blank.make(tmp_path / "out") / "HANDOUT.md").read_text()
    commands = re.findall(r"python ((?:ftfl|model_study)\.py .*)", text)
    assert len(commands) == 5
    for command in commands:
        script, *words = command.split()
        args = ftfl.parse_args(words) if script == "ftfl.py" else tyro.cli(model_study.Args, args=words)
        assert args.device == "cpu", command


def test_there_is_a_place_for_each_answer_in_words():
    handout = "".join((COURSEWORK / name).read_text() for name in ("HANDOUT.md", "HANDOUT_6_8.md"))
    exercises = [part for part in handout.split("## Exercise ")[1:] if "**Question" in part]
    places = (COURSEWORK / "ANSWERS.md").read_text().split("## Exercise ")[1:]
    assert [part[0] for part in exercises] == [part[0] for part in places] == list("12345678")
    rubric = (COURSEWORK / "instructor/RUBRIC.md").read_text()
    assert all("\n- 2: " in part for part in rubric.split("## Exercise ")[1:]), "two points each"


def test_the_handout_names_what_is_there(tmp_path):
    text = (blank.make(tmp_path / "out") / "HANDOUT.md").read_text()
    assert all(f"## Exercise {n}" in text for n in range(1, 9)) and "follow -->" not in text
    for n in MINE:
        assert f"## Exercise {n}" in text and f"python check.py {n}" in text
    for number, place in blank.EXERCISES.items():
        assert f"**{number}**" in text and place.split(":")[1].split(".")[-1] in text
    for experiment in ("noise", "mismatch", "leak", "horizon", "tun"):
        assert f"python toy.py {experiment}" in text
    logged = (tmp_path / "out/LOGS.md").read_text()
    assert logged.startswith("# What is logged") and "| model/next_state_r2 | per dimension" in logged
    assert "LOGS.md" in text and "README" not in text, "a student has no README"
