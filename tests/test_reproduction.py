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

import ftfl
import mbpo
import plots
import sac

PAGE = (ROOT / "REPRODUCTION.md").read_text()


def test_the_tables_of_the_page_are_those_of_the_results():
    """Run `make figures` after any change to either."""
    assert figures.with_tables(PAGE) == PAGE
    tables = re.findall(r"<!-- table (\w+) -->", PAGE)
    assert sorted(tables) == sorted(figures.TABLES), "each table stands on the page once"


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


def test_what_the_page_says_of_landings_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    found = figures.read_landings()
    assert {len(x["return"]) for x in found.values()} == {100}
    up = {name: x["after_200"] > 0.9 for name, x in found.items()}
    agent, none = found["agent"]["return"], found["none"]["return"]
    earned = figures.span(agent[up["agent"]])
    assert f"the agent earns {earned}." in text and f"({earned} on its feet," in readme
    assert up["agent"].sum() < up["none"].sum() and abs(none[up["none"]].mean() - 500) < 10
    assert not (~up["none"] & (found["none"]["end"] > -0.9)).any()
    errors = [none.std(ddof=1) / n**0.5 for n in (5, 15)]
    assert abs(errors[0] - 100) < 3 and f'"last returns" one of {errors[1]:.0f}' in text
    row = figures.read_row("walk-sac-utd1")
    steps, (returns,) = row["episode"]
    first, last = returns[(steps > 0) & (steps <= 80_000)], returns[-10:]
    assert f"{len(first)} training episodes after the random ones, {(first > 300).sum()} earned" in text
    assert f"of the last ten, {(last > 300).sum()}." in text
    said = row["q_start"][1][0, -3:]
    assert f"{said.min():.0f} to {said.max():.0f} in the last three evaluations" in text


def between(values, digits=2):
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}"


def test_what_the_page_says_of_agents_on_quadruped_walk_is_in_the_results():
    text, names = " ".join(PAGE.split()), ("SAC", "MBPO", "TUN only", "FTFL")
    lines = [line.strip("| ").split(" | ") for line in figures.grid_landings_table().splitlines()[2:]]
    of = {(name, steps, seed): rest for name, steps, seed, *rest in lines}

    def column(name, steps, i):
        return [of[name, steps, seed][i] for seed in "123"]

    on_feet = max(int(x) for steps in ("12,500", "25,000") for x in column("SAC", steps, 0))
    assert f"at most {on_feet} of its 100 robots is on its feet" in text
    earned = ["{} {}, {} and {}".format(name, *column(name, "25,000", 3)) for name in names]
    assert f"after 25,000 steps, {', '.join(earned)}.".replace("SAC", "SAC earns") in text
    keys = [(name, steps) for name in names for steps in ("12,500", "25,000")]
    mean = {key: np.array(column(*key, 3), float) for key in keys}
    median = {key: np.median(values) for key, values in mean.items()}
    for name in names[1:]:  # nobody has fallen behind SAC, none is near 600 or clearly above no action
        assert mean["SAC", "25,000"].min() <= median[name, "25,000"] < 139 + 20
    assert median["FTFL", "12,500"] > mean["SAC", "12,500"].max() >= median["MBPO", "12,500"]
    feet = [of["FTFL", steps, seed][0] for seed in "123" for steps in ("12,500", "25,000")]
    assert "from {} to {}, from {} to {} and from {} to {} between".format(*feet) in text
    said, obtained = ({name: [float(x) for x in column(name, "25,000", i)] for name in names} for i in (5, 6))
    of_sac = (
        f"say {between(said.pop('SAC'), 0)} at first states from which {between(obtained.pop('SAC'), 0)} is"
    )
    assert of_sac in text
    said, obtained = (np.concatenate(list(values.values())) for values in (said, obtained))
    assert f"of the others, for {between(obtained, 0)}, {between(said, 0)}." in text


def test_what_page_and_readme_say_of_models_on_quadruped_walk_is_in_the_results():
    text, readme = " ".join(PAGE.split()), " ".join((ROOT / "README.md").read_text().split())
    cells = [line.strip("| ").split(" | ") for line in figures.grid_rewards_table().splitlines()[2:]]
    at = {name: [[float(x) for x in cell.split(", ")] for cell in rest] for name, *rest in cells}
    r2_at, ratio_at = ({name: dict(zip((5, 7.5, 10, 12.5), at[name][i:])) for name in at} for i in (0, 4))
    assert max(r2_at["MBPO"][5]) < 0.05  # its first fit explains nothing of the reward
    assert f"imagined mean is right then ({between(ratio_at['MBPO'][5])} of the real one)" in text
    said = f"R2 is {between(r2_at['MBPO'][7.5], 1)}, it imagines {between(ratio_at['MBPO'][7.5])} of"
    assert said in text
    right = between(ratio_at["FTFL"][7.5] + ratio_at["TUN only"][7.5])
    assert f"TUN's imagine {right} of it at that step" in text
    early = f"imagines {between(ratio_at['MBPO'][5])} of the real mean reward at first, "
    early += f"{between(ratio_at['MBPO'][7.5])} at 7,500 steps (FTFL's {between(ratio_at['FTFL'][7.5])}; "
    early += f"a step chosen afterwards), and {between(ratio_at['MBPO'][12.5])} at 12,500."
    assert early in readme
    r2, ratio, next_state_r2 = {}, {}, {}
    for name in ("MBPO", "TUN only", "FTFL"):
        runs = figures.read_grid(("grid_longer",))["quadruped-walk, 25,000 steps"][name]
        tags = ("model/reward_r2", "rewards/synthetic", "rewards/real")
        late = np.array([[figures.late(run, tag) for tag in tags] for run in runs])
        r2[name], ratio[name] = between(late[:, 0]), between(late[:, 1] / late[:, 2])
        next_state_r2[name] = [figures.late(run, "model/next_state_r2") for run in runs]
    assert min(next_state_r2["MBPO"]) > 1.5 * max(next_state_r2["FTFL"])  # far ahead
    learned = f"its reward R2 is {between(r2_at['MBPO'][12.5])}, "
    learned += f"over the last 2,500 of 25,000 steps {r2['MBPO']}"
    assert f"{learned}, with {ratio['MBPO']} of the real mean" in text
    assert f"its reward R2 is {r2['FTFL']}, and it imagines {ratio['FTFL']} of" in text
    assert f"imagines {ratio['TUN only']} of the real mean, with a reward R2 of {r2['TUN only']}." in text


def test_what_the_page_says_of_finger_spin_is_in_the_results():
    text = " ".join(PAGE.split())
    (line,) = [x for x in figures.grid_table().splitlines() if x.startswith("| finger-spin |")]
    of_sac, of_mbpo, _, of_dnp, of_ftfl = line.strip("| ").split(" | ")[1:]
    assert of_mbpo.endswith(" (**behind**)") and of_ftfl.endswith(" (**behind**)")
    assert f"SAC scores {of_sac}, MBPO {of_mbpo.split(' (')[0]}, FTFL {of_ftfl.split(' (')[0]}" in text
    assert of_dnp.endswith(" (**behind**)") and f"DNP only scores {of_dnp[:7]}, behind (right)." in text
    found = figures.read_grid(("grid",))["finger-spin"]
    r2 = [figures.late(run, "model/reward_r2") for name in ("MBPO", "FTFL") for run in found[name]]
    assert np.isnan(r2).tolist() == [False] * 5 + [True]  # FTFL's last has seen no reward on its holdout
    assert f"over the last 2,500 steps no reward R2 of these two is above {max(r2[:5]):.2f}" in text
    real = [run.scalars["rewards/real"][1].max() for name in ("MBPO", "FTFL") for run in found[name]]
    assert f"no more than 1 in {1 / max(real):.0f} transitions has a reward" in text and real[-1] == 0


def test_what_page_and_readme_say_of_finger_spin_at_25000_steps_is_in_the_results():
    text, readme = " ".join(PAGE.split()), " ".join((ROOT / "README.md").read_text().split())
    (line,) = [x for x in figures.grid_table().splitlines() if x.startswith("| finger-spin, 25,000 steps |")]
    of_sac, of_mbpo, *_, of_ftfl = line.strip("| ").split(" | ")[1:]
    assert of_mbpo.endswith(" (**behind**)") and of_ftfl.endswith(" (**behind**)")
    of_mbpo, of_ftfl = of_mbpo.split(" (")[0], of_ftfl.split(" (")[0]
    assert f"SAC scores {of_sac} (right), MBPO {of_mbpo}, FTFL {of_ftfl}, both behind" in text
    sac, mbpo, ftfl = (" and ".join(x.rsplit(", ", 1)) for x in (of_sac, of_mbpo, of_ftfl))
    assert f"SAC earns {sac}, MBPO {mbpo}, with a model" in readme and f"FTFL, which earns {ftfl}." in readme
    found = figures.read_grid(("grid_longer",))["finger-spin, 25,000 steps"]
    found = {name: found[name] for name in ("SAC", "MBPO", "FTFL")}  # the page's three
    assert [run.flags["seed"] for runs in found.values() for run in runs] == [1, 2, 3] * 3
    tags = ("model/reward_r2", "rewards/synthetic", "rewards/real")
    r2, imagined, real = (
        {name: np.array([figures.late(run, tag) for run in found[name]]) for name in ("MBPO", "FTFL")}
        for tag in tags
    )
    of_mbpo, of_ftfl = (imagined[name] / real[name] for name in ("MBPO", "FTFL"))
    said = f"imagines {between(of_mbpo)} of the real mean reward"
    assert f"R2 is {between(r2['MBPO'], 3)}, and it {said}, in all three seeds" in text and said in readme
    r2 = r2["FTFL"]
    assert ((r2 < 0.1) & (of_ftfl < 0.5)).tolist() == [False, True, False]
    assert f"R2 below 0.1 ({r2[1]:.2f}) and the imagined mean below half ({of_ftfl[1]:.2f})." in text
    assert f"Seed 3 imagines {of_ftfl[2]:.2f} of the real mean with an R2 of {r2[2]:.2f};" in text
    assert f"seed 1 has an R2 of {r2[0]:.2f} and imagines {of_ftfl[0]:.2f}," in text
    early, end = [], {}
    for name, runs in found.items():
        said = [run.scalars["eval/q_start"] for run in runs]
        early += [values[steps == 7_500].item() for steps, values in said]
        end[name] = [values[-1] for _, values in said]
        returns = [run.scalars["eval/episodic_return"] for run in runs]
        assert all(values[steps <= 7_500].max() == 0 for steps, values in returns)
    assert f"after 7,500 steps all critics say {between(early, 1)}," in text
    assert f"FTFL say {between(end['MBPO'] + end['FTFL'])}, SAC's {between(end['SAC'], 1)}." in text
    rewarded = 10_000 * figures.read_taxonomy()["dm_control/finger-spin-v0"]["reward_mean"]  # each is 0 or 1
    assert f"where {between(rewarded, 0)} of 10,000 random transitions have a reward" in readme


