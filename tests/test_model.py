"""The ensemble: targets and their inverse, bootstraps, holdout, elites, normalizers, rollouts, the mix of a batch."""

import numpy as np
import pytest
import torch

import ftfl
import mbpo
from conftest import NEEDS_COMPILER, filled_buffer, make_args, random_batch, read_scalars

OBS, ACT = 4, 2
GROUPS = np.array(["position", "velocity", "velocity", "position"])
SWITCHES = [(normalized, state) for normalized in (True, False) for state in ("direct", "residual")]


def make_model(module, num_seeds=1, rows=100, batch=None, **flags):
    """A model with fitted normalizers, the buffer, and its (train, holdout) rows."""
    args = make_args(module, num_seeds=num_seeds, **flags)
    buffer = filled_buffer(module, batch or random_batch(num_seeds, rows, OBS, ACT, module=module))
    rng = module.make_rng(args, module.MODEL_STREAM)
    model = module.Ensemble(rng, OBS, ACT, args)
    rows = module.split_rows(module.draw_holdout(rng, buffer.capacity), buffer.size)
    model.update_normalizer(buffer.sample(rows[0].unsqueeze(1)))
    return model, buffer, rows, rng, args


def odd_scales_batch(module, rows=200):
    """Transitions with dimensions of very different size, constant ones, and a constant reward in seed 1."""
    batch = random_batch(2, rows, OBS, ACT, module=module)
    scale = torch.tensor([1e-2, 1.0, 1e3, 1.0])
    obs, next_obs = batch.obs * scale, batch.next_obs * scale
    obs[..., 3] = next_obs[..., 3] = 7.3  # constant
    batch.rewards[1] = 0.25
    return batch._replace(obs=obs, next_obs=next_obs)


@pytest.mark.parametrize("normalized,state", SWITCHES)
def test_targets_pushed_back_give_the_transition(normalized, state):
    flags = {"target_normalization": normalized, "next_state_prediction": state}
    batch = odd_scales_batch(ftfl)
    model, *_ = make_model(ftfl, 2, batch=batch, **flags)
    model.double()
    transitions = ftfl.Batch(*(x.double().unsqueeze(1) for x in batch))
    targets = model.targets(transitions)
    assert targets.shape == (2, 1, 200, OBS + 1)
    next_obs, rewards = model.to_transition(transitions.obs, targets)
    assert torch.allclose(next_obs, transitions.next_obs, rtol=1e-12, atol=1e-12)
    assert torch.allclose(rewards, transitions.rewards, rtol=1e-12, atol=1e-12)

    raw = transitions.next_obs if state == "direct" else transitions.next_obs - transitions.obs
    raw = torch.cat([raw, transitions.rewards[..., None]], -1)
    if not normalized:
        assert torch.equal(targets, raw)
    else:  # statistics are those of the training rows only, so nearly, not exactly, those of all rows
        moving = raw.std(2) > 1e-3
        assert torch.allclose(targets.std(2)[moving], torch.ones(1, dtype=torch.float64), atol=0.2)
        assert targets.mean(2).abs().max() < 0.3
        assert targets.abs().max() < 10, "a constant dimension must keep its unit"


def test_a_nearly_constant_dimension_keeps_its_unit(model_script):
    """Scaled by its tiny spread, the first step away from the constant would be an input, or an error, of thousands."""
    batch = odd_scales_batch(model_script)
    batch.obs[..., 3] += 1e-6 * torch.randn(2, 200)
    model, *_ = make_model(model_script, 2, batch=batch)
    assert (model.input_std[..., 3] == 1).all() and (model.input_std[..., :3] != 1).all()
    assert torch.allclose(model.input_mean[..., 3], torch.tensor(7.3))
    if model_script is ftfl:
        assert (model.target_std[..., 3] == 1).all()
        assert (model.target_std[1, ..., -1] == 1).all() and (model.target_std[0, ..., -1] < 0.1).all()


def test_mbpos_targets_are_state_change_and_reward_last():
    model, buffer, *_ = make_model(mbpo)
    batch = mbpo.Batch(*(x.unsqueeze(1) for x in buffer.data))
    assert torch.equal(model.targets(batch)[..., :-1], batch.next_obs - batch.obs)
    assert torch.equal(model.targets(batch)[..., -1], batch.rewards)
    next_obs, rewards = model.to_transition(batch.obs, model.targets(batch))
    assert torch.allclose(next_obs, batch.next_obs, atol=1e-6) and torch.equal(rewards, batch.rewards)


