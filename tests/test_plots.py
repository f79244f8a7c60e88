"""plots.py: what is drawn and printed is what was logged, of runs that may be compared."""

import csv
import json
import math
import shutil
import subprocess
import sys
from operator import attrgetter

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT
from torch.utils.tensorboard import SummaryWriter

import ftfl
import mbpo
import plots
import sac

FTFL = {"target_normalization": True, "next_state_prediction": "direct"}


def test_runs_are_named_by_their_flags():
    names = {(True, "direct"): "FTFL", (True, "residual"): "TUN only"}
    names |= {(False, "direct"): "DNP only", (False, "residual"): "MBPO"}
    for switches, name in names.items():
        assert plots.algorithm({"script": "ftfl", "real_ratio": 0.05} | dict(zip(FTFL, switches))) == name
    assert plots.algorithm({"script": "sac"}) == "SAC"
    assert plots.algorithm({"script": "mbpo", "real_ratio": 0.05}) == "MBPO"


def test_no_runs_is_one_clear_line(tmp_path):
    command = [sys.executable, str(ROOT / "plots.py"), "demo", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr


def write_run(folder, seed, values, every=100, **flags):
    """A run that evaluated to `values` at steps `every`, 2 `every`, ..."""
    with SummaryWriter(str(folder)) as writer:
        for k, value in enumerate(values, 1):
            writer.add_scalar("eval/episodic_return", value, every * k)
    about = {"script": "ftfl", "seed": seed, "env_id": "Hopper-v5", "real_ratio": 0.05, "utd_ratio": 20}
    (folder / "args.json").write_text(json.dumps(about | FTFL | {"total_timesteps": 300} | flags))


def test_exported_csv_gives_the_same_runs(tmp_path):
    write_run(tmp_path / "runs" / "a", 1, [1, 2, 1 / 3])
    plots.export((str(tmp_path / "runs"),), str(tmp_path / "all.csv"))
    (run,), (again,) = (plots.load_runs((str(tmp_path / name),)) for name in ("runs", "all.csv"))
    assert again.flags == run.flags and again.scalars.keys() == run.scalars.keys()
    for tag, (steps, values) in run.scalars.items():
        assert [x.tolist() for x in again.scalars[tag]] == [steps.tolist(), values.tolist()]


# One set of runs with known answers, read by every command: on walker-walk, three seeds of each algorithm; of
# FTFL six, so that its IQM leaves two out and its interval is not the whole range.
STUDY = {  # name: (returns of each seed at steps 100, 200, 300; flags)
    "SAC": ([[10, 20, 40], [10, 30, 50], [10, 40, 90]], {"script": "sac"}),
    "MBPO": ([[9, 9, 18], [9, 9, 20], [9, 9, 70]], {"script": "mbpo"}),
    "TUN only": ([[8, 12, 30], [8, 13, 31], [8, 14, 32]], {"script": "ftfl", **FTFL}),
    "DNP only": ([[7, 7, 7], [7, 8, 8], [7, 9, 9]], {"script": "ftfl", **FTFL}),
    "FTFL": ([[10, 50, 90], [10, 60, 100], [10, 70, 110], [10, 0, 200], [10, 80, 120], [10, 90, 60]],
             {"script": "ftfl", **FTFL}),
}  # fmt: skip
STUDY["TUN only"][1]["next_state_prediction"] = "residual"
STUDY["DNP only"][1]["target_normalization"] = False
NAMES = [f"{name} ({len(returns)} seeds)" for name, (returns, _) in STUDY.items()]
VARIANCES = {"position": 0.5, "velocity": 20.0, "other": 1.0, "reward": 1e-3}


def write_events(folder, curves, flags):
    with SummaryWriter(str(folder)) as writer:
        for i, step in enumerate((100, 200, 300)):
            for tag, values in curves.items():
                writer.add_scalar(tag, values[i], step)
    base = {"env_id": "dm_control/walker-walk-v0", "real_ratio": 0.05, "total_timesteps": 300}
    (folder / "args.json").write_text(json.dumps(base | flags))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Training runs on walker-walk, and a model study per switch setting of walker-walk and Walker2d."""
    fit = {"seed": 1, "model_study": "random", "gradient_steps": 300, "total_timesteps": 500_000}
    folder = tmp_path_factory.mktemp("study") / "runs"
    for i, (name, (returns, flags)) in enumerate(STUDY.items()):
        for seed, values in enumerate(returns, 1):
            curves = {
                "eval/episodic_return": values,
                "losses/qf1_values": [seed * i, 2 * seed * i, 3 * seed * i],
                "eval/q_start": [4 + i, 5 + i, 6 - i],
                "eval/discounted_return": [4, 5, 6],
            }
            write_events(folder / f"{i}-{seed}", curves, {**flags, "seed": seed})
        if name == "SAC":
            continue
        curves = {"model/reward_r2": [0.1 * i, 0.15 * i, 0.2 * i], "model/next_state_r2": [0.5] * 3}
        curves |= {"rewards/real": [0.01] * 3, "rewards/synthetic": [0.001 * i, 0.002 * i, 0.002 * i]}
        curves["model/variance_loss"] = [-i, -2 * i, -3 * i]
        for group, v in VARIANCES.items():
            curves[f"model/predicted_variance_{group}"] = [v * i, v * i / 2, v * i / 4]
        write_events(folder / f"fit-{i}", curves, flags | fit)
        if name == "MBPO":
            walker2d = flags | fit | {"env_id": "Walker2d-v5", "model_study": "random Walker2d-v5 1"}
            write_events(folder / "fit-walker2d", {**curves, "model/variance_loss": [-4, -5, -6]}, walker2d)
    return folder


@pytest.fixture(scope="module")
def exported(study):
    """The same as one file."""
    plots.export((str(study),), str(study.parent / "all.csv"))
    return str(study.parent / "all.csv")


@pytest.fixture(params=["run directories", "exported CSV"])
def source(request, study, exported):
    """Every command must read both alike."""
    return exported if request.param == "exported CSV" else str(study)


@pytest.fixture
def figures(monkeypatch):
    """The figures that a command would write."""
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, out: drawn.append(figure))
    yield drawn
    plots.plt.close("all")


def lines_of(axis):
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def shade_of(axis, k):
    """Steps and low and high edge of the k-th shaded interval of a panel."""
    vertices = axis.collections[k].get_paths()[0].vertices
    steps = sorted(set(vertices[:, 0]))
    return steps, *(
        [extreme(y for x, y in vertices if x == step) for step in steps] for extreme in (min, max)
    )


def trimmed(x):
    """Mean over the last axis, of six without the lowest and the highest."""
    x = np.sort(x, -1)
    return (x[..., 1:-1] if x.shape[-1] == 6 else x).mean(-1)


def bootstrap(statistic, *samples, resamples=20_000):
    """The 2.5th and 97.5th percentile of `statistic` over resampled seeds, written out."""
    rng = np.random.default_rng(7)
    drawn = [np.array(s)[rng.integers(len(s), size=(resamples, len(s)))] for s in samples]
    return np.percentile(statistic(*drawn), [2.5, 97.5])


def test_curves_draw_the_iqm_and_shade_its_interval(source, figures):
    plots.curves((source,))
    (axis,) = figures[0].axes
    lines = lines_of(axis)
    assert list(lines) == NAMES and len(axis.collections) == len(STUDY)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == NAMES
    for k, (line, (name, (returns, _))) in enumerate(zip(lines.values(), STUDY.items())):
        assert line.get_xdata().tolist() == [100, 200, 300]
        assert line.get_ydata() == pytest.approx(trimmed(np.transpose(returns)))
        assert line.get_color() == plots.COLORS[name]
        steps, low, high = shade_of(axis, k)
        assert steps == [100, 200, 300]
        for i in range(3):
            expected = bootstrap(trimmed, [values[i] for values in returns])
            # Of 27 resamples the percentiles are exact
            tolerance = {"abs": 1e-4} if len(returns) == 3 else {"rel": 0.05}
            assert (low[i], high[i]) == pytest.approx(tuple(expected), **tolerance)


def test_summary_draws_percent_of_sac(source, figures):
    plots.summary((source,))
    (axis,) = figures[0].axes
    dots = {line.get_color(): line for line in axis.lines if line.get_marker() == "o"}
    final = {name: [values[-1] for values in returns] for name, (returns, _) in STUDY.items()}
    assert len(dots) == len(STUDY)
    level = [line for line in axis.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
    intervals = {line.get_color(): line for line in level}
    for name, values in final.items():
        dot = dots[plots.COLORS[name]]
        assert dot.get_xdata()[0] == pytest.approx(100 * trimmed(values) / 60)
        if name == "SAC":
            assert plots.COLORS[name] not in intervals
        else:
            expected = bootstrap(lambda x, y: 100 * trimmed(x) / trimmed(y), values, final["SAC"])
            assert intervals[plots.COLORS[name]].get_xdata() == pytest.approx(expected, rel=0.05)
            assert intervals[plots.COLORS[name]].get_ydata()[0] == dot.get_ydata()[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["walker-walk"]
    red, green = axis.patches  # below 100 % red, above green
    assert red.get_x() + red.get_width() == pytest.approx(100) and green.get_x() == pytest.approx(100)
    assert red.get_facecolor()[0] > red.get_facecolor()[1]
    assert green.get_facecolor()[1] > green.get_facecolor()[0]


def test_ablation_draws_return_and_q_of_every_setting(source, figures):
    plots.ablation((source,))
    panels = {axis.get_title(): lines_of(axis) for axis in figures[0].axes}
    assert list(panels) == ["walker-walk: return", "walker-walk: mean Q"]
    assert all(list(lines) == NAMES for lines in panels.values())
    for i, (name, (returns, _)) in enumerate(zip(NAMES, STUDY.values())):
        q = np.mean(range(1, len(returns) + 1)) * i
        of_return, of_q = (panels[f"walker-walk: {what}"][name].get_ydata() for what in ("return", "mean Q"))
        assert of_return == pytest.approx(trimmed(np.transpose(returns)))
        assert of_q == pytest.approx([q, 2 * q, 3 * q])


def test_forensics_draws_the_fits_and_prints_them_beside_the_claims(source, figures, capsys):
    plots.forensics((source,), env_id="dm_control/walker-walk-v0")
    panels = {axis.get_title(): axis for axis in figures[0].axes}
    fits = [name for name in STUDY if name != "SAC"]
    assert len(panels) == 8
    firsts = {"2a: mean reward": 0.001, "reward $R^2$": 0.1, "3b: variance, vel": 20.0}
    for title, first in (firsts | {"variance, pos": 0.5, "variance, reward": 1e-3}).items():
        lines = lines_of(next(axis for name, axis in panels.items() if name.startswith(title)))
        for i, name in enumerate(fits, 1):
            line = lines[f"{name} (1 seed)"]
            assert line.get_xdata().tolist() == [100, 200, 300]
            assert line.get_ydata()[0] == pytest.approx(first * i)
    real = lines_of(panels["2a: mean reward, held out"])["real"].get_ydata()
    assert list(real) == pytest.approx([0.01, 0.01])
    variance_loss = lines_of(panels["3a: variance loss of MBPO"])
    assert {name: line.get_ydata().tolist() for name, line in variance_loss.items()} == {
        "walker-walk (1 seed)": [-1, -2, -3], "Walker2d (1 seed)": [-4, -5, -6]}  # fmt: skip
    bias = lines_of(panels["2b: Q $-$ return obtained"])
    assert [bias[name].get_ydata()[-1] for name in NAMES] == [0, -1, -2, -3, -4]
    critics = next(axis for name, axis in panels.items() if name.startswith("2b: Q at the start"))
    estimates = lines_of(critics)
    expected = [[4 + i, 5 + i, 6 - i] for i in range(5)]
    assert [estimates[name].get_ydata().tolist() for name in NAMES] == expected
    obtained = [line for line in critics.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata().tolist() for line in obtained] == [[4, 5, 6]] * 5
    assert [line.get_color() for line in obtained] == [plots.COLORS[name] for name in STUDY]
    printed = [line.split("(1 seed)") for line in capsys.readouterr().out.splitlines()]
    cells = [(p[0].strip(), p[1].translate(dict.fromkeys(map(ord, "()to"), " "))) for p in printed if p[1:]]
    cells = [(name, [float(cell) for cell in text.split()]) for name, text in cells]
    # The velocities' variance: at the end, and the range over the second half of the fit
    fourth = (20 / 4, 20 / 4, 20 / 2)
    assert cells[0] == ("MBPO", pytest.approx([0.2, 0.2, 0.2, 0.2, 0.15, 0.2]))  # synthetic / real, reward R2
    assert cells[4][0] == "MBPO" and cells[4][1][3:6] == pytest.approx(fourth)
    assert cells[8:] == [("Walker2d", [-6, -6, -5]), ("walker-walk", [-3, -3, -2])]


def test_table_of_the_study(source, tmp_path):
    plots.table((source,), str(tmp_path / "table"))
    rows = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == list(STUDY)
    for row, (returns, _) in zip(rows, STUDY.values()):
        final = [values[-1] for values in returns]
        assert [float(x) for x in row[5:8]] == pytest.approx(
            [np.mean(final), np.std(final, ddof=1), trimmed(final)]
        )
        assert [float(x) for x in row[8:10]] == pytest.approx(bootstrap(trimmed, final), rel=0.05)


def test_iqm_is_rliables():
    """rliable (Agarwal et al. 2021) defines it as scipy's mean without the lowest and the highest 25 %."""
    for seeds in range(1, 12):
        values = np.random.default_rng(seeds).normal(size=(seeds, 5))
        assert np.allclose(plots.iqm(values), scipy.stats.trim_mean(values, proportiontocut=0.25, axis=0))


def test_broken_and_unfinished_event_files_are_named_and_left_out(study, tmp_path, figures, capsys):
    """Each kind of damage to one seed of FTFL; its other five seeds, and everything else, are drawn."""

    def cut(file, size):
        file.write_bytes(file.read_bytes()[:size])

    def flip(file):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)

    damages = {
        "empty": lambda file: cut(file, 0),
        "cut": lambda file: cut(file, file.stat().st_size - 300),  # it ends within a record
        "flipped": flip,
        "foreign": lambda file: file.write_bytes(b"not an event file " * 100),
        "missing": lambda file: file.unlink(),
    }
    for name, damage in damages.items():
        folder = tmp_path / name
        shutil.copytree(study, folder, ignore=shutil.ignore_patterns("[1-3]-*", "fit-*"))
        damage(next((folder / "4-2").glob("events*")))
        plots.curves((str(folder),))
        error = capsys.readouterr().err
        assert [line for line in error.splitlines() if str(folder / "4-2") in line], f"{name}: {error}"
        lines = lines_of(figures[-1].axes[0])
        assert list(lines) == [NAMES[0], "FTFL (5 seeds)"], name
        assert lines["FTFL (5 seeds)"].get_ydata() == pytest.approx([10, 200 / 3, 320 / 3])


