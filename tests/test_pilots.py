"""benchmark/pilots.py: its rule on pilots made up, and one pilot of a few steps."""

import pilots
import pytest
import sweep


def made_up(lifted):
    return dict(random=50, after_5000=60, after_10000=80, after_25000=70 + lifted, after_30000=90 + lifted)


def test_a_lift_is_what_is_earned_above_both_the_random_policy_and_the_untrained_one():
    assert pilots.lift(made_up(100)) == 100
    assert pilots.lift(made_up(100) | {"random": 90}) == pilots.lift(made_up(100) | {"after_5000": 90}) == 90


def test_the_rule_takes_two_from_above_and_one_from_below_and_asks_for_no_pilot_more():
    tasks = ["a", "b", "c", "d", "e", "f"]  # by falling gap
    assert pilots.choose(tasks, {}) == ([], ["a", "f"])
    known = {"a": made_up(99), "f": made_up(100)}
    assert pilots.choose(tasks, known) == (["f"], ["b"])
    known |= {"b": made_up(300), "d": made_up(500)}
    assert pilots.choose(tasks, known) == (["b", "f"], ["c"])
    known |= {"c": made_up(0)}
    assert pilots.choose(tasks, known) == (["b", "d", "f"], [])


def test_a_task_is_not_chosen_from_both_ends():
    known = {"a": made_up(200), "b": made_up(200)}
    assert pilots.choose(["a", "b"], known) == (["a", "b"], [])


def test_a_task_known_to_be_hopeless_is_passed_over():
    tasks = ["dm_control/humanoid-walk-v0", "dm_control/dog-fetch-v0", "dm_control/walker-walk-v0"]
    assert pilots.choose(tasks, {}) == ([], ["dm_control/walker-walk-v0"] * 2)
    hopeless = [task for _, task in pilots.order() if pilots.is_hopeless(task)]
    assert len(hopeless) == len(pilots.PUBLIC_GAINS) + 5 and max(pilots.PUBLIC_GAINS.values()) < 20


def test_the_order_is_that_of_the_gap_in_the_taxonomy():
    tasks = dict((task, gap) for gap, task in pilots.order())
    assert (
        all(task.startswith("dm_control/") for task in tasks) and "dm_control/quadruped-walk-v0" not in tasks
    )
    gaps = list(tasks.values())
    assert gaps == sorted(gaps, reverse=True) and len(gaps) > 40
    columns = pilots.plots.read_taxonomy(pilots.ROOT / "benchmark/results/taxonomy.csv")[
        "dm_control/cheetah-run-v0"
    ]
    expected = pilots.plots.median(columns["ftfl_reward_r2"] - columns["mbpo_reward_r2"])
    assert tasks["dm_control/cheetah-run-v0"] == pytest.approx(float(expected))


def test_the_laptop_grid_has_the_tasks_that_the_pilots_choose():
    results = pilots.read(pilots.ROOT / "benchmark/results/pilots.csv")
    chosen, missing = pilots.choose([task for _, task in pilots.order()], results)
    in_anyway = {"InvertedPendulum-v5", "Hopper-v5", pilots.IN_ANYWAY}
    assert set(sweep.PRESETS["laptop"]["tasks"]) == in_anyway | set(chosen) and not missing


def test_a_pilot_is_run_once_and_its_line_is_what_the_run_logged(tmp_path, monkeypatch):
    flags = "--utd-ratio 1 --hidden-dim 8 --batch-size 8 --learning-starts 200 --total-timesteps 400"
    monkeypatch.setattr(pilots, "FLAGS", f"{flags} --eval-interval 100 --eval-episodes 1 --device cpu")
    monkeypatch.setattr(pilots, "EVALUATED", (100, 200, 300, 400))
    monkeypatch.setattr(pilots, "COLUMNS", ["env_id", "random", "a", "b", "c", "d"])
    task = "InvertedPendulum-v5"
    args = pilots.Args(env_ids=(task,), run_dir=str(tmp_path / "runs"), out=str(tmp_path / "pilots.csv"))
    pilots.main(args)
    (run_dir,) = (tmp_path / "runs" / task).glob("*/")
    scalars = pilots.plots.read_run_dir(run_dir).scalars
    ((found, pilot),) = pilots.read(args.out).items()
    assert found == task
    evaluations = scalars["eval/episodic_return"][1]
    assert [pilot[column] for column in "abcd"] == pytest.approx(evaluations, rel=1e-3)
    steps, episodes = scalars["charts/episodic_return"]
    assert pilot["random"] == pytest.approx(episodes[steps <= 200].mean(), rel=1e-3)
    assert episodes[steps <= 200].mean() != pytest.approx(episodes.mean(), rel=1e-3)
    monkeypatch.setattr(pilots, "run", None)  # not run again
    pilots.main(args)
    assert len(pilots.read(args.out)) == 1


@pytest.mark.parametrize(
    "flags", [{"env_ids": ("dm_control/cheeta-run-v0",)}, {"jobs": 0}], ids=["env-id", "jobs"]
)
def test_a_mistake_is_one_line_before_any_pilot(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pilots, "run", None)
    with pytest.raises(SystemExit) as error:
        pilots.main(pilots.Args(out=str(tmp_path / "out/pilots.csv"), **flags))
    (line,) = capsys.readouterr().err.splitlines()
    assert error.value.code == 2 and line.startswith("error: --") and not list(tmp_path.iterdir())
