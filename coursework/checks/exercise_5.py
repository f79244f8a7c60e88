"""Exercise 5: Target Unit Normalization."""

import contextlib
import io
import tempfile

from checks import exercise_6
from checks.common import (
    OBS,
    Hint,
    check,
    close,
    expect_pair,
    expect_shape,
    explain,
    hint,
    make_args,
    make_buffer,
    make_model,
    numbered_batch,
    numbers,
    random_batch,
    unchanged,
    variant,
)

# Of four numbers of a state and the reward. The fourth was constant so far, so it is divided by 1.
MEAN = [1.0, -2.0, 30.0, 7.0, 0.05]  # of the first seed; the second has twice as much
SPREAD = [0.5, 2.0, 100.0, 1.0, 0.01]  # of the first seed; the second has three times as much
CONSTANT = [False, False, False, True, False]
BOTH = ("direct", "residual")


def known_model(state="direct", normalize=True):
    """A model with the statistics MEAN, SPREAD and CONSTANT. Without target normalization it has them, too,
    so that one can see that they are not used."""
    import torch

    model = model_of(state, target_normalization=normalize)
    mean, spread = known_statistics()
    model.target_mean.copy_(mean)
    model.target_std.copy_(spread)
    model.target_is_constant.copy_(torch.tensor(CONSTANT).expand_as(model.target_is_constant))
    return model


def known_statistics():
    """Mean and spread of each seed's targets, (2, 1, 1, obs + 1)."""
    import torch

    mean = torch.tensor(MEAN) * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    spread = torch.tensor(SPREAD) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    return mean, torch.where(torch.tensor(CONSTANT), 1.0, spread)


def model_of(state, **flags):
    """A model whose raw targets are right, whatever 6a is: the first check looks at that."""
    model = make_model(next_state_prediction=state, **flags)
    model.raw_targets = lambda batch: raw(batch, state)
    return model


def raw(batch, state):
    """What is predicted, in the environment's units: the last of it is the reward."""
    import torch

    change = batch.next_obs - variant()["residual"] * batch.obs
    return torch.cat([batch.next_obs if state == "direct" else change, batch.rewards.unsqueeze(-1)], -1)


@check("5a", "raw_targets of exercise 6a says what is to be normalized", seconds=15)
def first_6a():
    try:
        exercise_6.raw_targets()
    except Hint as wrong:
        hint(f"exercise 6a first: {wrong}")


@check("5a", "every target has mean 0 and its own unit, the reward too")
def unit_targets():
    import torch

    batch, (mean, spread) = random_batch(2, 1, 50), known_statistics()
    for state in BOTH:
        y = raw(batch, state)
        with unchanged("targets", *batch):
            z = known_model(state).targets(batch)
        expect_shape("targets", z, y.shape)
        right = (y - mean) / spread
        if close(z, right):
            continue
        if close(z, y):
            hint("the targets are not normalized: z = (y - target_mean) / target_std")
        if not torch.isfinite(z).all() or z.abs().max() > 1e4:
            hint("NaN, infinity or huge numbers: divide by target_std as it is, which is never nearly 0")
        if close(z[..., :-1], right[..., :-1]) and close(z[..., -1], y[..., -1]):
            hint("the reward is left in its own unit: it is the target that needs normalization most")
        if close(z, right + mean / spread):
            hint("the mean is not subtracted")
        if close(z, (y - mean[:1]) / spread[:1]):
            hint("a seed's targets are normalized with another seed's statistics")
        if close(z, y - mean):
            hint("the targets are not divided by target_std")
        if close(z, (y - mean) * spread):
            hint("the targets are multiplied by target_std instead of divided")
        if close(z[..., [0, 1, 2, 4]], right[..., [0, 1, 2, 4]]):
            hint(
                "a target that has been constant so far (target_is_constant) is trained on like the others: "
                "subtract the mean, divide by target_std, which is 1 there"
            )
        if not close(z, right):
            hint(
                "the targets are not (y - target_mean) / target_std, with y = raw_targets(batch) and "
                "each its own numbers"
            )