# -------------------------------------------------------------------------------- Groups and steps
DM = "dm_control/walker-walk-v0"
AGENT = {"env_id": DM, "script": "sac", "seed": 1, "num_seeds": 1}
AGENT |= {"total_timesteps": 300, "learning_starts": 100}
MODEL = {"real_ratio": 0.05, "model_hidden_dim": 200}
SCRIPTS = {"SAC": {}, "MBPO": {"script": "mbpo"} | MODEL, "FTFL": {"script": "ftfl"} | MODEL | FTFL}


def trained(algorithm, seed, returns, **flags):
    """(flags, scalars) of a run whose evaluations at {step: return} are `returns`."""
    flags = AGENT | SCRIPTS[algorithm] | {"seed": seed, "total_timesteps": max(returns)} | flags
    return flags, {"eval/episodic_return": returns}


def write_csv(path, runs):
    """What `export` writes of runs (flags, {tag: {step: value}}); read as fast as tests should be."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "tag", "step", "value"])
        for i, (flags, scalars) in enumerate(runs):
            writer.writerow([f"run-{i}", "flags", "", json.dumps(flags)])
            for tag, points in scalars.items():
                writer.writerows([f"run-{i}", tag, step, value] for step, value in points.items())
    return (str(path),)


def table_of(tmp_path, runs, **kwargs):
    """{(task, algorithm): (seeds, steps, mean)} that `table` writes of such runs."""
    plots.table(write_csv(tmp_path / "runs.csv", runs), str(tmp_path / "table"), **kwargs)
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(r["task"], r["algorithm"]): (int(r["seeds"]), int(r["steps"]), float(r["mean"])) for r in rows}


def test_a_group_ends_at_its_last_common_step(tmp_path, figures, capsys):
    """Not one seed's step 400 averaged with another's 300; nor, evaluated at other steps, 200 with 150."""
    long = trained("FTFL", 1, {100: 1, 200: 2, 300: 4, 400: 1000})
    short = trained("FTFL", 2, {100: 3, 200: 4, 300: 8})
    other = trained("FTFL", 3, {150: 500, 300: 9, 450: 500})
    sac = trained("SAC", 1, {100: 1, 200: 2, 300: 3, 400: 4})
    assert table_of(tmp_path, [long, short, sac]) == {(DM, "FTFL"): (2, 300, 6), (DM, "SAC"): (1, 400, 4)}
    said = "walker-walk, FTFL: cut to step 300, the last that all its runs have"
    assert capsys.readouterr().err.splitlines() == [said]
    assert table_of(tmp_path, [long, short, other]) == {(DM, "FTFL"): (3, 300, 7)}
    assert capsys.readouterr().err.splitlines() == [said]
    assert table_of(tmp_path, [long, short], last=2) == {(DM, "FTFL"): (2, 300, 4.5)}
    plots.curves(write_csv(tmp_path / "runs.csv", [long, short]))
    (line,) = lines_of(figures[0].axes[0]).values()
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([100, 200, 300], [2, 3, 6])
    plots.curves(write_csv(tmp_path / "runs.csv", [long, short, other]))
    (line,) = lines_of(figures[1].axes[0]).values()
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([300], [7])


def test_runs_without_a_common_step_are_named_and_left_out(tmp_path, capsys):
    runs = [trained("FTFL", 1, {100: 1}), trained("FTFL", 2, {150: 1}), trained("SAC", 1, {100: 5})]
    assert table_of(tmp_path, runs) == {(DM, "SAC"): (1, 100, 5)}
    assert "left out walker-walk, FTFL: not evaluated" in capsys.readouterr().err


def test_episodes_that_end_at_other_steps_are_interpolated_to_the_shorter_run(tmp_path, figures):
    tag = "charts/episodic_return"
    runs = [(AGENT | {"seed": 1}, {tag: {100: 0, 200: 10, 300: 20}})]
    runs += [(AGENT | {"seed": 2, "total_timesteps": 260}, {tag: {90: 0, 190: 10, 240: 10, 260: 50}})]
    plots.curves(write_csv(tmp_path / "runs.csv", runs), tag=tag)
    (line,) = lines_of(figures[0].axes[0]).values()
    assert line.get_xdata().tolist() == [100, 200]
    assert line.get_ydata() == pytest.approx([(0 + 1) / 2, (10 + 10) / 2])


def test_summary_compares_at_a_step_that_sac_has_too(tmp_path, figures, capsys):
    """FTFL's 200 steps with SAC's first 200, and so MBPO's, that stand in the same row."""
    runs = [trained("SAC", seed, {100: 10, 200: 20, 300: 80}) for seed in (1, 2)]
    runs += [trained("MBPO", seed, {100: 10, 200: 30, 300: 80}) for seed in (1, 2)]
    runs += [trained("FTFL", 1, {100: 0, 200: 50})]
    runs += [trained("FTFL", 2, {50: 7, 100: 0, 150: 7, 200: 70, 250: 7})]
    for last, percents in ((1, {"MBPO": 150, "FTFL": 300}), (2, {"MBPO": 20 / 0.15, "FTFL": 200})):
        plots.summary(write_csv(tmp_path / "runs.csv", runs), last=last)
        dots = [line for line in figures[-1].axes[0].lines if line.get_marker() == "o"]
        dots = {line.get_color(): line.get_xdata()[0] for line in dots}
        assert dots == {plots.COLORS[name]: pytest.approx(x) for name, x in ({"SAC": 100} | percents).items()}
    said = capsys.readouterr().err.splitlines()[:2]
    assert said[0].startswith("walker-walk, FTFL: cut to step 200")
    assert said[1].startswith("walker-walk, all algorithms: cut to step 200")


