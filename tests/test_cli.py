"""The command line: bad input gets one clear line and exit code 2, before the first step and with nothing written."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import sac
from conftest import ROOT, make_args, random_batch, read_scalars

BAD = [
    ({"env_id": "Nonsense-v0"}, "--env-id"),
    ({"env_id": "dm_control/humanoid-fly-v0"}, "--env-id"),
    ({"env_id": "Hopper-v99"}, "--env-id"),
    ({"env_id": ""}, "--env-id"),
    ({"env_id": "DiscreteActions-v0"}, "continuous"),
    ({"env_id": "Pixels-v0"}, "pixels"),
    ({"env_id": "FloatPixels-v0"}, "pixels"),
    ({"num_seeds": 0}, "--num-seeds"),
    ({"seed": -1}, "--seed"),
    ({"total_timesteps": 0}, "--total-timesteps"),
    ({"learning_starts": 0}, "--learning-starts"),
    ({"learning_starts": 501}, "--learning-starts"),
    ({"batch_size": 0}, "--batch-size"),
    ({"utd_ratio": -3}, "--utd-ratio"),
    ({"eval_episodes": 0}, "--eval-episodes"),
    ({"num_threads": 0}, "--num-threads"),
    ({"gamma": 1.5}, "--gamma"),
    ({"gamma": float("nan")}, "--gamma"),
    ({"tau": -0.1}, "--tau"),
    ({"actor_lr": 0.0}, "--actor-lr"),
    ({"critic_lr": float("inf")}, "--critic-lr"),
    ({"device": "abacus"}, "--device"),
    ({"device": "cuda:77"}, "--device"),
    ({"run_dir": "/dev/null/runs"}, "--run-dir"),
    ({"run_dir": "/proc/runs"}, "--run-dir"),
    ({"evaluate": "/nonexistent/agent.pt"}, "--evaluate"),
    ({"capture_video": True}, "MUJOCO_GL"),  # the tests run with MUJOCO_GL=disable
]
BAD_MODEL = [
    ({"env_id": "Scripted-v0"}, "termination_rule"),
    ({"real_ratio": 1.01}, "--real-ratio"),
    ({"real_ratio": -0.5}, "--real-ratio"),
    ({"ensemble_size": 0}, "--ensemble-size"),
    ({"num_elites": 8}, "--num-elites"),
    ({"model_train_steps": 0}, "--model-train-steps"),
    ({"rollouts_per_step": 0}, "--rollouts-per-step"),
    ({"synthetic_buffer_size": 5}, "--synthetic-buffer-size"),
    ({"learning_starts": 9}, "--learning-starts"),
    ({"rollout_schedule": "1:2:3"}, "--rollout-schedule"),
    ({"rollout_schedule": "1:2:x:4"}, "--rollout-schedule"),
    ({"rollout_schedule": "0:2:3:4"}, "--rollout-schedule"),
    ({"rollout_schedule": "1:2:4:4"}, "--rollout-schedule"),
    ({"fit_buffer": "/nonexistent/buffer.npz"}, "--fit-buffer"),
]


def assert_refused(script, flags, names, tmp_path, capsys):
    flags = {"env_id": "Hopper-v5", "total_timesteps": 500, "learning_starts": 100, "run_dir": str(tmp_path / "runs")} | flags
    with pytest.raises(SystemExit) as error:
        script.main(make_args(script, **flags))
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line]
    assert error.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and names in lines[0], captured.err
    assert captured.out == ""
    assert not (tmp_path / "runs").exists(), "nothing may be written"


@pytest.mark.parametrize("flags,names", BAD, ids=str)
def test_bad_input(script, flags, names, tmp_path, capsys):
    assert_refused(script, flags, names, tmp_path, capsys)


def test_compiling_without_a_compiler(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(script, {"compile": True}, "--compile", tmp_path, capsys)


@pytest.mark.parametrize("flags,names", BAD_MODEL, ids=str)
def test_bad_input_for_the_model(model_script, flags, names, tmp_path, capsys):
    assert_refused(model_script, flags, names, tmp_path, capsys)


@pytest.mark.parametrize("content", [b"", b"not a file of ours", b"PK\x03\x04truncated"])
def test_unreadable_files(model_script, content, tmp_path, capsys):
    (tmp_path / "file").write_bytes(content)
    for flag in ("fit_buffer", "evaluate"):
        assert_refused(model_script, {flag: str(tmp_path / "file")}, flag.replace("_", "-"), tmp_path, capsys)


def test_a_buffer_with_code_or_with_other_contents_is_refused(model_script, tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    np.savez(tmp_path / "code.npz", obs=np.array([Payload()], dtype=object))
    torch.save({"agent": Payload()}, tmp_path / "code.pt")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    rows = random_batch(1, 20, 3, 1)._asdict()
    ragged = {name: x[0].numpy() for name, x in rows.items()} | {"actions": np.zeros((7, 1))}
    np.savez(tmp_path / "ragged.npz", env_id="Hopper-v5", **ragged)
    for name in ("code.npz", "other.npz", "ragged.npz"):
        assert_refused(model_script, {"fit_buffer": str(tmp_path / name)}, "--fit-buffer", tmp_path, capsys)
    assert_refused(model_script, {"evaluate": str(tmp_path / "code.pt")}, "--evaluate", tmp_path, capsys)
    assert not (tmp_path / "ran").exists()


def run_script(*arguments, name="sac"):
    command = [sys.executable, str(ROOT / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_from_the_shell(script):
    """The flags as typed: help that lists every flag with its explanation, and exit code 2 without a traceback."""
    name = script.__name__
    done = run_script("--help", name=name)
    assert done.returncode == 0
    for flag in vars(script.Args()):
        assert "--" + flag.replace("_", "-") in done.stdout
    for arguments in (["--gamma", "2"], ["--gamma", "high"], ["--no-such-flag"], ["--env-id", "Nonsense-v0"]):
        done = run_script(*arguments, name=name)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_unwritable_run_dir_is_found_before_the_first_step(script, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert_refused(script, {"run_dir": str(tmp_path / "file" / "runs")}, "--run-dir", tmp_path, capsys)


def test_flags_are_stored_and_runs_never_share_a_directory(script, tmp_path):
    flags = {"env_id": "Hopper-v5", "total_timesteps": 20, "learning_starts": 20, "run_dir": str(tmp_path), "num_seeds": 2}
    run_dirs = [d for _ in range(3) for d in script.main(make_args(script, **flags))]
    assert len(set(run_dirs)) == 6 and all(d.parent == tmp_path for d in run_dirs)
    for run_dir, seed in zip(run_dirs, [1, 2] * 3):
        assert run_dir.name.startswith(f"Hopper-v5__{script.__name__}__{seed}__")
        stored = json.loads((run_dir / "args.json").read_text())
        assert stored["script"] == script.__name__ and stored["seed"] == seed and stored["env_id"] == "Hopper-v5"
        assert stored.keys() >= vars(script.Args()).keys()


def test_a_saved_agent_plays_the_episodes_that_its_evaluation_played(script, tmp_path, capsys):
    """And any of the scripts can play it."""
    flags = {"env_id": "Hopper-v5", "total_timesteps": 60, "learning_starts": 50, "num_seeds": 2, "save_model": True}
    run_dirs = script.main(make_args(script, **flags, run_dir=str(tmp_path)))
    capsys.readouterr()
    returns = {}
    for player in (script, sac):
        for k, run_dir in enumerate(run_dirs):
            player.main(make_args(player, evaluate=str(run_dir / "agent.pt"), seed=1, eval_episodes=3))
            table = capsys.readouterr().out
            returns[player, k] = [float(line.split()[1]) for line in table.splitlines()[2:5]]
            assert "Hopper-v5" in table and float(table.split("mean ")[-1].split()[0]) == pytest.approx(np.mean(returns[player, k]), abs=0.02)
    assert returns[script, 0] == returns[sac, 0] and returns[script, 0] != returns[script, 1]
    args = make_args(script, **flags, eval_episodes=3)
    envs = script.make_envs(args, per_seed=3)
    agent = script.SAC(script.make_rng(args, 0), 11, 3, args)
    states = [torch.load(d / "agent.pt", weights_only=True)["agent"] for d in run_dirs]
    agent.load_state_dict({name: torch.cat([s[name] for s in states]) for name in states[0]})
    played = script.play_episodes(agent, envs, args, 0)["rewards"].sum(0)
    assert played[0] == pytest.approx(returns[script, 0], abs=0.01)


def test_evaluation_episodes_use_the_mean_action_and_stop_at_their_end(script):
    args = script.Args(env_id="Scripted-v0", hidden_dim=8, num_seeds=2)
    envs = script.make_envs(args, per_seed=3)
    agent = script.SAC(script.make_rng(args, 0), 2, 1, args)
    noises, sample = [], agent.actor.sample
    agent.actor.sample = lambda obs, noise: (noises.append(noise), sample(obs, noise))[1]
    envs.reset()  # so that the next episode is an even one, of 5 steps
    episodes = script.play_episodes(agent, envs, args, 0)
    assert all((noise == 0).all() for noise in noises)
    assert (episodes["rewards"].sum(0) == 15).all() and (episodes["alive"].sum(0) == 5).all()  # 1 + ... + 5
    assert episodes["terminations"].sum() == 6
    envs.reset()
    episodes = script.play_episodes(agent, envs, args, 0, rng=script.make_rng(args, 5))
    assert any((noise != 0).all() for noise in noises)
    assert (episodes["rewards"].sum(0) == 28).all() and episodes["terminations"].sum() == 0  # an odd one, of 7 steps
    results = script.evaluate(agent, envs, args, 1)
    assert results["eval/episodic_return"].tolist() == [28, 28]
    envs.close()
