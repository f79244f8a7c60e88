"""The ensemble: targets and their inverse, bootstraps, holdout, elites, normalizers, rollouts, the mix of a
batch."""

import numpy as np
import pytest
import torch
from conftest import NEEDS_COMPILER, compiled, filled_buffer, make_args, random_batch, read_scalars

import ftfl
import mbpo

OBS, ACT = 4, 2
SWITCHES = [(normalized, state) for normalized in (True, False) for state in ("direct", "residual")]


def make_model(module, num_seeds=1, rows=100, batch=None, **flags):
    """A model with fitted normalizers, the buffer, its (train, holdout) rows and the flags."""
    args = make_args(module, num_seeds=num_seeds, **flags)
    torch.manual_seed(1)
    buffer = filled_buffer(module, batch or random_batch(num_seeds, rows, OBS, ACT, module=module))
    model = module.Ensemble(OBS, ACT, args)
    rows = module.split_rows(args, buffer.size)
    model.fit_normalizers(buffer.take(rows[0].unsqueeze(1)))
    return model, buffer, rows, args


def judge(module, model, buffer, holdout_rows):
    """Choose elites by the held-out rows. Returns what the model's training would log of them."""
    holdout = module.take_holdout(buffer, holdout_rows)
    holdout_mse = module.choose_elites(model, holdout)
    return {"model/holdout_mse": holdout_mse} | module.evaluate_model(model, holdout)


def in_order_of_evaluation(rows):
    """take_holdout takes the held-out rows in an order of its own, always the same one."""
    return rows[:, torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0))]


def odd_scales_batch(module, rows=200):
    """Transitions with dimensions of very different size, constant ones, and a constant reward in seed 1."""
    batch = random_batch(2, rows, OBS, ACT, module=module)
    scale = torch.tensor([1e-2, 1.0, 1e3, 1.0])
    obs, next_obs = batch.obs * scale, batch.next_obs * scale
    obs[..., 3] = next_obs[..., 3] = 7.3  # constant
    batch.rewards[1] = 0.25
    return batch._replace(obs=obs, next_obs=next_obs)


@pytest.mark.maintainer  # an edit that normalizes some of the targets is no mistake
@pytest.mark.parametrize("state", ["direct", "residual"])
def test_all_targets_of_the_training_rows_have_mean_0_and_variance_1(state):
    batch = odd_scales_batch(ftfl)
    model, buffer, (train_rows, _), _ = make_model(ftfl, 2, batch=batch, next_state_prediction=state)
    targets = model.targets(buffer.take(train_rows.unsqueeze(1)))
    assert targets.mean(2).abs().max() < 1e-3
    moving = ~model.target_is_constant.squeeze(2).expand_as(targets.std(2))
    assert moving.any() and not moving.all()
    assert torch.allclose(targets.std(2)[moving], torch.ones(1), rtol=1e-3)
    assert targets.abs().max() < 10, "a constant dimension must keep its unit"


def test_a_nearly_constant_dimension_keeps_its_unit(model_script):
    """Scaled by its tiny spread, the first step away from the constant would be an input, or an error, of
    thousands."""
    batch = odd_scales_batch(model_script)
    batch.obs[..., 3] += 1e-6 * torch.randn(2, 200)
    model, *_ = make_model(model_script, 2, batch=batch)
    assert (model.input_std[..., 3] == 1).all() and (model.input_std[..., :3] != 1).all()
    assert torch.allclose(model.input_mean[..., 3], torch.tensor(7.3))
    if model_script is ftfl:
        constant = model.target_is_constant
        assert constant[..., 3].all() and constant[1, ..., -1].all() and not constant[0, ..., -1].any()
        assert (model.target_std[constant] == 1).all() and (model.target_std[~constant] < 1e4).all()
        batch = module_batch(ftfl, batch)
        assert model.targets(batch)[..., 3].abs().max() < 1e-4, "divided by 1, not by next to nothing"


def module_batch(module, batch):
    return module.Batch(*(x.unsqueeze(1) for x in batch))


