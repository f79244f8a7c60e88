"""The training loop itself: what `main` plays, stores, imagines, draws for its updates and logs, looked at
from outside in one short run of each script. A piece that is wrong in all three alike shows here only."""

import itertools
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from conftest import make_args, read_checkpoint, read_scalars

import ftfl
import mbpo
import sac

START, STEPS, SEEDS, UTD, ROWS = 60, 220, 2, 2, 36
FLAGS = {"env_id": "Hopper-v5", "learning_starts": START, "total_timesteps": STEPS, "num_seeds": SEEDS}
FLAGS |= {"utd_ratio": UTD, "batch_size": ROWS, "eval_interval": STEPS, "log_interval": 1, "device": "cpu"}
IMAGINED = {"rollouts_per_step": 10, "synthetic_buffer_size": 1_300, "model_train_interval": 100}


@pytest.fixture(scope="module", params=[sac, mbpo, ftfl], ids=lambda module: module.__name__)
def seen(request, tmp_path_factory):
    """A run, and what it did: .batches and .noise of each update, .played: (obs, noise, action, mean action)
    of each action of the policy in the environment, .imagined: (step, real rewards, real next_obs, the last
    Batch); and its .data (real transitions), .logs of each seed and .checkpoint."""
    module, patch = request.param, pytest.MonkeyPatch()
    found = SimpleNamespace(module=module, batches=[], noise=[], played=[], imagined=[])

    def update(agent, batch, next_noise, noise, real=module.SAC.update):
        found.batches.append(module.Batch(*(x.clone() for x in batch)))
        found.noise.append(torch.stack([next_noise, noise], 1))
        return real(agent, batch, next_noise, noise)

    def sample(actor, obs, noise, real=module.Actor.sample):
        actions, log_probs = real(actor, obs, noise)
        if obs.shape[1] == 1:
            with torch.no_grad():
                mean = torch.tanh(actor(obs)[0])
            found.played.append((obs, noise, actions.detach(), mean))
        return actions, log_probs

    patch.setattr(module.SAC, "update", update)
    patch.setattr(module.Actor, "sample", sample)
    if module is not sac:

        def imagine(agent, model, buffer, synthetic, rule, step, args, real=module.imagine):
            batch = real(agent, model, buffer, synthetic, rule, step, args)
            so_far = (x[:, : buffer.size].clone() for x in (buffer.data.rewards, buffer.data.next_obs))
            found.imagined.append((step, *so_far, batch))
            return batch

        patch.setattr(module, "imagine", imagine)
    flags = FLAGS | ({} if module is sac else IMAGINED)
    found.args = make_args(module, **flags, run_dir=str(tmp_path_factory.mktemp(module.__name__)))
    found.run_dirs = module.main(found.args)
    patch.undo()
    found.checkpoint = read_checkpoint(found.run_dirs[0])
    found.data = module.Batch(*found.checkpoint["buffer"]["data"])
    found.logs = [read_scalars(run_dir) for run_dir in found.run_dirs]
    return found


def is_normal(x):
    """Whether these numbers could be draws of a standard normal: mean, std, and the share beyond two."""
    x, n = x.flatten().double(), x.numel()
    beyond = (x.abs() > 2).double().mean()
    return x.mean().abs() < 4 / n**0.5 and (x.std() - 1).abs() < 4 / n**0.5 and (beyond - 0.0455).abs() < 0.02


def test_random_actions_fill_the_whole_range(seen):
    actions = seen.data.actions[:, :START]  # (seeds, steps, act)
    assert actions.amin(1).max() < -0.7 and actions.amax(1).min() > 0.7
    assert actions.mean().abs() < 0.15 and abs(actions.std() - 3**-0.5) < 0.05  # uniform
    assert not torch.equal(actions[0], actions[1]) and len(actions.flatten().unique()) > 350


def test_then_the_policy_s_samples_are_played_in_the_state_that_was_observed(seen):
    assert len(seen.played) == STEPS - START, "each step after the random ones, and no other"
    obs, noise, actions, means = (torch.stack(x).squeeze(2) for x in zip(*seen.played))  # (steps, seeds, .)
    assert torch.equal(actions.transpose(0, 1), seen.data.actions[:, START:])
    assert torch.equal(obs.transpose(0, 1), seen.data.obs[:, START:])
    assert is_normal(noise) and not torch.equal(noise[:, 0], noise[:, 1])
    assert (actions - means).abs().mean() > 1e-3, "no mean actions"