def args_of(script):
    """All flags of a script as its args.json has them."""
    return vars(script.Args()) | {
        "script": script.__name__,
        "run_dirs": ["a"],
        "versions": {"torch": "1"},
        "commit": "abc",
    }


@pytest.mark.parametrize("script", [mbpo, ftfl])
def test_runs_on_real_data_alone_are_sac_runs(script):
    """Whatever the flags say that sac.py has not; but not if one differs that it has."""
    agent = args_of(sac)
    flags = args_of(script) | {"real_ratio": 1} | {name: agent[name] for name in agent if name != "script"}
    assert plots.label(flags) == "SAC" and plots.identity(flags) == plots.identity(agent)
    for name in {*flags} - {*agent} - {"real_ratio"}:
        assert plots.identity(flags | {name: "other"}) == plots.identity(agent), name
    assert plots.identity(flags | {"gamma": 0.9}) != plots.identity(agent)
    assert plots.identity(flags | {"real_ratio": 0.5})[1] != "SAC"


def test_sac_of_all_three_scripts_is_one_line(tmp_path, figures, capsys):
    runs = [trained("SAC", seed, {100: 1, 200: 3}) for seed in (1, 2)]
    runs += [trained("MBPO", 3, {100: 4, 200: 8}, real_ratio=1, model_hidden_dim=50, num_elites=3)]
    runs += [trained("FTFL", 4, {100: 4, 200: 8}, real_ratio=1, model_hidden_dim=400)]
    csv_file = write_csv(tmp_path / "runs.csv", runs)
    plots.curves(csv_file)
    assert list(lines_of(figures[0].axes[0])) == ["SAC (4 seeds)"]
    plots.summary(csv_file)
    assert [text.get_text() for text in figures[1].legends[0].get_texts()] == ["SAC (4 seeds)"]
    assert list(table_of(tmp_path, runs)) == [(DM, "SAC")]
    assert capsys.readouterr().err == ""


CHANGES_NO_NUMBER = {"seed", "num_seeds", "total_timesteps", "eval_interval", "eval_episodes", "log_interval"}
CHANGES_NO_NUMBER |= {"checkpoint_interval", "device", "num_threads", "env_workers", "compile", "run_dir"}
CHANGES_NO_NUMBER |= {"resume"}


def test_every_flag_separates_runs_or_is_known_to_change_no_number(script):
    flags, splits = args_of(script), set()
    for name, value in vars(script.Args()).items():
        other = {bool: not value, str: "residual" if value == "direct" else f"{value}x"}
        other = flags | {name: other.get(type(value), 0.5 if name == "real_ratio" else 77)}
        if plots.identity(other) != plots.identity(flags):
            splits.add(name)
    assert splits == vars(script.Args()).keys() - CHANGES_NO_NUMBER
    same = flags | {"run_dirs": ["b"], "versions": {"torch": "2"}, "commit": "def"}
    assert plots.identity(same) == plots.identity(flags)


