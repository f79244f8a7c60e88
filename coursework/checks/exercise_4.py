"""Exercise 4: imagination. One step of the model, and rollouts."""

from checks.common import (
    ACT,
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
    random_batch,
    unchanged,
    variant,
)

ELITES = [[1, 3, 4, 5, 6], [6, 0, 2, 1, 3]]


def sampled(rows, std=0.5):
    """The student's sample from networks that each say who they are: network i predicts 100 times 2^i, plus
    its row's first number, for every target, with this std, or one each (7,). Returns next_obs and rewards
    in the units trained in, less the row's first number."""
    import torch

    logvar = 2 * torch.as_tensor(std).log().expand(7).view(7, 1, 1)

    model = make_model()
    model.elites[:] = torch.tensor(ELITES)

    def predict(obs, actions):
        expect_shape("the states that sample passes on", obs, (2, 1, rows, OBS))
        expect_shape("the actions that sample passes on", actions, (2, 1, rows, ACT))
        mean = (100 * 2 ** torch.arange(7.0).view(7, 1, 1) + obs[..., :1]).expand(2, 7, rows, OBS + 1)
        return mean, logvar.expand_as(mean)

    used = []

    def to_transition(obs, prediction):
        expect_axes("the prediction that to_transition gets", prediction)
        expect_axes("the states that to_transition gets", obs)
        used.append(obs.expand(*prediction.shape[:-1], OBS))
        return 1000 + prediction[..., :-1], 1000 + prediction[..., -1]

    model.forward, model.to_transition = predict, to_transition
    obs, actions = 20 * torch.rand(2, rows, OBS) - 10, torch.zeros(2, rows, ACT)
    with unchanged("sample", obs, actions):
        next_obs, rewards = expect_pair("sample", model.sample(obs, actions))
    expect_shape("next states", next_obs, (2, rows, OBS))
    expect_shape("rewards", rewards, (2, rows))
    if not used:
        hint("what the networks say is returned as it is: to_transition must make a transition of it")
    if not any(close(x.reshape(2, -1, OBS)[:, :rows], obs) for x in used):
        hint("to_transition gets other states than those that sample was given")
    return next_obs - 1000 - obs[..., :1], rewards - 1000 - obs[..., 0]


def who_said(x):
    """Which network's mean each number is near to, and how far it is from it."""
    means = 100 * 2 ** x.new_tensor(range(7))
    nearest = (x.unsqueeze(-1) - means).abs().argmin(-1)
    off = x - means[nearest]
    if (off.abs() > 40).any():
        hint(
            "what is imagined is near to no network's prediction: a mean of several networks? Pick one elite"
        )
    return nearest, off


@check("4a", "each row is imagined by a random elite")
def elites():
    import torch

    next_obs, rewards = sampled(5_000)
    network, _ = who_said(rewards)
    for k in range(2):
        who = network[k].unique().tolist()
        strangers = sorted(set(who) - set(ELITES[k]))
        if strangers and set(who) <= set(ELITES[1 - k]):
            hint("a seed is imagined by the elites of another seed")
        if strangers:
            hint(
                f"networks {strangers} imagine, but are no elites: pick from self.elites, which holds "
                f"their numbers"
            )
        if len(who) == 1:
            hint("one elite imagines the whole batch: draw an elite for each row")
        counts = [(network[k] == i).sum().item() for i in ELITES[k]]
        if min(counts) < 800:
            hint(f"not every elite imagines equally often: {counts} of 5,000 rows")
    who, _ = who_said(next_obs)
    if not torch.equal(who, network.unsqueeze(-1).expand(-1, -1, OBS)):
        hint(
            "the numbers of one row come from different networks: one elite per row, for states and "
            "reward alike"
        )
    if (network[0].unique().numel() == 5) and torch.equal(network[0, :2500], network[0, 2500:]):
        hint("the elites repeat themselves: draw each by chance")
    elites = torch.tensor(ELITES).unsqueeze(1)
    choices = (network.unsqueeze(-1) == elites).int().argmax(-1)
    if torch.equal(choices[0], choices[1]):
        hint("all seeds draw the same elites: draw one for each row of each seed")