def test_what_the_page_says_of_next_states_on_finger_spin_is_in_the_results():
    text, found = " ".join(PAGE.split()), figures.read_grid(("grid",))["finger-spin"]
    r2 = {
        name: np.array([figures.late(run, "model/next_state_r2") for run in found[name]])
        for name in ("MBPO", "TUN only", "FTFL")
    }
    of_ftfl, of_mbpo = between(r2["FTFL"]), between(r2["MBPO"])
    assert f"MBPO's at 12,500 steps (R2 {of_ftfl}, and {of_mbpo})," in text
    scores = ", ".join(map(figures.span, figures.scores(found["TUN only"])))
    of_tun, of_ftfl = (", ".join(f"{x:.2f}" for x in r2[name]) for name in ("TUN only", "FTFL"))
    said = f"with scores of {scores}. The next-state R2 of its models is {of_tun}, FTFL's {of_ftfl}:"
    assert said in text
    assert (r2["TUN only"] > r2["FTFL"]).sum() == 2 and (r2["MBPO"] > r2["TUN only"]).all()
    assert (r2["MBPO"] > r2["FTFL"]).all()


def test_what_the_page_says_of_tun_only_on_finger_spin_at_25000_steps_is_in_the_results():
    text, runs = (
        " ".join(PAGE.split()),
        figures.read_grid(("grid_longer",))["finger-spin, 25,000 steps"]["TUN only"],
    )
    scores = figures.scores(runs)
    assert max(scores) < 100 and len(scores) == 3
    said = (
        f"TUN only there at 25,000 steps: behind SAC, with scores of {figures.row_of(scores)}, none above 100"
    )
    assert said in text and verdicts("finger-spin, 25,000 steps")["TUN only"][1] == ["**behind**)"]
    r2, next_r2 = (
        ", ".join(f"{figures.late(run, f'model/{x}_r2'):.2f}" for run in runs)
        for x in ("reward", "next_state")
    )
    assert f"hardly anything of the reward (R2 {r2}) and little of next states ({next_r2})." in text


def test_what_page_and_readme_say_of_the_simulator_on_finger_spin_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    rows = {name: figures.scores(runs) for name, runs in figures.read_oracle("finger-spin").items()}
    grid = figures.read_grid(("grid_longer",))["finger-spin, 25,000 steps"]
    of_sac, of_mbpo = (figures.scores(grid[name]) for name in ("SAC", "MBPO"))
    oracle, rewards = rows["oracle"], rows["true-rewards"]
    assert f"`oracle` scores {figures.row_of(oracle)}: right" in text and np.median(oracle) > of_sac.max()
    assert (oracle > 100).all() and len(oracle) == len(rewards) == 3
    assert f"`true-rewards` scores {figures.row_of(rewards)}, right: above 100 in two of three seeds." in text
    assert (rewards > 100).sum() == 2 and rewards.min() > 5 * of_mbpo.max()
    assert (oracle > 2 * rewards).all(), "more than twice as much"
    said = [" and ".join(figures.row_of(x).rsplit(", ", 1)) for x in (rewards, oracle)]
    words = "MBPO earns {}, with its next states alone 47, 7 and 0.9, with both {}."
    assert words.format(*said) in readme
    known = {name: figures.spinner_r2(name) for name in ("MBPO", "TUN only", "FTFL")}
    said = "R2 is {} for MBPO's, {} for TUN only's, {} for FTFL's.".format(*map(between, known.values()))
    assert said in text and [len(x) for x in known.values()] == [3, 3, 3]
    assert f"on which the reward hangs (R² {between(sum(known.values(), []))}). New" in readme
    cheetah = [x for x in figures.read_effects() if (x["width"], x["algorithm"]) == ("100", "MBPO")]
    cheetah = [line["r2_by_number"].split() for line in cheetah if line["actions"] == "policy"]
    of_all = between(np.array(cheetah, float).flatten())
    assert f"(On cheetah-run MBPO's models have an R2 of {of_all} in each number.)" in text


def test_what_page_and_readme_say_of_fits_on_finger_spin_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    reward, velocity = {}, {}
    for line in figures.read_effects("finger-spin", "fits"):
        key = line["data"], line["model"]
        reward.setdefault(key, []).append(float(line["reward_r2"]))
        velocity.setdefault(key, []).append(float(line["r2_by_number"].split()[-1]))
    assert len(velocity) == 6 and {len(x) for x in velocity.values()} == {3}
    for model in ("mbpo", "tun", "ftfl"):
        assert sum(x > 0.2 for x in velocity["sac", model]) >= 2 and max(velocity["mbpo", model]) < 0.15
        assert sum(x > 0.3 for x in reward["sac", model]) >= 2
    assert max(reward["mbpo", "mbpo"]) < 0.1
    said = ["{:.2f}, {:.2f} and {:.2f}".format(*velocity["sac", x]) for x in ("mbpo", "tun", "ftfl")]
    assert "MBPO's model knows {} of that change, TUN only's {}, FTFL's {};".format(*said) in text
    most = max(x for model in ("mbpo", "tun", "ftfl") for x in velocity["mbpo", model])
    assert f"on MBPO's none knows more than {most:.2f} of it" in text
    lines = [x for x in figures.read_effects("finger-spin", "fits") if x["model"] == "mbpo"]
    linear = [float(x["linear_reward_r2"]) for x in lines if x["data"] == "sac"]
    others = between(reward["sac", "tun"] + reward["sac", "ftfl"])
    known = ["{:.2f}, {:.2f} and {:.2f}".format(*x) for x in (linear, reward["sac", "mbpo"])]
    said = "knows {} of the reward, more than MBPO's model ({}), and less than TUN only's and FTFL's ({}):"
    assert said.format(*known, others) in text and max(linear) < min(reward["sac", "ftfl"])
    assert (np.array(linear) > reward["sac", "mbpo"]).all()
    changed = {x["data"]: [] for x in lines}
    for line in lines:
        changed[line["data"]].append(100 * float(line["changed_by_number"].split()[-1]))
    of_mbpo, of_sac = (between(changed[data], 1) for data in ("mbpo", "sac"))
    assert f"{of_mbpo} % of the 25,000 transitions change that velocity by more than 1 rad/s" in text
    assert f"as a fast spinner slows down), {of_sac} % in SAC's." in text
    said = [between(velocity["sac", model]) for model in ("mbpo", "ftfl")]
    assert "have seen, do know it: MBPO's {}, FTFL's {}.".format(*said) in readme
    said = [between(x) for x in (reward["sac", "ftfl"], reward["sac", "mbpo"], linear)]
    assert "Of the reward FTFL's know {}, MBPO's {}, and a linear regression {}.".format(*said) in readme
    assert f"none knows more than {most:.2f} of that velocity:" in readme


def verdicts(task):
    """{algorithm: (its scores as the page writes them, what the rule says of them)} on a task."""
    (line,) = [x for x in figures.grid_table().splitlines() if x.startswith(f"| {task} |")]
    cells = [cell.split(" (") for cell in line.strip("| ").split(" | ")[1:]]
    return {name: (cell[0], cell[1:]) for name, cell in zip(figures.GRID_ALGORITHMS, cells)}


LATE = ("model/reward_r2", "model/next_state_r2", "rewards/synthetic", "rewards/real")


def late_values(task, tag, of=lambda run: 1):
    """{MBPO, FTFL: each seed's mean of a quantity over the last 2,500 steps, divided by `of`}."""
    runs = figures.read_grid(("grid",))[task]
    return {name: [figures.late(run, tag) / of(run) for run in runs[name]] for name in ("MBPO", "FTFL")}