def test_transitions_of_another_origin_make_another_group():
    flags = AGENT | SCRIPTS["FTFL"] | {"model_study": "random", "gradient_steps": 300}
    assert plots.identity(flags) == plots.identity(flags | {"gradient_steps": 200})
    assert plots.identity(flags) != plots.identity(flags | {"model_study": "of a trained agent"})


def test_a_seed_counts_once_unless_it_ran_beside_others(tmp_path, capsys):
    """Beside seed 2, seed 1 draws other numbers than alone; with other threads it is the same run again."""
    alone, again = (trained("SAC", 1, {100: x}, num_threads=x) for x in (1, 2))
    beside = [trained("SAC", seed, {100: 6}, num_seeds=2) for seed in (1, 2)]
    assert table_of(tmp_path, [alone, again, *beside]) == {(DM, "SAC"): (3, 100, pytest.approx(14 / 3))}
    assert "left out run-0: run-1, of the same seed and flags, is later" in capsys.readouterr().err


def test_of_two_runs_of_a_seed_the_one_that_has_gone_farther_counts(tmp_path, capsys):
    """Not the last one to be begun, which may be a stub, nor the last one to be named."""
    whole, stub = trained("SAC", 1, {100: 5, 200: 7}), trained("SAC", 1, {100: 1}, total_timesteps=200)
    file = write_csv(tmp_path / "again.csv", [whole])
    plots.load_runs((*write_csv(tmp_path / "runs.csv", [whole]), *file))
    assert "left out run-0: run-0, of the same seed and flags, is there twice" in capsys.readouterr().err
    for runs in ([whole, stub], [stub, whole]):
        loaded = plots.load_runs(write_csv(tmp_path / "runs.csv", runs), unfinished=True)
        assert [run.scalars[plots.RETURN][1].tolist() for run in loaded] == [[5, 7]]
        assert "of the same seed and flags, goes on farther" in capsys.readouterr().err


def test_runs_of_a_changed_script_are_no_runs_of_the_script(tmp_path, capsys):
    runs = [trained("MBPO", 1, {100: 1}), trained("MBPO", 1, {100: 90}, changed="oracle")]
    runs += [trained("SAC", 1, {100: 2}), trained("SAC", 1, {100: 3}, changed="orthogonal")]
    means = {name: mean for (_, name), (_, _, mean) in table_of(tmp_path, runs).items()}
    assert means == {"SAC": 2, "SAC, orthogonal": 3, "MBPO": 1, "MBPO, oracle": 90}
    assert list(table_of(tmp_path, runs[1:2])) == [(DM, "MBPO, oracle")], "also where it is alone"
    assert "left out" not in capsys.readouterr().err
    flags = trained("FTFL", 1, {100: 1}, model_hidden_dim=400, changed="cut")[0]
    assert plots.label(flags) == "Tuned FTFL, cut" and plots.base(plots.label(flags)) == "Tuned FTFL"


def test_a_name_means_the_same_flags_on_all_tasks(tmp_path, figures):
    runs = [trained("SAC", 1, {100: 1}, utd_ratio=1), trained("MBPO", 1, {100: 1}, utd_ratio=20)]
    runs += [trained("SAC", 1, {100: 1}, utd_ratio=20, env_id="Hopper-v5")]
    rows = {(DM, "SAC, utd_ratio 1"), (DM, "MBPO"), ("Hopper-v5", "SAC, utd_ratio 20")}
    assert set(table_of(tmp_path, runs)) == rows
    with open(tmp_path / "table.csv", newline="") as file:
        assert [row["utd"] for row in csv.DictReader(file)] == ["20", "1", "20"]  # Hopper, walker-walk
    plots.curves((str(tmp_path / "runs.csv"),))
    hopper, walker = (list(lines_of(axis).values()) for axis in figures[0].axes)
    assert {line.get_linestyle() for line in hopper} != {walker[0].get_linestyle()}


def test_variants_are_told_apart(tmp_path, figures):
    """Six of one algorithm: by line style in curves, by marker in the summary."""
    runs = [trained("SAC", 1, {100: 1})]
    runs += [trained("FTFL", 1, {100: k}, tau=k, gamma=k) for k in range(1, 7)]
    plots.curves(write_csv(tmp_path / "runs.csv", runs))
    plots.summary((str(tmp_path / "runs.csv"),))
    style = [(line.get_color(), line._dash_pattern) for line in lines_of(figures[0].axes[0]).values()]
    assert len(set(map(str, style))) == 7
    dots = [line for line in figures[1].axes[0].lines if line.get_marker() != "None"]
    assert len({line.get_marker() for line in dots if line.get_color() == plots.COLORS["FTFL"]}) == 6


def test_steps_are_written_in_full_or_as_thousands(tmp_path, figures):
    runs = [trained("SAC", 1, {k * n: 1 for k in range(1, 5)}, env_id=f"{n}-v0") for n in (200, 125_000)]
    plots.curves(write_csv(tmp_path / "runs.csv", runs))
    figures[0].canvas.draw()  # else there is no text yet
    texts = {axis.get_title(): axis for axis in figures[0].axes}
    texts = {name: {tick.get_text() for tick in axis.get_xticklabels()} for name, axis in texts.items()}
    assert "600" in texts["200"] and "450k" in texts["125000"]
    assert all(axis.xaxis.get_offset_text().get_text() == "" for axis in figures[0].axes), "no 1e5"


@pytest.mark.parametrize("command", [plots.curves, plots.summary])
def test_a_legend_is_not_wider_than_the_figure(command, tmp_path, figures):
    long = {"critic_layer_norm": True, "learned_logvar_bounds": True}
    runs = [trained("SAC", 1, {100: 1})]
    runs += [trained("FTFL", 1, {100: 1}, **{"model_hidden_dim": w} | long) for w in (50, 70, 100)]
    runs += [trained("FTFL", 1, {100: 1}, model_hidden_dim=w) for w in (50, 70, 100)]
    command(write_csv(tmp_path / "runs.csv", runs))
    figures[0].canvas.draw()
    box, figure = figures[0].legends[0].get_window_extent(), figures[0].bbox
    assert len(figures[0].legends) == 1 and len(figures[0].legends[0].get_texts()) == 7
    assert box.x0 >= figure.x0 and box.x1 <= figure.x1
    assert min(axis.get_window_extent().height for axis in figures[0].axes) > 60, "panels keep their room"


def test_no_interval_in_percent_of_what_may_be_zero(tmp_path, figures, capsys, recwarn):
    runs = [trained("SAC", seed, {100: x}) for seed, x in enumerate((0, 0, 84), 1)]
    runs += [trained("FTFL", seed, {100: x}) for seed, x in enumerate((100, 200, 300), 1)]
    plots.summary(write_csv(tmp_path / "runs.csv", runs))
    (axis,) = figures[0].axes
    assert [line for line in axis.lines if line.get_marker() == "None"] == [axis.lines[-1]], (
        "only that at 100"
    )
    assert "walker-walk: no intervals, since that of SAC's return holds 0" in capsys.readouterr().err
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize("value,scale", [(36_000, "log"), (50, "linear"), (-20_000, "linear")])
def test_the_summary_of_very_unequal_returns_is_logarithmic(value, scale, tmp_path, figures):
    runs = [trained("SAC", 1, {100: 10}), trained("MBPO", 1, {100: 30}), trained("FTFL", 1, {100: value})]
    plots.summary(write_csv(tmp_path / "runs.csv", runs), last=1)
    assert figures[0].axes[0].get_xscale() == scale


def test_the_summary_says_how_many_evaluations_are_averaged(tmp_path, figures):
    file = write_csv(tmp_path / "runs.csv", [trained("SAC", 1, {100: 1, 200: 1})])
    for last, said in ((1, "final return, % of SAC"), (2, "(mean of the last 2 evaluations)")):
        plots.summary(file, last=last)
        assert figures[-1].axes[0].get_xlabel().endswith(said)


