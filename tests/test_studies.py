"""benchmark/studies.py: the fits are what their names say, and none is made twice or lost."""

import csv
import json
import os
from dataclasses import replace

import model_study
import pytest
import studies
import torch
from conftest import make_args

import ftfl

SMALL = "--collect 60 --steps 4 --log-interval 2 --model-hidden-dim 8 --model-batch-size 8"


def test_the_fits_are_what_their_names_say():
    args = studies.Args()
    for name in studies.FITS:
        study = model_study.parse_args(studies.flags_of(name, [3], args))
        normalized, direct = study.target_normalization, study.next_state_prediction == "direct"
        setting = {(True, True): "ftfl", (False, False): "mbpo", (True, False): "tun", (False, True): "dnp"}
        assert f"-{setting[normalized, direct]}" in name
        assert (study.steps, study.seed, study.collect) == (50_000, 3, 10_000)
        task = next((task for task in studies.TASKS if name.startswith(task)), None)
        assert study.env_id == studies.TASKS.get(task, "") and bool(study.buffer) == (task is None)
        assert study.model_hidden_dim == (400 if "width400" in name else 200)
        assert study.learned_logvar_bounds == name.endswith("-bounds")
    assert sum(name.count("-") == 2 or name[0].isupper() for name in studies.FITS) >= 16