@pytest.mark.parametrize("module,switches", [(mbpo, {})] + [
    (ftfl, {"target_normalization": n, "next_state_prediction": s}) for n, s in SWITCHES])  # fmt: skip
def test_a_perfect_model_imagines_real_transitions(module, switches):
    """Networks that output the targets of a known dynamics, with hardly any variance: imagined steps are the real ones."""
    batch = random_batch(2, 100, OBS, ACT, module=module)
    batch = batch._replace(next_obs=0.5 * batch.obs + 1, rewards=batch.obs[..., 0] * 3)
    model, buffer, rows, rng, args = make_model(module, 2, batch=batch, **switches)

    def perfect(obs, actions):
        next_obs, rewards = 0.5 * obs + 1, obs[..., 0] * 3
        mean = model.targets(module.Batch(obs, actions, rewards, next_obs, None))
        return (x.expand(-1, args.ensemble_size, -1, -1) for x in (mean, torch.full_like(mean, -30.0)))

    model.forward = perfect
    agent = module.SAC(module.make_rng(args, 0), OBS, ACT, args)
    synthetic = module.ReplayBuffer(2, 60, OBS, ACT, "cpu")
    module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1.2, 2, 30, rng)
    obs, actions, rewards, next_obs, terminations = synthetic.data
    assert synthetic.size == 60
    assert torch.allclose(next_obs, 0.5 * obs + 1, atol=1e-4)
    assert torch.allclose(rewards, obs[..., 0] * 3, atol=1e-4)
    assert torch.equal(terminations.bool(), next_obs[..., 0] > 1.2)
    assert actions.abs().max() <= 1
    for k in range(2):  # rollouts start from real states of their own seed
        real = {tuple(row) for row in buffer.data.obs[k].tolist()}
        assert all(tuple(row) in real for row in obs[k, :30].tolist())


def test_no_rollout_goes_on_after_a_terminal_state(model_script):
    module = model_script
    model, buffer, _, rng, args = make_model(module, 2)
    agent = module.SAC(module.make_rng(args, 0), OBS, ACT, args)
    synthetic = module.ReplayBuffer(2, 3 * 40, OBS, ACT, "cpu")
    module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 1] > 0, 3, 40, rng)
    assert synthetic.size == 120
    ended = synthetic.data.terminations.bool()
    assert ended.any() and not ended.all()
    for k in range(2):
        real = {tuple(row) for row in buffer.data.obs[k].tolist()}
        for row in range(80):  # row + 40 is the same trajectory's next step
            follows = torch.equal(synthetic.data.obs[k, row + 40], synthetic.data.next_obs[k, row])
            assert follows != ended[k, row].item()
            assert follows or tuple(synthetic.data.obs[k, row + 40].tolist()) in real


def test_rollouts_sample_the_predicted_gaussian_of_random_elites(model_script):
    module = model_script
    model, buffer, _, rng, args = make_model(module, num_seeds=2)
    model.elites = torch.tensor([[1, 3, 4, 5, 6], [6, 0, 2, 1, 3]])

    def forward(obs, actions):  # network i predicts 100 i + the first number of its row, with std 0.5, in the model's own units
        mean = (100 * torch.arange(7.0).view(7, 1, 1) + obs[..., :1]).expand(*obs.shape[:-1], OBS + 1)
        return mean, torch.full_like(mean, 2 * np.log(0.5))

    model.forward = forward
    model.to_transition = lambda obs, targets: (targets[..., :-1], targets[..., -1])
    rows = 20 * torch.rand(2, 5003, OBS) - 10
    next_obs, rewards = model.sample(rows, torch.zeros(2, 5003, ACT), rng)
    network = (rewards / 100).round()
    for k in range(2):
        counts = np.bincount(network[k].int(), minlength=7)
        assert counts[model.elites[k]] == pytest.approx(1000, abs=2) and counts.sum() == 5003
    assert torch.equal((next_obs / 100).round(), network.unsqueeze(-1).expand(-1, -1, OBS)), "one elite per row"
    noise = next_obs - 100 * network.unsqueeze(-1) - rows[..., :1]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05) and noise.abs().max() < 4, "each row gets its own prediction"
    assert abs(noise.mean().item()) < 0.02
    # Whichever row, any elite: also where there are fewer rows than elites, or not a multiple
    few = torch.stack([(model.sample(rows[:, :6], torch.zeros(2, 6, ACT), rng)[1] / 100).round() for _ in range(500)])
    for row in range(6):
        assert np.bincount(few[:, 0, row].int())[[1, 3, 4, 5, 6]] == pytest.approx(100, abs=45)


