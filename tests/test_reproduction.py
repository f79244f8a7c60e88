"""REPRODUCTION.md and benchmark/results/ agree, and the tables are computed as they say."""

import csv
import json
import re
from pathlib import Path

import experiments
import export
import figures
import numpy as np
from conftest import ROOT

import plots

PAGES = {name: (ROOT / name).read_text() for name in figures.PAGES}
PAGE = PAGES["REPRODUCTION.md"]


def test_the_tables_of_the_pages_are_those_of_the_results():
    """Run `make figures` after any change to either."""
    for page in PAGES.values():
        assert figures.with_tables(page) == page
    tables = re.findall(r"<!-- table (\w+) -->", "".join(PAGES.values()))
    assert sorted(tables) == sorted(figures.TABLES), "each table stands on one page, once"


def test_files_that_the_pages_link_to_are_there():
    for page in ("README.md", "REFERENCE.md", "REPRODUCTION.md", "benchmark/README.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_a_number_that_is_not_in_the_results_is_found():
    table = figures.critics_table()
    digit = re.search(r"\d", table.splitlines()[2])
    changed = PAGE.replace(table, table.replace(digit[0], str(9 - int(digit[0]))))
    assert changed != PAGE and figures.with_tables(changed) == PAGE


def test_the_table_of_landings_tells_robots_on_their_feet_from_others(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "critics").mkdir()
    with open(tmp_path / "critics/landings.csv", "w") as file:
        print("policy,episode,start,after_200,end,return", file=file)
        for episode, row in enumerate(("0,1,1,500", "0,1,-1,300", "1,-1,1,20", "1,-1,-1,4"), 1):
            print(f"none,{episode},{row}", file=file)
    cells = figures.landings_table().splitlines()[2].strip("| ").split(" | ")
    error = np.std([500, 300, 20, 4], ddof=1) / 5**0.5
    assert cells == ["no action", "4", "2", "2", "300 to 500", "4 to 20", "206", f"{error:.3g}"]


def effects(script, column, width="100"):
    """Each seed's number, by default of the laptop's model, for actions of the policy."""
    lines = [x for x in figures.read_effects() if (x["script"], x["width"]) == (script, width)]
    return [float(line[column]) for line in lines if line["actions"] == "policy"]


def test_spans_of_seeds_are_written_as_they_are():
    assert figures.span(np.array([1.2345, 1.2345])) == "1.23"
    assert figures.span(np.array([-2310.4, 0.05])) == "-2,310 to 0.05"
    assert figures.span(np.array([1.0941e17, 485_550_000])) == "485,550,000 to 1.09e+17"


def made_up_fit(folder, name, seed, next_state_r2, velocity_variance, holdout_mse, trained=None):
    """A fit of six logged steps; what is not given is its place in the list of columns."""
    steps = [1_000, 2_000, 10_000, 20_000, 30_000, 50_000]
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}__{seed}.csv", "w") as file:
        print("step", *export.FITS, sep=",", file=file)
        for i, step in enumerate(steps):
            row = {column: place + i + 10 * seed for place, column in enumerate(export.FITS)}
            row |= {"next_state_r2": next_state_r2[i], "velocity_variance": velocity_variance[i]}
            row |= {"velocity_trained": trained[i]} if trained else {}
            print(step, *(row | {"holdout_mse": holdout_mse[i]}).values(), sep=",", file=file)


def test_direct_is_ahead_from_where_it_stays_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert figures.crossing_table().count("\n") == 1 and figures.studies_table().count("\n") == 1
    folder, flat = tmp_path / "studies", [0.5] * 6
    for seed in (1, 2):
        made_up_fit(folder, "Walker2d-tun", seed, flat, flat, [3, 1, 2, 2, 2, 2], flat)
    # the first seed is ahead at once, falls behind, and is ahead from 20,000 on; the second never stays ahead
    r2, trained = [0.6, 0.4, 0.4, 0.6, 0.7, 0.8], [0.6, 0.6, 0.4, 0.4, 0.4, 0.4]
    made_up_fit(folder, "Walker2d-ftfl", 1, r2, [0.4] * 6, [6, 5, 4, 3, 2, 1], trained)
    r2 = [0.6, 0.6, 0.6, 0.6, 0.6, 0.4]
    made_up_fit(folder, "Walker2d-ftfl", 2, r2, [0.6] * 6, [6, 5, 4, 3, 1, 2], trained[::-1])
    line = "| Walker2d | 20,000, never | 1,000, never | 10,000, never | 2,000, 2,000 | 50,000, 30,000 |"
    assert figures.crossing_table().splitlines()[2] == line
    tun, ftfl_line = figures.studies_table().splitlines()[3:1:-1]
    assert (
        tun
        == "| Walker2d-tun | 2 | "
        + " | ".join([f"{4 + i + 10} to {4 + i + 20}" for i in (1, 2, 3, 5)] + ["0.5"] * 4)
        + " |"
    )
    assert ftfl_line.endswith("| 0.4 to 0.6 | 0.4 to 0.6 | 0.6 | 0.4 to 0.8 |")


