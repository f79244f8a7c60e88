"""The pages say what is in benchmark/results/, and what is computed for them is computed as they say."""

import csv
import json
import re

import experiments
import export
import figures
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT

import plots

PAGES = {name: (ROOT / name).read_text() for name in figures.PAGES}
TABLE = r"<!-- table (\w+) -->\n(.*?)<!-- end -->\n"
VERDICTS = {"reproduced", "partly", "not decided", "contradicted", "not run"}
# Numbers of the pages that no run has measured: versions, settings, addresses, times of commands
SETTINGS = ["3.11", "3.12", "3.13", "2510.01457", "2412.14312", "--nll-beta 0.5", "beta 0.5"]
SETTINGS += ["log-variance at 0.5", "300,000 to 500,000", "velocities are 1 to 10", "trains seeds 1 to 6"]
SETTINGS += ["7 to 8 minutes", "6 to 15 minutes", "4.5 hours"]


@pytest.fixture(scope="module")
def drawn():
    """The pages with all tables made anew, and which published files these and the figures have read."""
    read, keep = set(), pytest.MonkeyPatch()
    for module, name in ((figures, "read_lines"), (plots, "read_csv")):

        def recorded(path, function=getattr(module, name)):
            read.add(str(path))
            return function(path)

        keep.setattr(module, name, recorded)
    keep.setattr(plots, "save", lambda figure, out: plt.close(figure))
    pages = {name: figures.with_tables(page) for name, page in PAGES.items()}
    for figure in figures.FIGURES:
        if figure != figures.draw_taxonomy:  # that writes a page of its own, too
            figure()
    keep.undo()
    return pages, {path.removeprefix(f"{figures.RESULTS}/") for path in read}


def test_the_tables_of_the_pages_are_those_of_the_results(drawn):
    """Run `make figures` after any change to either."""
    assert drawn[0] == PAGES
    tables = re.findall(r"<!-- table (\w+) -->", "".join(PAGES.values()))
    assert sorted(tables) == sorted(figures.TABLES), "each table stands on one page, once"


@pytest.mark.parametrize("name", PAGES)
def test_results_stand_in_tables_and_not_in_the_prose(name):
    """There they would go stale. What no run has measured is listed above."""
    prose = re.sub(TABLE, "", PAGES[name], flags=re.DOTALL)
    prose = re.sub(r"```.*?```|^    .*?$|`[^`]*`|\]\([^)]*\)", "", prose, flags=re.DOTALL | re.MULTILINE)
    prose = " ".join(prose.split())
    for setting in SETTINGS:
        prose = prose.replace(setting, "")
    assert re.findall(r".{20}\d\.\d.{9}|.{20}\d to -?\d.{9}", prose) == []


def test_a_row_says_whether_the_pages_show_it(drawn):
    for row in experiments.ROWS:
        for path in {row.file(seed) for seed in row.seeds}:
            assert (path in drawn[1]) == (row.shown != "data"), row.full_name


def test_a_row_of_the_verdicts_is_read_at_a_glance():
    claims = figures.read_lines(figures.RESULTS / "claims.csv")
    assert {claim["verdict"] for claim in claims} <= VERDICTS
    for line in figures.verdicts_table().splitlines()[2:]:
        assert len(line.replace("|", " ").split()) <= 30, line


def test_links_of_the_pages_lead_somewhere():
    def anchors(page):
        titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    for page in ("README.md", "REFERENCE.md", "REPRODUCTION.md", "benchmark/README.md"):
        text = (ROOT / page).read_text()
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
            path = (ROOT / page).parent / target if target else ROOT / page
            assert path.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(path), f"{page}: {target}#{anchor}"


def test_every_picture_in_the_results_is_on_a_page_and_the_other_way_round():
    shown = set(re.findall(r"\]\(benchmark/results/(\w+)\.png\)", "".join(PAGES.values())))
    assert shown == {path.stem for path in figures.RESULTS.glob("*.png")}