def test_holdout_rows_are_a_fifth_drawn_once_for_life(model_script):
    module = model_script
    args = make_args(module, num_seeds=3)
    short, long = (module.draw_holdout(module.make_rng(args, module.HOLDOUT_STREAM), size) for size in (1000, 2003))
    assert torch.equal(short, long[:, :1000]), "a row's mark must not depend on how many follow"
    assert not torch.equal(short[0], short[1])
    assert short.view(3, 200, 5).sum(-1).eq(1).all()
    assert all(short[:, i::5].float().mean() == pytest.approx(0.2, abs=0.06) for i in range(5)), "at random in a block"
    before = [set(rows.tolist()) for rows in module.split_rows(long, 500)[1]]
    train_rows, holdout_rows = module.split_rows(long, 1003)
    assert train_rows.shape == (3, 800) and holdout_rows.shape == (3, 200)
    for k in range(3):
        assert before[k] <= set(holdout_rows[k].tolist()), "once held out, always held out"
        assert sorted(train_rows[k].tolist() + holdout_rows[k].tolist()) == list(range(1000))
        assert long[k, holdout_rows[k]].all()


def test_each_network_trains_on_its_own_bootstrap_and_never_on_holdout_rows(model_script):
    module = model_script
    model, buffer, (train_rows, holdout_rows), rng, args = make_model(module, 2, rows=500)
    bootstrap = module.bootstrap_rows(train_rows, 7, rng)
    assert bootstrap.shape == (2, 7, 400)
    for k in range(2):
        for network in bootstrap[k]:  # with replacement, a share of 1 - 1/e = 63 % of the rows is drawn
            assert 0.55 < len(network.unique()) / 400 < 0.71
        assert len({tuple(network.tolist()) for network in bootstrap[k]}) == 7

    seen, sample = [], buffer.sample
    buffer.sample = lambda rows: (seen.append(rows), sample(rows))[1]
    module.train_model(model, buffer, bootstrap, 100, 16, rng)
    seen = torch.cat(seen, -1)  # (2, 7, 100 * 16)
    assert seen.shape == (2, 7, 1600)
    for k in range(2):
        assert not set(seen[k].flatten().tolist()) & set(holdout_rows[k].tolist())
        for network in range(7):
            drawn, own = set(seen[k, network].tolist()), set(bootstrap[k, network].tolist())
            assert drawn <= own and len(drawn) > 0.9 * len(own)
    assert not torch.equal(seen[0, 0], seen[0, 1]) and not torch.equal(seen[0, 0], seen[1, 0])


def test_normalizers_come_from_the_training_rows_alone(model_script):
    module = model_script
    batch = random_batch(2, 100, OBS, ACT, module=module)
    model, buffer, (train_rows, holdout_rows), *_ = make_model(module, 2, batch=batch)
    for k in range(2):
        inputs = torch.cat([batch.obs, batch.actions], -1)[k, train_rows[k]]
        assert torch.allclose(model.input_mean[k].flatten(), inputs.mean(0), atol=1e-5)
        assert torch.allclose(model.input_std[k].flatten(), inputs.std(0), rtol=1e-3)
        if module is ftfl:
            targets = torch.cat([batch.next_obs, batch.rewards[..., None]], -1)[k, train_rows[k]]
            assert torch.allclose(model.target_mean[k].flatten(), targets.mean(0), atol=1e-5)
            assert torch.allclose(model.target_std[k].flatten(), targets.std(0), rtol=1e-3)
    # Fitted again on other data, nothing of the first fit is left
    if module is ftfl:
        shifted = batch._replace(rewards=50 + 3 * batch.rewards)
        model.update_normalizer(module.Batch(*(x.unsqueeze(1) for x in shifted)))
        assert torch.allclose(model.target_mean[..., -1].flatten(), shifted.rewards.mean(1))
        assert torch.allclose(model.target_std[..., -1].flatten(), shifted.rewards.std(1), rtol=1e-3)