@pytest.mark.parametrize("state", ["direct", "residual"])
def test_what_has_been_constant_so_far_is_imagined_as_its_mean_exactly(state):
    """No reward that nobody has seen, and no noise on a coordinate that has never moved."""
    batch = odd_scales_batch(ftfl)
    batch.rewards[0], batch.rewards[1] = 0.0, 0.25
    model, buffer, _, args = make_model(ftfl, 2, batch=batch, next_state_prediction=state)
    rows = batch.obs[:, :50]
    next_obs, rewards = model.sample(rows, torch.zeros(2, 50, ACT))
    assert (rewards[0] == 0).all() and torch.allclose(rewards[1], torch.tensor(0.25), atol=1e-7)
    assert torch.allclose(next_obs[..., 3], torch.tensor(7.3), atol=1e-5)
    assert (next_obs[..., 0] - rows[..., 0]).std() > 0, "what has moved is predicted"


@pytest.mark.parametrize("module,switches", [(mbpo, {})] + [
    (ftfl, {"target_normalization": n, "next_state_prediction": s}) for n, s in SWITCHES])  # fmt: skip
def test_a_perfect_model_imagines_real_transitions(module, switches):
    """Networks that output the targets of a known dynamics, with hardly any variance: imagined steps are the
    real ones."""
    batch = random_batch(2, 100, OBS, ACT, module=module)
    batch = batch._replace(next_obs=0.5 * batch.obs + 1, rewards=batch.obs[..., 0] * 3)
    model, buffer, rows, args = make_model(
        module, 2, batch=batch, rollouts_per_step=30, rollout_schedule="2:2:0:1", **switches
    )

    def perfect(obs, actions):
        next_obs, rewards = 0.5 * obs + 1, obs[..., 0] * 3
        mean = model.targets(module.Batch(obs, actions, rewards, next_obs, None))
        return (x.expand(-1, args.ensemble_size, -1, -1) for x in (mean, torch.full_like(mean, -30.0)))

    model.forward = perfect
    agent = module.SAC(OBS, ACT, args)
    synthetic = module.ReplayBuffer(2, 60, OBS, ACT)
    last = module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1.2, 0, args)
    assert torch.equal(last.next_obs, synthetic.data.next_obs[:, 30:]), "the last step is what is returned"
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
    model, buffer, _, args = make_model(module, 2, rollouts_per_step=40, rollout_schedule="3:3:0:1")
    agent = module.SAC(OBS, ACT, args)
    synthetic = module.ReplayBuffer(2, 3 * 40, OBS, ACT)
    module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 1] > 0, 0, args)
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
    model, buffer, _, args = make_model(module, num_seeds=2)
    model.elites[:] = torch.tensor([[1, 3, 4, 5, 6], [6, 0, 2, 1, 3]])

    def forward(obs, actions):
        """Network i predicts 100 i + the first number of its row, with std 0.5, in the model's own units."""
        mean = (100 * torch.arange(7.0).view(7, 1, 1) + obs[..., :1]).expand(2, 7, obs.shape[2], OBS + 1)
        return mean, torch.full_like(mean, 2 * np.log(0.5))

    model.forward = forward
    model.to_transition = lambda obs, targets: (targets[..., :-1], targets[..., -1])
    rows = 20 * torch.rand(2, 5003, OBS) - 10
    next_obs, rewards = model.sample(rows, torch.zeros(2, 5003, ACT))
    network = (rewards / 100).round()
    for k in range(2):
        counts = np.bincount(network[k].int(), minlength=7)
        assert counts[model.elites[k]] == pytest.approx(1000, abs=150) and counts.sum() == 5003
    assert ((next_obs / 100).round() == network.unsqueeze(-1)).all(), "one elite per row"
    noise = next_obs - 100 * network.unsqueeze(-1) - rows[..., :1]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    assert noise.abs().max() < 4, "each row gets its own prediction"
    assert abs(noise.mean().item()) < 0.02
    # Whichever row, any elite: also where there are fewer rows than elites, or not a multiple
    few = [model.sample(rows[:, :6], torch.zeros(2, 6, ACT))[1] for _ in range(500)]
    few = (torch.stack(few) / 100).round()
    for row in range(6):
        assert np.bincount(few[:, 0, row].int())[[1, 3, 4, 5, 6]] == pytest.approx(100, abs=45)


def test_holdout_rows_are_a_fifth_drawn_at_random_for_each_seed(model_script):
    """test_properties.py: and once for life."""
    args = make_args(model_script, num_seeds=3)
    torch.manual_seed(7)
    _, holdout_rows = model_script.split_rows(args, 1003)
    drawn_after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn_after), "with random numbers of its own"
    assert holdout_rows.shape == (3, 200) and not torch.equal(holdout_rows[0], holdout_rows[1])
    places = np.bincount((holdout_rows % 5).flatten())
    assert places == pytest.approx(120, abs=40), "at random in a block"
    other = model_script.split_rows(make_args(model_script, num_seeds=3, seed=2), 1003)[1]
    assert not torch.equal(other, holdout_rows)