def test_what_the_page_says_of_walker_stand_is_in_the_results():
    text, said = " ".join(PAGE.split()), verdicts("walker-stand")
    scores = "SAC scores {}, MBPO {}, FTFL {}.".format(*(said[name][0] for name in ("SAC", "MBPO", "FTFL")))
    assert f"{scores} Neither is ahead" in text and said["MBPO"][1] == said["FTFL"][1] == []
    of = {name: np.array(said[name][0].split(", "), float) for name in ("MBPO", "FTFL")}
    assert np.median(of["FTFL"]) >= of["MBPO"].min()  # not behind it
    r2, next_r2 = (late_values("walker-stand", f"model/{x}_r2") for x in ("reward", "next_state"))
    assert f"reward (R2 {between(r2['FTFL'])}, MBPO's {between(r2['MBPO'])}) and" in text
    assert f"of next states ({between(next_r2['FTFL'])}, and {between(next_r2['MBPO'])})," in text
    ratio = late_values("walker-stand", "rewards/synthetic", lambda run: figures.late(run, "rewards/real"))
    assert "The random policy earns 134," in text and "| walker-stand | 0.244 | 134 |" in PAGE
    assert f"both imagine {between(ratio['MBPO'] + ratio['FTFL'])} of the real mean reward." in text


def test_what_page_and_readme_say_of_next_states_and_critics_in_the_grid_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    runs = figures.read_grid(("grid_longer",))["quadruped-walk, 25,000 steps"]
    late = {name: [figures.late(run, "model/next_state_r2") for run in runs[name]] for name in runs}
    known = [between(late[name]) for name in ("TUN only", "FTFL")]
    assert "after 162,000 gradient steps (TUN only's R² {}, FTFL's {}). MBPO's".format(*known) in readme
    assert min(late["MBPO"]) > max(late["TUN only"]) and min(late["TUN only"]) > max(late["FTFL"])
    lines = [line.strip("| ").split(" | ") for line in figures.grid_landings_table().splitlines()[2:]]
    said = {line[0]: [x for x in lines if x[:2] == [line[0], "12,500"]] for line in lines}
    q, obtained = ({name: [float(x[k]) for x in said[name]] for name in said} for k in (8, 9))
    one, other = q["TUN only"] + q["DNP only"], q["MBPO"] + q["FTFL"]
    assert len(one) == len(other) == 6 and max(q["DNP only"][1:]) < 60
    known = (
        between(one, 0),
        between(other, 0),
        between(sum((obtained[x] for x in obtained if x != "SAC"), []), 0),
    )
    words = "say {} there with one of the two changes, and {} with none or both, where {} are then obtained"
    assert words.format(*known) in text and "is {} and {} in".format(*q["DNP only"][1:]) in text
    said = verdicts("walker-stand")
    assert [said[name][1] for name in said] == [
        []
    ] * 5 and "None of the four is behind SAC, none is ahead" in readme
    scores = "TUN only scores {}, DNP only {}, neither".format(
        *(said[x][0] for x in ("TUN only", "DNP only"))
    )
    assert scores in text
    for task in ("finger-spin", "cheetah-run"):
        assert all("behind" in "".join(said[1]) for name, said in verdicts(task).items() if name != "SAC")
    assert "on finger-spin and cheetah-run all four are behind SAC;" in text
    for task in ("finger-spin", "cheetah-run", "walker-stand", "quadruped-walk"):
        next_r2 = late_values(task, "model/next_state_r2")
        assert (np.array(next_r2["MBPO"]) > next_r2["FTFL"]).all() and len(next_r2["MBPO"]) == 3
    assert "in every seed on all four tasks of DMC" in readme and "in every seed on all four tasks" in text

    lines = [line.strip("| ").split(" | ") for line in figures.grid_critics_table().splitlines()[2:]]
    lines = [line for line in lines if "at the defaults" not in line[0]]
    below = {"SAC": [], "MBPO": [], "FTFL": []}
    for task, *cells in lines:
        q, obtained = (dict(zip(figures.GRID_ALGORITHMS, cells[i:])) for i in (0, 5))
        for name in below:
            low = [float(a) < float(b) for a, b in zip(*(x[name].split(", ") for x in (q, obtained)))]
            below[name] += [task] if np.mean(low) > 0.5 else []
    words = "MBPO's Q is below what is obtained on InvertedPendulum and, after 25,000 steps, on cheetah-run,"
    assert f"{words} where SAC's and FTFL's are, too; FTFL's is so on Hopper as well," in text
    both = ["InvertedPendulum", "cheetah-run, 25,000 steps"]
    assert below["MBPO"] == both and set(both) <= set(below["SAC"])
    assert below["FTFL"] == ["Hopper", *both]
    ahead = [
        task for task in figures.read_grid() if verdicts(task)["MBPO"][1] in (["ahead)"], ["**ahead**)"])
    ]
    assert ahead == ["Hopper at the defaults"] and verdicts(*ahead)["FTFL"][1] == []
    assert "In the grid it is ahead nowhere; on Hopper, DNP only and FTFL are." in text
    assert "On Hopper at the scripts' defaults MBPO is ahead of SAC, by the median of three seeds." in text


def test_what_page_says_of_the_whole_grid_is_in_the_results():
    """The first list's statements, judged by its rule; those on quadruped-walk can't be."""
    text, grid = " ".join(PAGE.split()), figures.read_grid(("grid",))
    assert sum(len(runs) for found in grid.values() for runs in found.values()) == 90 and len(grid) == 6
    says = {task: {name: "".join(words) for name, (_, words) in verdicts(task).items()} for task in grid}
    pendulum, hopper, cheetah, walker, finger = (
        says[x] for x in ("InvertedPendulum", "Hopper", "cheetah-run", "walker-stand", "finger-spin")
    )
    of_walker = {name: figures.scores(runs) for name, runs in grid["walker-stand"].items()}
    judged = [not any("behind" in word for word in x.values()) for x in (pendulum, hopper)]
    judged += ["ahead" in x[name] for x in (hopper, cheetah, walker) for name in ("MBPO", "FTFL")]
    judged += ["ahead" not in cheetah["TUN only"], "behind" in finger["MBPO"], "behind" not in finger["FTFL"]]
    judged += ["behind" not in figures.beside(of_walker["FTFL"], of_walker["MBPO"])]
    assert (len(judged), sum(judged)) == (12, 5)
    assert (
        "Of the twelve statements of the first list that can be judged, five are right and seven wrong"
        in text
    )
    r2 = {task: np.median(x["mbpo_reward_r2"]) for task, x in figures.read_taxonomy().items()}
    of = {task.removeprefix("dm_control/").rsplit("-v", 1)[0]: x for task, x in r2.items()}
    words = "it is behind on Hopper (R2 {:.2f}), cheetah-run ({:.2f}) and finger-spin (0.006), and not on"
    assert words.format(of["Hopper"], of["cheetah-run"]) in text
    words = "and not on InvertedPendulum ({:.2f}) and walker-stand ({:.2f})."
    assert words.format(of["InvertedPendulum"], of["walker-stand"]) in text
    behind = {task for task in grid if "behind" in says[task]["MBPO"]}
    assert behind == {"Hopper", "cheetah-run", "finger-spin"}
    assert {task for task in behind if "behind" not in says[task]["FTFL"]} == {"Hopper"}
    assert "ahead" in hopper["FTFL"] and "ahead" in hopper["DNP only"]


def test_what_page_and_readme_say_of_gym_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    names = ("SAC", "MBPO", "FTFL")
    for task, behind, ahead in (("InvertedPendulum", [], []), ("Hopper", ["MBPO"], ["FTFL"])):
        said = verdicts(task)
        scores = "SAC scores {}, MBPO {}, FTFL {}.".format(*(said[name][0] for name in names))
        if task == "InvertedPendulum":
            changes = [said[name][0] for name in ("TUN only", "DNP only")]
            scores += " TUN only scores {}, DNP only {}. Nobody is behind (right).".format(*changes)
            assert not any(words for _, words in said.values()) and len(said) == 5
        assert f"{task}: {scores}" in text
        assert [name for name in names if "behind" in "".join(said[name][1])] == behind
        assert [name for name in names if "ahead" in "".join(said[name][1])] == ahead
    found = figures.read_grid(("grid",))["Hopper"]
    of_sac, of_mbpo, of_ftfl = (figures.scores(found[name]) for name in names)
    assert (
        f"MBPO is behind ({between(of_mbpo, 0)} where SAC earns {between(of_sac, 0)}), and FTFL is" in readme
    )
    assert f"and FTFL is ahead by its median ({between(of_ftfl, 0)};" in readme
    said = verdicts("Hopper")
    assert [said[name][1] for name in ("TUN only", "DNP only")] == [[], ["**ahead**)"]]
    scores = [said[name][0] for name in ("TUN only", "DNP only")]
    assert "TUN only scores {}, not behind (right), DNP only {}, each above".format(*scores) in text
    of_dnp, of_tun = (between(figures.scores(found[name]), 0) for name in ("DNP only", "TUN only"))
    assert (
        f"DNP only is ahead in every seed ({of_dnp}), TUN only is neither ahead nor behind ({of_tun})."
        in readme
    )
    runs = [run for name in figures.plots.SWITCHES for run in found[name]]
    r2, next_r2, imagined, real = (
        np.array([figures.late(run, tag) for run in runs])
        for tag in ("model/reward_r2", "model/next_state_r2", "rewards/synthetic", "rewards/real")
    )
    known = [between(x) for x in (r2, next_r2, imagined / real)]
    assert (
        len(runs) == 12
        and "(reward R2 {}, next-state R2 {}, and {} of the real mean reward)".format(*known) in text
    )


