"""benchmark/sb3_sac.py: what is wrong with its flags is said before it trains. Stable-Baselines3 is stood in
for, since the tests' environment has none."""

import importlib
import sys
from types import ModuleType

import pytest


@pytest.fixture
def sb3_sac(monkeypatch):
    peer, callbacks = ModuleType("stable_baselines3"), ModuleType("stable_baselines3.common.callbacks")
    peer.SAC, callbacks.BaseCallback = None, object
    for module in (peer, ModuleType("stable_baselines3.common"), callbacks):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "sb3_sac", raising=False)
    yield importlib.import_module("sb3_sac")
    sys.modules.pop("sb3_sac")


@pytest.mark.parametrize(
    "flag, value", [("env_id", "Nothing-v0"), ("total_timesteps", 5_000), ("eval_interval", 0)]
)
def test_a_mistake_is_one_line_before_training(sb3_sac, tmp_path, capsys, flag, value):
    args = sb3_sac.Args(**{"env_id": "InvertedPendulum-v5", flag: value}, out=str(tmp_path / "out"))
    with pytest.raises(SystemExit) as error:
        sb3_sac.main(args)
    name = "learning-starts" if flag == "total_timesteps" else flag.replace("_", "-")
    said = capsys.readouterr().err
    assert error.value.code == 2 and said.startswith(f"error: --{name} ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_results_are_not_overwritten(sb3_sac, tmp_path, capsys):
    path = tmp_path / "InvertedPendulum.csv"
    path.write_text("kept")
    with pytest.raises(SystemExit) as error:
        sb3_sac.main(sb3_sac.Args(env_id="InvertedPendulum-v5", out=str(tmp_path)))
    assert error.value.code == 2 and capsys.readouterr().err.startswith("error: --out")
    assert path.read_text() == "kept"