def small(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(studies, "SHARED", SMALL)
    monkeypatch.setattr(studies, "FITS", {name: "--env-id Hopper-v5" for name in fits})
    return studies.Args(
        fits=("hopper",), seeds=(1,), run_dir=str(tmp_path / "runs"), out=str(tmp_path / "out")
    )


def lines(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_fit_is_made_once_and_its_numbers_are_those_logged(tmp_path, monkeypatch):
    args = small(tmp_path, monkeypatch, ["hopper", "hopper-fixed"])
    studies.main(args)
    free, fixed = (lines(tmp_path / f"out/{name}__1.csv") for name in ("hopper", "hopper-fixed"))
    assert [line["step"] for line in free] == [line["step"] for line in fixed] == ["2", "4"]
    assert {line["variance_loss"] for line in fixed} == {"0"} and free[0]["variance_loss"] != "0"
    assert {line["reward_trained"] for line in fixed} == {"1"}
    (run_dir,) = (tmp_path / "runs/hopper").iterdir()
    scalars = studies.plots.read_run_dir(run_dir).scalars
    assert [float(line["reward_r2"]) for line in free] == [
        float(f"{value:.4g}") for value in scalars["model/reward_r2"][1]
    ]
    assert ftfl.Ensemble is not studies.FixedVariance and ftfl.make_run_dirs.__name__ == "make_run_dirs"
    for name in ("hopper", "hopper-fixed"):
        (about,) = (tmp_path / "runs" / name).glob("*/args.json")
        assert json.loads(about.read_text()).get("changed") == ("fixed" if "fixed" in name else None)
    monkeypatch.setattr(model_study, "main", None)  # nothing is fitted again
    studies.main(args)
    assert not list(tmp_path.glob("runs/*.pid"))


def test_what_a_living_process_has_begun_is_left_to_it_and_a_dead_ones_is_taken(tmp_path, monkeypatch):
    args = small(tmp_path, monkeypatch, ["hopper"])
    (tmp_path / "runs").mkdir()
    claim = tmp_path / "runs/hopper__1.pid"
    claim.write_text(str(os.getppid()))
    studies.main(args)
    assert not list((tmp_path / "out").iterdir()) and claim.exists()
    claim.write_text(str(2**22 + 1))  # above the largest process id
    studies.main(args)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hopper__1.csv"] and not claim.exists()


def test_on_a_gpu_the_seeds_of_a_fit_are_fitted_side_by_side(tmp_path, monkeypatch, capsys):
    args = small(tmp_path, monkeypatch, ["hopper"])
    args.seeds, args.device = (1, 2), "cuda"
    studies.main(replace(args, list=True))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("hopper, seed 1, 2: ") and "--device cuda" in line and "--num-seeds 2" in line
    parse, choose = model_study.parse_args, ftfl.choose_device
    monkeypatch.setattr(ftfl, "choose_device", lambda flags: choose(replace(flags, device="cpu")))
    monkeypatch.setattr(model_study, "parse_args", lambda flags: replace(parse(flags), device="cpu"))
    studies.main(args)
    first, second = (lines(tmp_path / f"out/hopper__{seed}.csv") for seed in (1, 2))
    assert len(first) == len(second) == 2 and first[1]["reward_r2"] != second[1]["reward_r2"]
    args.seeds = (1, 3)
    with pytest.raises(SystemExit):
        studies.main(args)
    assert "error: --seeds must follow one another" in capsys.readouterr().err


def test_the_rewarded_fits_can_have_transitions_of_a_file(tmp_path, monkeypatch):
    args = small(tmp_path, monkeypatch, ["hopper"])
    batch = model_study.collect(ftfl, ftfl.Args(env_id="Hopper-v5"), 60)
    model_study.save_transitions(tmp_path / "some.npz", batch, "Hopper-v5")
    monkeypatch.setattr(studies, "FITS", {"rewarded-ftfl": "--buffer SAC"})
    monkeypatch.setattr(studies, "sac_run", None)
    studies.main(replace(args, fits=("rewarded",), rewarded=str(tmp_path / "some.npz")))
    (path,) = (tmp_path / "out").iterdir()
    real = float(lines(path)[0]["reward_real"])
    assert path.name == "rewarded-ftfl__1.csv" and abs(real - batch.rewards.mean()) < batch.rewards.std()


def test_a_fixed_variance_makes_the_likelihood_a_squared_error():
    torch.manual_seed(1)
    model = studies.FixedVariance(4, 2, make_args(ftfl))
    batch = ftfl.Batch(*(torch.randn(1, 7, 16, *shape) for shape in ((4,), (2,), (), (4,), ())))
    mean, logvar = model(batch.obs, batch.actions)
    expected = (model.targets(batch) - mean).square().mean((2, 3))
    logs = model.update(batch)
    assert not logvar.any() and torch.allclose(logs["model/nll"], expected)


def test_a_high_cap_lets_the_variance_be_large(monkeypatch):
    model = studies.HighCap(4, 2, make_args(ftfl))
    monkeypatch.setattr(model.net, "forward", lambda x: torch.full((*x.shape[:-1], 10), 40.0))
    _, logvar = model(torch.randn(1, 1, 16, 4), torch.randn(1, 1, 16, 2))
    assert logvar.min() == logvar.max() == pytest.approx(5, abs=1e-3)
    assert not model.max_logvar.requires_grad
    assert studies.ENSEMBLES["-cap"] is studies.HighCap and "humanoid-stand-mbpo-cap" in studies.FITS


@pytest.mark.parametrize(
    "flags", [{"device": "gpu"}, {"rewarded": "none.npz"}, {"seeds": ()}], ids=["device", "rewarded", "seeds"]
)
def test_a_mistake_is_one_line_before_any_fit(flags, tmp_path, monkeypatch, capsys):
    args = replace(small(tmp_path, monkeypatch, ["hopper"]), **flags)
    monkeypatch.setattr(studies, "fit", None)
    with pytest.raises(SystemExit) as error:
        studies.main(args)
    (name,) = flags
    assert error.value.code == 2 and capsys.readouterr().err.startswith(f"error: --{name}")
    assert not list(tmp_path.iterdir())


def test_what_is_no_command_is_listed_as_such(capsys, tmp_path):
    studies.main(
        studies.Args(seeds=(1,), run_dir=str(tmp_path / "my runs"), out=str(tmp_path / "x"), list=True)
    )
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(studies.FITS) and not list(tmp_path.iterdir())
    for name, line in zip(studies.FITS, printed):
        assert line.startswith(name) and f"--run-dir '{tmp_path}/my runs/{name}'" in line
        assert ("(no command: " in line) == name.endswith(("-fixed", "-cap"))
        assert (f"--buffer '{tmp_path}/my runs/sac/RUN'" in line) == name.startswith("rewarded")


def test_no_such_fit_is_one_line(capsys):
    with pytest.raises(SystemExit) as error:
        studies.main(studies.Args(fits=("nothing",)))
    assert error.value.code == 2 and capsys.readouterr().err.startswith("error: --fits nothing")
