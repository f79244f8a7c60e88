"""benchmark/taxonomy.py: its statistics on transitions made by hand, its table, and the figure of it."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import taxonomy
import torch
from conftest import ROOT
from test_environments import GYM_TASKS, SUITE

import ftfl
import plots


def batch(obs, next_obs, rewards):
    arrays = (np.array(x, dtype=np.float32) for x in (obs, next_obs, rewards))
    obs, next_obs, rewards = arrays
    return ftfl.Batch(
        obs, np.zeros((len(obs), 1), np.float32), rewards, next_obs, np.zeros(len(obs), np.float32)
    )


def test_statistics_of_transitions_made_by_hand():
    """Changes of +-2 and +-0.5 (variances 4 and 1/4), next states +-2 and +-1 (4 and 1), rewards 0 and 1."""
    next_obs = np.array([[2, 1, 7], [-2, 1, 7], [2, -1, 7], [-2, -1, 7]])
    change = np.array([[2, 0.5, 0], [-2, -0.5, 0], [2, -0.5, 0], [-2, 0.5, 0]])
    data = batch(next_obs - change, next_obs, [0, 0, 1, 1])
    found = taxonomy.statistics(data, velocities=np.array([False, True, True]))
    assert found["reward_share"] == pytest.approx(0.25 / (0.25 + 4 + 0.25))
    assert found["mismatch"] == pytest.approx(2 / 0.5)
    assert found["noise_median"] == pytest.approx((1 + 0.25) / 2)  # the third number is constant: no noise
    assert found["noise_q90"] == pytest.approx(0.25 + 0.9 * 0.75)
    assert found["noise_above_half"] == 0.5
    assert found["noise_velocity_median"] == found["noise_velocity_q90"] == pytest.approx(0.25)
    assert found["noise_velocity_above_half"] == 0
    assert (found["reward_mean"], found["reward_zero"]) == (0.5, 0.5)


def test_each_setting_is_judged_by_what_its_own_switches_imagine_of_rows_held_out(monkeypatch):
    """Models that know all rows by heart but those held out, whose rewards they imagine 2 to 5 times too
    high: how many times depends on the switches."""
    times = {(False, "residual"): 2, (True, "residual"): 3, (False, "direct"): 4, (True, "direct"): 5}
    settings = dict(zip(("mbpo", "tun", "dnp", "ftfl"), times.values(), strict=True))
    rows = np.arange(1, 101, dtype=np.float32)
    obs = np.stack([rows] + [np.sin(k * rows) for k in (1, 2, 3)], 1)
    planted = batch(obs, np.roll(obs, 1, 0), rows)  # the reward is the first number of the state

    def learn_by_heart(model, buffer, args):
        factor = times[args.target_normalization, args.next_state_prediction]
        training_rows, _ = ftfl.split_rows(args, buffer.size)
        learned = buffer.take(training_rows).obs[0, :, 0]

        def forward(obs, actions):
            rewards = obs[..., 0]
            next_obs = buffer.data.next_obs[0, rewards.long() - 1]
            rewards = torch.where(torch.isin(rewards, learned), rewards, factor * rewards)
            mean = model.targets(ftfl.Batch(obs, actions, rewards, next_obs, None))
            return (x.expand(-1, args.ensemble_size, -1, -1) for x in (mean, torch.full_like(mean, -30)))

        model.forward = forward

    monkeypatch.setattr(sys, "stderr", sys.stderr)  # that of a worker is closed
    monkeypatch.setattr(taxonomy.model_study, "collect", lambda *_: planted)
    monkeypatch.setattr(ftfl, "train_model", learn_by_heart)
    found = taxonomy.measure("InvertedPendulum-v5", 3, taxonomy.Args(model_hidden_dim=8))
    held_out = 1.0 + ftfl.split_rows(ftfl.Args(seed=3), 100)[1][0].numpy()
    for setting, factor in settings.items():
        r2 = 1 - ((factor - 1) * held_out) ** 2 / held_out.var(ddof=1)
        assert found[f"{setting}_reward_ratio"] == pytest.approx(factor, rel=1e-4), setting
        assert found[f"{setting}_reward_r2"] == pytest.approx(r2.mean(), rel=1e-4), setting
        assert found[f"{setting}_reward_out_of_range"] == pytest.approx(np.mean(factor * held_out > 100))
        assert found[f"{setting}_next_state_r2"] == pytest.approx(1, abs=1e-4), setting


def test_a_task_without_reward_has_no_finite_mismatch_and_one_without_velocities_no_noise_of_them():
    next_obs = np.array([[1.0], [2.0], [4.0]])
    found = taxonomy.statistics(batch(next_obs - 1, next_obs, [0, 0, 0]), velocities=np.array([False]))
    assert np.isinf(found["mismatch"]) or np.isnan(found["mismatch"])
    assert np.isnan(found["noise_velocity_median"]) and found["reward_zero"] == 1


SMALL = {"transitions": 300, "steps": 20, "model_hidden_dim": 16, "seeds": (1,)}


def run(*env_ids, out, **flags):
    """The lines of the table that the program has written."""
    taxonomy.main(taxonomy.Args(env_ids=env_ids, out=str(out), **SMALL | flags))
    return taxonomy.read(out)


def refused(capsys, out, **flags):
    """The one line with which the program ends."""
    with pytest.raises(SystemExit) as stop:
        taxonomy.main(taxonomy.Args(**{"out": str(out)} | SMALL | flags))
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    return line


def test_what_is_there_is_not_measured_again_and_two_jobs_find_the_same(tmp_path, capsys):
    """A task is known with and without its version; one without a rule for its end is measured, too."""
    tasks = ["dm_control/cartpole-swingup-v0", "Hopper-v5"]
    run(tasks[0], out=tmp_path / "parts.csv")
    text = (tmp_path / "parts.csv").read_text().replace("0.", "9.")  # seen if it were computed again
    (tmp_path / "parts.csv").write_text(text)
    first, second = run(tasks[0], "Hopper", tasks[1], out=tmp_path / "parts.csv")
    whole = run(*tasks, "InvertedDoublePendulum", out=tmp_path / "whole.csv", jobs=2)
    whole = {line["env_id"]: line for line in whole}
    assert whole.keys() == {*tasks, "InvertedDoublePendulum-v5"}
    assert (tmp_path / "parts.csv").read_text().startswith(text)
    assert second == whole["Hopper-v5"] and first["env_id"] == tasks[0]
    assert list(second) == taxonomy.COLUMNS
    assert all(value not in ("", None) for value in second.values())
    assert float(second["ftfl_reward_r2"]) != float(second["mbpo_reward_r2"])
    assert int(second["dims"]) == 11 and int(second["transitions"]) == 300
    capsys.readouterr()
    run("Hopper", out=tmp_path / "parts.csv")
    assert "name another --out" in capsys.readouterr().out


@pytest.mark.parametrize("flags, named", [
    ({"env_ids": ("Hopper-v5", "dm_control/lqr-lqr_2_1-v0")}, "--env-id dm_control/lqr-lqr_2_1-v0"),
    ({"env_ids": ("Nothing-v0",)}, "--env-id Nothing-v0"),
    ({"jobs": 0}, "--jobs must be at least 1"),
    ({"transitions": 9}, "--transitions must be at least 10"),
    ({"steps": 0}, "--steps must be at least 1"),
    ({"seeds": ()}, "--seeds needs at least one"),
    ({"seeds": (1, -1)}, "--seed must lie in"),
    ({"model_hidden_dim": 0}, "--model-hidden-dim must lie in"),
])  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_measured(flags, named, tmp_path, capsys):
    assert named in refused(capsys, tmp_path / "out.csv", **flags)
    assert not list(tmp_path.iterdir())


def test_an_out_of_other_flags_or_that_can_t_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    made_up_table(tmp_path / "table.csv")
    named = {"other.csv": "no table of this", "table.csv": "--transitions 0.5", ".": "can't be"}
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for out, words in named.items():
        line = refused(capsys, tmp_path / out, env_ids=("Hopper-v5",))
        assert f"--out {tmp_path / out}" in line and words in line
        assert before == {path.name: path.read_text() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("flag", ["transitions", "steps", "model-hidden-dim"])
def test_other_flags_do_not_mix_into_the_published_table(flag, capsys):
    before = Path(taxonomy.Args.out).read_text()
    flags = {name: getattr(taxonomy.Args, name) for name in SMALL} | {flag.replace("-", "_"): 77}
    line = refused(capsys, taxonomy.Args.out, env_ids=("Hopper-v5",), **flags)
    assert f"error: --{flag} needs an --out" in line
    assert Path(taxonomy.Args.out).read_text() == before


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_keeps_its_lines_and_leaves_no_process(number, code, tmp_path):
    words = ["--env-ids", "Hopper-v5", "--seeds", *range(1, 40), "--transitions", 300, "--steps", 30]
    command = [sys.executable, ROOT / "benchmark/taxonomy.py", *words, "--out", tmp_path / "out.csv"]
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.time() + 120
    while process.poll() is None and len(taxonomy.read(tmp_path / "out.csv")) < 2:
        assert time.time() < deadline, "two lines take seconds"
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    assert process.wait(20) == code
    said = process.stderr.read().splitlines()
    assert said[-1] == "error: stopped; the same command goes on" and "Traceback" not in "".join(said)
    assert 2 <= len(taxonomy.read(tmp_path / "out.csv")) < 30
    with pytest.raises(ProcessLookupError):  # its group has ended, too
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_the_default_tasks_are_the_papers_and_the_suites():
    tasks = taxonomy.suite_tasks()
    assert len(taxonomy.PAPER) == 13 and {t for t in taxonomy.PAPER if "dm_control" in t} <= set(tasks)
    assert len(tasks) == len(set(tasks)) > 40 and not any("lqr" in task for task in tasks)
    assert {*taxonomy.PAPER, *tasks} <= {*SUITE, *GYM_TASKS}, "test_environments makes all of these"


def made_up_table(path):
    """A table of two seeds per task. Mismatch and noise grow with the task's number; MBPO's R2 falls. In the
    last task no reward was seen."""
    tasks = ("Hopper-v5", "dm_control/humanoid-stand-v0", "dm_control/fish-swim-v0")
    tasks += ("dm_control/cartpole-swingup_sparse-v0",)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, taxonomy.COLUMNS, lineterminator="\n")
        writer.writeheader()
        for number, task in enumerate(tasks):
            for seed in (1, 2):
                row = {column: 0.5 for column in taxonomy.COLUMNS}
                row |= {"env_id": task, "seed": seed, "mismatch": 10.0**number * seed}
                row |= {
                    "noise_median": 0.01 * (number + 1),
                    "mbpo_reward_r2": 0.9 - number,
                    "ftfl_reward_r2": 0.8,
                }
                if "sparse" in task:
                    row |= {"mismatch": np.inf, "mbpo_reward_r2": np.nan, "ftfl_reward_r2": np.nan}
                writer.writerow(row)


def test_the_figures_points_are_the_tables(tmp_path, monkeypatch, capsys):
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, out: figures.append(figure))
    made_up_table(tmp_path / "t.csv")
    plots.taxonomy(str(tmp_path / "t.csv"), str(tmp_path / "figure"))
    plane, ladder = figures[0].axes
    points = [tuple(float(v[0]) for v in line.get_data()) for line in plane.lines if len(line.get_xdata())]
    assert points == [pytest.approx(p) for p in [(150, 0.03), (15, 0.02), (1.5, 0.01)]]  # by falling mismatch
    markers = [line.get_marker() for line in plane.lines if len(line.get_xdata())]
    assert markers == ["o", "s", "o"], "the square is humanoid-stand, which MBPO fails on in the paper"
    colors = [line.get_color() for line in plane.lines if len(line.get_xdata())]
    assert colors[0] == colors[1] != colors[2]
    names = [label.get_text().split() for label in ladder.get_yticklabels()]
    assert names == [
        ["cartpole-swingup_sparse", "1"],
        ["fish-swim", "2"],
        ["humanoid-stand", "3"],
        ["Hopper", "4"],
    ]
    dots = {"MBPO": {}, "FTFL": {}}
    for line in ladder.lines:
        if len(line.get_xdata()) == 1:
            name = "MBPO" if line.get_color() == plots.COLORS["MBPO"] else "FTFL"
            dots[name][round(float(line.get_ydata()[0]))] = (float(line.get_xdata()[0]), line.get_marker())
    assert dots["MBPO"] == {1: (-1.0, "<"), 2: (pytest.approx(-0.1), "o"), 3: (pytest.approx(0.9), "o")}
    assert dots["FTFL"] == {row: (pytest.approx(0.8), "o") for row in (1, 2, 3)}
    texts = [text.get_text() for text in figures[0].legends[0].texts]
    assert texts[:2] == ["Gym", "DeepMind Control Suite"] and texts[3:] == ["MBPO's model", "FTFL's model"]
    text = (tmp_path / "figure.md").read_text()
    assert "| humanoid-stand * | 15 |" in text and "| Hopper | 1.5 |" in text
    assert "rank correlation of mismatch with mbpo_reward_r2 over 3 tasks: -1.00" in text
    plt.close(figures[0])


def test_a_seed_without_rewards_does_not_lose_its_task(tmp_path):
    made_up_table(tmp_path / "t.csv")
    lines = taxonomy.read(tmp_path / "t.csv")
    line = next(line for line in lines if "fish" in line["env_id"] and line["seed"] == "2")
    line |= {"mismatch": "1e9", "mbpo_reward_r2": "nan", "ftfl_reward_r2": "nan"}
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, taxonomy.COLUMNS)
        writer.writeheader()
        writer.writerows(lines)
    tasks = plots.read_taxonomy(tmp_path / "t.csv")
    fish = tasks["dm_control/fish-swim-v0"]
    assert plots.median(fish["mismatch"]) == 100 and plots.median(fish["mbpo_reward_r2"]) == pytest.approx(
        -1.1
    )
    assert np.isnan(plots.median(tasks["dm_control/cartpole-swingup_sparse-v0"]["mismatch"]))
    rho, *_, count = plots.rank_correlation(tasks, "mismatch", "mbpo_reward_r2")
    assert rho == pytest.approx(-1) and count == 3


def test_tasks_of_a_group_count_together():
    rng = np.random.default_rng(1)
    tasks = {f"{robot}-{i}": {} for robot in "abcdefgh" for i in range(3)}
    for x in "xy":
        values = {robot: rng.normal(size=1) for robot in "abcdefgh"}
        for task in tasks:
            tasks[task][x] = values[task[0]]
    tasks["i-0"] = {"x": np.array([np.nan]), "y": np.ones(1)}
    once = {task: found for task, found in tasks.items() if task.endswith("0")}
    rho, low, high, count = plots.rank_correlation(tasks, "x", "y", group=lambda task: task[0])
    assert (rho, low, high) == pytest.approx(plots.rank_correlation(once, "x", "y")[:3]) and count == 24
    _, nearer, _, count = plots.rank_correlation(tasks, "x", "y")
    assert nearer > low + 0.1 and count == 24, "three times as many tasks, were they independent"


def test_numbers_of_near_points_do_not_overlap():
    figure, axis = plt.subplots(figsize=(6, 6))
    points = {"15": (0.5, 0.5), "16": (0.52, 0.5), "17": (0.55, 0.5), "18": (0.5, 0.45)}
    for point in points.values():
        axis.plot(*point, "o", ms=6)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    plots.label_points(axis, points)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.texts]
    dots = [axis.transData.transform(point) for point in points.values()]
    assert [text.get_text() for text in axis.texts] == list(points)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i]), f"{i} is written over another number"
        assert not any(box.contains(*dot) for dot in dots), f"{i} is written over a point"
    plt.close(figure)


def test_no_table_is_one_line(tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    for path in (tmp_path / "bad.csv", tmp_path / "none.csv"):
        with pytest.raises(SystemExit) as error:
            plots.taxonomy(str(path), str(tmp_path / "figure"))
        assert error.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: --data {path}")
