"""Exercise 3: ensemble hygiene. Holdout, bootstrap, elites."""

from checks.common import (
    OBS,
    check,
    close,
    expect_axes,
    expect_filled,
    expect_pair,
    expect_shape,
    hint,
    make_args,
    make_buffer,
    make_model,
    numbered_batch,
    raw_columns,
    replaced,
    unchanged,
    use_raw_targets,
)


def split(args, size):
    """The student's split, as lists of row numbers: [train, holdout] for each seed."""
    import ftfl

    train, holdout = expect_pair("split_rows", ftfl.split_rows(args, size))
    used = size // 5 * 5
    for name, rows, share in (("training", train, 4), ("held-out", holdout, 1)):
        if tuple(rows.shape) == (args.num_seeds, size * share // 5) != (args.num_seeds, used * share // 5):
            hint("rows of an unfinished block of five must wait: they can't be split yet")
        expect_shape(f"the {name} rows of {size}", rows, (args.num_seeds, used * share // 5))
    return [(train[k].tolist(), holdout[k].tolist()) for k in range(args.num_seeds)]


@check("3a", "a fifth of the rows is held out, and no row is on both sides")
def a_fifth():
    args = make_args(num_seeds=3)
    for train, holdout in split(args, 1003):
        if set(train) & set(holdout):
            hint("rows are held out and trained on at once: the holdout leaks")
        if len(set(holdout)) < len(holdout):
            hint("some rows are held out twice")
        if sorted(train + holdout) != list(range(1000)):
            hint("training and held-out rows together are not all rows of whole blocks of five")
        if sorted(row // 5 for row in holdout) != list(range(200)):
            hint("not exactly one row of each block of five is held out")
        places = [sum(row % 5 == place for row in holdout) for place in range(5)]
        if max(places) > 80 or min(places) < 10:
            hint("in a block of five, the held-out row must be at a random place, not always at the same one")


@check("3a", "once held out, a row is held out for life")
def for_life():
    import torch

    args = make_args(num_seeds=3)
    torch.manual_seed(1)
    before = split(args, 500)
    torch.manual_seed(2)
    if split(args, 500) != before:
        hint(
            "the holdout is drawn anew at each call: rows of it have been trained on before. Draw with "
            "a generator of "
            "its own, made from args.seed"
        )
    for (_, old), (_, new) in zip(before, split(args, 1003)):
        if not set(old) <= set(new):
            hint(
                "when the buffer grows, rows that were held out are trained on: the draws for old "
                "blocks must not depend "
                "on the size or on the number of seeds that come after"
            )
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    split(args, 500)
    if not torch.equal(torch.rand(1), expected):
        hint(
            "split_rows draws from torch's global generator, and so shifts all random numbers of the "
            "run that follow"
        )


@check("3a", "seeds have holdouts of their own")
def own_holdouts():
    rows = split(make_args(num_seeds=2), 500)
    if sorted(rows[0][1]) == sorted(rows[1][1]):
        hint("all seeds hold out the same rows: draw for each seed by itself")
    if sorted(split(make_args(num_seeds=2, seed=9), 500)[0][1]) == sorted(rows[0][1]):
        hint("another args.seed gives the same holdout")


def watch_training(rows=500, steps=300):
    """What the student's train_model does. Returns the states in fit_normalizers, in the updates and in the
    held-out Batch, the logs, and what split_rows says."""
    import torch

    import ftfl

    args = make_args(model_train_steps=steps, model_batch_size=32)
    model, buffer = make_model(), make_buffer(numbered_batch(2, rows))
    fitted, updated, chosen, evaluated = [], [], [], []

    def fit_normalizers(batch):
        if updated:
            hint("fit_normalizers is called after the first update: statistics must be there before")
        expect_axes("the states in fit_normalizers' batch", batch.obs)
        expect_shape("the states in fit_normalizers' batch", batch.obs, (2, 1, batch.obs.shape[2], OBS))
        expect_filled(batch.obs)
        fitted.append(batch.obs)

    def update(batch):
        expect_shape("the states in update's batch", batch.obs, (2, 7, 32, OBS))
        if batch.rewards.shape != (2, 7, 32):
            hint("update's batch has rewards of another shape than (seeds, networks, batch)")
        expect_filled(batch.obs)
        updated.append(batch.obs)
        return {"model/nll": torch.full((2, 7), float(len(updated)))}

    def choose(model, holdout):
        if len(updated) < steps:
            hint("choose_elites is called before the last update: the networks are to be compared after it")
        look_at_holdout("choose_elites", holdout)
        chosen.append(holdout.obs)
        return torch.full((2, 7), 0.125)

    def evaluate(model, holdout):
        if not chosen:
            hint(
                "evaluate_model is called before choose_elites, and so judges the elites of the last training"
            )
        look_at_holdout("evaluate_model", holdout)
        evaluated.append(holdout.obs)
        return {"model/reward_r2": torch.full((2,), 0.5)}

    model.fit_normalizers, model.update = fit_normalizers, update
    weights = [x.clone() for x in model.parameters()]
    with replaced("choose_elites", choose), replaced("evaluate_model", evaluate):
        with unchanged("train_model", *buffer.data):
            logs = ftfl.train_model(model, buffer, args)
    if not all(map(torch.equal, weights, model.parameters())):
        hint("each training goes on from its last weights: only model.update may change them")
    split = ftfl.split_rows(args, rows)
    if len(updated) != steps:
        hint(f"there must be args.model_train_steps = {steps} calls of model.update, not {len(updated)}")
    for name, calls in (("choose_elites", chosen), ("evaluate_model", evaluated)):
        if len(calls) != 1:
            hint(f"{name} must be called once, at the end; yours calls it {len(calls)} times")
    if not torch.equal(chosen[0], evaluated[0]):
        hint("choose_elites and evaluate_model must get the same held-out Batch")
    return fitted, torch.cat(updated, 2), chosen[0], logs, split


def look_at_holdout(name, holdout):
    """A hint if what a function gets is no Batch of held-out rows."""
    if not hasattr(holdout, "obs"):
        hint(f"{name} needs the held-out transitions, a Batch: take_holdout makes it of the held-out rows")
    if holdout.obs.dim() != 4:
        hint(f"{name} needs a Batch (seeds, 1, rows, ...), as take_holdout returns it")
    expect_shape(f"the states that {name} gets", holdout.obs, (2, 1, holdout.obs.shape[2], OBS))
    expect_filled(holdout.obs)


@check("3b", "no network trains on a held-out row, and statistics are of training rows only")
def honest():
    fitted, updated, judging, logs, (train, holdout) = watch_training(steps=40)
    for k in range(2):
        if (updated[k, ..., 1] != k).any():
            hint("a seed trains on another seed's transitions")
        if set(updated[k, ..., 0].flatten().tolist()) & set(holdout[k].tolist()):
            hint("held-out rows are trained on: draw from split_rows' training rows only")
    if len(fitted) != 1:
        hint("train_model must call fit_normalizers once, before the first update")
    for k in range(2):
        rows = sorted(fitted[0][k, ..., 0].flatten().tolist())
        if set(rows) & set(holdout[k].tolist()):
            hint(
                "the statistics are taken over the holdout too: fit_normalizers must get the training "
                "rows only"
            )
        if rows != sorted(train[k].tolist()):
            hint("fit_normalizers must get each training row once")
        rows = judging[k, ..., 0].flatten().tolist()
        if set(rows) - set(holdout[k].tolist()):
            hint("the networks are judged on rows that are not held out")
        if sorted(rows) != sorted(holdout[k].tolist()):
            hint("the networks are judged on a part of the held-out rows only; each must be there once")
    names = {"model/nll", "model/holdout_mse", "model/reward_r2"}
    if not isinstance(logs, dict) or not names <= logs.keys():
        hint(
            "train_model must return, in one dict, what the last update logs, what evaluate_model logs, and "
            "as model/holdout_mse what choose_elites returns"
        )
    if (logs["model/nll"] != 40).any():
        hint("train_model must return the logs of the last update, not of an earlier one")
    if not close(logs["model/holdout_mse"], 0.125 + 0 * logs["model/nll"]):
        hint("model/holdout_mse must be what choose_elites returns")


@check("3b", "each network has its own bootstrap")
def bootstraps():
    _, updated, _, _, (train, _) = watch_training()
    drawn = rows_drawn(updated)
    for networks in drawn:
        if all(rows == networks[0] for rows in networks) and len(networks[0]) < 0.9 * train.shape[1]:
            hint("every network trains on the same rows: each needs a bootstrap of its own")
        shares = [len(rows) / train.shape[1] for rows in networks]
        if min(shares) > 0.9:
            hint(
                "no bootstrap: each network sees all rows. Draw once, with replacement, as many rows "
                "as there are, before "
                "the loop; batches then come from these"
            )
        if not 0.55 < sum(shares) / 7 < 0.71:
            hint(
                f"a network sees {sum(shares) / 7:.0%} of the training rows; in a bootstrap, as many "
                f"draws with "
                "replacement as rows, it is 63 %"
            )
        if len({frozenset(rows) for rows in networks}) < 7:
            hint("some networks train on the same rows: each needs a bootstrap of its own")
    if (updated[0, 0, :, 0] == updated[0, 1, :, 0]).all():
        hint("every network gets the same batches")
    places = [
        [{place for place, row in enumerate(train[k].tolist()) if row in rows} for rows in drawn[k]]
        for k in range(2)
    ]
    if places[0] == places[1]:
        hint("all seeds draw the same bootstraps: draw for each network of each seed")
    if rows_drawn(watch_training()[1]) == drawn:
        hint("every training draws the same bootstraps: draw them anew, once per training")


def rows_drawn(updated):
    """The numbers of the rows that each network of each seed has trained on."""
    return [[set(network[:, 0].tolist()) for network in seed.flatten(1, -2)] for seed in updated]


@check("3b", "of many held-out rows 5,000 judge, and always the same ones")
def five_thousand():
    import torch

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        _, _, judging, _, _ = watch_training(rows=30_000, steps=1)
        rows = judging[0, ..., 0].flatten().unique()
        if len(rows) != 5_000:
            hint(
                f"of 6,000 held-out rows 5,000 are to judge, at random; yours takes {len(rows):,}. "
                "take_holdout chooses them"
            )
        if rows.max() < 29_000 or rows.min() > 1_000:
            hint("of 6,000 held-out rows 5,000 at random are to judge, not the first or the last")
        found.append(rows)
    if not torch.equal(*found):
        hint(
            "each call takes other held-out rows: they come from the random numbers of the run. "
            "take_holdout has a torch.Generator of its own"
        )


LOGVARS = [-2.0, -1.0, -3.0, -2.5, -1.5, -0.5, 0.0]  # what the networks say


def judged(function, offsets, unit=None, constant=None, elites=None, rows=60):
    """What the student's choose_elites or evaluate_model makes of linear dynamics. Network i is off by
    offsets (seeds, 7, obs + 1) in the units trained in, or (seeds, 7, rows, obs + 1) if they differ from row
    to row. These units are `unit` (obs + 1,) of the environment's;
    where `constant` (obs + 1,) is True, a target was constant so far and comes back as 0. Returns the model,
    what was returned, and the held-out Batch (seeds, 1, rows, ...)."""
    import torch

    import ftfl

    unit = torch.ones(OBS + 1) if unit is None else unit
    constant = torch.zeros(OBS + 1, dtype=torch.bool) if constant is None else constant
    model, batch = make_model(), numbered_batch(2, rows)
    batch = ftfl.Batch(*(x.unsqueeze(1) for x in batch))
    # s' varies more than s' - s does, so that the two are told apart
    batch = batch._replace(next_obs=0.8 * batch.obs + 1, rewards=batch.obs[..., 2] * 3)
    model.target_std.copy_(unit.expand_as(model.target_std))
    model.target_is_constant.copy_(constant.expand_as(model.target_is_constant))
    if elites is not None:
        model.elites.copy_(torch.tensor(elites))
    offsets = offsets if offsets.dim() == 4 else offsets.unsqueeze(2)

    def targets(b):
        expect_axes("the states of the Batch that model.targets gets", b.obs)
        return raw_columns(b) / unit

    def to_transition(obs, prediction):
        expect_axes("the prediction that model.to_transition gets", prediction)
        y = torch.where(constant, 0.0, prediction * unit)
        return y[..., :-1], y[..., -1]

    seen = []

    def predict(obs, actions):
        expect_axes("the states that the model gets", obs)
        seen.append(obs[..., 0])
        right = ftfl.Batch(obs, actions, obs[..., 2] * 3, 0.8 * obs + 1, None)
        mean = targets(right) + offsets
        return mean, torch.tensor(LOGVARS).view(7, 1, 1).expand_as(mean)

    model.targets, model.to_transition, model.forward = targets, to_transition, predict
    before = torch.get_rng_state()
    with unchanged(function, *batch):
        result = getattr(ftfl, function)(model, batch)
    if not torch.equal(torch.get_rng_state(), before):
        hint(f"{function} uses the random numbers of the run: it has nothing to draw")
    for k in range(2):
        if {row for x in seen for row in x[k].flatten().tolist()} != set(range(rows)):
            hint("the networks are judged on a part of the held-out rows only")
    return model, result, batch


def per_seed(x):
    """Each seed's mean."""
    import torch

    return torch.as_tensor(x).flatten(1).mean(1)


SIZES = [
    [0.3, 0.9, 0.1, 0.7, 0.2, 0.8, 0.4],
    [0.9, 0.1, 0.2, 0.3, 0.8, 0.4, 0.5],
]  # of errors: seeds, networks
BEST, WORST = [[0, 2, 3, 4, 6], [1, 2, 3, 5, 6]], [[0, 1, 3, 5, 6], [0, 3, 4, 5, 6]]


@check("3c", "the elites are the networks with the smallest holdout error")
def elites():
    import torch

    sizes = torch.tensor(SIZES)
    signs = torch.tensor([1.0, -1.0]).repeat(30).view(60, 1)  # a row too high, a row too low
    model, errors, _ = judged("choose_elites", (sizes[..., None, None] * signs).expand(2, 7, 60, OBS + 1))
    expect_shape("self.elites", model.elites, (2, 5))
    if torch.is_tensor(errors) and close(errors, 0 * sizes):
        hint("errors of opposite signs cancel: square each difference before you average")
    found = [sorted(row) for row in model.elites.tolist()]
    if found == WORST:
        hint("the elites are the worst networks: those with the largest holdout error")
    if found == [[0, 1, 2, 3, 4]] * 2:
        hint("model.elites is not set: write the chosen networks' numbers into it")
    if found[0] == found[1]:
        hint("both seeds get the same elites: rank each seed's networks by themselves")
    if found != BEST:
        hint(f"the networks with the smallest holdout error are {BEST}, yours are {found}")
    expect_shape("what choose_elites returns", errors, (2, 7))
    if not close(errors, sizes.square()):
        hint("choose_elites must return the mean squared error over rows and targets, (seeds, networks)")


@check("3c", "they are ranked by all targets, states and reward alike")
def all_targets_rank():
    import torch

    sizes = torch.tensor(SIZES)
    large, small = 3 * sizes.unsqueeze(-1), 0.3 * (1 - sizes).unsqueeze(-1)  # small would rank otherwise
    cases = [(large, small, "by the reward's error alone"), (small, large, "without the reward's error")]
    for states, reward, said in cases:
        model, *_ = judged("choose_elites", torch.cat([states.expand(2, 7, OBS), reward], -1))
        if [sorted(row) for row in model.elites.tolist()] != BEST:
            hint(f"the networks are ranked {said}: average over rows and all targets, which then compare")


@check("3c", "they are ranked in the units trained in")
def units_of_ranking():
    import torch

    unit, offsets = torch.tensor([100.0, 1.0, 1.0, 1.0, 0.01]), torch.zeros(2, 7, OBS + 1)
    sizes = torch.tensor(SIZES)
    offsets[..., -1], offsets[..., 0] = (
        3 * sizes,
        0.3 * (1 - sizes),
    )  # good where numbers are large, bad in the reward
    model, *_ = judged("choose_elites", offsets, unit)
    found = [sorted(row) for row in model.elites.tolist()]
    if found != BEST:
        hint(
            "the networks are ranked in the environment's units: the target with the largest numbers "
            "decides alone. Compare the networks' outputs with model.targets"
        )


CHOSEN = [[6, 1, 2, 0, 4], [5, 0, 3, 1, 2]]  # not the best: evaluate_model is to take them as they are
NAMES = ("model/reward_r2", "model/next_state_r2", "model/predicted_std")
NAMES += ("rewards/real", "rewards/synthetic", "rewards/synthetic_std")


def evaluated(offsets, unit=None, constant=None):
    """What the student's evaluate_model logs of the elites CHOSEN, and the held-out Batch; see `judged`."""
    model, logs, holdout = judged("evaluate_model", offsets, unit, constant, CHOSEN)
    if not isinstance(logs, dict):
        hint("evaluate_model must return a dict of what to log")
    if missing := [name for name in NAMES if name not in logs]:
        hint(f"evaluate_model does not return {', '.join(missing)}")
    if model.elites.tolist() != CHOSEN:
        hint("evaluate_model changes model.elites: choosing them is what choose_elites does")
    return logs, holdout


@check("3d", "R2 of the elites, in the environment's units")
def known_r2():
    import torch

    unit, sizes = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5]), 5 * torch.tensor(SIZES)
    logs, holdout = evaluated(sizes.unsqueeze(-1).expand(2, 7, OBS + 1), unit)
    of_elites = sizes.gather(1, torch.tensor(CHOSEN))  # (seeds, elites)
    errors, variance = of_elites.square().mean(1), holdout.rewards.var((1, 2))
    right = 1 - errors * 0.25 / variance
    off = holdout.rewards / unit[-1] + of_elites[..., None] - holdout.rewards  # if they are not scaled back
    for wrong in (errors, off.square().mean((1, 2))):
        if close(logs["model/reward_r2"], 1 - wrong / variance, 0.01):
            hint("model/reward_r2 is in the units trained in: push predictions through to_transition first")
    everyone = sizes.square().mean(1)
    if close(logs["model/reward_r2"], 1 - everyone * 0.25 / variance, 0.01):
        hint("model/reward_r2 is that of all networks; only the elites imagine")
    if not close(logs["model/reward_r2"], right, 0.01):
        hint(
            "model/reward_r2 is not 1 - (mean squared error of an elite) / (variance of the held-out rewards)"
        )
    change = (holdout.next_obs - holdout.obs).var((1, 2))  # (seeds, obs)
    r2 = 1 - errors.unsqueeze(1) * unit[:-1].square() / change
    of_next = 1 - errors.unsqueeze(1) * unit[:-1].square() / holdout.next_obs.var((1, 2))
    r2[:, 1], of_next[:, 1] = torch.nan, torch.nan  # the seed's number never differs
    if close(logs["model/next_state_r2"], of_next.nanmedian(1).values, 0.01):
        hint(
            "model/next_state_r2 compares with the variance of s' - s, not of s': a model that says that "
            "nothing moves is to get about 0"
        )
    if not close(logs["model/next_state_r2"], r2.nanmedian(1).values, 0.05):
        hint(
            "model/next_state_r2 is not the median over the state's numbers of 1 - (mean squared error "
            "of an elite) / (variance of s' - s), without numbers that hardly vary (variance below "
            "STD_FLOOR squared)"
        )
    if not close(per_seed(logs["rewards/real"]), per_seed(holdout.rewards)):
        hint("rewards/real are not the rewards of the held-out rows")
    if not close(per_seed(logs["rewards/synthetic"]), per_seed(holdout.rewards) + of_elites.mean(1) * 0.5):
        hint("rewards/synthetic are not the rewards that the elites predict, in the environment's units")


@check("3d", "the std that the elites predict, in the environment's units")
def known_std():
    import torch

    unit, offsets = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5]), torch.zeros(2, 7, OBS + 1)
    logs, _ = evaluated(offsets, unit)
    stds = (torch.tensor(LOGVARS) / 2).exp()
    std = stds[torch.tensor(CHOSEN)].mean(1)  # of each seed's elites
    predicted = per_seed(logs["model/predicted_std"])
    if close(predicted, stds.mean() * unit.mean().expand(2)):
        hint("model/predicted_std is that of all networks; only the elites imagine")
    if close(predicted, std):
        hint("model/predicted_std is in the units trained in: to_transition brings it into the environment's")
    if not close(predicted, std * unit.mean()):
        hint("model/predicted_std is not the elites' std, exp(logvar / 2), in the environment's units")
    if not close(per_seed(logs["rewards/synthetic_std"]), std * unit[-1]):
        hint("rewards/synthetic_std is not the elites' std of the reward, in the environment's units")
    logs, _ = evaluated(offsets, unit, constant=torch.tensor([False, False, False, True, True]))
    if not close(per_seed(logs["rewards/synthetic_std"]), torch.zeros(2)):
        hint(
            "a target that has been constant so far (target_is_constant) always comes back as its mean, so "
            "its std is 0 in the environment's units: see what to_transition makes of a prediction that "
            "is one std higher"
        )
    if not close(per_seed(logs["model/predicted_std"]), std * unit[:3].sum() / 5):
        hint("model/predicted_std is not 0 where a target has been constant so far (target_is_constant)")


@check("3d", "a number that hardly varies has no R2")
def constant_reward():
    import torch

    import ftfl

    batch = ftfl.Batch(*(x.unsqueeze(1) for x in numbered_batch(2, 100)))
    model = make_model()
    use_raw_targets(model)
    model.forward = lambda obs, actions: (torch.zeros(2, 7, 100, OBS + 1), torch.zeros(2, 7, 100, OBS + 1))
    logs = ftfl.evaluate_model(model, batch._replace(rewards=torch.full((2, 1, 100), 0.5)))
    if not torch.as_tensor(logs["model/reward_r2"]).isnan().all():
        hint("model/reward_r2 of a reward that never differs must be NaN (variance below STD_FLOOR squared)")