@check("4a", "it is a sample of the predicted Gaussian")
def gaussian():
    import torch

    next_obs, rewards = sampled(5_000)
    _, noise = who_said(torch.cat([next_obs, rewards.unsqueeze(-1)], -1))
    if noise.abs().max() < 1e-2:
        hint(
            "the noise is missing: you return the mean, not a sample (mean + std times a standard "
            "normal number)"
        )
    if noise.std() > 5:
        hint("each row must get its own prediction: rows are mixed up")
    std, share = noise.std().item(), variant()["noise"]
    for name, spread in (
        ("numbers of a row", noise.std(-1)),
        ("rows", noise.std(1)),
        ("seeds", noise.std(0)),
    ):
        if spread.mean() < 0.3 * std:
            hint(f"all {name} get the same noise: draw one for each")
    if abs(noise.mean()) > 0.05:
        hint(f"the noise must have mean 0, yours has {noise.mean():.2f}: is it uniform instead of normal?")
    if share != 1 and abs(std - 0.5) < 0.02:
        hint(f"your noise has the std that is predicted; your variant asks for {share} times the std")
    if abs(std / share - 0.25) < 0.03:
        hint("the noise's std is the variance: std is exp(logvar / 2)")
    if not 0.47 < std / share < 0.53:
        hint(
            f"the networks predict a std of 0.5, but your noise has {std:.2f}, not {0.5 * share:.2f}: std is "
            "exp(logvar / 2)"
        )
    if (noise.abs() > 2 * std).float().mean() < 0.03:
        hint("the noise has no tails: is it uniform instead of normal?")
    stds = 0.25 * torch.arange(1, 8)
    network, noise = who_said(sampled(5_000, stds)[1])
    noise = noise / share
    found = torch.stack([noise[k][network[k] == i].std() for k in range(2) for i in ELITES[k]])
    if not close(found / stds[torch.tensor(ELITES).flatten()], torch.ones(10), 0.15):
        hint("a row's noise must have the std of the same network that says its mean")


LENGTH, ROLLOUTS = 4, 60


def imagined(schedule=f"{LENGTH}:{LENGTH}:0:1", length=LENGTH, step=0, ends=True):
    """The student's rollouts in a world of numbers: obs is (number of the real row, steps since, seed, 0),
    and a state is terminal if it is 2 steps from a real row whose number can be divided by 3. Returns what
    is in the synthetic buffer, the Batch returned, the noise that the policy got."""
    import torch

    import ftfl

    args = make_args(rollouts_per_step=ROLLOUTS, rollout_schedule=schedule)
    batch, noises = random_batch(2, 3_000), []
    batch.obs.zero_()
    batch.obs[..., 0], batch.obs[1, :, 2] = torch.arange(3_000), 1

    class Agent:
        class actor:
            @staticmethod
            def sample(obs, noise):
                expect_shape("the noise for the policy", noise, (*obs.shape[:-1], ACT))
                noises.append(noise)
                return torch.tanh(noise + obs[..., :1] / 3_000), torch.zeros(obs.shape[:-1])

    model = make_model()

    def one_step(obs, actions):
        expect_axes("the states that model.sample gets", obs, 3)
        return obs + torch.tensor([0.0, 1.0, 0.0, 0.0]), obs[..., 0] + actions[..., 0]

    def is_terminal(s):
        return (s[..., 0] % 3 == 0) & (s[..., 1] == 2) & ends

    model.sample = one_step
    synthetic = ftfl.ReplayBuffer(2, 10_000, OBS, ACT)
    buffer = make_buffer(batch)
    with unchanged("imagine", *buffer.data):
        last = ftfl.imagine(Agent(), model, buffer, synthetic, is_terminal, step, args)
    if synthetic.size == 0:
        hint("nothing is in the synthetic buffer: add each imagined step's Batch to it")
    rows = ftfl.Batch(*(x[:, : synthetic.size] for x in synthetic.data))
    if synthetic.size < length * ROLLOUTS:
        hint(
            f"{ROLLOUTS} rollouts of length {length} are {length * ROLLOUTS} transitions per seed, "
            f"yours stores "
            f"{synthetic.size}: a rollout that ends starts again at a real state"
        )
    if synthetic.size > length * ROLLOUTS:
        hint(
            f"{ROLLOUTS} rollouts of length {length} are {length * ROLLOUTS} transitions per seed, "
            f"yours stores "
            f"{synthetic.size}: is the length that of rollout_schedule at this step?"
        )
    expect_filled(rows.obs)
    return rows, last, torch.cat([n.flatten() for n in noises]) if noises else torch.zeros(1)