def test_spans_of_seeds_are_written_as_they_are():
    assert figures.span(np.array([1.2345, 1.2345])) == "1.23"
    assert figures.span(np.array([-2310.4, 0.05])) == "-2,310 to 0.05"
    assert figures.span(np.array([1.0941e17, 485_550_000])) == "485,550,000 to 1.09e+17"
    assert figures.row_of(np.array([-0.001, 3.0, np.nan, 45.67])) == "0.00, 3, -, 45.7"
    assert figures.span([]) == "-" == figures.row_of([])


def test_predictions_are_counted_by_how_their_outcome_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    text = "finding,what,written,came_out\na,x,1,right: 3\na,y,1,wrong in one seed\na,z,1,\nb,u,1,right\n"
    (tmp_path / "predictions.csv").write_text(text)
    lines = figures.predictions_table().splitlines()[2:]
    assert lines == ["| a | 1 | 1 | 0 | 1 |", "| b | 1 | 0 | 0 | 0 |", "| all | 2 | 1 | 0 | 1 |"]


# ---------------------------------------- The model alone
STEPS = [1_000, 2_000, 5_000, 20_000, 30_000, 50_000]


def made_up_fit(folder, name, seed, **columns):
    """A fit of six logged steps; what is not given is its place in the list of columns, plus 10 per seed."""
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}__{seed}.csv", "w") as file:
        print("step", *export.FITS, sep=",", file=file)
        for i, step in enumerate(STEPS):
            row = {column: place + i + 10 * seed for place, column in enumerate(export.FITS)}
            print(
                step,
                *(row | {name: values[i] for name, values in columns.items()}).values(),
                sep=",",
                file=file,
            )


def test_direct_is_ahead_from_where_it_stays_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert figures.targets_table().count("\n") == 1
    folder, flat = tmp_path / "studies", [0.5] * 6
    for seed in (1, 2):
        made_up_fit(folder, "Walker2d-mbpo", seed, variance_loss=[0, seed, 0, 0, 0, -seed])
        made_up_fit(folder, "Walker2d-tun", seed, next_state_r2=flat, holdout_mse=[3, 1, 2, 2, 2, 2])
    # the first seed is ahead at once, falls behind, and is ahead from 20,000 on; the second never stays ahead
    r2 = [0.6, 0.4, 0.4, 0.6, 0.7, 0.8]
    made_up_fit(folder, "Walker2d-ftfl", 1, next_state_r2=r2, holdout_mse=[6, 5, 4, 3, 2, 1])
    r2 = [0.6, 0.6, 0.6, 0.6, 0.6, 0.4]
    made_up_fit(folder, "Walker2d-ftfl", 2, next_state_r2=r2, holdout_mse=[6, 5, 4, 3, 1, 2])
    cells = figures.targets_table().splitlines()[2].split(" | ")
    assert cells[:4] == ["| Walker2d", "20,000, never", "2,000, 2,000", "50,000, 30,000"]
    assert cells[4] == "1 to 2; -2 to -1"


