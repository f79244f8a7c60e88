"""plots.py demo: what is drawn is what was logged."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

import plots
from conftest import ROOT

FTFL = {"target_normalization": True, "next_state_prediction": "direct"}
CURVES = {  # (script, kind): {tag: values at steps 100, 200, 300}
    ("mbpo", "fit"): {"model/reward_r2": [-3, -2, -1], "rewards/real": [0.01] * 3, "rewards/synthetic": [0.004, 0.005, 0.02]},
    ("ftfl", "fit"): {"model/reward_r2": [0.2, 0.4, 0.6], "rewards/real": [0.01] * 3, "rewards/synthetic": [0.008] * 3},
    ("mbpo", "agent"): {"eval/episodic_return": [20, 21, 22], "losses/qf1_values": [9, 8, 7]},
    ("ftfl", "agent"): {"eval/episodic_return": [20, 60, 90], "losses/qf1_values": [9, 10, 11]},
}


@pytest.fixture
def runs(tmp_path):
    for (script, kind), curves in CURVES.items():
        folder = tmp_path / "runs" / f"{script}-{kind}"
        with SummaryWriter(str(folder)) as writer:
            for tag, values in curves.items():
                for step, value in zip((100, 200, 300), values):
                    writer.add_scalar(tag, value, step)
        flags = {"script": script, "seed": 1, "env_id": "dm_control/walker-walk-v0", "fit_buffer": "file" if kind == "fit" else ""}
        flags |= {"real_ratio": 0.05, "total_timesteps": 300, "model_train_steps": 300}
        (folder / "args.json").write_text(json.dumps(flags | (FTFL if script == "ftfl" else {})))
    return tmp_path / "runs"


def test_the_lines_drawn_are_the_values_logged(runs, tmp_path, monkeypatch, capsys):
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: (figures.append(self), savefig(self, *args, **kwargs)))
    plots.demo((str(runs),), str(tmp_path / "demo.png"))
    figure = figures[0]  # as PNG, then as PDF
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    drawn = []
    for axis in figure.axes:
        lines = {line.get_label(): line for line in axis.lines if line.get_label() in ("MBPO", "FTFL")}
        assert all(list(line.get_xdata()) == [100, 200, 300] for line in lines.values())
        drawn.append({name: line.get_ydata() for name, line in lines.items()})
        assert "walker-walk" in axis.get_title()
        assert [text.get_text() for text in axis.get_legend().get_texts()] == list(lines)
    for i, (kind, tag) in enumerate([("fit", "model/reward_r2"), ("fit", None), ("agent", "eval/episodic_return"), ("agent", "losses/qf1_values")]):
        for name in ("MBPO", "FTFL"):
            curves = CURVES[name.lower(), kind]
            expected = curves[tag] if tag else [s / r for s, r in zip(curves["rewards/synthetic"], curves["rewards/real"])]
            assert drawn[i][name] == pytest.approx(expected, rel=1e-5)
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines() if line.startswith("FTFL")] == [["FTFL", "seed", "1", "0.60", "0.80", "90.00", "11.00"]]
    assert [line.split() for line in table.splitlines() if line.startswith("MBPO")] == [["MBPO", "seed", "1", "-1.00", "2.00", "22.00", "7.00"]]


def test_the_demo_draws_each_seed_and_their_mean(runs, tmp_path, monkeypatch, capsys):
    values = {1: CURVES["ftfl", "agent"]["eval/episodic_return"], 2: [0, 30, 60], 3: [1, 0, 0]}
    for seed in (2, 3):
        write_run(runs / f"seed-{seed}", seed, values[seed], env_id="dm_control/walker-walk-v0", fit_buffer="", model_train_steps=300)
        with SummaryWriter(str(runs / f"seed-{seed}")) as writer:
            for k, q in enumerate((0, 0, 10 * seed), 1):
                writer.add_scalar("losses/qf1_values", q, 100 * k)
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: figures.append(self))
    plots.demo((str(runs),), str(tmp_path / "demo.png"))
    lines = figures[0].axes[2].lines
    (mean,) = [line for line in lines if line.get_label() == "FTFL, mean of 3 seeds"]
    assert mean.get_ydata() == pytest.approx(np.mean(list(values.values()), 0))
    thin = [list(line.get_ydata()) for line in lines if line.get_color() == mean.get_color() and line is not mean]
    assert sorted(thin) == sorted(map(list, values.values()))
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["FTFL", "mean", "-", "-", "50.00", "20.33"] in table and ["FTFL", "seed", "3", "-", "-", "0.00", "30.00"] in table


@pytest.mark.parametrize("normalized,state,name", [
    (True, "direct", "FTFL"), (True, "residual", "TUN only"), (False, "direct", "DNP only"), (False, "residual", "MBPO")])  # fmt: skip
def test_runs_are_named_by_their_flags(normalized, state, name):
    flags = {"script": "ftfl", "real_ratio": 0.05, "target_normalization": normalized, "next_state_prediction": state}
    assert plots.algorithm(flags) == name
    assert plots.algorithm({"script": "sac"}) == "SAC" and plots.algorithm({"script": "mbpo", "real_ratio": 0.05}) == "MBPO"


def test_a_broken_run_is_named_and_left_out(runs, tmp_path, capsys):
    (runs / "broken").mkdir()
    (runs / "broken" / "args.json").write_text("{")
    plots.demo((str(runs),), str(tmp_path / "demo.png"))
    assert str(runs / "broken") in capsys.readouterr().err


def test_no_runs_is_one_clear_line(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "plots.py"), "demo", "--runs", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr


def write_run(folder, seed, values, every=100, **flags):
    """A run that evaluated to `values` at steps `every`, 2 `every`, ..."""
    with SummaryWriter(str(folder)) as writer:
        for k, value in enumerate(values, 1):
            writer.add_scalar("eval/episodic_return", value, every * k)
    flags = {"script": "ftfl", "seed": seed, "env_id": "Hopper-v5", "real_ratio": 0.05, "total_timesteps": 300} | FTFL | flags
    (folder / "args.json").write_text(json.dumps(flags))


def test_iqm_is_the_mean_of_the_middle_half():
    assert plots.iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert plots.iqm(np.array([9.0, 1, 2, 3, 4, -9])) == pytest.approx((1 + 2 + 3 + 4) / 4), "of six, one at each end"
    assert plots.iqm(np.array([[0.0, 0], [1, 2], [3, 4], [90, 80]])).tolist() == [2, 3]


def test_interval_is_scipys_percentile_bootstrap():
    values = np.array([1.0, 2, 3, 4, 5, 60])
    resamples = np.random.default_rng(5).choice(values, (20_000, 6))
    expected = np.percentile(scipy.stats.trim_mean(resamples, 0.25, axis=1), [2.5, 97.5])
    assert np.allclose(plots.interval(values, resamples=20_000), expected, rtol=0.05)
    assert np.isnan(plots.interval(np.array([1.0]))).all()


def test_curves_are_grouped_by_flags_and_never_extrapolated(tmp_path, monkeypatch, capsys):
    for seed, values in enumerate(([1, 2, 3], [3, 4, 5], [5, 6, 10]), 1):
        write_run(tmp_path / f"a{seed}", seed, values)
        write_run(tmp_path / f"b{seed}", seed, [10 * v for v in values], next_state_prediction="residual")
        write_run(tmp_path / f"c{seed}", seed, [100 * v for v in values], model_hidden_dim=400)
    write_run(tmp_path / "short", 4, [1, 2, 3, 4], every=50)
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, out: figures.append(figure))
    plots.curves((str(tmp_path),), unfinished=False)
    (axis,) = figures[0].axes
    lines = {line.get_label(): line for line in axis.lines}
    assert set(lines) == {"TUN only (3 seeds)", "FTFL (3 seeds)", "Tuned FTFL (3 seeds)"}
    for name, scale in (("FTFL", 1), ("TUN only", 10), ("Tuned FTFL", 100)):
        assert lines[f"{name} (3 seeds)"].get_xdata().tolist() == [100, 200, 300]
        assert lines[f"{name} (3 seeds)"].get_ydata() == pytest.approx([3 * scale, 4 * scale, 6 * scale])
    assert "short" in capsys.readouterr().err
    plots.curves((str(tmp_path),), unfinished=True)
    lines = {line.get_label(): line for line in figures[1].axes[0].lines}
    assert lines["FTFL (4 seeds)"].get_xdata().tolist() == [100, 200], "ends where the first seed ends"


def test_exported_csv_gives_the_same_runs(tmp_path):
    write_run(tmp_path / "runs" / "a", 1, [1, 2, 1 / 3])
    plots.export((str(tmp_path / "runs"),), str(tmp_path / "all.csv"))
    (run,), (again,) = (plots.load_runs((str(tmp_path / name),)) for name in ("runs", "all.csv"))
    assert again.flags == run.flags and again.scalars.keys() == run.scalars.keys()
    for tag, (steps, values) in run.scalars.items():
        assert again.scalars[tag][0].tolist() == steps.tolist() and again.scalars[tag][1].tolist() == values.tolist()


def test_table_has_mean_std_and_iqm(tmp_path):
    for seed, value in enumerate((2.0, 4.0, 9.0), 1):
        write_run(tmp_path / "runs" / str(seed), seed, [0, 0, value])
    plots.table((str(tmp_path / "runs"),), str(tmp_path / "table"))
    row = (tmp_path / "table.csv").read_text().splitlines()[1].split(",")
    assert row[:4] == ["Hopper-v5", "FTFL", "3", "300"]
    assert [float(x) for x in row[4:7]] == pytest.approx([5, 13**0.5, 5])


@pytest.mark.parametrize("command", [plots.table, plots.summary])
def test_last_that_averages_nothing_is_refused(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command((str(tmp_path),), str(tmp_path / "out"), last=0)
    assert stop.value.code == 2 and "--last" in capsys.readouterr().err


# One set of runs with known answers, read by every command: on walker-walk, three seeds of each algorithm, of FTFL six,
# so that its IQM leaves two out and its interval is not the whole range.
STUDY = {  # name: (returns of each seed at steps 100, 200, 300; flags)
    "SAC": ([[10, 20, 40], [10, 30, 50], [10, 40, 90]], {"script": "sac"}),
    "MBPO": ([[9, 9, 18], [9, 9, 20], [9, 9, 70]], {"script": "mbpo"}),
    "TUN only": ([[8, 12, 30], [8, 13, 31], [8, 14, 32]], {"script": "ftfl", **FTFL, "next_state_prediction": "residual"}),
    "DNP only": ([[7, 7, 7], [7, 8, 8], [7, 9, 9]], {"script": "ftfl", **FTFL, "target_normalization": False}),
    "FTFL": ([[10, 50, 90], [10, 60, 100], [10, 70, 110], [10, 0, 200], [10, 80, 120], [10, 90, 60]], {"script": "ftfl", **FTFL}),
}
NAMES = [f"{name} ({len(returns)} seeds)" for name, (returns, _) in STUDY.items()]
VARIANCES = {"position": 0.5, "velocity": 20.0, "other": 1.0, "reward": 1e-3}


def write_events(folder, curves, flags):
    with SummaryWriter(str(folder)) as writer:
        for i, step in enumerate((100, 200, 300)):
            for tag, values in curves.items():
                writer.add_scalar(tag, values[i], step)
    base = {"env_id": "dm_control/walker-walk-v0", "real_ratio": 0.05, "total_timesteps": 300, "model_train_steps": 300}
    (folder / "args.json").write_text(json.dumps({**base, "fit_buffer": "", **flags}))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Training runs on walker-walk, and model studies of walker-walk and Walker2d (one per switch setting)."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    for i, (name, (returns, flags)) in enumerate(STUDY.items()):
        for seed, values in enumerate(returns, 1):
            curves = {"eval/episodic_return": values, "losses/qf1_values": [seed * i, 2 * seed * i, 3 * seed * i], "critic/bias": [i, i, -i]}
            write_events(folder / f"{i}-{seed}", curves, {**flags, "seed": seed})
        if name == "SAC":
            continue
        curves = {f"model/predicted_variance_{group}": [v * i, v * i / 2, v * i / 4] for group, v in VARIANCES.items()}
        curves |= {"model/reward_r2": [0.1 * i, 0.15 * i, 0.2 * i], "model/next_state_r2": [0.5] * 3, "rewards/real": [0.01] * 3}
        curves |= {"rewards/synthetic": [0.001 * i, 0.002 * i, 0.002 * i], "model/variance_loss": [-i, -2 * i, -3 * i]}
        write_events(folder / f"fit-{i}", curves, {**flags, "seed": 1, "fit_buffer": "file"})
        if name == "MBPO":
            walker2d = {**flags, "seed": 1, "fit_buffer": "file", "env_id": "Walker2d-v5"}
            write_events(folder / "fit-walker2d", {**curves, "model/variance_loss": [-4, -5, -6]}, walker2d)
    return folder


@pytest.fixture(params=["run directories", "exported CSV"])
def source(request, study, tmp_path):
    """The study as folders, and as one exported file: every command must read both alike."""
    if request.param == "run directories":
        return str(study)
    plots.export((str(study),), str(tmp_path / "all.csv"))
    return str(tmp_path / "all.csv")


@pytest.fixture
def figures(monkeypatch):
    """The figures that a command would write."""
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, out: drawn.append(figure))
    return drawn


def lines_of(axis):
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def shade_of(axis, k):
    """Steps and low and high edge of the k-th shaded interval of a panel."""
    vertices = axis.collections[k].get_paths()[0].vertices
    steps = sorted(set(vertices[:, 0]))
    return steps, *([extreme(y for x, y in vertices if x == step) for step in steps] for extreme in (min, max))


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
            tolerance = {"abs": 1e-4} if len(returns) == 3 else {"rel": 0.05}  # of 27 resamples the percentiles are exact
            assert (low[i], high[i]) == pytest.approx(tuple(expected), **tolerance)


def test_summary_draws_percent_of_sac(source, figures):
    plots.summary((source,))
    (axis,) = figures[0].axes
    dots = {line.get_color(): line for line in axis.lines if line.get_marker() == "o"}
    final = {name: [values[-1] for values in returns] for name, (returns, _) in STUDY.items()}
    assert len(dots) == len(STUDY)
    intervals = {line.get_color(): line for line in axis.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1}
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
    assert red.get_facecolor()[0] > red.get_facecolor()[1] and green.get_facecolor()[1] > green.get_facecolor()[0]


def test_ablation_draws_return_and_q_of_every_setting(source, figures):
    plots.ablation((source,))
    panels = {axis.get_title(): lines_of(axis) for axis in figures[0].axes}
    assert list(panels) == ["walker-walk: return", "walker-walk: mean Q"]
    assert all(list(lines) == NAMES for lines in panels.values())
    for i, (name, (returns, _)) in enumerate(zip(NAMES, STUDY.values())):
        q = np.mean(range(1, len(returns) + 1)) * i
        assert panels["walker-walk: return"][name].get_ydata() == pytest.approx(trimmed(np.transpose(returns)))
        assert panels["walker-walk: mean Q"][name].get_ydata() == pytest.approx([q, 2 * q, 3 * q])


def test_forensics_draws_the_fits_and_prints_them_beside_the_claims(source, figures, capsys):
    plots.forensics((source,), env_id="dm_control/walker-walk-v0")
    panels = {axis.get_title(): axis for axis in figures[0].axes}
    fits = [name for name in STUDY if name != "SAC"]
    assert len(panels) == 8
    for title, first in (("2a: mean reward", 0.001), ("reward $R^2$", 0.1), ("3b: variance, vel", 20.0), ("variance, pos", 0.5), ("variance, reward", 1e-3)):
        lines = lines_of(next(axis for name, axis in panels.items() if name.startswith(title)))
        for i, name in enumerate(fits, 1):
            line = lines[f"{name} (1 seed)"]
            assert line.get_xdata().tolist() == [100, 200, 300] and line.get_ydata()[0] == pytest.approx(first * i)
    real = lines_of(panels["2a: mean reward, held out"])["real"].get_ydata()
    assert list(real) == pytest.approx([0.01, 0.01])
    variance_loss = lines_of(panels["3a: variance loss of MBPO"])
    assert {name: line.get_ydata().tolist() for name, line in variance_loss.items()} == {
        "walker-walk (1 seed)": [-1, -2, -3], "Walker2d (1 seed)": [-4, -5, -6]}  # fmt: skip
    bias = lines_of(panels["2b: Q $-$ return obtained"])
    assert [bias[name].get_ydata()[-1] for name in NAMES] == [0, -1, -2, -3, -4]
    printed = [line.split("(1 seed)") for line in capsys.readouterr().out.splitlines()]
    cells = [(p[0].strip(), [float(cell) for cell in p[1].replace("(", " ").replace(")", " ").replace("to", " ").split()]) for p in printed if len(p) == 2]
    fourth = 20 / 4, 20 / 4, 20 / 2  # the velocities' variance: at the end, and the range over the second half of the fit
    assert cells[0] == ("MBPO", pytest.approx([0.2, 0.2, 0.2, 0.2, 0.15, 0.2]))  # synthetic / real, reward R2
    assert cells[4][0] == "MBPO" and cells[4][1][3:6] == pytest.approx(fourth)
    assert cells[8:] == [("Walker2d", [-6, -6, -5]), ("walker-walk", [-3, -3, -2])]


def test_table_of_the_study(source, tmp_path):
    plots.table((source,), str(tmp_path / "table"))
    rows = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == list(STUDY)
    for row, (returns, _) in zip(rows, STUDY.values()):
        final = [values[-1] for values in returns]
        assert [float(x) for x in row[4:7]] == pytest.approx([np.mean(final), np.std(final, ddof=1), trimmed(final)])
        assert [float(x) for x in row[7:9]] == pytest.approx(bootstrap(trimmed, final), rel=0.05)


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
        "cut": lambda file: cut(file, file.stat().st_size - 300),  # the record in which the file ends is not whole
        "flipped": flip,
        "foreign": lambda file: file.write_bytes(b"not an event file " * 100),
        "missing": lambda file: file.unlink(),
    }
    for name, damage in damages.items():
        folder = tmp_path / name
        shutil.copytree(study, folder)
        damage(next((folder / "4-2").glob("events*")))
        plots.curves((str(folder),))
        error = capsys.readouterr().err
        assert [line for line in error.splitlines() if str(folder / "4-2") in line], f"{name}: {error}"
        lines = lines_of(figures[-1].axes[0])
        assert list(lines) == [*NAMES[:-1], "FTFL (5 seeds)"], name
        assert lines["FTFL (5 seeds)"].get_ydata() == pytest.approx([10, 200 / 3, 320 / 3])