def fitted(name, seed, curves, env_id=DM):
    """(flags, scalars) of a model study with these {tag: {step: value}}."""
    flags = {"model_study": f"random {env_id} 1", "gradient_steps": 300, "env_id": env_id, "seed": seed}
    return AGENT | SCRIPTS[name] | flags, curves


@pytest.mark.parametrize("real", [-0.27, 0.0, 0.27])
def test_forensics_of_a_task_whose_rewards_are_costs(real, tmp_path, figures, recwarn):
    curves = {"rewards/real": dict.fromkeys(STEPS3, real), "rewards/synthetic": dict.fromkeys(STEPS3, real)}
    far = curves | {"rewards/synthetic": dict.fromkeys(STEPS3, real + 9)}
    runs = [fitted("FTFL", 1, curves), fitted("MBPO", 1, far)]
    plots.forensics(write_csv(tmp_path / "runs.csv", runs), env_id=DM)
    (axis,) = figures[0].axes
    low, high = axis.get_ylim()
    assert low < real < high and (real == 0 or high - low < 7.1 * abs(real))
    assert [text.get_text().split()[0] for text in axis.texts] == ["MBPO"] * (real != 0)
    assert not list(recwarn)


def test_forensics_tells_tasks_apart_and_numbers_its_axes(tmp_path, figures, capsys):
    """Fig 3a is of MBPO on several tasks: in its colour, and no line under the legend. A logarithmic axis of
    less than a decade has numbers, too. What was not logged is a dash."""
    variance = {"model/predicted_variance_velocity": dict(zip(STEPS3, (2, 3, 7)))}
    runs = [fitted("MBPO", 1, variance | {"model/variance_loss": dict(zip(STEPS3, (-1, -2, -3)))})]
    runs += [fitted("MBPO", 1, {"model/variance_loss": dict(zip(STEPS3, (-4, -1, 0)))}, "Walker2d-v5")]
    plots.forensics(write_csv(tmp_path / "runs.csv", runs), env_id=DM)
    figures[0].canvas.draw()
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    by_task = axes["3a: variance loss of MBPO"]
    lines = list(lines_of(by_task).values())
    assert {line.get_color() for line in lines} == {plots.COLORS["MBPO"]}
    assert len({line.get_linestyle() for line in lines}) == 2
    top = by_task.transData.inverted().transform(by_task.get_legend().get_window_extent().p0)[1]
    assert top > 0, "the highest line ends at 0"
    velocity = axes["3b: variance, velocities"].yaxis
    assert [text.get_text() for text in velocity.get_minorticklabels() if text.get_text()]
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MBPO")][1:2]
    assert row.split()[-1] == "-" and "nan" not in row


@pytest.mark.parametrize("steps, said", [(19_999, True), (20_000, False)])
def test_forensics_says_when_the_fits_are_too_short_for_direct_targets(
    steps, said, tmp_path, figures, capsys
):
    flags, curves = fitted("FTFL", 1, dict.fromkeys(plots.MODEL_PANELS, {1_000: 0.1, steps: 0.2}))
    runs = [(flags | {"gradient_steps": steps}, curves)]
    plots.forensics(write_csv(tmp_path / "runs.csv", runs), env_id=DM)
    out = capsys.readouterr().out
    assert ("19,999 gradient steps: below some 20,000" in out) == said and "next-state R2" in out


def test_a_tag_without_a_common_step_takes_no_other_with_it(tmp_path, figures, capsys):
    runs = [trained("FTFL", seed, {100: 1, 200: 2}) for seed in (1, 2)]
    runs += [trained("FTFL", 3, {100: 1, 200: 2}, target_normalization=False)]
    for (_, curves), step in zip(runs, (150, 180, 200)):
        curves["losses/qf1_values"] = {step: 5}
    plots.ablation(write_csv(tmp_path / "runs.csv", runs))
    panels = {axis.get_title(): list(lines_of(axis)) for axis in figures[0].axes}
    assert panels["walker-walk: return"] == ["DNP only (1 seed)", "FTFL (2 seeds)"]
    assert panels["walker-walk: mean Q"] == ["DNP only (1 seed)"]
    assert "losses/qf1_values left out" in capsys.readouterr().err


def test_what_tags_an_export_has_does_not_make_its_runs_unfinished(tmp_path, figures):
    """The last training episode ends before the run does."""
    flags, curves = trained("SAC", 1, {100: 1, 300: 2})
    runs = [(flags, curves | {"charts/episodic_return": {50: 1, 250: 4}})]
    tags = ("charts/episodic_return",)
    plots.export(write_csv(tmp_path / "runs.csv", runs), str(tmp_path / "some"), tags)
    plots.curves((str(tmp_path / "some.csv"),), tag=tags[0])
    (line,) = lines_of(figures[0].axes[0]).values()
    assert line.get_xdata().tolist() == [50, 250]
    short = runs[0][0] | {"total_timesteps": 400}, runs[0][1]
    plots.export(write_csv(tmp_path / "runs.csv", [short]), str(tmp_path / "some.csv"), tags)
    with pytest.raises(SystemExit):
        plots.curves((str(tmp_path / "some.csv"),), tag=tags[0])


def test_runs_takes_a_folder_of_csv_files_and_names_what_has_no_runs(tmp_path, capsys):
    (tmp_path / "csv").mkdir()
    for seed in (1, 2):
        write_csv(tmp_path / f"csv/{seed}.csv", [trained("SAC", seed, {100: seed})])
    (tmp_path / "csv/other.csv").write_text("a,b\n1,2\n")
    loaded = plots.load_runs((str(tmp_path / "csv"), str(tmp_path / "nowhere")))
    assert [run.flags["seed"] for run in loaded] == [1, 2]
    said = capsys.readouterr().err
    assert f"--runs {tmp_path}/nowhere: no runs there" in said and "other.csv: ValueError: no file of" in said
    write_run(tmp_path / "csv/run", 3, [1, 2, 3])
    assert [run.flags["seed"] for run in plots.load_runs((str(tmp_path / "csv"),))] == [3]


def test_taxonomy_of_a_few_tasks(tmp_path, figures, capsys):
    """Of one or two there is no rank correlation; of none there is no figure."""
    lines = (ROOT / "benchmark/results/taxonomy.csv").read_text().splitlines()
    hopper = next(line for line in lines if line.startswith("dm_control/hopper-hop"))
    file = tmp_path / "few.csv"
    file.write_text("\n".join([lines[0], hopper]))
    plots.taxonomy(str(file), str(tmp_path / "out"))
    text = (tmp_path / "out.md").read_text()
    assert "hopper-hop *" in text and "*: MBPO fails there in the paper" in text
    assert "correlation" not in text and "nan]" not in text
    file.write_text(lines[0] + "\n")
    with pytest.raises(SystemExit) as stop:
        plots.taxonomy(str(file), str(tmp_path / "out"))
    assert stop.value.code == 2 and "error: --data" in capsys.readouterr().err


def test_versions_of_a_task_are_different_tasks(tmp_path, figures):
    runs = [trained("SAC", 1, {100: 1}, env_id="Hopper-v4"), trained("SAC", 2, {100: 3}, env_id="Hopper-v5")]
    runs += [trained("SAC", 1, {100: 5}, env_id="dm_control/hopper-hop-v0")]
    rows = {("Hopper-v4", "SAC"): (1, 100, 1), ("Hopper-v5", "SAC"): (1, 100, 3)}
    assert table_of(tmp_path, runs) == rows | {("dm_control/hopper-hop-v0", "SAC"): (1, 100, 5)}
    printed = [line.split(" | ")[0] for line in (tmp_path / "table.md").read_text().splitlines()[2:]]
    assert printed == ["| Hopper-v4", "| Hopper-v5", "| hopper-hop"]
    plots.curves((str(tmp_path / "runs.csv"),))
    panels = {axis.get_title(): list(lines_of(axis).values()) for axis in figures[0].axes}
    assert {name: line.get_ydata().tolist() for name, (line,) in panels.items()} == {
        "Hopper-v4": [1], "Hopper-v5": [3], "hopper-hop": [5]}  # fmt: skip
    plots.summary((str(tmp_path / "runs.csv"),))
    labels = [label.get_text() for label in figures[1].axes[0].get_yticklabels()]
    assert labels == ["Hopper-v4", "Hopper-v5", "hopper-hop"]
    plots.curves(write_csv(tmp_path / "runs.csv", runs[:1]))
    assert figures[2].axes[0].get_title() == "Hopper"