def test_each_network_trains_on_its_own_bootstrap_and_never_on_holdout_rows(model_script):
    flags = {"model_train_steps": 300, "model_batch_size": 32}
    model, buffer, (train_rows, holdout_rows), args = make_model(model_script, 2, rows=500, **flags)
    seen, take = [], buffer.take
    buffer.take = lambda rows: (seen.append(rows), take(rows))[1]
    model_script.train_model(model, buffer, args)
    assert torch.equal(seen[0].squeeze(1), train_rows)
    assert torch.equal(seen[-1].squeeze(1).sort(1).values, holdout_rows)
    seen = torch.cat(seen[1:-1], -1)  # (2, 7, 300 * 32)
    assert seen.shape == (2, 7, 9600)
    for k in range(2):
        drawn = [set(network.tolist()) for network in seen[k]]
        assert not set().union(*drawn) & set(holdout_rows[k].tolist())
        assert set().union(*drawn) <= set(train_rows[k].tolist())
        for network in drawn:  # with replacement, a share of 1 - 1/e = 63 % of the rows is in a bootstrap
            assert 0.55 < len(network) / 400 < 0.71
        assert len({frozenset(network) for network in drawn}) == 7
    assert not torch.equal(seen[0, 0], seen[0, 1]) and not torch.equal(seen[0, 0], seen[1, 0])


def test_normalizers_come_from_the_training_rows_alone(model_script):
    module = model_script
    batch = random_batch(2, 100, OBS, ACT, module=module)
    model, buffer, (train_rows, holdout_rows), _ = make_model(module, 2, batch=batch)
    for k in range(2):
        inputs = torch.cat([batch.obs, batch.actions], -1)[k, train_rows[k]]
        assert torch.allclose(model.input_mean[k].flatten(), inputs.mean(0), atol=1e-5)
        assert torch.allclose(model.input_std[k].flatten(), inputs.std(0), rtol=1e-3)
    # What the holdout says changes nothing, and fitted again on other data, nothing of the first fit is left.
    before = {name: x.clone() for name, x in model.named_buffers() if name != "elites"}
    for k in range(2):
        for x in buffer.data:
            x[k, holdout_rows[k]] += 100
    model.fit_normalizers(buffer.take(train_rows.unsqueeze(1)))
    assert all(torch.equal(x, model.get_buffer(name)) for name, x in before.items())
    if module is ftfl:
        shifted = batch._replace(rewards=50 + 3 * batch.rewards)
        model.fit_normalizers(module.Batch(*(x.unsqueeze(1) for x in shifted)))
        assert torch.allclose(model.target_mean[..., -1].flatten(), shifted.rewards.mean(1))
        assert torch.allclose(model.target_std[..., -1].flatten(), shifted.rewards.std(1), rtol=1e-3)


def test_elites_are_the_best_by_holdout_error_in_the_units_trained_in(model_script):
    module = model_script
    model, buffer, (_, holdout_rows), args = make_model(module, 2, rows=300)
    offsets = torch.tensor([[0.3, 0.9, 0.1, 0.7, 0.2, 0.8, 0.4], [0.9, 0.1, 0.2, 0.3, 0.8, 0.4, 0.5]])

    def forward(obs, actions):  # as if network i were off by its offset in every dimension
        rows = buffer.take(in_order_of_evaluation(holdout_rows).unsqueeze(1))
        assert torch.equal(rows.obs, obs), "holdout rows, all of them, and no others"
        mean = model.targets(rows) + offsets[:, :, None, None]
        return mean, torch.zeros_like(mean)

    model.forward = forward
    logs = judge(module, model, buffer, holdout_rows)
    assert [sorted(row) for row in model.elites.tolist()] == [[0, 2, 3, 4, 6], [1, 2, 3, 5, 6]]
    assert torch.allclose(logs["model/holdout_mse"], offsets.square())