def test_what_page_and_readme_say_of_real_halves_on_finger_spin_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    rows = figures.read_oracle("finger-spin")
    score = figures.scores(rows["real50"])
    assert f"`real50` scores {figures.row_of(score)}, above 100 in two seeds: right." in text
    assert (score > 100).sum() == 2 and "it earns {:.0f}, {:.0f} and {:.1f}, though".format(*score) in readme
    r2 = [figures.late(run, "model/reward_r2") for run in rows["real50"]]
    assert f"know no more of the reward (R2 {between(r2)})" in text and max(r2) < 0.05
    assert all(run.flags["real_ratio"] == 0.5 for run in rows["real50"])
    states = figures.scores(rows["true-states"])
    assert f"`true-states` scores {figures.row_of(states)}, right: not above 100 in any seed." in text
    r2 = [figures.late(run, "model/reward_r2") for run in rows["true-states"]]
    assert f"reward stays at 0 (R2 {between(r2)})." in text and states.max() < 100 and len(states) == 3
    assert "its next states alone {:.0f}, {:.0f} and {:.1f}, with both".format(*states) in readme
    imagined, real = (
        [figures.late(run, f"rewards/{of}") for run in rows["real50"]] for of in ("synthetic", "real")
    )
    assert np.abs(np.divide(imagined, real)).max() < 0.01 and "less than 0.01 of the real mean" in text


def test_what_page_and_readme_say_of_random_policies_in_the_grid_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    lines = [line.strip("| ").split(" | ") for line in figures.uniform_table().splitlines()[2:]]
    of = {
        task: dict(
            zip(figures.GRID_ALGORITHMS, ([int(x.replace(",", "")) for x in c.split(", ")] for c in cells))
        )
        for task, *cells in lines
    }
    assert all(len(seeds) == 3 for found in of.values() for seeds in found.values())

    def span(task, *names):
        steps = sum((of[task][name] for name in names or figures.GRID_ALGORITHMS), [])
        return f"{min(steps):,} to {max(steps):,}"

    cheetah, finger, models = of["cheetah-run"], of["finger-spin"], figures.plots.SWITCHES
    assert f"On cheetah-run that is {span('cheetah-run', 'SAC')} of the 12,500 steps for SAC," in text
    later = [b - a for x in ("MBPO", "DNP only", "FTFL") for a, b in zip(cheetah["SAC"], cheetah[x])]
    assert f"{min(later)} to {max(later)} steps later for MBPO, DNP only and FTFL" in text
    assert f"and {span('cheetah-run', 'TUN only')} for TUN only" in text
    assert f"on finger-spin {span('finger-spin', 'SAC')} for SAC, {span('finger-spin', *models)} for" in text
    left = 12_500 - np.array([cheetah[x] + finger[x] for x in figures.GRID_ALGORITHMS])
    assert f"for {left.min():,} to {left.max():,} steps there" in text
    left = 12_500 - np.array(list(of["walker-stand"].values()))
    assert f"(on walker-stand for {left.min():,} to {left.max():,})" in text
    words = "on cheetah-run for the first {}, on finger-spin {}, on walker-stand {}."
    assert words.format(*map(span, ("cheetah-run", "finger-spin", "walker-stand"))) in readme
    for found in (cheetah, finger):
        assert max(found["SAC"]) <= min(min(found[x]) for x in models) and np.median(found["SAC"]) < min(
            np.median(found[x]) for x in models
        )
    for run in figures.read_grid(("grid",))["Hopper"].values():
        assert max(figures.random_until(x, 3) for x in run) <= 5_200


def test_what_page_says_of_noise_on_hopper_is_in_the_results():
    text, grid = " ".join(PAGE.split()), figures.read_grid(("grid",))["Hopper"]
    mse, loss = (
        {x: between([figures.late(run, tag) for run in runs], digits) for x, runs in grid.items()}
        for tag, digits in (("model/mse_loss", 2), ("losses/qf_loss", 0))
    )
    words = (
        "it is {} for MBPO's models, {} for DNP only's, {} for FTFL's (0.0067 of a state's std), {} for TUN"
    )
    order = ("MBPO", "DNP only", "FTFL", "TUN only")
    assert words.format(*(mse[name] for name in order)) in text
    words = "have a loss of {}, {}, {} and {} in that order, SAC's {}."
    assert words.format(*(loss[name] for name in (*order, "SAC"))) in text
    learned = {}
    for run in figures.plots.load_runs(figures.grid_files("bounds")):
        assert run.flags["learned_logvar_bounds"]
        learned.setdefault(figures.plots.algorithm(run.flags), {})[run.flags["seed"]] = run
    of = {name: [runs[seed] for seed in (1, 2, 3)] for name, runs in learned.items()}
    score, sac = {name: figures.scores(runs) for name, runs in of.items()}, figures.scores(grid["SAC"])
    assert not any(figures.beside(score[name], sac) for name in ("MBPO", "DNP only"))
    every = [run for runs in of.values() for run in runs]
    mse, loss = (
        between([figures.late(run, tag) for run in every], digits)
        for tag, digits in (("model/mse_loss", 2), ("losses/qf_loss", 0))
    )
    assert f"`model/mse_loss` is {mse}, the critics' loss {loss}." in text
    assert min(figures.late(run, "model/mse_loss") for run in every) > 0.9
    assert max(figures.late(run, "losses/qf_loss") for run in every) < 30
    assert f"MBPO scores {figures.row_of(score['MBPO'])}: its median is above SAC's lowest" in text
    assert f"the first by {np.median(score['MBPO']) - sac.min():.0f})" in text
    assert f"DNP only scores {figures.row_of(score['DNP only'])} and is no longer ahead: wrong" in text
    was = between(figures.scores(grid["MBPO"]), 0)
    assert f"MBPO's {was} and {between(score['MBPO'], 0)} do not differ by much" in text
    readme = " ".join((ROOT / "README.md").read_text().split())
    words = "MBPO is not behind ({}), and DNP only is not ahead ({}):"
    assert words.format(*(between(score[name], 0) for name in ("MBPO", "DNP only"))) in readme


def test_what_page_and_readme_say_of_hopper_at_the_defaults_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    found = figures.read_grid(("hopper",))["Hopper at the defaults"]
    once = figures.plots.load_runs(figures.grid_files("hopper_utd1"))
    found["once"] = sorted(once, key=lambda run: run.flags["seed"])
    own = ("device", "run_dir", "seed", "compile", "env_id", "total_timesteps", "eval_interval")
    for name, runs in found.items():
        defaults = vars({"MBPO": mbpo, "FTFL": ftfl}.get(name, sac).Args())
        defaults |= {"utd_ratio": 1 if name == "once" else 20}
        assert [run.flags["seed"] for run in runs] == [1, 2, 3]
        for run in runs:
            flags = {"nll_beta": 0} | run.flags  # these runs are older than this flag
            assert all(flags[flag] == value for flag, value in defaults.items() if flag not in own)
    assert (
        all(run.flags["compile"] for runs in found.values() for run in runs) and "All were run with" in text
    )

    score = {name: figures.scores(runs) for name, runs in found.items()}
    words = "MBPO scores {}, SAC {}: MBPO is ahead (right), though not in every seed;"
    assert words.format(*(figures.row_of(score[name]) for name in ("MBPO", "SAC"))) in text
    words = "one update per step, which scores {}, it is ahead, too (right), and SAC with 20 updates is not."
    assert words.format(figures.row_of(score["once"])) in text
    assert figures.beside(score["MBPO"], score["SAC"]) == figures.beside(score["MBPO"], score["once"])
    assert figures.beside(score["MBPO"], score["SAC"]) == " (ahead)"
    assert figures.beside(score["SAC"], score["once"]) == ""
    words = "it scores {0}, SAC with 20 updates per step {0}, with one {0},".format(
        "{:.0f}, {:.0f} and {:.0f}"
    )
    assert words.format(*np.concatenate([score[name] for name in ("MBPO", "SAC", "once")])) in readme
    words = "FTFL scores {} and is neither ahead of SAC (wrong) nor behind it;"
    assert words.format(figures.row_of(score["FTFL"])) in text
    assert figures.beside(score["FTFL"], score["SAC"]) == ""
    words = "FTFL {:.0f}, {:.0f} and {:.0f}, neither ahead of SAC nor behind it."
    assert words.format(*score["FTFL"]) in readme
    words = "it is behind by the same rule, by {:.0f}, since MBPO's lowest score is {:.0f}."
    lowest = score["MBPO"].min()
    assert words.format(lowest - np.median(score["FTFL"]), lowest) in text
    assert figures.beside(score["FTFL"], score["MBPO"]) == " (behind)"
    assert f"by {lowest - np.median(score['FTFL']):.0f} points of some 320 |" in text

    tags = (figures.plots.RETURN, "eval/q_start", "eval/discounted_return")
    steps = found["SAC"][0].scalars[figures.plots.RETURN][0]
    assert list(steps[-4:]) == [12_500, 15_000, 17_500, 20_000]
    returns, q, obtained = (
        {name: np.array([run.scalars[tag][1][-4:] for run in runs]) for name, runs in found.items()}
        for tag in tags
    )
    earned, gained = (np.concatenate([*x.values()]).ravel() for x in (returns, obtained))
    standing = earned > 900
    words = "The evaluations of {:,.0f} to {:,.0f} are".format(*np.sort(earned[standing])[[0, -1]])
    assert f"{words} of agents" in text and f": {between(gained[standing], 0)} discounted" in text
    for name, runs in score.items():  # who scores above 600 had such an evaluation among the two
        assert all((returns[name][runs > 600, -2:] > 900).any(1))
    last = {name: between(x[:, -1], 0) for name, x in returns.items()}
    words = "each seed of MBPO ({}) earns more than each of SAC ({}),"
    assert words.format(last["MBPO"], last["SAC"]) in text
    assert returns["MBPO"][:, -1].min() > returns["SAC"][:, -1].max()
    words = "FTFL's earn {:.0f}, {:.0f} and {:.0f} then."
    assert words.format(*returns["FTFL"][:, -1]) in text

    highest = {
        name: [run.scalars["losses/qf1_values"][1].max() for run in runs] for name, runs in found.items()
    }
    words = "MBPO's Q rises to {:,.0f}, {:,.0f} and {:,.0f} within 2,100 trained steps,"
    assert words.format(*sorted(highest["MBPO"])) in text
    for run in found["MBPO"]:
        logged, values = run.scalars["losses/qf1_values"]
        assert logged[values.argmax()] <= 12_100
    assert f"no more than {gained.max():.0f} is ever obtained from a first state" in text
    for name in ("MBPO", "FTFL"):
        assert (np.array(highest[name]) > highest["SAC"]).sum() == 2
        assert (q[name][:, -1] < 190).all()
    assert "MBPO's or FTFL's, it rises further in two of three seeds, and comes back in all" in text
    words = (
        "FTFL's rises to {:.0f}, {:.0f} and {:.0f}, the last one at {:,.0f} steps, and is {} at first states"
    )
    logged, values = found["FTFL"][2].scalars["losses/qf1_values"]
    words = words.format(*highest["FTFL"], logged[values.argmax()], between(q["FTFL"][:, -1], 0))
    assert f"{words} at the end, from which {between(obtained['FTFL'][:, -1], 0)} are obtained." in text
    words = "at 20,000 steps it is {} at first states from which {} are obtained."
    assert words.format(between(q["MBPO"][:, -1], 0), between(obtained["MBPO"][:, -1], 0)) in text
    words = "SAC's rises to {:.0f}, {:.0f} and {:.0f}, and in its first seed is still at {:.0f} then, where"
    assert words.format(*sorted(highest["SAC"]), q["SAC"][0, -1]) in text
    assert f" then, where {obtained['SAC'][0, -1]:.0f} is obtained." in text
    assert (q["once"] < obtained["once"]).all() and "With one update per step it stays below" in text
    words = "Q rises to {:,.0f} to {:,.0f} with MBPO, {:.0f} to {:.0f} with FTFL, {:.0f} to {:.0f} with SAC,"
    words += " where at most {:.0f} is"
    ends = [end(highest[name]) for name in ("MBPO", "FTFL", "SAC") for end in (min, max)]
    assert words.format(*ends, gained.max()) in readme

    tags = ("model/reward_r2", "model/next_state_r2", "model/mse_loss", "rewards/synthetic", "rewards/real")
    r2, next_r2, mse, imagined, real = (
        np.array([figures.late(run, tag) for run in found["FTFL"]]) for tag in tags
    )
    words = "FTFL's models are as good ({}, {} and {}), with less such noise ({})."
    assert words.format(between(r2), *map(figures.span, (next_r2, imagined / real)), between(mse)) in text
    assert mse.min() > max(figures.late(run, "model/mse_loss") for run in found["MBPO"])
    r2, next_r2, mse, imagined, real = (
        np.array([figures.late(run, tag) for run in found["MBPO"]]) for tag in tags
    )
    words = "MBPO's reward R2 is {}, next-state R2 {}, and {} of the real mean reward is imagined."
    assert words.format(between(r2), between(next_r2, 3), between(imagined / real)) in text
    assert f"`model/mse_loss` is {between(mse)}, so there is far more noise" in text


