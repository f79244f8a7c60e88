"""plots.py demo: what is drawn is what was logged."""

import json
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
