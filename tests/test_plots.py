"""plots.py demo: what is drawn is what was logged."""

import json
import subprocess
import sys

import pytest
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