def test_what_page_and_readme_say_of_cheetah_run_is_in_the_results():
    text, readme = " ".join(PAGE.split()), " ".join((ROOT / "README.md").read_text().split())
    said = verdicts("cheetah-run")
    scores = "SAC scores {}, MBPO {}, FTFL {}.".format(*(said[name][0] for name in ("SAC", "MBPO", "FTFL")))
    assert f"{scores} Both are behind" in text and said["MBPO"][1] == said["FTFL"][1] == ["**behind**)"]
    r2, next_r2 = (late_values("cheetah-run", f"model/{x}_r2") for x in ("reward", "next_state"))
    ratio = late_values("cheetah-run", "rewards/synthetic", lambda run: figures.late(run, "rewards/real"))
    known = [[between(x[name]) for x in (r2, next_r2, ratio)] for name in ("MBPO", "FTFL")]
    assert "reward R2 of {}, a next-state R2 of {}, and imagine {} of".format(*known[0]) in text
    assert "(FTFL's {}, {} and {})".format(*known[1]) in text
    assert f"good (reward R² {between(r2['MBPO'] + r2['FTFL'])})" in readme
    of_sac, *others = (np.array(said[name][0].split(", "), float) for name in ("SAC", "MBPO", "FTFL"))
    single = {name: np.array(said[name][0].split(", "), float) for name in ("TUN only", "DNP only")}
    assert all(said[name][1] == ["**behind**)"] for name in single)
    assert single["TUN only"].min() > np.concatenate([*others, single["DNP only"]]).max()
    scores = "TUN only scores {}, DNP only {}, both behind, too".format(*(said[name][0] for name in single))
    assert scores in text
    earned = [between(x, 0) for x in (np.concatenate(others), single["TUN only"], single["DNP only"])]
    words = "MBPO and FTFL earn {}, TUN only {} (with the worst model of the reward), DNP only {}, where"
    assert f"{words.format(*earned)} SAC earns {between(of_sac, 0)} (in" in readme
    found = figures.read_grid(("grid",))["cheetah-run"]
    late = {
        name: np.array([[figures.late(run, tag) for run in found[name]] for tag in LATE])
        for name in figures.plots.SWITCHES
    }
    worst, *better = [late[name] for name in ("TUN only", "MBPO", "DNP only", "FTFL")]
    assert worst[0].max() < min(x[0].min() for x in better) and worst[1].min() > max(
        x[1].max() for x in better
    )
    known = [between(worst[0]), between(worst[2] / worst[3]), between(worst[1], 3)]
    assert (
        "(R2 {}, and they imagine {} of the real mean) and the most of next states ({})".format(*known)
        in text
    )
    both = {name: figures.cheetah_scores(runs) for name, runs in figures.read_oracle().items()}
    trained = [between(both[name][1], 0) for name in ("mbpo", "sac")]
    assert "(in the last two training episodes MBPO {}, SAC {})".format(*trained) in readme
    assert f"with its rewards as well {between(both['oracle'][0], 0)}, still behind SAC;" in readme
    simulated = both["true-states"][0]
    (row,) = [x for x in figures.cheetah_table().splitlines() if x.startswith("| true-states |")]
    closed = f"MBPO earns {between(simulated, 0)}, which closes {row.split(' | ')[2]} of the gap between"
    assert closed in readme and np.median(simulated) < of_sac.min()  # "as well" behind SAC, says the page
    longer, names = figures.read_grid(("grid_longer",))["cheetah-run, 25,000 steps"], ("SAC", "MBPO", "FTFL")
    assert sorted(longer) == sorted(names) and all(len(longer[name]) == 3 for name in names)
    score = {name: figures.scores(longer[name]) for name in names}
    words = "SAC scores {}, MBPO {}, FTFL {}. Both are behind, in every seed, with {:.0f} and {:.0f} % of"
    share = [100 * np.median(score[name]) / np.median(score["SAC"]) for name in names[1:]]
    assert words.format(*(figures.row_of(score[name]) for name in names), *share) in text and min(share) > 50
    assert all("(**behind**)" in figures.beside(score[name], score["SAC"]) for name in names[1:])
    words = "After 25,000 it earns {}, FTFL {}, SAC {}."
    assert words.format(*(between(score[name], 0) for name in ("MBPO", "FTFL", "SAC"))) in readme
    curves = {x: np.array([run.scalars[figures.plots.RETURN][1] for run in longer[x]]) for x in names}
    at = longer["SAC"][0].scalars[figures.plots.RETURN][0].tolist()
    assert f"SAC earns after 15,000 steps ({between(curves['SAC'][:, at.index(15_000)], 0)})" in text
    r2, next_r2 = (
        [figures.late(run, f"model/{x}_r2") for run in longer["MBPO"]] for x in ("reward", "next_state")
    )
    assert f"MBPO's reward R2 is {between(r2, 3)}, next-state R2 {between(next_r2)}" in text
    q, obtained = (
        {x: np.array([run.scalars[f"eval/{tag}"][1][-2:].mean() for run in longer[x]]) for x in names}
        for tag in ("q_start", "discounted_return")
    )
    both = [between(z[name], 1) for name in ("MBPO", "FTFL", "SAC") for z in (q, obtained)]
    assert "MBPO's {} and {}, FTFL's {} and {}, SAC's {} and {}.".format(*both) in text
    assert all((q[name] < obtained[name]).all() for name in names)
    early = {x: curves[x][:, at.index(10_000) : at.index(12_500) + 1].mean(1) for x in names}
    words = "{} (SAC), {} (MBPO) and {} (FTFL). Both are behind SAC again;"
    assert words.format(*(", ".join(f"{x:.1f}" for x in early[name]) for name in names)) in text
    assert all("behind" in figures.beside(early[name], early["SAC"]) for name in names[1:])
    least, most = (np.median(figures.scores(x)) for x in (found["MBPO"], found["SAC"]))
    closes = 100 * (np.median(early["MBPO"]) - least) / (most - least)
    assert f'MBPO run a second time "closes" {closes:.0f} % of the gap' in text
    assert f"MBPO earns {between(early['MBPO'], 0)} after 12,500 steps, still behind SAC." in readme
    known = effects("mbpo", "value_effect_r2")
    assert f"next state, MBPO's model knows about half (R² {between(known)})." in readme