def test_elites_are_the_best_by_holdout_error_in_the_units_trained_in(model_script):
    module = model_script
    model, buffer, (_, holdout_rows), _, args = make_model(module, 2, rows=300)
    offsets = torch.tensor([[0.3, 0.9, 0.1, 0.7, 0.2, 0.8, 0.4], [0.9, 0.1, 0.2, 0.3, 0.8, 0.4, 0.5]])

    def forward(obs, actions):  # as if network i were off by its offset in every dimension
        rows = buffer.sample(holdout_rows.unsqueeze(1))
        assert torch.equal(rows.obs, obs), "holdout rows, all of them, and no others"
        mean = model.targets(rows) + offsets[:, :, None, None]
        return mean, torch.zeros_like(mean)

    model.forward = forward
    logs = module.evaluate_model(model, buffer, holdout_rows, GROUPS)
    assert [sorted(row) for row in model.elites.tolist()] == [[0, 2, 3, 4, 6], [1, 2, 3, 5, 6]]
    assert torch.allclose(logs["model/holdout_mse"], offsets.square().mean(1))


@pytest.mark.parametrize("normalized,state", SWITCHES)
def test_model_metrics_are_in_the_environments_units(normalized, state):
    """A model off by a known amount in the environment's units gets the same numbers whatever its targets are."""
    flags = {"target_normalization": normalized, "next_state_prediction": state}
    model, buffer, (_, holdout_rows), *_ = make_model(ftfl, 1, rows=300, **flags)
    batch = buffer.sample(holdout_rows.unsqueeze(1))
    off = batch._replace(next_obs=batch.next_obs + 0.05, rewards=batch.rewards + 0.002)
    unit = model.target_std if normalized else torch.ones(1)

    def forward(obs, actions):
        mean = model.targets(off).expand(-1, 7, -1, -1)
        return mean, (2 * (0.01 / unit).log()).expand_as(mean)

    model.forward = forward
    logs = ftfl.evaluate_model(model, buffer, holdout_rows, GROUPS)
    assert logs["model/predicted_std"].item() == pytest.approx(0.01, rel=1e-4)
    for group in ("position", "velocity", "reward"):
        assert logs[f"model/predicted_variance_{group}"].item() == pytest.approx(0.01**2, rel=1e-4)
    assert logs["model/predicted_variance_other"].isnan().item(), "no such dimension: nothing to log"
    reward_r2 = 1 - 0.002**2 / batch.rewards.var().item()
    assert logs["model/reward_r2"].item() == pytest.approx(reward_r2, rel=1e-3)
    next_state_r2 = (1 - 0.05**2 / (batch.next_obs - batch.obs).var(2)).mean().item()
    assert logs["model/next_state_r2"].item() == pytest.approx(next_state_r2, rel=1e-3)
    assert logs["rewards/real"].item() == pytest.approx(batch.rewards.mean().item())
    assert logs["rewards/synthetic"].item() == pytest.approx(batch.rewards.mean().item() + 0.002, rel=1e-3)


def test_log_variance_stays_between_its_bounds(model_script):
    for learned in (False, True):
        model, *_ = make_model(model_script, learned_logvar_bounds=learned)
        obs, actions = 1e4 * torch.randn(1, 1, 20, OBS), torch.randn(1, 1, 20, ACT)
        _, logvar = model(obs, actions)
        assert logvar.min() >= -10 and logvar.max() <= 0.5 + 1e-4
        assert model.max_logvar.requires_grad == model.min_logvar.requires_grad == learned


def test_learned_bounds_move_and_fixed_ones_stay(model_script):
    for learned in (False, True):
        model, buffer, (train_rows, _), rng, _ = make_model(model_script, learned_logvar_bounds=learned)
        model_script.train_model(model, buffer, model_script.bootstrap_rows(train_rows, 7, rng), 20, 16, rng)
        assert (model.max_logvar != 0.5).all().item() == learned
        assert (model.min_logvar != -10).all().item() == learned


def test_weight_decay_is_on_weights_only_and_grows_with_depth(model_script):
    model, *_ = make_model(model_script)
    decay = {id(p): decay for p, decay in zip(model.optimizer.params, model.optimizer.weight_decay, strict=True)}
    assert [decay[id(layer.weight)] for layer in model.layers] == [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4]
    assert [decay[id(layer.bias)] for layer in model.layers] == [0] * 5