# -------------------------------------------------------------------------------- What is missing
def test_a_study_is_finished_at_its_gradient_steps(tmp_path, capsys):
    flags = AGENT | SCRIPTS["FTFL"] | {"model_study": "random", "gradient_steps": 300}
    flags["total_timesteps"] = 500_000
    runs = [(flags | {"seed": seed}, {"model/reward_r2": {last: 0.5}}) for seed, last in ((1, 300), (2, 200))]
    loaded = plots.load_runs(write_csv(tmp_path / "runs.csv", runs))
    assert [run.flags["seed"] for run in loaded] == [1]
    assert "left out run-1: unfinished, its log ends at step 200 of 300" in capsys.readouterr().err
    assert len(plots.load_runs((str(tmp_path / "runs.csv"),), unfinished=True)) == 2


@pytest.mark.parametrize("command", [plots.curves, plots.summary, plots.table])
def test_algorithms_that_a_task_lacks_are_named(command, tmp_path, figures, capsys):
    runs = [trained(name, 1, {100: 1}) for name in SCRIPTS]
    runs += [trained(name, 1, {100: 1}, env_id="Hopper-v5") for name in ("SAC", "FTFL")]
    command(write_csv(tmp_path / "runs.csv", runs), str(tmp_path / "out"))
    assert capsys.readouterr().err.splitlines() == ["Hopper: no runs of MBPO"]


@pytest.mark.parametrize("kept,panels", [("model_study", 6), ("agents", 2)])
def test_forensics_draws_what_there_is(kept, panels, exported, tmp_path, figures, capsys):
    points = []
    for flags, scalars in map(attrgetter("flags", "scalars"), plots.load_runs((exported,))):
        if ("model_study" in flags) == (kept == "model_study") and plots.label(flags) != "TUN only":
            curves = {tag: dict(zip(map(int, x), y.tolist())) for tag, (x, y) in scalars.items()}
            points.append((flags, curves))
    plots.forensics(write_csv(tmp_path / "kept.csv", points), env_id=DM)
    assert len(figures[0].axes) == panels
    error = capsys.readouterr().err
    missing = {"model studies": ["TUN only"], "agents": ["TUN only"]}
    missing |= {"agents": list(STUDY)} if kept == "model_study" else {"model studies": list(STUDY)[1:]}
    for what, names in missing.items():
        assert f"walker-walk, {what}: no runs of {', '.join(names)}\n" in error


MISTAKES = [
    (plots.curves, {"runs": ("/nonexistent",)}, "--runs /nonexistent"),
    (plots.curves, {"tag": "losses/nonsense"}, "--tag losses/nonsense"),
    (plots.curves, {"out": "/dev/null/figure"}, "--out /dev/null/figure"),
    (plots.curves, {"out": ""}, "--out"),
    (plots.table, {"out": "/dev/null/table"}, "--out /dev/null/table"),
    (plots.export, {"out": "/dev/null/all.csv"}, "--out /dev/null/all.csv"),
    (plots.export, {"tags": ("losses/nonsense",)}, "--tags losses/nonsense"),
    (plots.summary, {"last": -1}, "--last"),
    (plots.summary, {"last": 0}, "--last"),
    (plots.table, {"last": 0}, "--last"),
    (plots.ablation, {}, "--runs"),
    (plots.forensics, {"env_id": "Nonsense-v0"}, "--env-id Nonsense-v0"),
    (plots.demo, {}, "--runs"),
]