def effects(script, column, width="100"):
    """Each seed's number, by default of the laptop's model, for actions of the policy."""
    lines = [x for x in figures.read_effects() if (x["script"], x["width"]) == (script, width)]
    return [float(line[column]) for line in lines if line["actions"] == "policy"]


def test_what_the_page_says_of_cheetah_run_s_rows_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    runs = figures.read_oracle()
    table = [line.strip("| ").split(" | ") for line in figures.cheetah_table().splitlines()[2:]]
    of = {name: rest for name, *rest in table}  # evaluations, of the gap, training episodes, of the gap
    both = {name: figures.cheetah_scores(runs[name]) for name in runs}
    assert (
        f"MBPO's median ({np.median(both['mbpo'][0]):.1f}) and SAC's ({np.median(both['sac'][0]):.1f})"
        in text
    )
    third = runs["oracle"][2]
    swings, trained = (third.scalars[tag][1][-2:] for tag in (figures.plots.RETURN, figures.TRAINED))
    assert "seed 3 earns {:.1f} after 10,000 steps and {:.2f} after 12,500, and".format(*swings) in text
    assert "{:.1f} and {:.1f} in the training episodes in between".format(*trained) in text
    assert third.scalars[figures.TRAINED][0][-2:].tolist() == [11_000, 12_000]

    closed = {
        name: [float(x.removesuffix(" %")) for x in rest[1::2] if x != "-"] for name, rest in of.items()
    }
    assert np.median(both["oracle"][0]) < both["sac"][0].min() and closed["oracle"][1] > 100
    shares = "`oracle` closes {} of the gap, and all of it by training episodes, `real-actions` {} and {} %."
    found = [of["oracle"][1], *(x.removesuffix(" %") for x in of["real-actions"][1::2])]
    assert shares.format(*found) in text
    assert closed["true-states"][1] > 100 and closed["true-rewards"][1] < 0
    shares = (
        f"`true-states` closes {of['true-states'][1]} of the gap and `true-rewards` {of['true-rewards'][1]},"
    )
    assert f"{shares} by training episodes all of it and none: both right." in text
    assert np.median(both["real-actions"][0]) < both["sac"][0].min()
    words = "`real-actions` is behind SAC: wrong. It closes {} of the gap, and {} by training episodes."
    assert words.format(*of["real-actions"][1::2]) in text
    words = "`mean` closes {}, less than half: right. But by training episodes it closes {}, so"
    assert words.format(*of["mean"][1::2]) in text and closed["mean"][0] < 50
    words = "`real50` is behind SAC: wrong. But it closes {} of the gap, and {} by training episodes, with"
    assert words.format(*of["real50"][1::2]) in text
    assert np.median(both["real50"][0]) < both["sac"][0].min() and len(both["real50"][0]) == 3
    r2 = [
        between([figures.late(run, tag) for run in runs[name]], 3)
        for tag in ("model/reward_r2", "model/next_state_r2")
        for name in ("real50", "mbpo")
    ]
    assert "(reward R2 {} against {}, next-state R2 {} against {}).".format(*r2) in text
    paper, half = both["paper-model"][0], both["mbpo"][0]
    assert f"`paper-model` closes {of['paper-model'][1]}, less than half: wrong." in text
    assert f"scores above each of MBPO's ({between(paper, 1)} against {between(half, 1)})" in text
    assert f"by training episodes it closes {of['paper-model'][3]} of the gap." in text
    assert closed["paper-model"][0] < 50 and paper.min() > half.max() and len(paper) == 3
    assert f"instead of the grid's smaller one {between(paper, 0)}." in readme
    words = "with half of each batch real {}, which closes {};"
    assert words.format(between(both["real50"][0], 0), of["real50"][1]) in readme
    medians = [np.median(both[name][1]) for name in ("mbpo", "ftfl", "sac")]
    assert "(as medians, MBPO has {:.1f}, FTFL {:.1f} and SAC {:.1f})".format(*medians) in text
    assert both["ftfl"][1].max() < both["mbpo"][1].min()


def test_what_the_page_says_of_an_action_s_effect_is_in_the_results():
    text = " ".join(PAGE.split())
    percent = [
        [100 * x for x in effects("mbpo", f"{of}_effect_share")] for of in ("reward", "next_state", "value")
    ]
    said = (
        "runs {} % of the variance of rewards, {} % of that of next states' changes, {} % of that of the next"
    )
    assert said.format(between(percent[0], 1), between(percent[1], 0), between(percent[2], 1)) in text
    reward, value = (
        {s: effects(s, f"{of}_effect_r2") for s in ("mbpo", "ftfl")} for of in ("reward", "value")
    )
    assert f"one that sees none (R2 {between(reward['mbpo'])}, where that one has 0)" in text
    of_paper, noisy = (effects("mbpo", f"value_{x}", "200") for x in ("effect_r2", "sampled_effect_r2"))
    assert f"know more of it ({between(of_paper)});" in text and len(of_paper) == 3
    said = f"sampled: {between(noisy, 1)}, against {between(effects('mbpo', 'value_sampled_effect_r2'), 1)})"
    assert said in text
    known, score = value["mbpo"], figures.cheetah_scores(figures.read_oracle()["mbpo"])[0]
    said = "three know {:.2f}, {:.2f} and {:.2f}, and score {:.1f}, {:.1f} and {:.1f})"
    assert said.format(*known, *score) in text and np.argmin(known) == np.argmax(score)
    assert f"knows a little ({between(reward['ftfl'])})" in text
    knows = f"MBPO's model knows {between(value['mbpo'])}, FTFL's {between(value['ftfl'])};"
    assert f"Of the effect on the next state's value {knows}" in text
    assert max(effects("mbpo", "value_sampled_effect_r2") + effects("ftfl", "value_sampled_effect_r2")) < -1


def test_what_page_and_readme_say_of_critics_that_run_away_is_in_the_results():
    text, readme = " ".join(PAGE.split()), " ".join((ROOT / "README.md").read_text().split())
    steps, (q,) = figures.read_row("ftfl-long")["q"]
    back, gap = int(steps[q > 200].max()), int(steps[1] - steps[0])
    assert f"highest, {q.max():,.0f}, after {steps[q.argmax()]:,.0f} steps, and below 200 from" in text
    assert f"from {back + gap:,} steps on" in text and q[steps > back].max() < 200
    other = figures.read_row("mbpo-long")
    (of_mbpo,), (alpha,), (out,) = (other[x][1] for x in ("q", "alpha", "out_of_range"))
    end, ftfl_then = int(other["q"][0][-1]), q[steps == other["q"][0][-1]].item()
    highest, last = (f"{x / 1e9:.1f} billion" for x in (of_mbpo.max(), figures.at_end(other, "q")[0]))
    words = f"after {end:,} steps, for want of time; right as far as that. Q rises to {highest}, is {last} at"
    words += f" the end, where FTFL's is {ftfl_then:.0f} at that step,"
    assert f"{words} and the temperature {alpha[-4:].mean() / 1e6:.0f} million." in text
    assert f"from {out.max():.3f} to {out[-4:].mean():.3f}: so" in text and of_mbpo[-1] > 10_000
    more, of_more = (figures.read_row(f"{x}-long-seeds23") for x in ("ftfl", "mbpo"))
    (its, both), ends = more["q"], (figures.at_end(x, "q") for x in (more, of_more))
    ftfl_ends, mbpo_ends = ends
    words = "FTFL's Q is highest, {:,.0f} and {:,.0f}, after {:,.0f} and {:,.0f} steps, and ends at {:,.0f}"
    words = words.format(*both.max(1), *its[both.argmax(1)], ftfl_ends[0])
    assert f"{words} and {ftfl_ends[1]:,.0f}." in text and its[-1] == 15_000
    assert 200 < both.max(1).min() and both.max() < 10_000
    hot = figures.at_end(of_more, "alpha") / 1e6
    words = "stopped after {:,} steps for want of time, rises to {:.0f} and {:.0f} million, is {:.0f} and"
    words = f"{words} {{:.0f}}".format(
        int(of_more["q"][0][-1]), *(of_more["q"][1].max(1) / 1e6), *(mbpo_ends / 1e6)
    )
    assert f"{words} million at the end, and the temperature {hot[0]:.1f} and {hot[1]:.1f} million" in text
    assert mbpo_ends.min() > 1e6 and of_more["q"][1].max(1).min() > 1e7
    highest = between([q.max(), *both.max(1)], 0)
    when = [steps[q.argmax()], *its[both.argmax(1)]]
    then = [q[steps == 15_000].item(), *both[:, its == 15_000].ravel()]
    words = f"Q was highest ({highest}) after {min(when):,} to {max(when):,} steps, and back at"
    assert f"{words} {between(then, 0)} after 15,000, while" in readme
    least = f"{mbpo_ends.min() / 1e9:.1f}"
    assert f"ended at {least} to {last} after 12,000 to {end:,}." in readme and end == 15_000
    rows = [line.strip("| ").split(" | ") for line in figures.critics_table().splitlines()[2:]]
    loss = {name: [float(x.replace(",", "")) for x in rest[4].split(" to ")] for name, *rest in rows}
    away = {name: rest[2].split(" of ") for name, *rest in rows if "stand" not in name}
    away = [name for name, (some, of) in away.items() if int(some) > int(of) / 2 and "gpu" not in name]
    least = {name: loss[name][0] / loss["sac"][1] for name in away}
    real = (least.pop("sac-paper"), loss["sac-paper"][1] / loss["sac"][0])
    assert min(least, key=least.get) == "mbpo-noforce" and 1e9 < least["tun"]
    assert (
        f"({least.pop('mbpo-noforce'):.0f} to {loss['mbpo-noforce'][1] / loss['sac'][0]:.0f} times)" in text
    )
    assert f"(7 to 16 times) and real data at 20 updates per step ({between(real, 1)} times);" in text
    assert 55 < min(least.values()) < 65 and "from some 60 times that of real data only" in text
    of = {name: rest for name, *rest in rows}
    said = "FTFL's Q ends at {} (with our weights at {}), two of three seeds above 200; MBPO's at {} ({});"
    both = [of[f"{name}{ending}"][3] for name in ("ftfl", "mbpo") for ending in ("-orthogonal", "")]
    assert said.format(*both) in text and of["ftfl-orthogonal"][2] == "2 of 3"
    assert f"SAC's at {of['sac-orthogonal'][3]} ({of['sac'][3]})." in text