@pytest.mark.parametrize("normalized,state", SWITCHES)
def test_model_metrics_are_in_the_environments_units(normalized, state):
    """A model off by a known amount in the environment's units gets the same numbers whatever its targets
    are."""
    flags = {"target_normalization": normalized, "next_state_prediction": state}
    model, buffer, (_, holdout_rows), *_ = make_model(ftfl, 1, rows=300, **flags)
    batch = buffer.take(in_order_of_evaluation(holdout_rows).unsqueeze(1))
    off = batch._replace(next_obs=batch.next_obs + 0.05, rewards=batch.rewards + 0.002)
    unit = model.target_std if normalized else torch.ones(1)

    def forward(obs, actions):
        mean = model.targets(off).expand(-1, 7, -1, -1)
        return mean, (2 * (0.01 / unit).log()).expand_as(mean)

    model.forward = forward
    logs = judge(ftfl, model, buffer, holdout_rows)
    assert logs["model/predicted_std"].mean().item() == pytest.approx(0.01, rel=1e-4)
    assert logs["rewards/synthetic_std"].mean().item() == pytest.approx(0.01, rel=1e-4)
    reward_r2 = 1 - 0.002**2 / batch.rewards.var().item()
    assert logs["model/reward_r2"].item() == pytest.approx(reward_r2, rel=1e-3)
    next_state_r2 = (1 - 0.05**2 / (batch.next_obs - batch.obs).var(2)).median().item()
    assert logs["model/next_state_r2"].item() == pytest.approx(next_state_r2, rel=1e-3)
    assert logs["rewards/real"].mean().item() == pytest.approx(batch.rewards.mean().item())
    assert logs["rewards/synthetic"].mean().item() == pytest.approx(
        batch.rewards.mean().item() + 0.002, rel=1e-3
    )


def test_reward_and_states_have_metrics_of_their_own(model_script):
    """A model that knows the one number of the state, and not the reward, with another std for each."""
    args = make_args(model_script)
    batch = random_batch(1, 100, 1, 1, module=model_script)
    model, buffer = model_script.Ensemble(1, 1, args), filled_buffer(model_script, batch)
    rows = torch.arange(100)[None]
    model.fit_normalizers(buffer.take(rows.unsqueeze(1)))
    targets = model.targets(buffer.take(rows.unsqueeze(1))).expand(1, 7, 100, 2)
    wrong = torch.stack([targets[..., 0], targets[..., 1].flip(-1)], -1)
    std = torch.tensor([0.1, 0.5]).expand_as(wrong)
    model.forward = lambda obs, actions: (wrong[:, :, : obs.shape[2]], 2 * std.log())
    picks = torch.randperm(100, generator=torch.Generator().manual_seed(0))  # as take_holdout draws them
    wrong = wrong[:, :, picks]
    logs = judge(model_script, model, buffer, rows)
    assert logs["model/next_state_r2"].item() == pytest.approx(1, abs=1e-4)
    assert logs["model/reward_r2"].item() < 0.1
    units = model.target_std.flatten() if model_script is ftfl else torch.ones(2)
    of_both = (torch.tensor([0.1, 0.5]) * units).tolist()
    assert logs["rewards/synthetic_std"].flatten().tolist() == pytest.approx([of_both[1]] * 500, rel=1e-4)
    assert logs["model/predicted_std"].flatten(0, 2).mean(0).tolist() == pytest.approx(of_both, rel=1e-4)


def test_one_bad_dimension_does_not_decide_next_state_r2_and_constant_ones_are_left_out():
    batch = odd_scales_batch(ftfl)
    model, buffer, (_, holdout_rows), _ = make_model(ftfl, 2, batch=batch)
    real = buffer.take(in_order_of_evaluation(holdout_rows).unsqueeze(1))
    off = real._replace(next_obs=real.next_obs + torch.tensor([5.0, 0.01, 0.01, 0.0]), rewards=real.rewards)
    model.forward = lambda obs, actions: (
        (mean := model.targets(off).expand(-1, 7, -1, -1)),
        torch.zeros_like(mean),
    )
    logs = judge(ftfl, model, buffer, holdout_rows)
    assert (logs["model/next_state_r2"] > 0.9).all()
    assert logs["model/reward_r2"][0] > 0.9 and logs["model/reward_r2"][1].isnan(), "nothing to explain"


def test_the_initial_weights_are_mbpos(model_script):
    """A normal of std 1 / (2 sqrt(fan-in)), truncated at two of these; no bias."""
    model, *_ = make_model(model_script, 2, model_hidden_dim=100)
    for layer, fan_in in zip(model.net[::2], [OBS + ACT, 100, 100, 100, 100], strict=True):
        std = 0.5 * fan_in**-0.5
        for weight in layer.weight.flatten(0, 1):  # of each network by itself
            assert weight.abs().max() <= 2 * std + 1e-7
            assert weight.std().item() == pytest.approx(0.88 * std, rel=0.1)  # what the truncation leaves
        assert (layer.bias == 0).all()
    heads = model.net[-1].weight
    assert not torch.equal(heads[0, 0], heads[0, 1]) and not torch.equal(heads[0, 0], heads[1, 0])