@check("5a", "without --target-normalization the targets stay as they are")
def switched_off():
    batch = random_batch(2, 1, 50)
    for state in BOTH:
        model = known_model(state, normalize=False)
        with unchanged("targets", *batch):
            z = model.targets(batch)
        if not close(z, raw(batch, state)):
            hint("self.normalize is False, but targets normalizes")


@check("5b", "what comes back from a prediction is a transition in the environment's units")
def there_and_back():
    import torch

    z, (mean, spread) = torch.randn(2, 3, 50, OBS + 1), known_statistics()
    obs = random_batch(2, 1, 50).obs
    scaled = z * spread + mean
    y = torch.where(torch.tensor(CONSTANT), mean, scaled)
    for state in BOTH:
        with unchanged("to_transition", obs, z):
            next_obs, rewards = expect_pair("to_transition", known_model(state).to_transition(obs, z))
        expect_shape("rewards", rewards, (2, 3, 50))
        expect_shape("next states", next_obs, (2, 3, 50, OBS))
        right = y[..., :-1] + (0 if state == "direct" else variant()["residual"]) * obs
        if close(rewards, y[..., -1]) and close(next_obs, right):
            continue
        if close(rewards, z[..., -1]):
            hint(
                "your rewards are not scaled back: compare what you return with a target pushed through "
                "`targets`"
            )
        if close(rewards, y[..., -2]) or close(rewards, y[..., 0]):
            hint("the reward is taken from the wrong column: it is the last one")
        if close(rewards, (z * spread[:1] + mean[:1])[..., -1]):
            hint("what a seed predicts is brought back with another seed's statistics")
        if close(rewards, z[..., -1] * spread[..., -1]):
            hint("the mean is not added to the rewards: y = z std + mean")
        if close(rewards, ((z + mean) * spread)[..., -1]) or close(rewards, (z / spread + mean)[..., -1]):
            hint("the order is wrong: first times target_std, then plus target_mean")
        if not close(rewards, y[..., -1]):
            hint("the rewards that come back are not z times target_std plus target_mean")
        constant = next_obs[..., 3] - (0 if state == "direct" else variant()["residual"]) * obs[..., 3]
        if close(constant, scaled[..., 3]):
            hint(
                "a target that has been constant so far (target_is_constant) must come back as its mean "
                "exactly, whatever is predicted"
            )
        if state == "residual" and close(next_obs[..., 3], y[..., 3]):
            if close(next_obs[..., :3], right[..., :3]):
                hint("with residual targets, the state must be added to the mean of a constant target, too")
        if state == "residual" and close(next_obs, y[..., :-1]):
            hint("with residual targets, the state must be added back to the prediction")
        if state == "residual" and close(next_obs, y[..., :-1] + obs):
            hint(
                f"your variant's residual target is s' - {variant()['residual']} s: "
                f"{variant()['residual']} s must be "
                "added back, not s"
            )
        if state == "direct" and close(next_obs, y[..., :-1] + obs):
            hint("the prediction is the next state itself: the state must not be added")
        if close(next_obs, z[..., :-1]) or close(next_obs, z[..., :-1] + obs):
            hint("the next states are not scaled back")
        if not close(next_obs, right):
            hint("the next states that come back are not those whose targets were predicted")


@check("5b", "without --target-normalization a prediction is only put together")
def nothing_to_undo():
    import torch

    obs, prediction = random_batch(2, 1, 50).obs, torch.randn(2, 1, 50, OBS + 1)
    for state in BOTH:
        model = known_model(state, normalize=False)
        with unchanged("to_transition", obs, prediction):
            next_obs, rewards = expect_pair("to_transition", model.to_transition(obs, prediction))
        expect_shape("rewards", rewards, (2, 1, 50))
        back = prediction[..., :-1] + (0 if state == "direct" else variant()["residual"]) * obs
        if not close(rewards, prediction[..., -1]) or not close(next_obs, back):
            hint("self.normalize is False, but to_transition scales what was predicted")