def test_what_page_and_readme_say_of_humanoid_stand_at_the_defaults_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    rows = {"CPU": "ftfl-paper", "GPU": "ftfl-paper-gpu", "MBPO": "mbpo-paper", "SAC": "sac-paper"}
    rows |= {"TUN": "tun-paper", "DNP": "dnp-paper"}
    rows = {name: figures.read_row(f"humanoid-stand-{row}") for name, row in rows.items()}
    q, loss = ({x: figures.at_end(row, of) for x, row in rows.items()} for of in ("q", "qf_loss"))
    for of in (q, loss):
        of["FTFL"] = np.concatenate([of["CPU"], of["GPU"]])
    ends = {x: between(q[x], 0) for x in q}
    losses = {x: between(loss[x], 1 if x in ("CPU", "GPU", "SAC") else 0) for x in q}
    words = (
        "MBPO's loss ends at {} in its three seeds (right), its Q at {}; TUN only's at {} (right) and {}; "
    )
    words += "DNP only's at {} (wrong) and {}. SAC's loss ends at {} (wrong), its Q at {} and still rising"
    assert words.format(*(x[name] for name in ("MBPO", "TUN", "DNP", "SAC") for x in (losses, ends))) in text
    worse = ("MBPO", "TUN", "DNP")
    assert all(loss[x].min() > loss["FTFL"].max() for x in worse)
    words = (
        "FTFL's loss ends at {} on a CPU and at {} on the GPU, its Q at {} and {} (right), and it has come"
    )
    assert words.format(*(x[name] for x in (losses, ends) for name in ("CPU", "GPU"))) in text
    assert loss["CPU"].max() < 10 and len(q["FTFL"]) == 9
    course = rows["SAC"]["q"][1]
    assert (course[:, -1] > course[:, -20]).all() and (loss["SAC"] > 3).all()
    assert all((q[x] < 0.97 * rows[x]["q"][1].max(1)).all() for x in ("CPU", "GPU"))
    every = np.array([loss[x] for x in worse])
    times = every.min() / loss["SAC"].max()
    assert f"make it worse in every seed, with a loss at least {times:.1f} times SAC's" in text
    assert all((q[x] > q["SAC"]).all() for x in worse) and q["FTFL"].max() < q["SAC"].min()
    highest = {x: rows[x]["q"][1].max(1) for x in worse}
    words = "at the end, too ({}, {}, {}), by up to {:.0f} %: whether"
    most = max((1 - q[x] / highest[x]).max() for x in worse)
    assert words.format(*(between(highest[x], 0) for x in worse), 100 * most) in text
    assert all((q[x] < highest[x]).all() for x in worse)
    alone = between(np.concatenate([q["TUN"], q["DNP"]]), 0)
    words = "Q is {}, with one change alone {}, with none {}."
    assert words.format(ends["FTFL"], alone, ends["MBPO"]) in text

    models = ("CPU", "GPU", *worse)
    r2, next_r2 = ({x: rows[x][of][1][:, -1] for x in models} for of in ("reward_r2", "next_state_r2"))
    ratio = {x: rows[x]["reward_synthetic"][1] / rows[x]["reward_real"][1] for x in models}
    for of in (r2, next_r2, ratio):
        of["FTFL"] = np.concatenate([of["CPU"], of["GPU"]])
    words = "TUN only's R2 is {:.2f}, {:.2f} and {:.2f} (wrong, by one seed) and its mean {} of the real one"
    assert words.format(*r2["TUN"], between(ratio["TUN"][:, -1])) in text and (r2["TUN"] < 0.7).sum() == 1
    words = "DNP only's {} (right) and {:.2f}, {:.2f} and {:.2f} (right)."
    assert words.format(between(r2["DNP"]), *ratio["DNP"][:, -1]) in text
    words = "TUN only's {} (right), FTFL's {}, DNP only's {}."
    assert words.format(*(between(next_r2[x]) for x in ("TUN", "FTFL", "DNP"))) in text
    assert rows["MBPO"]["reward_real"][0].tolist() == list(range(0, 2_000, 250))
    words = "MBPO's reward R2 at the last training is {} (right), FTFL's {}."
    assert words.format(between(r2["MBPO"]), between(r2["FTFL"])) in text
    words = (
        "imagined mean is then {:.2f}, {:.2f} and {:.2f} of the real one (right); over its eight trainings it"
    )
    assert words.format(*ratio["MBPO"][:, -1]) in text
    least, most = ratio["MBPO"].min(), ratio["MBPO"].max()
    mbpo_span, ftfl_span = f"{least:.1f} to {most:.0f}", between(ratio["FTFL"].ravel())
    words = "lies between {} and {} times the real one, FTFL's between {} and {}."
    assert words.format(*mbpo_span.split(" to "), *ftfl_span.split(" to ")) in text
    assert f"MBPO's imagined mean is {mbpo_span} times the real one, FTFL's {ftfl_span} |" in text
    assert f"MBPO's R2 is {between(next_r2['MBPO'])} (right), TUN" in text and max(next_r2["MBPO"]) < 0.7
    start, obtained = ({x: rows[x][of][1][:, -1] for x in rows} for of in ("q_start", "discounted_return"))
    words = "MBPO's Q at the first states is {}, SAC's {}, where {} are obtained; TUN only's {}, "
    words += "DNP only's {}, where {} and {} are: above, as predicted."
    both = np.concatenate([obtained["MBPO"], obtained["SAC"]])
    values = [between(start[x], 0) for x in ("MBPO", "SAC", "TUN", "DNP")]
    values.insert(2, between(both, 1))
    assert words.format(*values, *(between(obtained[x], 1) for x in ("TUN", "DNP"))) in text
    assert all((start[x] > obtained[x]).all() for x in rows)
    words = (
        "Q ends at {} with MBPO, {} with SAC, {} with FTFL (nine seeds), where no more than 10 is obtained."
    )
    assert words.format(ends["MBPO"], ends["SAC"], ends["FTFL"]) in text
    assert max(obtained[x].max() for x in rows) < 10
    words = (
        "imagines {} times the real mean reward, from one training to the next, FTFL's {} times. Q ends at"
    )
    words += " {} with MBPO (three seeds, critics' loss {}), at {} with real data alone ({}), at {} with FTFL"
    values = (mbpo_span, ftfl_span, *(x[name] for name in ("MBPO", "SAC") for x in (ends, losses)))
    assert words.format(*values, ends["CPU"]) in readme
    more = f"six more seeds on a GPU: {ends['GPU']}, {losses['GPU']}"
    assert f"with FTFL ({losses['CPU']}; {more}), where" in readme and len(q["GPU"]) == 6
    words = f"With TUN only it ends at {ends['TUN']} ({losses['TUN']}), with DNP only at {ends['DNP']} ("
    assert f"{words}{losses['DNP']})." in readme