def test_each_update_has_a_batch_and_noise_of_its_own(seen):
    assert len(seen.batches) == (STEPS - START + 1) * UTD
    obs, noise = torch.stack([b.obs for b in seen.batches]), torch.stack(seen.noise)
    assert obs.shape[:3] == (len(seen.batches), SEEDS, ROWS) and noise.shape[1:] == (SEEDS, 2, ROWS, 3)
    assert is_normal(noise)
    correlation = torch.corrcoef(noise.permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1))  # seeds and uses
    assert (correlation - torch.eye(2 * SEEDS)).abs().max() < 0.05
    for step in range(0, len(obs), UTD):
        for i, j in itertools.combinations(range(step, step + UTD), 2):
            assert not torch.equal(obs[i], obs[j]) and not torch.equal(noise[i], noise[j])
    assert not (obs[:, 0] == obs[:, 1]).all(-1).any(), "seeds share no transition"


def test_batches_have_the_share_of_real_rows_that_rounds_best(seen):
    """5 % of 36 rows are 1.8, so 2. And of the real rows all are drawn, old and new."""
    real = [{row.numpy().tobytes(): t for t, row in enumerate(seen.data.next_obs[k])} for k in range(SEEDS)]
    drawn = [
        [real[k].get(row.numpy().tobytes()) for row in b.next_obs[k]] for b in seen.batches for k in (0, 1)
    ]
    drawn = [[t for t in rows if t is not None] for rows in drawn]
    assert any(a != b for a, b in zip(drawn[::2], drawn[1::2])), "seeds share no row numbers"
    assert {len(rows) for rows in drawn} == {ROWS if seen.module is sac else 2}
    steps = [START + i // (2 * UTD) for i in range(len(drawn))]
    assert all(max(rows) < step for rows, step in zip(drawn, steps))
    newest = sum(step - 1 in rows for rows, step in zip(drawn, steps))
    assert newest > (50 if seen.module is sac else 0), "the transition just stored can be drawn, too"


def test_what_is_imagined_and_kept_is_what_the_flags_say(seen):
    if seen.module is sac:
        pytest.skip("sac.py has no model")
    assert [step for step, *_ in seen.imagined] == list(range(START, STEPS + 1)), (
        "its schedule counts all steps"
    )
    assert {batch.rewards.shape for *_, batch in seen.imagined} == {(SEEDS, 10)}
    kept = seen.checkpoint["synthetic_buffer"]["data"][2]
    assert kept.shape == (SEEDS, IMAGINED["synthetic_buffer_size"])


def test_training_episodes_are_logged_with_their_returns_and_lengths(seen):
    for k, logs in enumerate(seen.logs):
        returns, lengths = (dict(logs[f"charts/episodic_{name}"]) for name in ("return", "length"))
        begin = 0
        for end in sorted(returns):
            assert lengths[end] == end - begin
            assert returns[end] == pytest.approx(seen.data.rewards[k, begin:end].sum().item(), rel=1e-4)
            begin = end
        assert len(returns) > 3 and set(returns) == set(lengths)
        assert any(abs(returns[end] - lengths[end]) > 1 for end in returns), "else they could be swapped"


def test_what_lies_out_of_the_real_range_is_logged(seen):
    if seen.module is sac:
        pytest.skip("sac.py has no model")
    expected = defaultdict(list)
    for _, rewards, next_obs, batch in seen.imagined:
        for tag, real, new in (("rewards", rewards, batch.rewards), ("model", next_obs, batch.next_obs)):
            low, high = real.amin(1, keepdim=True), real.amax(1, keepdim=True)
            expected[tag].append(((new < low) | (new > high)).double().flatten(1).mean(1))
    for k, logs in enumerate(seen.logs):
        for tag, shares in expected.items():
            assert [v for _, v in logs[f"{tag}/out_of_range"]] == pytest.approx([x[k].item() for x in shares])
    assert not torch.equal(torch.stack(expected["rewards"]), torch.stack(expected["model"]))


def test_speed_counts_the_steps_since_the_start_or_the_resume(script, tmp_path, monkeypatch):
    """Of a clock that is one second further at each look: main looks once at the start, then at each log."""
    clock = SimpleNamespace(time=itertools.count().__next__, time_ns=script.time.time_ns)
    monkeypatch.setattr(script, "time", clock)
    flags = {"env_id": "Hopper-v5", "learning_starts": 60, "num_seeds": 2, "run_dir": str(tmp_path)}
    run_dirs = script.main(make_args(script, total_timesteps=80, **flags))
    clock.time = itertools.count().__next__
    argv = ["--resume", str(run_dirs[0]), "--total-timesteps", "90"]
    script.main(script.parse_args(argv))
    events = [dict(read_scalars(run_dir, all_tags=True)["charts/SPS"]) for run_dir in run_dirs]
    assert events[0] == events[1]
    assert [events[0][step] for step in (60, 61, 80)] == pytest.approx([2 * 60, 2 * 61 / 2, 2 * 80 / 21])
    assert [events[0][step] for step in range(81, 91)] == pytest.approx([2] * 10)


def test_compile_compiles_each_update_whole(script, tmp_path, monkeypatch):
    compiled = []

    def compile(function, **kwargs):
        compiled.append((function.__self__.__class__.__name__, kwargs))
        return function

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(script.shutil, "which", lambda name: name)
    flags = {"env_id": "Hopper-v5", "learning_starts": 20, "total_timesteps": 21, "run_dir": str(tmp_path)}
    script.main(make_args(script, compile=True, device="cpu", **flags))
    names = ["SAC"] if script is sac else ["SAC", "Ensemble"]
    assert compiled == [(name, {"fullgraph": True, "mode": "default"}) for name in names]


def test_the_model_is_trained_before_it_imagines_and_imagines_before_sac_is_updated(
    model_script, tmp_path, monkeypatch
):
    calls = []

    def record(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (calls.append(name), function(*args))[1])

    for owner, name in (
        (model_script, "train_model"),
        (model_script, "imagine"),
        (model_script.SAC, "update"),
    ):
        record(owner, name)
    flags = {"env_id": "Hopper-v5", "learning_starts": 20, "total_timesteps": 21, "utd_ratio": 2}
    model_script.main(make_args(model_script, **flags, run_dir=str(tmp_path)))
    assert calls == ["train_model", "imagine", "update", "update", "imagine", "update", "update"]


def test_of_the_synthetic_buffer_oldest_and_newest_are_drawn(model_script, tmp_path, monkeypatch):
    seen, take = [], model_script.ReplayBuffer.take

    def record(buffer, rows):
        if buffer.capacity == 333:
            seen.append((rows, buffer.size))
        return take(buffer, rows)

    monkeypatch.setattr(model_script.ReplayBuffer, "take", record)
    flags = {"env_id": "Hopper-v5", "learning_starts": 20, "total_timesteps": 70, "batch_size": 100}
    flags |= {"utd_ratio": 4, "synthetic_buffer_size": 333, "run_dir": str(tmp_path)}
    model_script.main(make_args(model_script, **flags))
    places = torch.cat([(rows / (size - 1)).flatten() for rows, size in seen])  # 0 oldest to 1 newest
    assert places.min() == 0 and places.max() == 1
    assert places.mean().item() == pytest.approx(0.5, abs=0.02) and places.std().item() > 0.27


def test_episodes_are_logged_whether_they_end_in_a_terminal_state_or_by_the_time_limit(script, tmp_path):
    """The scripted task's are of 5 and of 7 steps in turn; the reward is the step's number."""
    flags = {} if script is sac else {"real_ratio": 1.0}
    args = make_args(script, env_id="Scripted-v0", total_timesteps=40, learning_starts=39, **flags)
    args.run_dir = str(tmp_path)
    logs = read_scalars(script.main(args)[0])
    lengths = [value for _, value in logs["charts/episodic_length"]]
    assert {5, 7} == set(lengths)
    assert [value for _, value in logs["charts/episodic_return"]] == [n * (n + 1) / 2 for n in lengths]