def spread_of(y):
    """What the variant calls center and spread of y (rows, targets)."""
    name = variant()["normalization"]
    if name == "range":
        return (y.amax(0) + y.amin(0)) / 2, (y.amax(0) - y.amin(0)) / 2
    return y.mean(0), (y - y.mean(0)).abs().mean(0) if name == "mean absolute deviation" else y.std(0)


def odd_batch(seed=0):
    """Transitions with numbers of very different size, one that is constant and one that nearly is."""
    import torch

    batch = random_batch(2, 400, seed=seed)
    scale, shift = torch.tensor([0.01, 300.0, 1.0, 1.0]), torch.tensor([5.0, 0.0, 0.0, 0.0])
    obs, next_obs = batch.obs * scale + shift, batch.next_obs * scale + shift
    obs[..., 3], next_obs[..., 3] = 7.0, 7.0
    obs[..., 2], next_obs[..., 2] = 1e-6 * obs[..., 2], 1e-6 * next_obs[..., 2]
    obs[1], next_obs[1] = 2 * obs[1] + 1, 2 * next_obs[1] + 1  # another seed, other statistics
    return batch._replace(obs=obs, next_obs=next_obs)


@check("5c", "center and spread of the targets, per number and per seed")
def statistics():
    import torch

    import ftfl

    first, second = odd_batch(0), odd_batch(1)
    second = second._replace(rewards=50 + 3 * second.rewards)
    second.next_obs[..., 3] = second.next_obs[..., 1]  # what was constant moves
    for state in BOTH:
        model = model_of(state)
        for time, batch in enumerate((first, second)):
            with unchanged("fit_normalizers", *batch):
                model.fit_normalizers(ftfl.Batch(*(x.unsqueeze(1) for x in batch)))
            for k in range(2):
                y = raw(batch, state)[k]
                center, spread = spread_of(y)
                mean, std = model.target_mean[k].flatten(), model.target_std[k].flatten()
                constant = model.target_is_constant[k].flatten()
                small = spread < ftfl.STD_FLOOR
                moving, ones = ~small, torch.ones(int((~small).sum()))
                if (mean == 0).all() and (std == 1).all():
                    hint("target_mean and target_std are not set: write into them")
                if time == 1 and not close(mean[4], center[4], 1e-2):
                    hint(
                        "fitted again on other data, something of the first fit is left: statistics "
                        "start anew"
                    )
                if not close(mean / spread.clamp(min=1e-3), center / spread.clamp(min=1e-3), 2e-2):
                    hint(
                        f"target_mean is not the {middle_name()} of each target over a seed's rows: "
                        f"{numbers(center)} "
                        f"expected, {numbers(mean)} found"
                    )
                ratio = std[moving] / spread[moving]
                if variant()["normalization"] != "std" and close(
                    std[moving] / y[:, moving].std(0), ones, 2e-2
                ):
                    hint(f"target_std is the std; your variant asks for the {variant()['normalization']}")
                if close(std[moving], spread[moving].square(), 1e-4) and not close(ratio, ones, 2e-2):
                    hint("target_std is the variance, not the spread itself")
                if not close(ratio, ones, 2e-2):
                    hint(
                        f"target_std is not the {spread_name()} of each target over a seed's rows: "
                        f"{numbers(spread[moving])} "
                        f"expected, {numbers(std[moving])} found"
                    )
                if (std[small] != 1).any():
                    hint(
                        "a nearly constant target (spread below STD_FLOOR) must get target_std 1: divided "
                        "by its spread, it would look huge as soon as it moves"
                    )
                if not constant.any():
                    hint(
                        "target_is_constant is not set: it must be True for nearly constant targets (spread "
                        "below STD_FLOOR), which come back as their mean"
                    )
                if not torch.equal(constant, small):
                    hint(
                        "target_is_constant must be True where a target's spread is below STD_FLOOR, and "
                        "False elsewhere"
                    )