def test_what_page_and_readme_say_of_quadruped_walk_at_the_defaults_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    rows = ("FTFL", "MBPO", "SAC", "TUN", "DNP")
    rows = {x: figures.read_row(f"{x.lower()}-paper") for x in rows}
    q = {x: figures.at_end(row, "q") for x, row in rows.items()}
    ends = {x: between(q[x], 0) for x in rows}
    steps, course = rows["MBPO"]["q"][0], {x: row["q"][1] for x, row in rows.items()}
    assert steps[-1] - steps[-11] == 250 and all(len(x) == 3 for x in q.values())
    grown = {x: between(course[x][:, -1] / course[x][:, -11], 1) for x in rows}
    words = "MBPO's Q ends at {} (right), {} times what it was 250 steps before; FTFL's, at {}, {} times."
    assert words.format(*(x[name] for name in ("MBPO", "FTFL") for x in (ends, grown))) in text
    dnp_loss = figures.at_end(rows["DNP"], "qf_loss")
    words = f"TUN only's ends at {ends['TUN']} (right), DNP only's at {ends['DNP']} with a loss of "
    assert f"{words}{figures.span(dnp_loss)} (right), but rising." in text
    assert (course["DNP"][:, -1] > course["DNP"][:, -11]).all() and q["TUN"].min() > 1000
    assert q["TUN"].min() > q["MBPO"].max() and q["FTFL"].min() > 100 > q["DNP"].max()
    rises = np.diff(course["SAC"][:, -41::10])
    words = (
        f"But its loss stays at {between(figures.at_end(rows['SAC'], 'qf_loss'), 1)}, and it rises steadily, "
    )
    assert f"{words}by {between(rises.ravel(), 0)} in each of the last four times 250 steps," in text
    assert f"SAC's ends at {ends['SAC']}." in text and q["SAC"].min() > 200 and q["MBPO"].min() > 1000
    ratio = {x: rows[x]["reward_synthetic"][1] / rows[x]["reward_real"][1] for x in rows if x != "SAC"}
    words = "MBPO's models imagine {} of the real mean reward, too little after each of the seven trainings"
    assert words.format(between(ratio["MBPO"].ravel())) in text and ratio["MBPO"].shape == (3, 7)
    words = "FTFL's, on the CPU, {}, TUN only's {}, DNP only's {}."
    assert words.format(*(between(ratio[x].ravel()) for x in ("FTFL", "TUN", "DNP"))) in text
    assert ratio["MBPO"].max() < 1
    start, obtained = ({x: rows[x][of][1][:, -1] for x in rows} for of in ("q_start", "discounted_return"))
    four = [x for x in rows if x != "FTFL"]
    words = "Q at the first states is {} with SAC, {} with MBPO, {} with TUN only and {} with DNP only, where"
    words = words.format(*(between(start[x], 0) for x in ("SAC", "MBPO", "TUN", "DNP")))
    both = between(np.concatenate([obtained[x] for x in four]), 1)
    assert f"{words} {both} are obtained: above in each run, as predicted." in text
    assert all((start[x] > obtained[x]).all() for x in four)
    words = (
        f"Q is {between(q['MBPO'] / 1e6, 1)} million with MBPO, {ends['FTFL']} with FTFL, {ends['SAC']} with"
    )
    words += (
        f" real data alone, {between(q['TUN'] / 1e6, 0)} million with TUN only, and {ends['DNP']} with DNP"
    )
    assert words in readme
    least, most = q["MBPO"].min() / 1e6, q["TUN"].max() / 1e6
    words = f"DNP only's hold so far ({ends['DNP']}, rising), FTFL's do not ({ends['FTFL']}), MBPO's"
    words += " and TUN only's least of"
    assert f"{words} all ({least:.1f} to {most:.0f} million)." in text
    norm = {x: figures.read_row(f"{x}-paper-norm") for x in ("mbpo", "ftfl", "sac")}
    held = {x: figures.at_end(row, "q") for x, row in norm.items()}
    loss = figures.at_end(norm["mbpo"], "qf_loss")
    words = f"MBPO's Q ends at {between(held['mbpo'], 0)} with a loss of {figures.span(loss)}, so it holds,"
    assert words in text and loss.max() < 1 and held["mbpo"].max() < held["ftfl"].max()
    assert f"FTFL's ends at {between(held['ftfl'], 0)}, so the two overlap. SAC's ends at" in text
    loss, q = figures.at_end(norm["sac"], "qf_loss"), held["sac"]
    words = f"SAC's ends at {between(q, 0)}, above both in each seed, with a loss of {figures.span(loss)}"
    assert words in text and loss.max() < 1 and q.max() < 140
    assert q.min() > max(held["mbpo"].max(), held["ftfl"].max())
    start, obtained = (norm["sac"][x][1][:, -1] for x in ("q_start", "discounted_return"))
    words = f"its Q is {between(start, 0)}, where {between(obtained, 1)} are obtained"
    assert words in text and start.min() > obtained.max()
    assert f"(MBPO's at the defaults: {between(held['mbpo'], 0)})" in readme


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


def test_what_the_readme_says_of_the_studies_is_in_the_results():
    text = " ".join((ROOT / "README.md").read_text().split())
    at_end = {name: figures.read_fit(name)["reward_r2"][:, -1] for name in figures.FITS if "rewarded" in name}
    assert figures.read_fit("rewarded-mbpo")["reward_r2"].max() < 0.21 and "never above 0.21" in text
    for name, words in {"ftfl": "FTFL's is", "tun": "TUN only's"}.items():
        assert f"{words} {figures.span(at_end[f'rewarded-{name}'])}," in text
    assert f"instead of the likelihood {figures.span(at_end['rewarded-ftfl-fixed'])}." in text
    mbpo = figures.read_fit("humanoid-stand-mbpo")
    assert (mbpo["reward_r2"][:, mbpo["step"][0] >= 25_000] > 0.6).all()
    assert "after all, after 25,000 steps" in text
    lines = [line.split(" | ") for line in figures.crossing_table().splitlines()[2:]]
    crossings = {line[0][2:]: [x.replace(",", "") for x in line[1].split(", ")] for line in lines}
    steps = {task: sorted(map(int, found)) for task, found in crossings.items() if "never" not in found}
    first, *others = (steps[task] for task in ("humanoid-stand", "Walker2d", "quadruped-walk"))
    assert f"after {first[0]:,} to {first[-1]:,} gradient steps on humanoid-stand" in text
    assert f"{min(map(min, others)):,} to {max(map(max, others)):,} on Walker2d and quadruped-walk" in text
    assert "never" in crossings["HalfCheetah"] and "on HalfCheetah they end level" in text
    assert set(crossings["rewarded"]) == {"never"} and "residual ones stay ahead" in text


def test_what_page_and_readme_say_of_the_bounds_of_the_variance_is_in_the_results():
    text, readme = (" ".join(x.split()) for x in (PAGE, (ROOT / "README.md").read_text()))
    fits = {
        name: figures.read_fit(f"humanoid-stand-{name}")
        for name in ("mbpo", "mbpo-cap", "mbpo-bounds", "ftfl")
    }
    assert {len(fit["step"]) for fit in fits.values()} == {3}
    r2, (steps, *_) = {name: fit["reward_r2"] for name, fit in fits.items()}, fits["mbpo"]["step"]
    at_end = {name: between(values[:, -1], 3) for name, values in r2.items()}
    ratio = {name: fit["reward_synthetic"] / fit["reward_real"] for name, fit in fits.items()}
    cap, learned = fits["mbpo-cap"], fits["mbpo-bounds"]
    said = f"R2 is {between(r2['mbpo-cap'][:, steps >= 10_000].flatten())} from there on and "
    assert f"{said}{at_end['mbpo-cap']} at the end, where with our cap it is {at_end['mbpo']}." in text
    assert r2["mbpo-cap"].min() > 0 and f"our cap it falls to {r2['mbpo'].min():.0f}; and" in text
    of_real = f"{between(ratio['mbpo-cap'].mean(1))}"
    assert f"mean is {between(ratio['mbpo-cap'].flatten())} of the real one, {of_real} as a mean over" in text
    noise = (cap["reward_std"] / cap["reward_real"])[:, -1]
    assert f"of the reward ends at {between(noise, 1)} times its mean" in text
    first = r2["mbpo-cap"][0, steps >= 10_000]
    assert f"of `-cap` was known (R2 {between(first)} from 10,000 steps on)" in text
    assert (r2["mbpo-bounds"][:, steps <= 10_000].min(1) < -1).all()  # the first half is right
    late = r2["mbpo-bounds"][:, steps >= 20_000].flatten()
    assert min(late) > 0.6 and f"From 20,000 steps on R2 is {between(late)}, at the end" in text
    assert f"at the end {at_end['mbpo-bounds']}, above FTFL's {at_end['ftfl']};" in text
    assert r2["mbpo-bounds"][:, -1].min() > r2["ftfl"][:, -1].max()
    means = ratio["mbpo-bounds"][:, steps >= 20_000].mean(1)
    jumps = between(ratio["mbpo-bounds"][:, steps >= 20_000].flatten())
    assert f"mean jumps between {jumps.replace('to', 'and')} of the real one, and is" in text
    assert f"and is {between(means)} of it as a mean over these steps" in text
    next_r2 = [between(fits[name]["next_state_r2"][:, -1], 3) for name in ("mbpo-bounds", "mbpo", "ftfl")]
    assert "(R2 {} at the end, with ours {}; FTFL's {})".format(*next_r2) in text
    assert learned["next_state_r2"][:, -1].min() > fits["mbpo"]["next_state_r2"][:, -1].max()
    assert f"with wide ones the mean is, on average over the fit, {of_real} of the real one, with" in text
    single = between(ratio["mbpo-cap"].flatten())
    assert f"mean is {of_real} of the real one on average over the fit ({single} at single steps)" in readme
    assert f"its R² is {at_end['mbpo-bounds']} at the end, above FTFL's {at_end['ftfl']}." in readme


def test_what_the_readme_says_of_the_taxonomy_is_in_the_results():
    text, tasks = " ".join((ROOT / "README.md").read_text().split()), figures.read_taxonomy()
    for column, words in {
        "mbpo_reward_r2": "(rank correlation ",
        "reward_gain": "the more FTFL's gains on it (",
    }.items():
        rho, low, high, _ = plots.rank_correlation(tasks, "mismatch", column)
        assert f"{words}{rho:.2f} [{low:.2f}, {high:.2f}])" in text
    others, group = figures.ranks()["without humanoids and dogs"]
    found = [plots.rank_correlation(others, "mismatch", x, group) for x in ("mbpo_reward_r2", "reward_gain")]
    assert all(low < 0 < high for _, low, high, _ in found) and {x[-1] for x in found} == {40}
    assert f"the other 40 tasks the two are {found[0][0]:.2f} and {found[1][0]:.2f}, and both" in text
    near_0 = [abs(plots.median(tasks[f"{task}-v5"]["mbpo_reward_r2"])) < 0.03 for task in ("Ant", "Humanoid")]
    assert all(near_0) and f"random transitions of {len(tasks)} tasks" in text


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
