"""benchmark/throughput.py: mistakes cost a second, not half an hour; and it measures what it says."""

import os
import sys

import pytest
import throughput
import torch
from conftest import ROOT

MISTAKES = [
    ("gpu", "cuda:77"),
    ("peers", "/nonexistent/python"),
    ("mbrl", sys.executable),  # mbrl isn't in this virtual environment
    ("before", "/nonexistent/checkout"),
    ("rounds", 0),
    ("threads", (0,)),
    ("threads", (100_000,)),
    ("out", "/nonexistent/folder/throughput.json"),
]


@pytest.mark.parametrize("flag, value", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_flag(flag, value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        throughput.main(**{flag: value})
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: --{flag} ")
    assert not list(tmp_path.iterdir())


def test_each_round_asks_each_worker_once(monkeypatch):
    monkeypatch.setattr(throughput, "SHAPES", {"small": (4, 2)})
    results = throughput.measure({}, 1, 2, [*throughput.FLOORS, "ours"])
    assert list(results) == [("small", task) for task in throughput.TASKS]
    for (_, task), times in results.items():
        assert all(len(ms) == 2 for ms in times.values())
        floor, library = throughput.floor_of(times)
        assert 0 < min(floor) < min(times["ours"]), f"{task}: faster than its multiplications alone"
        assert len(floor) == 2 and library in throughput.FLOORS


def test_another_checkout_is_measured_by_its_own_script(monkeypatch, tmp_path):
    """One whose worker answers 7 whatever is asked."""
    (tmp_path / "benchmark").mkdir()
    worker = "import sys\nassert sys.argv[1:] == ['--worker', 'ours --compile']\n"
    worker += "for line in sys.stdin:\n    print(7, flush=True)\n"
    (tmp_path / "benchmark/throughput.py").write_text(worker)
    monkeypatch.setattr(throughput, "SHAPES", {"small": (4, 2)})
    results = throughput.measure({}, 1, 1, ["MKL", "before --compile"], tmp_path)
    assert all(times["before --compile"] == [7] and times["MKL"] != [7] for times in results.values())


def test_the_floor_is_the_fastest_library_of_each_round():
    times = {"MKL": [1.5, 1.0, 3.0], "oneDNN": [2.0, 2.0, 2.0], "numpy": [5.0, 5.0, 1.0], "ours": [0.1] * 3}
    assert throughput.floor_of(times) == ([1.5, 1.0, 1.0], "MKL")
    times["MKL"] = [9.0] * 3
    assert throughput.floor_of(times) == ([2.0, 2.0, 1.0], "oneDNN")


def test_the_processor_and_its_vector_width_are_named():
    words = throughput.machine()
    width = torch.backends.cpu.get_cpu_capability()
    assert f", {width}" in words and words.endswith(f"{os.cpu_count()} cores")


def test_whole_steps_are_timed_by_the_clock(monkeypatch, tmp_path):
    """A copy of sac.py whose update sleeps for 20 ms: fewer than 50 steps a second, nearly all in updates."""
    slow = "def sleep_instead(self, batch, next_noise, noise):\n    time.sleep(0.02)\n"
    slow += "    return {'nothing': torch.zeros(1, 1)}\n\n\nSAC.update = sleep_instead\n\n\n"
    (tmp_path / "sac.py").write_text(
        (ROOT / "sac.py").read_text().replace("if __name__", slow + "if __name__")
    )
    monkeypatch.setattr(throughput, "ROOT", tmp_path)
    speed, share = throughput.steps_per_second("sac", 1, "dm_control/walker-walk-v0", 1, False)
    assert 15 < speed < 50
    assert 0.6 < share < 1


def test_a_short_measurement_has_no_evaluation_in_it(monkeypatch, tmp_path):
    """At 20 updates of 5 ms a step takes some 105 ms; the evaluation after the last one here takes 4 s."""
    slow = "def sleep_instead(self, batch, next_noise, noise):\n    time.sleep(0.005)\n"
    slow += "    return {'nothing': torch.zeros(1, 1)}\n\n\nSAC.update = sleep_instead\n"
    slow += "def evaluate(agent, envs, args, step):\n    time.sleep(4)\n"
    slow += "    return {'eval/episodic_return': np.zeros((1, 1))}\n\n\n"
    (tmp_path / "sac.py").write_text(
        (ROOT / "sac.py").read_text().replace("if __name__", slow + "if __name__")
    )
    monkeypatch.setattr(throughput, "ROOT", tmp_path)
    speed, _ = throughput.steps_per_second("sac", 20, "Hopper-v5", 1, False)
    assert 6 < speed < 10, "as a mean of a stretch without and one with it, it could be 6 at most"


def test_a_worker_that_dies_is_named_with_its_own_log(monkeypatch):
    monkeypatch.setattr(throughput, "SHAPES", {"small": (4, 2)})
    for pythons in ({"SB3": sys.executable}, {"SB3": "/bin/true"}):  # it has no stable_baselines3; no answer
        with pytest.raises(AssertionError, match="SB3 died: see .*throughput-SB3.log"):
            throughput.measure(pythons, 1, 1, ["SB3", "MKL"])