@pytest.mark.parametrize("command,flags,named", MISTAKES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_mistakes_are_one_line_that_names_the_flag(command, flags, named, tmp_path, capsys):
    runs = write_csv(tmp_path / "runs.csv", [trained("SAC", 1, {100: 1})])
    with pytest.raises(SystemExit) as stop:
        command(**{"runs": runs, "out": str(tmp_path / "out")} | flags)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 2 and len(errors) == 1 and named in errors[0]


# -------------------------------------------------------------------------------- The demo
HUMANOID, QUADRUPED, PENDULUM = plots.DEMO
STEPS3 = (100, 200, 300)
STUDIES = {  # {(task, algorithm): (reward R2, synthetic over real reward)}, of each seed at STEPS3
    (HUMANOID, "MBPO"): ([[-9, -7, -6], [-5, -5, -4], [-1, -3, -8]], [[-3, -2, -5], [9, 8, 7], [0, 1, 1]]),
    (HUMANOID, "FTFL"): (
        [[0.1, 0.2, 0.6], [0.2, 0.2, 0.7], [0.3, 0.5, 0.8]],
        [[0.5, 1, 1], [2, 1, 1.05], [1, 1, 0.95]],
    ),
    (QUADRUPED, "MBPO"): (
        [[0, 0, -0.5], [0, 0, 0.25], [0, 0, 0.4]],
        [[0.2, 0.3, 0.25], [0.4, 0.4, 0.5], [0.1, 0.1, 0.1]],
    ),
    (QUADRUPED, "FTFL"): ([[0.9, 0.9, 0.9]] * 3, [[1, 1, 1]] * 3),
    (HUMANOID, "FTFL, beta 0.5"): ([[0.9, 0.9, 0.95]] * 3, [[1, 1, 1]] * 3),
    (QUADRUPED, "FTFL, beta 0.5"): ([[0.9, 0.9, 0.95]] * 3, [[1, 1, 1]] * 3),
}
AGENTS = {  # {algorithm: (returns of each seed, estimates Q of each seed)}; 10 are obtained
    "SAC": ([[20, 30, 90], [20, 30, 100], [20, 30, 110]], [[5, 5, 5], [6, 6, 6], [7, 7, 7]]),
    "MBPO": ([[20, 90, 120], [20, 80, 130], [20, 70, 140]], [[9, 9, 9000], [9, 9, 9], [9, 9, 8]]),
    "FTFL": ([[20, 90, 95], [20, 80, 130], [20, 70, 60]], [[5, 5, 15], [15, 15, 12], [15, 15, 11]]),
}


def demo_runs():
    """{part: runs} of the demo."""
    parts = {}
    for (task, name), seeds in STUDIES.items():
        for seed, (r2, ratio) in enumerate(zip(*seeds), 1):
            curves = {
                "model/reward_r2": r2,
                "rewards/real": [0.5] * 3,
                "rewards/synthetic": np.multiply(0.5, ratio),
            }
            flags = {"env_id": task, "seed": seed, "model_study": "random", "gradient_steps": 300}
            flags |= SCRIPTS[name.split(",")[0]] | {"nll_beta": 0.5 if "beta" in name else 0}
            parts.setdefault((task, name), []).append((AGENT | flags, curves))
    for name, seeds in AGENTS.items():
        for seed, (returns, q) in enumerate(zip(*seeds), 1):
            curves = {"eval/episodic_return": returns, "eval/q_start": q, "eval/discounted_return": [10] * 3}
            curves["charts/episodic_return"] = [10 * seed, 500, 500]  # learning starts after step 100
            flags = {"env_id": PENDULUM, "seed": seed}
            parts.setdefault((PENDULUM, name), []).append((AGENT | SCRIPTS[name] | flags, curves))
    return {
        part: [
            (flags, {tag: dict(zip(STEPS3, values)) for tag, values in curves.items()})
            for flags, curves in runs
        ]
        for part, runs in parts.items()
    }


def draw_demo(tmp_path, parts):
    plots.demo(write_csv(tmp_path / "runs.csv", [run for runs in parts.values() for run in runs]))


def test_demo_draws_every_seed_and_their_mean(tmp_path, figures, capsys):
    draw_demo(tmp_path, demo_runs())
    assert capsys.readouterr().err == ""
    axes = figures[0].axes
    tasks = ["humanoid-stand", "quadruped-walk", "InvertedPendulum"]
    assert [axis.get_title().splitlines()[0] for axis in axes] == 2 * tasks
    steps = [*2 * ["gradient steps of the model"], "environment steps"]
    assert [axis.get_xlabel() for axis in axes] == 2 * steps
    q_minus_10 = {name: np.subtract(q, 10) for name, (_, q) in AGENTS.items()}
    names = ("MBPO", "FTFL", "FTFL, beta 0.5")
    content = [{name: STUDIES[task, name][0] for name in names} for task in (HUMANOID, QUADRUPED)]
    content += [{name: returns for name, (returns, _) in AGENTS.items()}]
    content += [{name: STUDIES[task, name][1] for name in names} for task in (HUMANOID, QUADRUPED)]
    content += [q_minus_10]
    for axis, expected in zip(axes, content):
        means = lines_of(axis)
        means.pop("random policy", None)
        assert list(means) == [f"{name} (3 seeds)" for name in expected]
        for (name, seeds), mean in zip(expected.items(), means.values()):
            how = mean.get_color(), mean.get_linestyle()
            thin = [line for line in axis.lines if (line.get_color(), line.get_linestyle()) == how]
            thin.remove(mean)
            assert np.array([line.get_ydata() for line in thin]) == pytest.approx(np.array(seeds))
            assert mean.get_ydata() == pytest.approx(np.mean(seeds, 0))
            assert mean.get_xdata().tolist() == [*STEPS3]
            assert all(line.get_linewidth() < mean.get_linewidth() / 2 for line in thin)
            assert mean.get_color() == plots.COLORS[name.split(",")[0]]
    assert list(lines_of(axes[2])["random policy"].get_ydata()) == [20, 20], (
        "seeds' first episodes: 10, 20, 30"
    )
    assert "ranks nobody" in axes[2].get_title()
    for axis, value in zip(axes, (0, 0, None, 1, 1, 0)):
        gray = [line for line in axis.lines if line.get_color() == "gray" and line.get_linestyle() == "-"]
        assert [line.get_ydata()[0] for line in gray] == ([] if value is None else [value])
    assert axes[0].get_ylim() == pytest.approx((-2, 0.88), abs=0.2) and axes[3].get_ylim()[1] == 4
    assert axes[5].get_ylim()[1] == 20, "critics that run away hide no others"
    assert [text.get_text() for text in axes[0].texts] == ["MBPO ends at -6 ↓"]
    assert [text.get_text() for text in axes[5].texts] == ["MBPO ends at 2,996 ↑"]


def sentences(printed):
    """{(task, algorithm): (cells, sentence)} of what the demo prints."""
    rows, task = {}, None
    lines = printed.splitlines()
    for line, below in zip(lines, [*lines[1:], ""]):
        if ", model study: " in line or ", agent: " in line:
            task = line.split(",")[0]
        elif " seed" in line and line.startswith(("SAC", "MBPO", "FTFL")):
            name, _, cells = line.partition("seed")
            cells = cells.removeprefix("s)").removeprefix(")").split(")")[:-1]
            rows[task, name.split(" (")[0]] = (cells, below.strip())
    return rows


def test_demo_prints_the_last_values_and_what_they_show(tmp_path, figures, capsys):
    draw_demo(tmp_path, demo_runs())
    rows = sentences(capsys.readouterr().out)
    cells = {row: [" ".join(cell.split()) for cell in texts] for row, (texts, _) in rows.items()}
    assert cells == {
        ("humanoid-stand", "MBPO"): ["-6 (-8 to -4", "1 (-5 to 7"],
        ("humanoid-stand", "FTFL"): ["0.7 (0.6 to 0.8", "1 (0.95 to 1.05"],
        ("quadruped-walk", "MBPO"): ["0.05 (-0.5 to 0.4", "0.283 (0.1 to 0.5"],
        ("quadruped-walk", "FTFL"): ["0.9 (0.9 to 0.9", "1 (1 to 1"],
        ("humanoid-stand", "FTFL, beta 0.5"): ["0.95 (0.95 to 0.95", "1 (1 to 1"],
        ("quadruped-walk", "FTFL, beta 0.5"): ["0.95 (0.95 to 0.95", "1 (1 to 1"],
        ("InvertedPendulum", "SAC"): ["100 (90 to 110", "6 (5 to 7", "10 (10 to 10"],
        ("InvertedPendulum", "MBPO"): ["130 (120 to 140", "3,006 (8 to 9,000", "10 (10 to 10"],
        ("InvertedPendulum", "FTFL"): ["95 (60 to 130", "12.7 (11 to 15", "10 (10 to 10"],
    }
    open_question = "these seeds do not decide whether"
    expected = {
        ("humanoid-stand", "MBPO"): f"worse than its mean would;{open_question} the mean reward it imagines",
        ("humanoid-stand", "FTFL"): "better than its mean would;within 10 % of the real one",
        ("quadruped-walk", "MBPO"): f"{open_question} it predicts;more than 10 % below the real one",
        ("quadruped-walk", "FTFL"): "better than its mean would;within 10 % of the real one",
        ("InvertedPendulum", "SAC"): "more than 10 % above the random policy's (20);Q is below the return",
        ("InvertedPendulum", "MBPO"): "above the random;above the range of SAC's"
        f";{open_question} Q is below or",
        ("InvertedPendulum", "FTFL"): f"above the random;{open_question} the return is below or"
        ";Q is above the return",
    }
    for row, parts in expected.items():
        said, parts = rows[row][1].split(";"), parts.split(";")
        assert len(said) == len(parts), said
        for part, text in zip(parts, said):
            assert part in text or part.capitalize() in text
            assert (open_question in text.lower()) == (open_question in part)


@pytest.mark.parametrize("values,expected", [
    ([-1, -2], "x below"), ([0, 0.5, 1], "x between"), ([2, 3], "x above"), ([5], "x above"),
    ([-1, 0.5], "these seeds do not decide whether x below or between"),
    ([0.5, 2, 0.1], "these seeds do not decide whether x between or above"),
    ([-1, 2], "these seeds do not decide whether x below or above"),
    ([-1, 0.5, 2], "these seeds do not decide whether x below or between or above"),
    ([2, math.nan], "these seeds do not decide whether x below or between or above"),
    ([2, math.inf], "x above")])  # fmt: skip
def test_a_verdict_holds_for_every_seed(values, expected):
    assert plots.verdict(np.array(values), 0, 1, "x {}", ("below", "between", "above")) == expected


def test_demo_compares_at_a_common_step(tmp_path, figures, capsys):
    """One seed of MBPO ends at step 200: its group does, and what is printed is of step 200 for FTFL too."""
    parts = demo_runs()
    flags, curves = parts[HUMANOID, "MBPO"][0]
    short = {
        tag: {step: value for step, value in points.items() if step <= 200} for tag, points in curves.items()
    }
    parts[HUMANOID, "MBPO"][0] = flags | {"gradient_steps": 200}, short
    draw_demo(tmp_path, parts)
    assert lines_of(figures[0].axes[0])["MBPO (3 seeds)"].get_xdata().tolist() == [100, 200]
    assert lines_of(figures[0].axes[0])["FTFL (3 seeds)"].get_xdata().tolist() == [100, 200, 300]
    captured = capsys.readouterr()
    assert "humanoid-stand, MBPO: cut to step 200" in captured.err
    assert "humanoid-stand, the numbers printed: cut to step 200" in captured.err
    assert "humanoid-stand, model study: after 200 gradient steps" in captured.out
    cells, _ = sentences(captured.out)["humanoid-stand", "FTFL"]
    assert cells[0].split()[0] == "0.3", "(0.2 + 0.2 + 0.5) / 3"


@pytest.mark.parametrize("lost,panels,said", [
    ([(PENDULUM, "SAC"), (PENDULUM, "MBPO"), (PENDULUM, "FTFL")], 4,
     "InvertedPendulum, agent: no runs of SAC, MBPO, FTFL"),
    ([(QUADRUPED, "MBPO"), (QUADRUPED, "FTFL"), (QUADRUPED, "FTFL, beta 0.5")], 4,
     "quadruped-walk, model study: no runs of MBPO, FTFL, FTFL, beta 0.5"),
    ([(HUMANOID, "FTFL")], 6, "humanoid-stand, model study: no runs of FTFL"),
    ([(PENDULUM, "SAC")], 6, "InvertedPendulum, agent: no runs of SAC")])  # fmt: skip
def test_demo_draws_what_there_is_and_says_what_is_not(lost, panels, said, tmp_path, figures, capsys):
    parts = {part: runs for part, runs in demo_runs().items() if part not in lost}
    parts["other"] = [trained("SAC", 1, {100: 1}, env_id="Hopper-v5")]
    draw_demo(tmp_path, parts)
    assert len(figures[0].axes) == panels
    captured = capsys.readouterr()
    assert said in captured.err.splitlines() and "the demo has no agent of Hopper-v5" in captured.err
    rows = sentences(captured.out)
    assert set(rows) == {
        (plots.short_names(plots.DEMO)[task], name) for task, name in demo_runs() if (task, name) not in lost
    }
    assert all(sentence.endswith(".") for _, sentence in rows.values())
    if (PENDULUM, "SAC") in lost:
        assert "range of SAC" not in captured.out


def test_demo_without_reward_or_estimates_still_draws(tmp_path, figures, capsys):
    """No ratio where the real reward is zero, no bias where no Q was logged."""
    parts = demo_runs()
    for _, curves in parts[HUMANOID, "MBPO"]:
        curves["rewards/real"] = dict.fromkeys(STEPS3, 0.0)
    for _, curves in parts[PENDULUM, "FTFL"]:
        del curves["eval/q_start"]
    draw_demo(tmp_path, parts)
    captured = capsys.readouterr()
    assert "InvertedPendulum, FTFL: no values of bias" in captured.err and len(figures[0].axes) == 6
    rows = sentences(captured.out)
    assert "Q is" not in rows["InvertedPendulum", "FTFL"][1]
    assert (
        "the mean reward it imagines is more than 10 % below or within" in rows["humanoid-stand", "MBPO"][1]
    )


def test_demo_writes_png_and_pdf_from_run_directories(tmp_path, capsys):
    for i, name in enumerate(("MBPO", "FTFL")):
        flags = SCRIPTS[name] | {
            "seed": 1,
            "env_id": HUMANOID,
            "model_study": "random",
            "gradient_steps": 300,
        }
        curves = {"model/reward_r2": [i] * 3, "rewards/real": [0.1] * 3, "rewards/synthetic": [0.1] * 3}
        write_events(tmp_path / "runs" / name, curves, flags)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "args.json").write_text("{")
    plots.demo((str(tmp_path / "runs"),), str(tmp_path / "demo.png"))
    assert all((tmp_path / f"demo.{suffix}").stat().st_size > 10_000 for suffix in ("png", "pdf"))
    assert str(tmp_path / "runs" / "broken") in capsys.readouterr().err