@check("4b", "rollouts start at real states and go on from what was imagined")
def trajectories():
    import torch

    rows, last, _ = imagined(ends=False)
    starts = rows.obs[..., 1] == 0
    if not starts.any():
        hint("no rollout starts at a real state of the buffer")
    if starts.all():
        hint("every step starts at a real state: a rollout goes on from the next state that it imagined")
    for k in range(2):
        if (rows.obs[k, :, 2] != k).any():
            hint("rollouts start at another seed's states")
        if starts[k].sum() != ROLLOUTS:
            hint("if no state is terminal, each rollout starts at a real state once, and then goes on")
        ids = rows.obs[k, starts[k], 0]
        if len(ids.unique()) < ROLLOUTS / 2 or ids.max() < 1_500:
            hint("rollouts must start at real states drawn at random from the whole buffer")
        seen = {tuple(row) for row in rows.obs[k, :, :2].tolist()}
        if any(time > 0 and (number, time - 1) not in seen for number, time in seen):
            hint("some imagined states follow from no state before: rollouts are mixed up")
    first = [rows.obs[k, starts[k], 0].sort().values for k in range(2)]
    if torch.equal(*first):
        hint("all seeds start at rows of the same numbers: draw for each rollout of each seed")
    expect_shape("the states of the Batch returned", getattr(last, "obs", None), (2, ROLLOUTS, OBS))
    expect_shape("the rewards of the Batch returned", last.rewards, (2, ROLLOUTS))
    if (last.obs[..., 1] != LENGTH - 1).any():
        hint("imagine must return the Batch of the last step")


@check("4b", "the length of a rollout follows rollout_schedule")
def length():
    imagined("1:5:0:100", length=3, step=50)
    imagined("1:1:0:1", length=1, step=7)
    imagined("1:5:0:100", length=4, step=99)  # 4.96, rounded down
    imagined("1:5:0:100", length=5, step=500)
    imagined("1:5:50:100", length=1, step=10)


@check("4b", "a terminal state is stored as one, and no rollout goes on after it")
def terminal_states():
    rows, last, _ = imagined()
    right = (rows.next_obs[..., 0] % 3 == 0) & (rows.next_obs[..., 1] == 2)
    stored = rows.terminations.bool()
    past = (rows.obs[..., 0] % 3 == 0) & (rows.obs[..., 1] >= 2)
    before = (rows.obs[..., 0] % 3 == 0) & (rows.obs[..., 1] == 2)
    if not stored.any():
        hint("no terminal state is stored: terminations must be 1.0 where is_terminal(next_obs) says so")
    if (before & stored).any() and not (right & stored).any():
        hint("is_terminal is asked about the state before the step: it must be asked about the next one")
    if past.any():
        hint("a rollout goes on after a terminal state: from there it must start again at a real state")
    for k in range(2):
        starts = rows.obs[k, rows.obs[k, :, 1] == 0]
        if (starts[:, 2] != k).any():
            hint("after a terminal state, a rollout starts again at a state that is not its own seed's")
        if starts[:, 0].unique(return_counts=True)[1].max() > 5:
            hint("after a terminal state, a rollout must start again at a real state drawn at random")
    if (rows.obs[..., 1] == 2).sum() < ROLLOUTS:  # two thirds of all first rollouts
        hint("where one rollout ends, all rollouts start again: those that have not ended must go on")
    if (last.next_obs[..., 1] != last.obs[..., 1] + 1).any():
        hint(
            "the Batch returned is not the one stored: its next states are changed in place. Use torch.where"
        )
    endless, _, _ = imagined(ends=False)
    if (endless.next_obs[..., 1][endless.terminations.bool()] == LENGTH).any():
        hint(
            "a rollout that reaches its length is stored as terminal: that is a time limit, and the "
            "critics must not take "
            "it for an end"
        )
    if (stored != right).any():
        hint("terminations must be 1.0 where is_terminal(next_obs) says so, and 0.0 elsewhere")


@check("4b", "actions are samples of the policy, rewards are the model's")
def actions_and_rewards():
    import torch

    rows, _, noise = imagined(ends=False)
    if noise.numel() < 2 * LENGTH * ROLLOUTS * ACT:
        hint("the policy must be asked at each step, for each rollout, with noise (seeds, rollouts, act)")
    if noise.std() < 0.1:
        hint("actions are the policy's mean: draw standard normal noise for agent.actor.sample")
    if not (0.85 < noise.std() < 1.15 and abs(noise.mean()) < 0.2):
        hint(
            f"the policy's noise must be standard normal; yours has mean {noise.mean():.2f} and std "
            f"{noise.std():.2f}"
        )
    if len(noise.unique()) < 0.9 * noise.numel():
        hint("the same noise is used again: draw anew for each step, rollout and seed")
    if not close(rows.rewards, rows.obs[..., 0] + rows.actions[..., 0]):
        hint("the stored rewards are not those that model.sample returned for these states and actions")
    if not torch.equal(rows.next_obs[..., 1], rows.obs[..., 1] + 1):
        hint("the stored next states are not those that model.sample returned for these states")
