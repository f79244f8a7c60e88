"""Coursework, exercises 6 to 8: the planted bugs and their logs, the checks, and what the instructor gets."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils.tensorboard import SummaryWriter

import ftfl

COURSEWORK = ROOT / "coursework"
sys.path[:0] = [str(COURSEWORK / "instructor"), str(COURSEWORK / "checks"), str(COURSEWORK)]
import bugs  # noqa: E402
import make_logs  # noqa: E402
import slides  # noqa: E402
from bug_logs import answer_hash, gaps, read_log  # noqa: E402
from checks import common  # noqa: E402

LETTERS = bugs.letters()
IDS = [bug.id for bug in bugs.BUGS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A student's folder as the current one, with the data and plots.py."""
    shutil.copytree(COURSEWORK / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def exercise():
    """exercise(6) is the module of the checks of exercise 6."""

    def load(number, hidden=False):
        path = COURSEWORK / ("instructor/hidden" if hidden else "checks") / f"exercise_{number}.py"
        spec = importlib.util.spec_from_file_location(f"exercise_{number}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def hint_of(function):
    """The text of the hint that a check gives."""
    with pytest.raises(Exception) as caught:
        function()
    assert type(caught.value).__name__ == "Hint", repr(caught.value)
    return str(caught.value)


def write(name, content):
    Path(name).write_text(json.dumps(content))


# ---------------------------------------- Exercise 7: bugs and logs
@pytest.mark.parametrize("bug", bugs.BUGS, ids=IDS)
def test_bug_is_one_replacement_that_compiles(bug):
    text = bugs.variant(bug)
    assert text != bugs.SCRIPT.read_text()
    compile(text, f"{bug.id}.py", "exec")
    with pytest.raises(ValueError, match=bug.id):  # it does not stand there any more
        bugs.variant(bug, bugs.SCRIPT.read_text().replace(bug.old, ""))


def test_there_are_14_bugs_of_different_names():
    assert len(bugs.BUGS) >= 14
    assert len(set(IDS)) == len(IDS)
    assert [bug.id for bug in LETTERS.values()] != sorted(IDS)
    assert sorted(LETTERS) == [chr(ord("A") + i) for i in range(len(IDS))]


@pytest.mark.parametrize("id", ["reward_not_scaled_back", "second_critic_untrained"])
def test_variant_runs_and_logs(id, tmp_path):
    """A short run of two variants, and the log that make_logs would write of it."""
    bug = next(bug for bug in bugs.BUGS if bug.id == id)
    short = [
        "--total-timesteps",
        "60",
        "--learning-starts",
        "50",
        "--log-interval",
        "5",
        "--eval-interval",
        "60",
    ]
    rows = make_logs.train(
        bugs.variant(bug), *short, "--model-train-steps", "5", "--num-seeds", "2", "--critic-lr", "0.1"
    )
    make_logs.write_log(tmp_path / "X.csv", rows)
    log = read_log(tmp_path / "X.csv")
    assert set(bug.tags) <= set(log)
    assert set(log) == set(read_log(bugs.LOGS / "correct.csv"))
    assert set(log["model/nll"]) == {1, 2}
    if id == "second_critic_untrained":  # with a huge learning rate Q1 runs away, and Q2 stays
        moved = [np.ptp(log[f"losses/qf{i}_values"][1][1]) for i in (1, 2)]
        assert moved[1] < 0.1 * moved[0], moved
    else:
        assert abs(log["rewards/synthetic"][1][1][0]) < 0.4 < log["rewards/real"][1][1][0]


@pytest.mark.parametrize("letter", LETTERS)
def test_shipped_log_betrays_its_bug(letter):
    log, correct = read_log(bugs.LOGS / f"{letter}.csv"), read_log(bugs.LOGS / "correct.csv")
    assert {k for seeds in log.values() for k in seeds} == {1, 2, 3}
    assert {k for seeds in correct.values() for k in seeds} == {1, 2, 3, 4, 5, 6}
    found = gaps(log, correct)
    for tag in LETTERS[letter].tags:
        assert max(found[tag].values()) > 0.25, (LETTERS[letter].id, tag, found[tag])


def test_shipped_files_are_those_of_make_logs(tmp_path):
    make_logs.write_key(tmp_path)
    for name in ("key.json", "descriptions.json", "flags.txt"):
        assert (tmp_path / name).read_text() == (bugs.LOGS / name).read_text(), f"{name}: make_logs.py --key"
    names = {path.name for path in bugs.LOGS.iterdir()}
    letters = {f"{letter}.csv" for letter in LETTERS}
    assert names == letters | {"correct.csv", "key.json", "descriptions.json", "flags.txt"}
    assert sum(path.stat().st_size for path in bugs.LOGS.iterdir()) < 1.5e6


def test_key_is_hashed_and_fits_the_bugs():
    key = json.loads((bugs.LOGS / "key.json").read_text())
    for letter, bug in LETTERS.items():
        assert key["letters"][letter]["bug"] == answer_hash(key["salt"], letter, bug.id)
        assert key["letters"][letter]["evidence"] == sorted(
            answer_hash(key["salt"], letter, bug.id, tag) for tag in bug.tags
        )
    for path in bugs.LOGS.glob("*.json"):
        text = path.read_text()
        assert not any(bug.how in text or bug.repair in text for bug in bugs.BUGS)
    assert not any(bug.id in (bugs.LOGS / "key.json").read_text() for bug in bugs.BUGS)


def right_answers(*letters):
    return {
        letter: {
            "bug": LETTERS[letter].id,
            "evidence": [LETTERS[letter].tags[0]],
            "repair": LETTERS[letter].repair,
        }
        for letter in letters
    }


def test_right_diagnoses_pass(folder, exercise):
    checks = exercise(7)
    write("answers.json", right_answers("A", "C"))
    write("variant.json", {"bugs": ["C", "A"]})
    for function in (checks.answers_are_there, checks.bugs_are_right, checks.evidence_is_right):
        function()


@pytest.mark.parametrize("letter", LETTERS)
def test_every_letter_has_a_right_answer(letter, folder, exercise):
    checks = exercise(7)
    write("answers.json", right_answers(letter, "A" if letter != "A" else "B"))
    checks.bugs_are_right()
    checks.evidence_is_right()


def test_wrong_diagnoses_get_hints(folder, exercise):
    checks = exercise(7)
    assert "there is no answers.json" in hint_of(checks.bugs_are_right)
    Path("answers.json").write_text('{"A": ')
    assert "no JSON" in hint_of(checks.answers_are_there)
    write("answers.json", right_answers("A"))
    assert "two logs" in hint_of(checks.answers_are_there)

    wrong = right_answers("A", "B")
    wrong["A"]["bug"] = LETTERS["B"].id
    write("answers.json", wrong)
    text = hint_of(checks.bugs_are_right)
    assert "A.csv shows another bug" in text and LETTERS["A"].id not in text
    assert "first find the right bug" in hint_of(checks.evidence_is_right)
    for letter, bug in LETTERS.items():
        groups = {tag.split("/")[0] for tag in bug.tags}
        assert checks.differs_most(letter) in groups, f"{letter}: the hint leads to no evidence"
    wrong["A"]["bug"] = "all of it"
    write("answers.json", wrong)
    assert "descriptions.json" in hint_of(checks.answers_are_there)

    wrong = right_answers("A", "B")
    wrong["B"]["evidence"] = ["losses/no_such_thing"]
    write("answers.json", wrong)
    assert "not a tag" in hint_of(checks.answers_are_there)
    wrong["B"]["evidence"] = sorted(read_log(bugs.LOGS / "B.csv"))
    write("answers.json", wrong)
    assert "three tags of evidence at most" in hint_of(checks.answers_are_there)
    wrong["B"]["evidence"] = [t for t in wrong["B"]["evidence"] if t not in LETTERS["B"].tags][:3]
    wrong["B"]["evidence"] += LETTERS["B"].tags
    write("answers.json", wrong)
    assert "B: " in hint_of(checks.evidence_is_right), "more than three do not count"
    wrong["B"]["evidence"] = []
    write("answers.json", wrong)
    assert "must be a list of logged tags" in hint_of(checks.answers_are_there)
    wrong = right_answers("A", "B")
    wrong["B"]["repair"] = "fix it"
    write("answers.json", wrong)
    assert '"repair"' in hint_of(checks.answers_are_there)

    write("answers.json", right_answers("A", "B"))
    write("variant.json", {"bugs": ["C", "A"]})
    assert "your letters are C and A, and C is missing" in hint_of(checks.answers_are_there)


def test_evidence_that_betrays_nothing_gets_a_hint(folder, exercise):
    checks = exercise(7)
    found = gaps(read_log(bugs.LOGS / "A.csv"), read_log(bugs.LOGS / "correct.csv"))
    inside = min(found, key=lambda tag: max(found[tag].values()))
    wrong = right_answers("A", "B")
    wrong["A"]["evidence"] = [inside]
    write("answers.json", wrong)
    assert "betrays nothing" in hint_of(checks.evidence_is_right)
    wrong["A"]["evidence"] = [inside, LETTERS["A"].tags[-1]]  # one that betrays it is enough
    write("answers.json", wrong)
    checks.evidence_is_right()


def test_drawing_of_a_log(folder):
    command = [sys.executable, "data/compare.py", "A", "--tags", "losses/alpha", "model/nll"]
    subprocess.run(command, check=True)
    assert Path("A.png").stat().st_size > 5_000
    wrong = subprocess.run([sys.executable, "data/compare.py", "correct"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "name one of the logs" in wrong.stderr


# ---------------------------------------- Exercise 6
@pytest.fixture
def models(monkeypatch):
    """A way to set Ensemble.raw_targets."""
    return lambda function: monkeypatch.setattr(ftfl.Ensemble, "raw_targets", function)


def test_right_raw_targets_pass(exercise, models):
    checks = exercise(6)
    checks.raw_targets()

    def otherwise(self, batch):  # another way
        state = batch.next_obs.clone()
        if not self.direct:
            state -= batch.obs
        result = torch.empty(*state.shape[:-1], state.shape[-1] + 1)
        result[..., :-1], result[..., -1] = state, batch.rewards
        return result

    models(otherwise)
    checks.raw_targets()


WRONG_TARGETS = {
    "it must be last": lambda self, b: torch.cat([b.rewards[..., None], b.next_obs], -1),
    "look at self.direct": lambda self, b: torch.cat([b.next_obs - b.obs, b.rewards[..., None]], -1),
    "the wrong sign; it is s' - s": lambda self, b: torch.cat(
        [b.next_obs if self.direct else b.obs - b.next_obs, b.rewards[..., None]], -1
    ),
    "swapped": lambda self, b: torch.cat(
        [b.next_obs - b.obs if self.direct else b.next_obs, b.rewards[..., None]], -1
    ),
    "not changed": lambda self, b: torch.cat(
        [b.next_obs if self.direct else b.next_obs - b.obs, b.rewards[..., None] / 10], -1
    ),
    "must have the shape": lambda self, b: b.next_obs,
    "the state that the model sees already": lambda self, b: torch.cat([b.obs, b.rewards[..., None]], -1),
    "changes what it is given": lambda self, b: torch.cat(
        [b.next_obs if self.direct else b.next_obs.sub_(b.obs), b.rewards[..., None]], -1
    ),
}


def test_variant_of_the_residual_target(folder, exercise, models):
    write("variant.json", {"residual": 0.9})
    checks = exercise(6)
    assert "in your variant it is s' - 0.9 s" in hint_of(checks.raw_targets)
    assert "is wrong for a batch" in hint_of(exercise(6, hidden=True).hidden_raw_targets)
    models(
        lambda self, b: torch.cat(
            [b.next_obs if self.direct else b.next_obs - 0.9 * b.obs, b.rewards[..., None]], -1
        )
    )
    checks.raw_targets()
    exercise(6, hidden=True).hidden_raw_targets()


@pytest.mark.parametrize("words", WRONG_TARGETS)
def test_wrong_raw_targets_get_a_hint(words, exercise, models):
    models(WRONG_TARGETS[words])
    assert words in hint_of(exercise(6).raw_targets)


def test_predictions_come_first(folder, exercise):
    args = ftfl.Args(seed=1, env_id="HalfCheetah-v5", run_dir="runs/as_named")
    (named,) = ftfl.make_run_dirs(args)
    assert abs(int(named.name.rsplit("__", 1)[-1]) / 1e9 - time.time()) < 60, "in nanoseconds"
    checks = exercise(6)
    assert "there is no predictions.json" in hint_of(checks.predicted_first)
    right = {"ahead_at_1000": "residual", "ahead_at_3000": "residual", "ahead_at_20000": "direct"}
    right["because"] = "it must learn to copy first"
    write("predictions.json", right | {"ahead_at_1000": "direct or residual"})
    assert '"ahead_at_1000" must be' in hint_of(checks.predicted_first)
    write("predictions.json", right | {"because": "so"})
    assert "because" in hint_of(checks.predicted_first)
    write("predictions.json", right)
    checks.predicted_first()

    written = Path("predictions.json").stat().st_mtime
    for seconds, late in ((100, False), (-100, True)):
        run = Path(f"runs/exercise6/HalfCheetah-v5__ftfl__1__{int(1e9 * (written + seconds))}")
        run.mkdir(parents=True)
        (run / "args.json").write_text("{}")
        if late:
            assert "younger than your runs" in hint_of(checks.predicted_first)
        else:
            checks.predicted_first()


def right_findings(checks):
    steps, average = checks.means(checks.read_runs())
    table = {name: [values[list(steps).index(b)] for b in checks.BUDGETS] for name, values in average.items()}
    text = "it holds up to a budget of some thousand gradient steps on this task"
    return {
        "next_state_r2": table,
        "crossing": checks.crossing(steps, average),
        "hint": text,
        "paper": text,
    }


def test_findings_from_the_shipped_log(folder, exercise):
    checks = exercise(6)
    right = right_findings(checks)
    ahead = np.array(right["next_state_r2"]["direct"]) > right["next_state_r2"]["residual"]
    assert ahead.tolist() == [True, False, True]
    assert right["crossing"] == 7_500
    write("findings.json", right)
    checks.findings()

    table = right["next_state_r2"]
    rounded = {target: [round(value, 2) for value in values] for target, values in table.items()}
    write("findings.json", right | {"next_state_r2": rounded})
    checks.findings()
    last = {"direct": [*table["direct"][:2], table["residual"][2]], "residual": table["residual"]}
    write("findings.json", right | {"next_state_r2": last})
    assert "not the means" in hint_of(checks.findings), "0.981 and 0.973 are not the same"
    wrong = {
        "numbers of direct and residual are swapped": {
            "direct": table["residual"],
            "residual": table["direct"],
        },
        "wrong order": table | {"residual": table["residual"][::-1]},
        "not the means": table | {"residual": [0.3, 0.2, 0.1]},
        "three numbers each": {"direct": table["direct"]},
    }
    for words, content in wrong.items():
        write("findings.json", right | {"next_state_r2": content})
        assert words in hint_of(checks.findings)
    write("findings.json", right | {"crossing": None})
    assert "direct is ahead" in hint_of(checks.findings)
    write("findings.json", right | {"crossing": right["crossing"] + 5_000})
    assert "first step from which" in hint_of(checks.findings)
    write(
        "findings.json", right | {"hint": "the hint is simply wrong, because direct is the better one always"}
    )
    assert "for which budget" in hint_of(checks.findings)


def write_run(name, values, **flags):
    """A run directory with these (step, value) per tag. Returns its name."""
    with SummaryWriter(name) as writer:
        for tag, points in values.items():
            for step, value in points:
                writer.add_scalar(tag, value, step)
    default = {"script": "ftfl", "env_id": "HalfCheetah-v5", "total_timesteps": 100, "gradient_steps": 100}
    (Path(name) / "args.json").write_text(json.dumps(default | {"model_study": "random"} | flags))
    return str(name)


def test_findings_from_own_runs(folder, exercise):
    checks = exercise(6)
    Path("plots.py").symlink_to(ROOT / "plots.py")
    curves = {"direct": [0.1, 0.3, 0.4, 0.6], "residual": [0.3, 0.32, 0.35, 0.5]}
    for k, (target, values) in enumerate(curves.items()):
        points = {checks.METRIC: list(zip((1_000, 3_000, 5_000, 20_000), values))}
        flags = {"next_state_prediction": target, "target_normalization": True, "gradient_steps": 20_000}
        write_run(f"runs/exercise6/HalfCheetah-v5__ftfl__1__{k}", points, seed=1, **flags)
    right = right_findings(checks)
    np.testing.assert_allclose(right["next_state_r2"]["direct"], [0.1, 0.3, 0.6], atol=1e-6)
    assert right["crossing"] == 5_000
    write("findings.json", right)
    checks.findings()
    shutil.rmtree("runs/exercise6/HalfCheetah-v5__ftfl__1__0")
    assert "no run of 20,000 gradient steps with direct" in hint_of(checks.findings)


# ---------------------------------------- Exercise 8
@pytest.fixture
def study(folder):
    """study(a, b) writes runs with these last values and returns a study.json that is right about them."""
    Path("plots.py").symlink_to(ROOT / "plots.py")

    def make(a, b, flags_a=None, flags_b=None):
        shutil.rmtree("runs", ignore_errors=True)
        names, arms = {}, {"A": (a, flags_a or {}), "B": (b, flags_b or {"utd_ratio": 4})}
        for arm, (values, flags) in arms.items():
            names[arm] = [
                write_run(
                    f"runs/{arm}{k}",
                    {"eval/episodic_return": [(50, 0.0), (100, value)]},
                    **{"utd_ratio": 1, "gamma": 0.99, "seed": k + 1, "model_study": ""} | flags,
                )
                for k, value in enumerate(values)
            ]
        from scipy.stats import bootstrap

        samples = (np.array(a), np.array(b))
        result = bootstrap(
            samples, lambda x, y, axis: x.mean(axis) - y.mean(axis), method="percentile", rng=7
        )
        low, high = result.confidence_interval
        return {
            "question": "Do more updates per step raise the return?",
            "metric": "eval/episodic_return",
            "difference": np.mean(a) - np.mean(b),
            "interval": [low, high],
            "conclusion": "A" if low > 0 else "B" if high < 0 else "cannot decide",
        } | names

    return make


def all_of_8(checks):
    functions = (checks.study_is_there, checks.arms_are_comparable, checks.numbers_are_right)
    for function in (*functions, checks.conclusion_agrees):
        function()


@pytest.mark.parametrize(
    "a, b, conclusion",
    [
        ([10.0, 11.0, 12.0], [5.0, 6.0, 4.0], "A"),
        ([5.0, 6.0, 4.0], [10.0, 11.0, 12.0, 10.5], "B"),
        ([5.0, 16.0, 4.0], [10.0, 11.0, 6.0], "cannot decide"),
    ],
)
def test_right_study_passes(a, b, conclusion, study, exercise):
    right = study(a, b)
    assert right["conclusion"] == conclusion
    write("study.json", right)
    all_of_8(exercise(8))


def test_wrong_studies_get_hints(study, exercise):
    checks = exercise(8)
    undecided = ([5.0, 16.0, 4.0], [10.0, 11.0, 6.0])
    assert "there is no study.json" in hint_of(checks.study_is_there)
    right = study(*undecided)
    low, high = right["interval"]
    wrong = [
        ({"A": right["A"][:2]}, checks.study_is_there, "fewer than 3 seeds"),
        ({"A": right["A"][:2] + right["A"][:1]}, checks.study_is_there, "is there twice"),
        ({"A": ["nowhere"] * 3}, checks.study_is_there, "no run directory"),
        ({"metric": "eval/nothing"}, checks.study_is_there, "is not logged"),
        ({"question": "UTD?"}, checks.study_is_there, "a sentence"),
        ({"difference": -right["difference"]}, checks.numbers_are_right, "wrong sign"),
        ({"difference": 3.0}, checks.numbers_are_right, "not that of the runs"),
        ({"interval": [high, low]}, checks.numbers_are_right, "lower end"),
        ({"interval": [low / 3, high / 3]}, checks.numbers_are_right, "narrower"),
        ({"interval": [2 * low, 2 * high]}, checks.numbers_are_right, "wider"),
        ({"interval": [4.0, 12.0]}, checks.numbers_are_right, "does not hold the difference"),
        ({"interval": 4.0}, checks.numbers_are_right, "a list of two"),
        ({"conclusion": "B"}, checks.conclusion_agrees, "the interval holds 0"),
        ({"conclusion": "no difference"}, checks.conclusion_agrees, '"conclusion" must be'),
    ]
    for change, function, words in wrong:
        write("study.json", right | change)
        assert words in hint_of(function)

    right = study([10.0, 11.0, 12.0], [5.0, 6.0, 4.0])
    write("study.json", right | {"conclusion": "cannot decide"})
    assert "do decide" in hint_of(checks.conclusion_agrees)
    write("study.json", right | {"conclusion": "B"})
    assert "the other side of 0" in hint_of(checks.conclusion_agrees)

    right = study([10.0, 11.0, 12.0, 3.0], [5.0, 6.0, 4.0])
    write("study.json", right | {"A": right["A"][:3]})
    assert "leaves out runs/A3, a finished run with its flags" in hint_of(checks.arms_are_comparable)
    write("study.json", right)
    checks.arms_are_comparable()
    write("study.json", study(*undecided, flags_b={"utd_ratio": 4, "gamma": 0.9}))
    assert "A and B differ in gamma, utd_ratio" in hint_of(checks.arms_are_comparable)
    write("study.json", study(*undecided, flags_b={"seed": 1}))
    assert "is there twice" in hint_of(checks.study_is_there)
    write("study.json", study(*undecided, flags_b={"utd_ratio": 1}))
    assert "nothing to compare" in hint_of(checks.arms_are_comparable)
    write("study.json", study(*undecided, flags_a={"total_timesteps": 200}))
    assert "has not finished" in hint_of(checks.study_is_there)


# ---------------------------------------- For the instructor
def test_bug_list_is_that_of_the_command():
    assert (COURSEWORK / "instructor" / "BUGS.md").read_text() == bugs.table(), "instructor/bugs.py writes it"


def test_variants_can_be_written(tmp_path):
    subprocess.run([sys.executable, COURSEWORK / "instructor" / "bugs.py", tmp_path], check=True)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(IDS)


def test_slides_are_written(tmp_path):
    slides.main(slides.Args(out=str(tmp_path)))
    for name in ("dataflow.pdf", "horizon.pdf"):
        assert (tmp_path / name).read_bytes().startswith(b"%PDF"), name
    assert (tmp_path / "taxonomy.pdf").exists() == slides.TAXONOMY.exists()


def test_rubric_has_all_exercises():
    text = (COURSEWORK / "instructor" / "RUBRIC.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## Exercise {n}" for n in range(1, 9)
    ]


@pytest.mark.parametrize("path", sorted((COURSEWORK / "instructor" / "hidden").glob("exercise_*.py")))
def test_hidden_checks_pass_on_the_real_script(path, exercise):
    module = exercise(path.stem.split("_")[1], hidden=True)
    functions = [x for x in vars(module).values() if hasattr(x, "check")]
    assert functions
    for function in functions:
        function()


def test_hidden_checks_catch_mistakes(exercise, monkeypatch, tmp_path):
    real = ftfl.Ensemble.raw_targets

    def in_place(self, batch):
        if not self.direct:
            batch.next_obs.sub_(batch.obs)
            return torch.cat([batch.next_obs, batch.rewards.unsqueeze(-1)], -1)
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ftfl.Ensemble, "raw_targets", in_place)
        assert "changes the batch" in hint_of(exercise(6, hidden=True).hidden_raw_targets)

    def reward_left(self, obs, prediction):
        y = prediction * self.target_std + self.target_mean
        return y[..., :-1] if self.direct else obs + y[..., :-1], prediction[..., -1]

    with monkeypatch.context() as patch:
        patch.setattr(ftfl.Ensemble, "to_transition", reward_left)
        assert "rewards do not come back" in hint_of(exercise(5, hidden=True).hidden_round_trip)

    start_anew = "obs = torch.where(terminals.unsqueeze(-1), draw_real_obs(), next_obs)"
    text = bugs.SCRIPT.read_text()
    assert start_anew in text
    (tmp_path / "past_the_end.py").write_text(text.replace(start_anew, "obs = next_obs"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ftfl", importlib.import_module("past_the_end"))
        assert "goes on from an imagined terminal" in hint_of(exercise(4, hidden=True).hidden_rollouts)
    sys.modules.pop("past_the_end")
    for k, wrong in enumerate(("0 * draw_real_obs()", "draw_real_obs().flip(0)")):
        start_wrong = start_anew.replace("draw_real_obs()", wrong)
        (tmp_path / f"restart_{k}.py").write_text(text.replace(start_anew, start_wrong))
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "ftfl", importlib.import_module(f"restart_{k}"))
            assert "the first is real" in hint_of(exercise(4, hidden=True).hidden_rollouts)
        sys.modules.pop(f"restart_{k}")