@NEEDS_COMPILER
def test_compiled_training_steps_are_the_eager_ones(model_script):
    """Weight decay included (made large, and the same weights compared after 5 steps): torch 2.13 compiles `alpha` wrongly in
    torch.add of a product of plain matrices. Ours are stacks of them, for which it is right."""

    def weights(compile):
        model, buffer, (train_rows, _), rng, args = make_model(model_script, compile=compile, learned_logvar_bounds=True)
        model.optimizer.weight_decay = [1.0] * 5 + [0.0] * 7
        rows = model_script.bootstrap_rows(train_rows, 7, rng)
        logs = model_script.train_model(model, buffer, rows, 5, 16, rng)
        return list(model.parameters()), logs

    (eager, eager_logs), (compiled, compiled_logs) = weights(False), weights(True)
    for a, b in zip(eager, compiled, strict=True):
        assert torch.allclose(a, b, atol=2e-5), "of 5 steps of 3e-4"
    for tag in eager_logs:
        assert torch.allclose(eager_logs[tag], compiled_logs[tag], rtol=1e-4), tag


def test_training_the_model_fits_mean_and_variance(model_script):
    """Linear dynamics with noise: the error falls to the noise, and the predicted std finds it."""
    module, noise = model_script, 0.1
    batch = random_batch(1, 2000, OBS, ACT, module=module)
    batch = batch._replace(next_obs=batch.obs + 0.5 * batch.actions[..., :1] + noise * torch.randn(batch.obs.shape))
    batch = batch._replace(rewards=batch.obs[..., 0] + noise * torch.randn(1, 2000))
    model, buffer, (train_rows, holdout_rows), rng, _ = make_model(module, batch=batch, model_hidden_dim=32, model_lr=3e-3)
    before = module.evaluate_model(model, buffer, holdout_rows, GROUPS)
    logs = module.train_model(model, buffer, module.bootstrap_rows(train_rows, 7, rng), 600, 64, rng)
    after = module.evaluate_model(model, buffer, holdout_rows, GROUPS)
    assert after["model/holdout_mse"] < 0.3 * before["model/holdout_mse"]
    assert after["model/reward_r2"] > 0.9
    assert after["model/predicted_std"].item() == pytest.approx(noise, rel=0.4)
    assert torch.allclose(logs["model/nll"], logs["model/mse_loss"] + logs["model/variance_loss"])


def test_five_percent_real_means_five_percent_real_rows(model_script, tmp_path, monkeypatch):
    """Every batch that reaches an update, in a run: its real rows are in the replay buffer, the others are imagined."""
    module, seen = model_script, []
    update = module.SAC.update

    def spy(agent, batch, noise):
        seen.append(batch)
        return update(agent, batch, noise)

    monkeypatch.setattr(module.SAC, "update", spy)
    args = make_args(module, env_id="Hopper-v5", total_timesteps=70, learning_starts=60, num_seeds=2, utd_ratio=3,
                     batch_size=100, save_buffer=True, run_dir=str(tmp_path))  # fmt: skip
    run_dirs = module.main(args)
    assert len(seen) == 11 * 3
    for k, run_dir in enumerate(run_dirs):
        real = {row.tobytes() for row in np.load(run_dir / "buffer.npz")["next_obs"]}
        shares = [np.mean([row.tobytes() in real for row in batch.next_obs[k].numpy()]) for batch in seen]
        assert shares == [0.05] * 33


def test_model_trains_at_its_interval_and_logs_every_tag(model_script, tmp_path):
    flags = {"total_timesteps": 120, "learning_starts": 60, "model_train_interval": 25, "eval_interval": 60}
    run_dirs = model_script.main(make_args(model_script, env_id="Hopper-v5", run_dir=str(tmp_path), **flags))
    scalars = read_scalars(run_dirs[0])
    model_tags = ["nll", "mse_loss", "variance_loss", "holdout_mse", "predicted_std", "reward_r2", "next_state_r2"]
    for tag in [f"model/{name}" for name in model_tags] + ["rewards/real", "rewards/synthetic"]:
        assert [step for step, _ in scalars[tag]] == [60, 85, 110], tag
    losses = ["qf1_values", "qf2_values", "qf_loss", "actor_loss", "alpha", "alpha_loss"]
    assert all(len(scalars[f"losses/{name}"]) == 61 for name in losses)
    assert [step for step, _ in scalars["eval/episodic_return"]] == [60, 120]
    assert {"charts/episodic_return", "charts/episodic_length", "critic/bias"} <= scalars.keys()