# -------------------------------------------------------------------------------- What users would hit
def labels(figure):
    return {line.get_label() for line in figure.axes[0].lines}


def test_another_script_is_another_algorithm(tmp_path, figures, capsys):
    """README invites to copy and change the scripts: what a copy does must not count as the original's."""
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", seed, [1, 2, 3], script="mbpo")
        write_run(tmp_path / f"b{seed}", seed, [4, 5, 6], script="mbpo_v2")
        write_run(tmp_path / f"c{seed}", seed, [7, 8, 9], script="my_sac")
    flags = json.loads((tmp_path / "c1" / "args.json").read_text())
    del flags["real_ratio"]  # a copy of sac.py has no such flag
    for seed in (1, 2):
        (tmp_path / f"c{seed}" / "args.json").write_text(json.dumps(flags | {"seed": seed}))
    plots.curves((str(tmp_path),))
    assert {"FTFL (2 seeds)", "mbpo_v2 (2 seeds)", "my_sac (2 seeds)"} == labels(figures[0])
    assert capsys.readouterr().err == ""


def test_runs_of_different_code_are_said_to_be_mixed_or_kept_apart(tmp_path, figures, capsys):
    write_run(tmp_path / "a", 1, [1, 2, 3], commit="a" * 40)
    write_run(tmp_path / "b", 2, [1, 2, 3], commit="b" * 40)
    write_run(tmp_path / "c", 3, [1, 2, 3], commit="b" * 40 + "-dirty", source="123")
    write_run(tmp_path / "d", 4, [1, 2, 3], commit="b" * 40 + "-dirty", source="456")
    plots.curves((str(tmp_path),))
    (line,) = capsys.readouterr().err.splitlines()
    assert "mixed" in line and all(x in line for x in ("aaaaaaaa", "bbbbbbbb", "123", "456"))
    plots.curves((str(tmp_path),), by_commit=True)
    assert labels(figures[0]) == {"FTFL (4 seeds)"} and len(labels(figures[1])) == 4
    assert capsys.readouterr().err == ""


def test_runs_behind_links_are_found_once(tmp_path):
    write_run(tmp_path / "disk" / "a", 1, [1, 2, 3])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "runs")  # a circle
    (run,) = plots.load_runs((str(tmp_path / "runs"),))
    assert run.scalars["eval/episodic_return"][1].tolist() == [1, 2, 3]


def test_a_resumed_run_whose_clock_went_back(tmp_path):
    """The first machine died at step 150 after a checkpoint at 100; the second one's clock is behind."""
    write_run(tmp_path / "a", 1, [1, 2, 3], every=50)  # steps 50, 100, 150
    (first,) = (tmp_path / "a").glob("*tfevents*")
    first.rename(tmp_path / "a" / "events.out.tfevents.2000000000.later-name")
    with SummaryWriter(str(tmp_path / "a"), purge_step=101) as writer:
        for step in (200, 250, 300):
            writer.add_scalar("eval/episodic_return", step, step)
    (run,) = plots.load_runs((str(tmp_path / "a"),))
    steps, values = run.scalars["eval/episodic_return"]
    assert steps.tolist() == [50, 100, 200, 250, 300] and values.tolist() == [1, 2, 200, 250, 300]


def test_a_csv_with_a_byte_order_mark(tmp_path):
    """As Excel saves it."""
    write_run(tmp_path / "a", 1, [1, 2, 3])
    plots.export((str(tmp_path / "a"),), str(tmp_path / "all.csv"))
    text = (tmp_path / "all.csv").read_bytes()
    (tmp_path / "all.csv").write_bytes(b"\xef\xbb\xbf" + text)
    (run,) = plots.load_runs((str(tmp_path / "all.csv"),))
    assert len(run.scalars["eval/episodic_return"][0]) == 3


def test_steps_are_sorted_and_of_a_step_logged_twice_the_last_value_counts(tmp_path):
    write_run(tmp_path / "a", 1, [])
    with SummaryWriter(str(tmp_path / "a")) as writer:
        for step, value in ((300, 3), (100, 9), (200, 2), (100, 1)):
            writer.add_scalar("eval/episodic_return", value, step)
    (run,) = plots.load_runs((str(tmp_path / "a"),))
    steps, values = run.scalars["eval/episodic_return"]
    assert steps.tolist() == [100, 200, 300] and values.tolist() == [1, 2, 3]


def test_relative_returns_are_in_percent_of_sacs_iqm_not_of_its_mean():
    sac_returns, returns = np.array([0.0, 10, 20, 1000]), np.array([30.0, 30, 30, 30])
    assert plots.relative(returns, sac_returns) == pytest.approx(200)