def test_log_variance_stays_between_its_bounds(model_script):
    for learned in (False, True):
        model, *_ = make_model(model_script, learned_logvar_bounds=learned)
        obs, actions = 1e4 * torch.randn(1, 1, 20, OBS), torch.randn(1, 1, 20, ACT)
        _, logvar = model(obs, actions)
        assert logvar.min() >= -10 and logvar.max() <= 0.5 + 1e-4
        assert model.max_logvar.requires_grad == model.min_logvar.requires_grad == learned


def test_learned_bounds_move_and_fixed_ones_stay(model_script):
    for learned in (False, True):
        model, buffer, _, args = make_model(model_script, learned_logvar_bounds=learned, model_train_steps=20)
        model_script.train_model(model, buffer, args)
        assert (model.max_logvar != 0.5).all().item() == learned
        assert (model.min_logvar != -10).all().item() == learned


def test_weight_decay_is_on_weights_only_and_grows_with_depth(model_script):
    model, *_ = make_model(model_script)
    decay = {p: d for p, d in zip(model.optimizer.params, model.optimizer.decays, strict=True)}
    assert [decay[layer.weight] for layer in model.net[::2]] == [2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4]
    assert not any(decay[layer.bias] for layer in model.net[::2])
    assert sum(d > 0 for d in decay.values()) == 5


def test_layers_that_are_added_to_the_model_are_trained_too(model_script, monkeypatch):
    """A plain nn.LayerNorm between the layers, as a student would add it."""
    mlp = model_script.mlp

    def with_norms(dims, *stack, activation):
        layers = list(mlp(dims, *stack, activation=activation))
        return torch.nn.Sequential(layers[0], torch.nn.LayerNorm(dims[1]), *layers[1:])

    monkeypatch.setattr(model_script, "mlp", with_norms)
    model, buffer, _, args = make_model(model_script, model_train_steps=3)
    model_script.train_model(model, buffer, args)
    (norm,) = (layer for layer in model.net if isinstance(layer, torch.nn.LayerNorm))
    assert (norm.weight != 1).all() and (norm.bias != 0).all()


@NEEDS_COMPILER
def test_compiled_training_steps_are_the_eager_ones():
    """Weight decay included (made large, and the same weights compared after 5 steps): torch 2.13 compiles
    `alpha` wrongly in torch.add of a product of plain matrices. Ours are stacks, for which it is right."""

    def weights(compile):
        model, buffer, _, args = make_model(mbpo, learned_logvar_bounds=True, model_train_steps=5)
        model.optimizer.decays = [
            1.0 if p.dim() == 4 and p.shape[-2] > 1 else 0 for p in model.optimizer.params
        ]
        if compile:
            model.update = compiled(model.update)
        logs = mbpo.train_model(model, buffer, args)
        return list(model.parameters()), logs

    (eager, eager_logs), (graph, graph_logs) = weights(False), weights(True)
    for a, b in zip(eager, graph, strict=True):
        assert torch.allclose(a, b, atol=2e-5), "of 5 steps of 3e-4"
    for tag in ("model/nll", "model/mse_loss", "model/variance_loss", "model/holdout_mse"):
        assert torch.allclose(eager_logs[tag], graph_logs[tag], rtol=1e-4), tag


def test_training_the_model_fits_mean_and_variance(model_script):
    """Linear dynamics with noise: the error falls to the noise, and the predicted std finds it."""
    module, noise = model_script, 0.1
    batch = random_batch(1, 2000, OBS, ACT, module=module)
    batch = batch._replace(
        next_obs=batch.obs + 0.5 * batch.actions[..., :1] + noise * torch.randn(batch.obs.shape)
    )
    batch = batch._replace(rewards=batch.obs[..., 0] + noise * torch.randn(1, 2000))
    flags = {"model_hidden_dim": 32, "model_lr": 3e-3, "model_train_steps": 600, "model_batch_size": 64}
    model, buffer, (_, holdout_rows), args = make_model(module, batch=batch, **flags)
    before = judge(module, model, buffer, holdout_rows)
    logs = module.train_model(model, buffer, args)
    after = judge(module, model, buffer, holdout_rows)
    assert after["model/holdout_mse"].mean() < 0.3 * before["model/holdout_mse"].mean()
    assert after["model/reward_r2"] > 0.9
    assert after["model/predicted_std"].mean().item() == pytest.approx(noise, rel=0.4)
    assert torch.allclose(logs["model/nll"], logs["model/mse_loss"] + logs["model/variance_loss"])