def test_rollout_length_follows_its_schedule(model_script):
    length = model_script.rollout_length
    assert [length("1:5:100:200", step) for step in (0, 100, 124, 125, 175, 199, 200, 999)] == [1, 1, 1, 2, 4, 4, 5, 5]
    assert length("1:1:0:1", 0) == length("1:1:0:1", 10**6) == 1
    assert length("5:1:0:4", 2) == 3


def test_fit_buffer_trains_only_the_model_and_logs_against_gradient_steps(model_script, tmp_path, capsys):
    batch = random_batch(1, 100, OBS, ACT)
    np.savez(tmp_path / "buffer.npz", env_id="Some-v0", groups=GROUPS, **{name: x[0].numpy() for name, x in batch._asdict().items()})
    flags = {"fit_buffer": str(tmp_path / "buffer.npz"), "model_train_steps": 25, "log_interval": 10, "num_seeds": 2}
    run_dirs = model_script.main(make_args(model_script, run_dir=str(tmp_path / "runs"), **flags))
    scalars = [read_scalars(run_dir) for run_dir in run_dirs]
    for tag in ("model/nll", "model/reward_r2", "model/next_state_r2", "rewards/real", "rewards/synthetic"):
        assert [step for step, _ in scalars[0][tag]] == [10, 20, 25]
    assert "losses/qf_loss" not in scalars[0]
    assert scalars[0]["model/nll"] != scalars[1]["model/nll"], "seeds of the study are independent fits"
    assert "model/reward_r2" in capsys.readouterr().out


def test_fit_buffer_continues_rather_than_restarts_between_logs(model_script, tmp_path):
    """Logging more often must not change the fit."""
    batch = random_batch(1, 100, OBS, ACT)
    np.savez(tmp_path / "buffer.npz", env_id="Some-v0", groups=GROUPS, **{name: x[0].numpy() for name, x in batch._asdict().items()})
    last = []
    for interval in (5, 20):
        flags = {"fit_buffer": str(tmp_path / "buffer.npz"), "model_train_steps": 20, "log_interval": interval}
        run_dirs = model_script.main(make_args(model_script, run_dir=str(tmp_path / str(interval)), **flags))
        last.append(read_scalars(run_dirs[0])["model/nll"][-1])
    assert last[0] == last[1]


def test_predicted_variances_are_those_of_their_group():
    """Each dimension gets a variance of its own, so that a mixed-up group, or a reward taken from the wrong end, shows."""
    model, buffer, (_, holdout_rows), *_ = make_model(mbpo)
    variance = torch.tensor([1.0, 10.0, 30.0, 3.0, 100.0])  # position, velocity, velocity, position, reward

    def forward(obs, actions):
        mean = torch.zeros(1, 7, obs.shape[2], OBS + 1)
        return mean, variance.log().expand_as(mean)

    model.forward = forward
    logs = mbpo.evaluate_model(model, buffer, holdout_rows, GROUPS)
    found = {group: logs[f"model/predicted_variance_{group}"].item() for group in ("position", "velocity", "reward")}
    assert found == pytest.approx({"position": 2, "velocity": 20, "reward": 100})


def test_large_holdouts_are_judged_by_rows_that_keep_no_step_with_the_episodes(model_script):
    """Episodes of 1,000 steps whose first steps alone are rewarded: the mean over the rows looked at is that over all."""
    rows = 200_000
    batch = random_batch(1, rows, OBS, ACT, module=model_script)
    batch = batch._replace(rewards=(torch.arange(rows) % 1000 < 5).float()[None])
    buffer, args = filled_buffer(model_script, batch), make_args(model_script)
    model = model_script.Ensemble(model_script.make_rng(args, 2), OBS, ACT, args)
    holdout = model_script.draw_holdout(model_script.make_rng(args, 3), rows)
    _, holdout_rows = model_script.split_rows(holdout, rows)
    logs = model_script.evaluate_model(model, buffer, holdout_rows, np.array(["position"] * OBS))
    assert logs["rewards/real"].item() == pytest.approx(0.005, abs=0.003)  # 0.04 with an even stride