def test_what_follows_is_about_humanoid_stand_and_its_numbers_are_ratios(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for name in ("Walker2d-ftfl", "rewarded-ftfl-fixed"):
        made_up_fit(tmp_path / "studies", name, 1, [0.5] * 6, [1] * 6, [1] * 6)
    place = {column: 10 + i for i, column in enumerate(export.FITS)}  # plus the place of the step
    real, imagined, std = (place[f"reward_{x}"] for x in ("real", "synthetic", "std"))
    early, late = (imagined + 1) / (real + 1), (imagined + 5) / (real + 5)
    numbers = [early, late, (std + 5) / (real + 5), place["reward_r2"] + 5]
    expected = "| rewarded-ftfl-fixed | " + " | ".join(f"{x:.3g}" for x in numbers) + " | 0.5 |"
    assert figures.follows_table().splitlines()[2:] == [expected]


def test_the_variances_are_those_after_2000_steps_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for seed in (1, 2):
        made_up_fit(tmp_path / "studies", "Walker2d-dnp", seed, [0] * 6, [9, 1, 2, 3, 4, seed], [0] * 6)
        made_up_fit(tmp_path / "studies", "rewarded-dnp", seed, [0] * 6, [0] * 6, [0] * 6)
    place = {column: 10 + i for i, column in enumerate(export.FITS)}  # plus seed and place of the step
    loss, trained = place["variance_loss"], place["velocity_trained"]
    cells = [f"{loss + 1} to {loss + 11}", f"{loss + 5} to {loss + 15}", "1", "1 to 2"]
    cells += [f"{trained + 1} to {trained + 11}", f"{trained + 5} to {trained + 15}"]
    assert figures.variances_table().splitlines()[2:] == [f"| Walker2d-dnp | {' | '.join(cells)} |"]


def test_returns_before_training_are_not_the_highest_of_a_walk(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "critics").mkdir()
    with open(tmp_path / "critics/walk-sac-utd1-norm.csv", "w") as file:
        print("seed", "step", *export.CRITICS, sep=",", file=file)
        for step, value in ((5_000, 111), (10_000, 400), (15_000, 10), (20_000, 60), (25_000, 20)):
            print(1, step, *[value] * len(export.CRITICS), sep=",", file=file)
    cells = figures.walk_table().splitlines()[2].split(" | ")
    assert cells[:6] == ["| walk-sac-utd1-norm", "15,000", "1", "111 to 400", "30", "60"]


def test_the_curves_of_the_fits_are_all_seeds_and_their_median(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    found = {}
    monkeypatch.setattr(plots, "save", lambda figure, out: found.update({Path(out).name: figure}))
    figures.draw_studies()
    assert not found
    for seed, r2 in enumerate((0.1, 0.2, 0.6), 1):
        made_up_fit(tmp_path / "studies", "Walker2d-ftfl", seed, [r2] * 6, [1] * 6, [1] * 6)
        made_up_fit(tmp_path / "studies", "rewarded-ftfl", seed, [r2] * 6, [1] * 6, [1] * 6)
    figures.draw_studies()
    axes = np.array(found["studies"].axes).reshape(6, 4)
    panel = axes[1, list(experiments.TASKS).index("Walker2d")]
    assert panel.get_title() == "Walker2d\nnext-state R2" and not axes[1, 0].lines
    assert [line.get_ydata()[0] for line in panel.lines] == [0.1, 0.2, 0.6, 0.2]
    assert panel.lines[0].get_xdata().tolist() == [1, 2, 10, 20, 30, 50]
    ratio = found["rewarded"].axes[0].lines[0].get_ydata()
    places = list(export.FITS)
    real, synthetic = (places.index(f"reward_{x}") + np.arange(6) + 10 for x in ("real", "synthetic"))
    np.testing.assert_allclose(ratio, synthetic / real)
    assert "bounds" not in found
    made_up_fit(tmp_path / "studies", "humanoid-stand-mbpo-cap", 2, [0] * 6, [1] * 6, [1] * 6)
    figures.draw_studies()
    panel = found["bounds"].axes[1]
    assert panel.get_title() == "MBPO's model, humanoid-stand\nreward R2"
    assert panel.lines[0].get_ydata().tolist() == [places.index("reward_r2") + i + 20 for i in range(6)]
    assert [text.get_text() for text in found["bounds"].legends[0].texts] == ["below 12"]


def made_up_run(folder, script, seed, scalars, steps=(1_000, 2_000, 3_000, 4_000), task="cheetah-run"):
    """The CSV of a run of the grid, with these values at these steps."""
    flags = {"script": script, "env_id": f"dm_control/{task}-v0", "seed": seed, "num_seeds": 1}
    flags |= {"total_timesteps": 4_000, "model_hidden_dim": 100, "real_ratio": 0.05}
    if script == "ftfl":
        flags |= {"target_normalization": True, "next_state_prediction": "direct"}
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{script}__{seed}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "env_id", "algorithm", "seed", "tag", "step", "value"])
        start = [f"{script}__{seed}", flags["env_id"], "", seed]
        writer.writerow([*start, "flags", "", json.dumps(flags)])
        for tag, values in scalars.items():
            writer.writerows([*start, tag, step, value] for step, value in zip(steps, values))