def test_a_fit_is_as_good_as_another_one_from_where_its_r2_first_is(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    folder = tmp_path / "studies"
    for seed, r2 in ((1, 0.5), (2, 0.75)):
        flat = {"reward_r2": [r2] * 6, "next_state_r2": [9] * 6}
        made_up_fit(folder, "quadruped-walk-ftfl", seed, **flat)
    made_up_fit(folder, "quadruped-walk-ftfl-beta0.5", 1, reward_r2=[0, 0.5, 0, 1, 1, 1])
    made_up_fit(folder, "quadruped-walk-ftfl-beta0.5", 2, reward_r2=[0, 0.5, 0.7, 0, 0, 0.25])
    line = figures.beta_table().splitlines()[3]
    assert line.startswith("| quadruped-walk, random transitions | FTFL, beta 0.5 | 50,000 ")
    assert "| 0.25 to 1 |" in line and "| 2,000, never |" in line


def test_what_is_imagined_is_beside_the_real_mean(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    name = "humanoid-stand-ftfl"
    monkeypatch.setattr(figures, "REWARD_FITS", {name: ("random", "FTFL", "k")})
    real, imagined, std = [9, 9, 9, 9, 9, 2], [0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 0, 1]
    r2 = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    made_up_fit(
        tmp_path / "studies",
        name,
        1,
        reward_real=real,
        reward_synthetic=imagined,
        reward_std=std,
        reward_r2=r2,
    )
    line = figures.reward_table().splitlines()[2]
    assert line == "| random | FTFL | 0.20 | 0.40 | 0.60 | 1.50 | 0.50 |"


# ---------------------------------------- Critics
def test_critics_are_those_of_the_last_hundred_steps_after_the_random_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    (tmp_path / "critics").mkdir()
    for name, heads, outside in (("sac", "", []), ("mbpo", ",out_of_range", [0.25])):
        with open(tmp_path / f"critics/{name}-paper.csv", "w") as file:
            print(f"seed,step,q,qf_loss,q_start,discounted_return{heads}", file=file)
            for seed in (2, 1):
                for k in range(6):
                    cells = [seed, experiments.START + 25 * k, seed * k, 7, 40 + seed, 3 if k == 5 else ""]
                    print(*cells, *(k * seed * share for share in outside), sep=",", file=file)
    sac, mbpo = figures.critics_table().splitlines()[2:]
    end = "| 3.50 to 7 | 7 | 41 to 42 | 3 |"
    assert sac == f"| quadruped-walk | SAC | - | - | - {end}"
    assert mbpo == f"| quadruped-walk | MBPO | - | - | 62.5 to 125 {end}", "out of range over the whole run"
    steps, q = figures.read_critics("sac-paper")["q"]
    assert steps.tolist() == [0, 25, 50, 75, 100, 125] and q[1].tolist() == [0, 2, 4, 6, 8, 10]


# ---------------------------------------- Returns
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


def test_the_table_of_returns_has_each_seeds_score_and_the_rules_word(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    grid = tmp_path / "grid"
    for seed, sac_return, mbpo_return, ftfl_return in ((1, 50, 1, 61), (2, 60, 49, 70), (3, 55, 52, 10)):
        made_up_run(grid, "sac", seed, {plots.RETURN: (900, 900, sac_return - 5, sac_return + 5)})
        made_up_run(grid, "mbpo", seed, {plots.RETURN: (900, 900, mbpo_return, mbpo_return)})
        made_up_run(grid, "ftfl", seed, {plots.RETURN: (900, 900, ftfl_return, ftfl_return)})
    (line,) = figures.returns_table().splitlines()[2:]
    behind, ahead = "1, 49, 52 (behind)", "61, 70, 10 (ahead)"
    assert line == f"| cheetah-run | 50, 60, 55 | {behind} | - | - | {ahead} |"
    assert figures.marks_table().splitlines()[2] == "| 2 | 2 | 0.80 |"
    made_up_run(grid, "mbpo", 3, {plots.RETURN: (900, 900, 49.5, 49.5)})
    made_up_run(grid, "ftfl", 3, {plots.RETURN: (900, 900, 62, 62)})  # no seeds overlap
    (line,) = figures.returns_table().splitlines()[2:]
    assert "| 1, 49, 49.5 (**behind**) |" in line and "| 61, 70, 62 (**ahead**) |" in line
    (grid / "sac__3.csv").unlink()  # with two seeds nothing is said
    (line,) = figures.returns_table().splitlines()[2:]
    assert line == "| cheetah-run | 50, 60 | 1, 49, 49.5 | - | - | 61, 70, 62 |"
    made_up_run(grid, "sac", 3, {plots.RETURN: (0, 0, 40, 40)})
    made_up_run(grid, "ftfl", 2, {plots.RETURN: (0, 0, 60, 60)})
    made_up_run(grid, "ftfl", 3, {plots.RETURN: (0, 0, 10, 10)})  # as good as SAC's best: not ahead
    assert figures.returns_table().splitlines()[2].endswith("| - | - | 61, 60, 10 |")


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
    assert figures.finger_table().splitlines()[2:] == [
        "| SAC | 150 | 10,000 | - | - |",
        "| MBPO | 50, 0.50 | never, 7,500 | 0.15, 0.15 | 0.55, 0.55 |",
        "| MBPO, simulator instead of the model | 600 | 15,000 | - | - |",
    ]
