"""Properties that hold for all inputs, of which Hypothesis draws some, the same ones each time."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import filled_buffer, make_args
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ftfl
import mbpo
import plots

DRAWN = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SEEDS = st.integers(1, 3)
OBS, ACT = 3, 1


def numbered(module, first, last, num_seeds):
    """Transitions of which each part says its row's number, plus 1,000 times its seed."""
    numbers = torch.arange(float(first), last) + 1000 * torch.arange(num_seeds)[:, None]
    parts = [numbers + k / 8 for k in range(5)]
    obs, next_obs = (parts[k][..., None].expand(-1, -1, OBS) for k in (0, 3))
    return module.Batch(obs, parts[1][..., None], parts[2], next_obs, parts[4])


@DRAWN
@given(num_seeds=SEEDS, capacity=st.integers(6, 9), sizes=st.lists(st.integers(1, 6), max_size=8))
def test_a_buffer_keeps_what_a_deque_keeps(script, num_seeds, capacity, sizes):
    """The newest rows, the last batch across the ring's end included, each whole and with its own seed."""
    buffer, kept, count = script.ReplayBuffer(num_seeds, capacity, OBS, ACT), deque(maxlen=capacity), 0
    for size in sizes:
        buffer.add(numbered(script, count, count + size, num_seeds))
        kept.extend(range(count, count + size))
        count += size
        rows = torch.arange(buffer.size).expand(num_seeds, -1)
        taken = buffer.take(torch.stack([rows, rows.flip(1)], 1))
        assert taken.obs.shape == (num_seeds, 2, len(kept), OBS)
        for k in range(num_seeds):
            numbers = taken.obs[k, 0, :, 0]
            assert sorted(numbers.tolist()) == [i + 1000 * k for i in kept]
            assert torch.equal(taken.obs[k, 1, :, 0], numbers.flip(0))
        for part, x in enumerate(taken):  # all of one transition
            assert (x.reshape(num_seeds, 2, len(kept), -1) == taken.obs[..., :1] + part / 8).all()