def test_the_grids_table_has_each_seeds_score_and_the_rules_word(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    grid = tmp_path / "grid"
    for seed, sac_return, mbpo_return, ftfl_return in ((1, 50, 1, 61), (2, 60, 49, 70), (3, 55, 52, 10)):
        made_up_run(grid, "sac", seed, {plots.RETURN: (900, 900, sac_return - 5, sac_return + 5)})
        made_up_run(grid, "mbpo", seed, {plots.RETURN: (900, 900, mbpo_return, mbpo_return)})
        made_up_run(grid, "ftfl", seed, {plots.RETURN: (900, 900, ftfl_return, ftfl_return)})
    (line,) = figures.grid_table().splitlines()[2:]
    behind, ahead = "1, 49, 52 (behind)", "61, 70, 10 (ahead)"
    assert line == f"| cheetah-run | 50, 60, 55 | {behind} | - | - | {ahead} |"
    made_up_run(grid, "mbpo", 3, {plots.RETURN: (900, 900, 49.5, 49.5)})
    made_up_run(grid, "ftfl", 3, {plots.RETURN: (900, 900, 62, 62)})  # no seeds overlap
    (line,) = figures.grid_table().splitlines()[2:]
    assert "| 1, 49, 49.5 (**behind**) |" in line and "| 61, 70, 62 (**ahead**) |" in line
    for script, earned in (("mbpo", 52), ("ftfl", 10)):
        made_up_run(grid, script, 3, {plots.RETURN: (900, 900, earned, earned)})
    (grid / "sac__3.csv").unlink()  # with two seeds nothing is said
    (line,) = figures.grid_table().splitlines()[2:]
    assert line == "| cheetah-run | 50, 60 | 1, 49, 52 | - | - | 61, 70, 10 |"
    made_up_run(grid, "sac", 3, {plots.RETURN: (0, 0, 40, 40)})
    made_up_run(grid, "ftfl", 2, {plots.RETURN: (0, 0, 60, 60)})  # as good as SAC's best: not ahead
    (line,) = figures.grid_table().splitlines()[2:]
    assert line == "| cheetah-run | 50, 60, 40 | 1, 49, 52 | - | - | 61, 60, 10 |"


def test_the_grids_models_are_those_of_the_last_2500_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for script, seed, imagined in (("mbpo", 1, 1), ("ftfl", 1, 2), ("ftfl", 2, 4)):
        values = {"model/reward_r2": (-9, 0.1 * seed, 0.2, 0.3), "rewards/real": (9, 1, 2, 3)}
        values |= {plots.RETURN: (0, 0, 0, 0), "rewards/synthetic": (99, imagined, imagined, imagined)}
        values |= {"model/next_state_r2": (9, 0.3, 0.4, 0.2 + 0.3 * seed)}
        made_up_run(tmp_path / "grid", script, seed, values)
    (line,) = figures.grid_model_table().splitlines()[2:]
    assert line == (
        "| cheetah-run | 0.2 | - | - | 0.2, 0.233 | 0.5 | - | - | 1, 2 | 0.4 | - | - | 0.4, 0.5 |"
    )
    values = {name: x + x[-1:] for name, x in values.items()}
    made_up_run(tmp_path / "grid_longer", "ftfl", 2, values, (1_000, 2_000, 3_000, 4_000, 8_000))
    first, longer = figures.grid_model_table().splitlines()[2:]
    assert first == line and longer == (
        "| cheetah-run, 25,000 steps | - | - | - | 0.3 | - | - | - | 1.33 | - | - | - | 0.8 |"
    )


def test_the_grids_critics_are_those_of_the_last_two_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for script, seed, q in (("sac", 1, 7), ("ftfl", 1, 20), ("ftfl", 2, 40)):
        values = {plots.RETURN: (0, 0, 0, 0), "eval/q_start": (99, 99, q, q + 1)}
        made_up_run(tmp_path / "grid", script, seed, values | {"eval/discounted_return": (9, 9, 1, 0)})
    (line,) = figures.grid_critics_table().splitlines()[2:]
    assert line == "| cheetah-run | 7.5 | - | - | - | 20.5, 40.5 | 0.5 | - | - | - | 0.5, 0.5 |"


def test_finger_spin_s_rows_say_when_an_evaluation_first_earned_more_than_100(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    known = {"model/reward_r2": (9, 9, 0.1, 0.2), "model/next_state_r2": (9, 9, 0.5, 0.6)}
    returns = {"sac": [(0, 101, 0, 300)], "mbpo": [(0, 0, 0, 100), (200, 0, 0, 1)]}
    for script, seeds in returns.items():
        for seed, earned in enumerate(seeds, 1):
            values = {plots.RETURN: earned} | (known if script == "mbpo" else {})
            folder = tmp_path / "grid_longer"
            made_up_run(folder, script, seed, values, (7_500, 10_000, 22_501, 25_000), "finger-spin")
    folder = tmp_path / "oracle/finger-spin"
    made_up_run(folder, "mbpo", 3, {plots.RETURN: (0, 0, 500, 700)}, (1, 2, 15_000, 25_000), "finger-spin")
    (folder / "mbpo__3.csv").rename(folder / "oracle__seed3.csv")
    with open(folder / "effects.csv", "w") as file:
        print("algorithm,actions,r2_by_number\nMBPO,uniform,0 0.9\nMBPO,policy,0.5 0.25", file=file)
        print("TUN only,policy,0 0.8\nMBPO,policy,0 -0.75", file=file)
    assert figures.finger_table().splitlines()[2:] == [
        "| SAC | 150 | 10,000 | - | - | - |",
        "| MBPO | 50, 0.5 | never, 7,500 | 0.15, 0.15 | 0.55, 0.55 | 0.25, -0.75 |",
        "| oracle | 600 | 15,000 | - | - | - |",
    ]


def test_finger_spin_s_fits_are_sorted_by_whose_data_and_model_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "oracle/finger-spin").mkdir(parents=True)
    with open(tmp_path / "oracle/finger-spin/fits.csv", "w") as file:
        print("data,seed,model,rewarded,reward_r2,r2_by_number,", end="", file=file)
        print("changed_by_number,linear_reward_r2,linear_r2_by_number", file=file)
        print("mbpo,1,tun,0.004,0.3,9 0.02,9 0.01,0.25,9 0.125", file=file)
        for k, model in enumerate(("mbpo", "ftfl")):
            print(f"sac,1,{model},0.07,0.{5 + k},9 0.6,9 0.2,0.1,9 -1\n", end="", file=file)
            print(f"sac,2,{model},0.2,-0.1,9 0.8,9 0.3,0.2,9 -2", file=file)
    shares = "7.00%, 20.00% | 20.00%, 30.00%"
    assert figures.finger_fits_table().splitlines()[2:] == [
        f"| SAC | {shares} | MBPO | 0.5, -0.1 | 0.6, 0.8 |",
        f"| SAC | {shares} | linear regression | 0.1, 0.2 | -1, -2 |",
        f"| SAC | {shares} | FTFL | 0.6, -0.1 | 0.6, 0.8 |",
        "| MBPO | 0.40% | 1.00% | TUN only | 0.3 | 0.02 |",
        "| MBPO | 0.40% | 1.00% | linear regression | 0.25 | 0.125 |",
    ]


def test_a_model_that_saw_no_reward_has_a_dash_among_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for seed, real in ((1, 2), (2, 0)):
        values = {plots.RETURN: (0, 0, 0, 0), "rewards/real": (9, real, real, real)}
        values |= {"rewards/synthetic": (0, 1, 1, 1)} | (
            {"model/reward_r2": (0, 0.1, 0.1, 0.1)} if real else {}
        )
        made_up_run(tmp_path / "grid", "mbpo", seed, values)
    (line,) = figures.grid_model_table().splitlines()[2:]
    assert line == "| cheetah-run | 0.1, - | - | - | - | 0.5, - | - | - | - | -, - | - | - | - |"


def test_rewards_of_quadruped_walk_are_those_of_the_steps_that_the_table_names(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    steps, runs = (5_000, 5_250, 7_500, 10_000, 12_500), (("mbpo", 1, 8), ("mbpo", 2, 4), ("sac", 1, 1))
    for script, seed, real in runs:
        values = {"model/reward_r2": (0.1, 9, 0.2, 0.3, 0.1 * real), "rewards/real": (2, 9, 2, 2, real)}
        values |= {"rewards/synthetic": (2, 0, 3, 4, 1)}
        made_up_run(tmp_path / "grid", script, seed, values, steps, "quadruped-walk")
    (line,) = figures.grid_rewards_table().splitlines()[2:]
    r2, ratio = "0.1, 0.1 | 0.2, 0.2 | 0.3, 0.3 | 0.8, 0.4", "1, 1 | 1.5, 1.5 | 2, 2 | 0.125, 0.25"
    assert line == f"| MBPO | {r2} | {ratio} |"


def test_the_grids_landings_are_told_apart_per_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    runs = (
        ("grid", "sac", "sac", 2, 500),
        ("grid_longer", "sac", "sac", 2, 900),
        ("grid", "tun", "ftfl", 1, 700),
    )
    for folder, algo, script, seed, earned in runs:
        values = {"eval/q_start": (9, 1, 2, 6), "eval/discounted_return": (9, 2, 4, earned)}
        made_up_run(tmp_path, script, seed, values | {"model/next_state_r2": (9, 0.1, 0.2, 0.6)})
        path = tmp_path / folder / f"{algo}__dm_control-quadruped-walk-v0__seed{seed}.csv"
        (path.parent / "landings").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{script}__{seed}.csv").rename(path)
        with open(path.parent / "landings" / path.name, "w") as file:
            print("policy,episode,start,after_200,end,return", file=file)
            for episode, row in enumerate((f"0,1,1,{earned}", "0,1,-1,300", "1,-1,1,20", "1,-1,-1,4"), 1):
                print(f"agent,{episode},{row}", file=file)
    lines = figures.grid_landings_table().splitlines()[2:]
    errors = [np.std([earned, 300, 20, 4], ddof=1) / 2 for earned in (500, 900, 700)]
    assert lines == [
        f"| SAC | 12,500 | 2 | 2 | 400 | 12 | 206 | {errors[0]:.2g} | 3 | 169 | - |",
        f"| SAC | 25,000 | 2 | 2 | 600 | 12 | 306 | {errors[1]:.2g} | 3 | 302 | - |",
        f"| TUN only | 12,500 | 1 | 2 | 500 | 12 | 256 | {errors[2]:.2g} | 3 | 235 | 0.3 |",
    ]


def test_an_empty_grid_has_no_lines_and_no_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert len(figures.grid_table().splitlines()) == 2
    figures.draw_grid()
    assert not list(tmp_path.iterdir())