def middle_name():
    return "middle of smallest and largest" if variant()["normalization"] == "range" else "mean"


def spread_name():
    names = {"std": "standard deviation", "range": "half of largest minus smallest"}
    return names.get(variant()["normalization"], variant()["normalization"])


@check("5c", "mean and std of the inputs, and what the switch switches off")
def inputs():
    import torch

    import ftfl

    batch = odd_batch()
    stacked = ftfl.Batch(*(x.unsqueeze(1) for x in batch))
    model = model_of("direct", target_normalization=False)
    model.fit_normalizers(stacked)
    if (model.target_std != 1).any() or (model.target_mean != 0).any():
        hint("without --target-normalization, target_mean must stay 0 and target_std 1")
    if model.target_is_constant.any():
        hint("without --target-normalization, target_is_constant must stay False")
    x = torch.cat([batch.obs, batch.actions], -1)
    for k in range(2):
        mean, std = model.input_mean[k].flatten(), model.input_std[k].flatten()
        if (mean == 0).all():
            hint("input_mean and input_std are not set: inputs are normalized whatever the switch says")
        right, moving = x[k].std(0), x[k].std(0) >= ftfl.STD_FLOOR
        if (std[~moving] != 1).any():
            hint(
                "a nearly constant input (std below STD_FLOOR) must get input_std 1, or it blows up as "
                "soon as it moves"
            )
        if not close(mean / right.clamp(min=1e-3), x[k].mean(0) / right.clamp(min=1e-3), 2e-2):
            hint("input_mean is not the mean of states and actions over a seed's rows")
        if not close(std[moving] / right[moving], torch.ones(int(moving.sum())), 2e-2):
            hint("input_std is not the standard deviation of states and actions over a seed's rows")


@check("5c", "in train_model, the statistics are those of the training rows only")
def training_rows_only():
    import torch

    import ftfl

    args = make_args(model_train_steps=1)
    batch = numbered_batch(2, 500)
    train, holdout = ftfl.split_rows(args, 500)
    for k in range(2):
        batch.rewards[k, holdout[k]] = 100.0  # would be seen at once
    model = model_of("direct")
    model.update = lambda batch: {"model/nll": torch.zeros(2, 7)}
    ftfl.train_model(model, make_buffer(batch), args)
    if (model.target_mean[..., -1] > 5).any() or (model.target_std[..., -1] > 5).any():
        hint("the statistics are taken over the holdout too: they must come from the training rows alone")


@check(
    "5d",
    "humanoid-stand: the reward is learned with normalized targets, and only with them",
    seconds=120,
    slow=True,
)
def humanoid_stand():
    import toy

    raw, normalized = toy.tun_scores(seed=1)
    if raw > 0.3:
        hint(
            f"without normalization the reward's R2 is {raw:.2f}; it should stay near 0 or below: is "
            f"the switch heeded?"
        )
    if not normalized > 0.25:
        hint(f"with normalization the reward's R2 is {normalized:.2f}, where 0.25 is easily reached")


SHORT = dict(env_id="Hopper-v5", total_timesteps=60, learning_starts=50, utd_ratio=1, batch_size=20)
SHORT |= dict(eval_interval=60, eval_episodes=1, log_interval=1, hidden_dim=16, device="cpu")
SHORT |= dict(model_hidden_dim=16, model_train_steps=3, model_batch_size=16, rollouts_per_step=10)
SHORT |= dict(rollout_schedule="1:3:50:60", synthetic_buffer_size=1_000)


@check("5e", "a short run of ftfl.py with all that you wrote, of one seed and of two", seconds=60, slow=True)
def whole_run():
    import ftfl

    for num_seeds in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # where main says what the return was
                    ftfl.main(ftfl.Args(**SHORT, num_seeds=num_seeds, run_dir=folder))
            except (Exception, SystemExit) as error:
                hint(
                    f"with --num-seeds {num_seeds}, {explain(error)}. Each function is right where it is "
                    "checked alone, so look at what it returns: shape, dtype, and whether one seed is enough"
                )