@DRAWN
@given(
    num_seeds=SEEDS, seed=st.integers(0, 10**6), sizes=st.lists(st.integers(10, 200), min_size=2, max_size=3)
)
def test_a_row_once_held_out_is_held_out_for_life(model_script, num_seeds, seed, sizes):
    args = make_args(model_script, num_seeds=num_seeds, seed=seed)
    train_rows, holdout_rows = model_script.split_rows(args, max(sizes))
    for size in sizes:
        whole = size // 5 * 5
        train, holdout = model_script.split_rows(args, size)
        for k in range(num_seeds):
            assert train[k].tolist() == [i for i in train_rows[k].tolist() if i < whole]
            assert holdout[k].tolist() == [i for i in holdout_rows[k].tolist() if i < whole]
            assert sorted(train[k].tolist() + holdout[k].tolist()) == list(range(whole))
            assert (holdout[k] // 5).tolist() == list(range(whole // 5)), "one in each block of five"
        buffer = filled_buffer(model_script, numbered(model_script, 0, size, num_seeds))
        judged = model_script.take_holdout(buffer, holdout).obs[:, 0, :, 0].sort(1).values
        assert torch.equal(judged, holdout + 1000.0 * torch.arange(num_seeds)[:, None])


MODELS = [(mbpo, {})]
for normalized in (True, False):
    for state in ("direct", "residual"):
        MODELS.append((ftfl, {"target_normalization": normalized, "next_state_prediction": state}))
SCALE = st.just(0.0) | st.floats(-6, 6).map(lambda x: 10**x)  # 0: a number that is constant


@pytest.mark.parametrize("module,switches", MODELS)
@DRAWN
@given(scales=st.lists(SCALE, min_size=3 * OBS + 1, max_size=3 * OBS + 1))
def test_targets_and_transitions_are_each_others_inverse_on_all_scales(module, switches, scales):
    """Of states, their changes and rewards. What has been constant so far comes back as its mean."""
    generator = torch.Generator().manual_seed(0)
    *scales, reward_scale = torch.tensor(scales, dtype=torch.float64)
    middle, spread, step = torch.stack(scales).view(3, OBS)
    normal = torch.randn(1, 1, 50, 2 * OBS + 1, generator=generator, dtype=torch.float64)
    obs = middle + spread * normal[..., :OBS]
    next_obs = obs + step * normal[..., OBS:-1]
    actions, rewards = torch.zeros(1, 1, 50, ACT), reward_scale * normal[..., -1]
    batch = module.Batch(obs, actions, rewards, next_obs, torch.zeros(1, 1, 50))
    model = module.Ensemble(OBS, ACT, make_args(module, **switches)).double()
    model.fit_normalizers(batch)

    targets = model.targets(batch)
    assert targets.isfinite().all(), "also of what is constant, by whose std nothing can be divided"
    if not switches.get("target_normalization"):
        change = next_obs if switches.get("next_state_prediction") == "direct" else next_obs - obs
        assert torch.equal(targets, torch.cat([change, rewards[..., None]], -1))
    found_obs, found_rewards = model.to_transition(obs, targets)
    again = model.targets(batch._replace(next_obs=found_obs, rewards=found_rewards))
    real = torch.cat([next_obs, rewards[..., None]], -1)
    found = torch.cat([found_obs, found_rewards[..., None]], -1)
    sizes = torch.cat([middle + spread + step, reward_scale[None]])  # how exact a double can be
    constant = torch.zeros(OBS + 1, dtype=torch.bool)
    if switches.get("target_normalization"):
        constant = model.target_is_constant.flatten()
        assert (targets[..., ~constant].std(2) - 1).abs().max() < 1e-3 if (~constant).any() else True
    assert ((found - real).abs() <= torch.where(constant, 5e-4, 0) + 1e-12 * sizes).all()
    assert torch.allclose(again[..., ~constant], targets[..., ~constant], rtol=1e-6, atol=1e-6 * sizes.max())


@DRAWN
@given(ends=st.tuples(*[st.integers(1, 9)] * 2), first=st.integers(0, 30), steps=st.integers(1, 30))
def test_rollouts_grow_or_shrink_steadily_from_the_first_length_to_the_last(model_script, ends, first, steps):
    module, (start, end), last = model_script, ends, first + steps
    args = make_args(module, rollouts_per_step=2, rollout_schedule=f"{start}:{end}:{first}:{last}")
    agent, buffer = module.SAC(OBS, ACT, args), filled_buffer(module, numbered(module, 0, 5, 1))
    model, lengths = SimpleNamespace(sample=lambda obs, actions: (obs, obs[..., 0])), {}
    for step in (0, first, first + 1, first + steps // 3, first + steps // 2, last - 1, last, 99):
        synthetic = module.ReplayBuffer(1, 2 * 9, OBS, ACT)
        module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] < 0, step, args)
        lengths[step] = synthetic.size // 2
        line = start + (end - start) * min(max((step - first) / steps, 0), 1)
        assert abs(lengths[step] - line) < 1, "on a straight line between them"
    found = list(lengths.values())
    assert found == sorted(found, reverse=end < start)
    assert {n for step, n in lengths.items() if step <= first} <= {start}
    assert {n for step, n in lengths.items() if step >= last} == {end}


@DRAWN
@given(st.lists(st.sets(st.integers(0, 60), min_size=1, max_size=12), min_size=1, max_size=4))
def test_no_curve_is_drawn_where_one_of_its_runs_has_no_values(drawn):
    """Run k's value is k + 2 times the step: what is interpolated is right, what is held would be wrong."""
    all_steps = [np.array(sorted(steps)) for steps in drawn]
    for tag in ("charts/episodic_return", "eval/episodic_return"):
        runs = [plots.Run(str(k), {}, {tag: (x, (k + 2.0) * x)}) for k, x in enumerate(all_steps)]
        grid, values = plots.on_common_grid(runs, tag)
        assert len(grid) == 0 or max(x[0] for x in all_steps) <= grid[0]
        assert len(grid) == 0 or grid[-1] <= min(x[-1] for x in all_steps)
        assert np.allclose(values, [(k + 2) * grid for k in range(len(runs))])
        assert (np.diff(grid) > 0).all()
        if tag == "eval/episodic_return":  # no run is evaluated at another step than it was
            assert set(grid) == set.intersection(*drawn)