def test_model_trains_at_its_interval_and_logs_every_tag(model_script, tmp_path):
    flags = {"total_timesteps": 120, "learning_starts": 60, "model_train_interval": 25, "eval_interval": 60}
    run_dirs = model_script.main(make_args(model_script, env_id="Hopper-v5", run_dir=str(tmp_path), **flags))
    scalars = read_scalars(run_dirs[0])
    tags = "model/nll model/mse_loss model/variance_loss model/holdout_mse model/predicted_std "
    tags += "model/reward_r2 model/next_state_r2 rewards/real rewards/synthetic rewards/synthetic_std"
    for tag in tags.split():
        assert [step for step, _ in scalars[tag]] == [60, 85, 110], tag
    losses = "qf1_values qf2_values qf_loss actor_loss alpha alpha_loss entropy action_size".split()
    assert all(len(scalars[f"losses/{name}"]) == 61 for name in losses)
    assert [step for step, _ in scalars["eval/episodic_return"]] == [60, 120]
    others = {"charts/episodic_return", "charts/episodic_length", "eval/q_start", "eval/discounted_return"}
    assert others <= scalars.keys()


def test_rollout_length_follows_its_schedule(model_script):
    """To the step; test_properties.py tries other schedules."""
    flags = {"rollouts_per_step": 2, "rollout_schedule": "1:5:100:200"}
    model, buffer, _, args = make_model(model_script, **flags)
    agent = model_script.SAC(OBS, ACT, args)
    for step, length in {0: 1, 100: 1, 124: 1, 125: 2, 175: 4, 199: 4, 200: 5, 999: 5}.items():
        synthetic = model_script.ReplayBuffer(1, 50, OBS, ACT)
        model_script.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > 1e9, step, args)
        assert synthetic.size == 2 * length, step


def test_out_of_range_counts_what_lies_beyond_all_real_numbers(model_script):
    real = torch.tensor([[[0.0, -1.0], [1.0, 1.0]], [[5.0, 5.0], [6.0, 6.0]]])  # (seeds, rows, obs)
    imagined = torch.tensor([[[0.5, -2.0], [1.1, 1.0]], [[5.0, 5.5], [6.0, 0.0]]])
    expected = [[[0, 1], [1, 0]], [[0, 0], [0, 1]]]
    assert model_script.out_of_range(real, imagined).tolist() == expected


def test_large_holdouts_are_judged_by_rows_that_keep_no_step_with_the_episodes(model_script):
    """Episodes of 1,000 steps whose first steps alone are rewarded: the mean over the rows looked at is that
    over all."""
    rows = 200_000
    batch = random_batch(1, rows, OBS, ACT, module=model_script)
    batch = batch._replace(rewards=(torch.arange(rows) % 1000 < 5).float()[None])
    buffer, args = filled_buffer(model_script, batch), make_args(model_script)
    model = model_script.Ensemble(OBS, ACT, args)
    _, holdout_rows = model_script.split_rows(args, rows)
    logs = judge(model_script, model, buffer, holdout_rows)
    assert logs["rewards/real"].mean().item() == pytest.approx(0.005, abs=0.003)  # 0.04 with an even stride


def test_the_loss_is_the_sum_of_all_networks_and_pulls_the_bounds_together(model_script):
    """Of a mean, weight decay would weigh as many times more as there are networks."""
    model, buffer, (train_rows, _), args = make_model(model_script, 2, learned_logvar_bounds=True)
    losses = []
    model.optimizer.minimize = losses.append
    rows = train_rows.unsqueeze(1).expand(-1, args.ensemble_size, -1)
    logs = model.update(buffer.take(rows))
    width = (model.max_logvar - model.min_logvar).sum()
    assert losses[0].item() == pytest.approx((logs["model/nll"].sum() + 0.01 * width).item(), rel=1e-4)
    assert width > 0


def test_a_training_goes_on_from_the_weights_of_the_last_one(model_script):
    model, buffer, _, args = make_model(model_script, model_lr=1e-12, model_train_steps=2)
    before = [p.clone() for p in model.parameters()]
    for _ in range(2):
        model_script.train_model(model, buffer, args)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(before, model.parameters(), strict=True))
