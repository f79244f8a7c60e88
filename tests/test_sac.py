"""The mathematics of SAC: the log-probability, the target, the signs, the initial weights, the
optimizer, layer norm."""

import copy
import math

import pytest
import torch
from conftest import make_args, random_batch
from torch import nn

OBS, ACT = 4, 3


def make_agent(script, **flags):
    args = make_args(script, **flags)
    torch.manual_seed(1)
    return script.SAC(OBS, ACT, args), args


def sample(script, mean, log_std, noise):
    """Actor.sample where the network says `mean` and `log_std`."""
    actor = make_agent(script)[0].actor
    actor.forward = lambda obs: (mean, log_std)
    return actor.sample(None, noise)


@pytest.mark.parametrize("u", [-20.0, -5.0, -0.3, 0.0, 0.7, 5.0, 20.0])
def test_log_prob_is_the_change_of_variables_in_high_precision(script, u):
    log_std, noise = -0.5, 0.4
    mean = u - math.exp(log_std) * noise
    actions, log_probs = sample(script, *(torch.tensor([x]) for x in (mean, log_std, noise)))
    # log(1 - tanh(u)^2) = log(4) - 2 |u| - 2 log(1 + exp(-2 |u|)), here in double precision
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    expected = log_normal - (math.log(4) - 2 * abs(u) - 2 * math.log1p(math.exp(-2 * abs(u))))
    assert log_probs.item() == pytest.approx(expected, rel=1e-5)
    assert actions.item() == pytest.approx(math.tanh(u), abs=1e-6)
    if abs(u) <= 5:
        assert log_probs.item() == pytest.approx(log_normal - math.log(1 - math.tanh(u) ** 2), rel=1e-3)


def test_log_prob_has_a_finite_gradient_at_the_edges(script):
    mean = torch.tensor([[-20.0], [20.0]], requires_grad=True)
    sample(script, mean, torch.zeros(2, 1), torch.zeros(2, 1))[1].sum().backward()
    assert mean.grad.flatten() == pytest.approx([-2.0, 2.0])  # d/du of -log(1 - tanh(u)^2) is 2 tanh(u)


def test_log_prob_integrates_to_one(script):
    """The density of the action, summed over a grid of actions."""
    actions = torch.linspace(-0.99999, 0.99999, 200_001, dtype=torch.float64)
    mean, log_std = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64)
    noise = (torch.atanh(actions)[:, None] - mean) / log_std.exp()
    again, log_prob = sample(script, mean, log_std, noise)
    assert torch.allclose(again.flatten(), actions)
    assert torch.trapezoid(log_prob.exp(), actions).item() == pytest.approx(1, abs=1e-3)


def test_actor_samples_inside_bounds_and_noise_zero_is_the_mean_action(script):
    agent, _ = make_agent(script)
    obs = 10 * torch.randn(1, 50, OBS)
    mean, log_std = agent.actor(obs)
    assert (log_std >= -10).all() and (log_std <= 2).all()
    actions, _ = agent.actor.sample(obs, 100 * torch.randn(1, 50, ACT))
    assert actions.abs().max() <= 1
    assert torch.equal(agent.actor.sample(obs, torch.zeros(1, 50, ACT))[0], torch.tanh(mean))


def test_target_bootstraps_through_time_limits_and_stops_at_terminal_states(script):
    agent, args = make_agent(script)
    for param in agent.qf_target.parameters():  # not what the critics are
        param.data.normal_()
    batch, noise = random_batch(1, 30, OBS, ACT, module=script), torch.randn(1, 30, ACT)
    target = agent.q_target(batch, noise)
    with torch.no_grad():
        next_actions, log_probs = agent.actor.sample(batch.next_obs, noise)
        next_q = agent.q_values(agent.qf_target, batch.next_obs, next_actions).amin(1)
    expected = batch.rewards + args.gamma * (next_q - log_probs)  # alpha starts at 1
    going_on = batch.terminations == 0
    assert going_on.any() and not going_on.all()
    assert torch.allclose(target[going_on], expected[going_on])
    assert torch.equal(target[~going_on], batch.rewards[~going_on])


@pytest.mark.parametrize("log_alpha", [-20.0, 0.0, 20.0], ids=["value", "both", "entropy"])
def test_update_moves_critics_actor_and_temperature_the_right_way(script, log_alpha):
    agent, args = make_agent(script, actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3)
    agent.log_alpha.data.fill_(log_alpha)
    batch = random_batch(1, 200, OBS, ACT, module=script)
    next_noise, noise = torch.randn(2, 1, 200, ACT)

    def actor_objective():
        with torch.no_grad():
            actions, log_probs = agent.actor.sample(batch.obs, noise)
            min_q = agent.q_values(agent.qf, batch.obs, actions).min(1).values
            return (min_q - agent.log_alpha.exp() * log_probs).mean().item()

    with torch.no_grad():  # with the critics fixed, so that only the actor moves the objective
        critics, frozen = agent.qf.state_dict(), {k: v.clone() for k, v in agent.qf.state_dict().items()}
    before, log_alpha = actor_objective(), agent.log_alpha.item()
    agent.update(batch, next_noise, noise)
    with torch.no_grad():
        for name in critics:
            critics[name].copy_(frozen[name])
    log_probs = agent.actor.sample(batch.obs, noise)[1]
    assert actor_objective() > before
    # The entropy is -mean(log_probs): above the target, the temperature falls; below, it rises
    above_target = -log_probs.mean().item() > agent.target_entropy
    assert (agent.log_alpha.item() < log_alpha) == above_target

    agent.target_entropy = 1e3  # out of reach
    log_alpha = agent.log_alpha.item()
    agent.a_optimizer = script.Adam([agent.log_alpha], 1e-3)
    agent.update(batch, next_noise, noise)
    assert agent.log_alpha.item() > log_alpha
    agent, _ = make_agent(script, critic_lr=1e-3)
    first = agent.update(batch._replace(terminations=torch.ones(1, 200)), next_noise, noise)
    for _ in range(100):
        last = agent.update(batch._replace(terminations=torch.ones(1, 200)), next_noise, noise)
    assert (last["losses/qf_loss"] < 0.3 * first["losses/qf_loss"]).all(), "to the rewards"


def test_each_optimizer_has_its_own_rate(script):
    """Adam's first step is as long as its rate, whatever the gradient."""
    rates = {"actor_lr": 1e-3, "critic_lr": 2e-3, "alpha_lr": 4e-3}
    agent, _ = make_agent(script, **rates)
    parts = {"actor_lr": agent.actor, "critic_lr": agent.qf, "alpha_lr": nn.ParameterList([agent.log_alpha])}
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    agent.update(random_batch(1, 20, OBS, ACT, module=script), *torch.randn(2, 1, 20, ACT))
    for name, part in parts.items():
        steps = [(p - old).abs().max() for p, old in zip(part.parameters(), before[name])]
        assert max(steps).item() == pytest.approx(rates[name], rel=0.01)


def test_critics_and_actor_are_trained_by_their_own_loss_alone(script):
    """One update moves the critics as torch's optimizer does on the critic loss alone, then the actor on its
    loss alone."""
    agent, args = make_agent(script, critic_lr=1e-3)
    batch = random_batch(1, 20, OBS, ACT, module=script)
    next_noise, noise = torch.randn(2, 1, 20, ACT)
    again, _ = make_agent(script, critic_lr=1e-3)
    agent.update(batch, next_noise, noise)
    critics = torch.optim.Adam(again.qf.parameters(), 1e-3)
    actor = torch.optim.Adam(again.actor.parameters(), args.actor_lr)
    q_values = again.q_values(again.qf, batch.obs, batch.actions)
    (q_values - again.q_target(batch, next_noise).unsqueeze(1)).square().mean(-1).sum().backward()
    critics.step()
    actions, log_probs = again.actor.sample(batch.obs, noise)
    (log_probs - again.q_values(again.qf, batch.obs, actions).amin(1)).mean().backward()  # alpha starts at 1
    actor.step()
    for network, network_again in ((agent.qf, again.qf), (agent.actor, again.actor)):
        for a, b in zip(network.parameters(), network_again.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_adam_is_that_of_torch(script):
    """Weight decay of its own for the first parameters, moments and their corrections over 30 steps, a resume
    between."""
    x = torch.randn(2, 50, 3)

    def loss(parameters):
        a, b, c = parameters
        return (torch.tanh(x @ a + b) @ c).square().mean() + c.sum() / 10

    ours, torchs = (
        [torch.linspace(-1, 1, 24).view(2, 3, 4), torch.ones(4), torch.full((4,), 0.3)] for _ in range(2)
    )
    for p in ours + torchs:
        p.requires_grad_()
    optimizer = script.Adam(ours, 1e-2, {ours[0]: 0.1, ours[1]: 0.3})
    groups = [{"params": p, "weight_decay": d} for p, d in zip(torchs, [0.1, 0.3, 0.0])]
    reference = torch.optim.Adam(groups, 1e-2)
    for step in range(30):
        if step == 15:
            saved = {name: value.clone() for name, value in optimizer.state_dict().items()}
            assert len(saved) == 9
            optimizer = script.Adam(ours, 1e-2, {ours[0]: 0.1, ours[1]: 0.3})
            optimizer.load_state_dict(saved)
        optimizer.minimize(loss(ours))
        reference.zero_grad()
        loss(torchs).backward()
        reference.step()
        for a, b in zip(ours, torchs):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4), step  # one step is 0.01
    assert all(p.grad is None for p in ours)


@torch.no_grad()
def test_an_update_logs_what_the_readme_says(script):
    """Each number recomputed: the critics' of before, the actor's with critics that have made their step."""
    agent, args = make_agent(script, num_seeds=2)
    agent.log_alpha.data[:] = torch.tensor([[-1.0], [0.5]])
    batch = random_batch(2, 20, OBS, ACT, module=script)
    next_noise, noise = torch.randn(2, 2, 20, ACT)
    before = copy.deepcopy(agent)
    with torch.enable_grad():
        logs = agent.update(batch, next_noise, noise)
    q = before.q_values(before.qf, batch.obs, batch.actions)
    actions, log_probs = before.actor.sample(batch.obs, noise)
    alpha = before.log_alpha.exp()
    min_q = agent.q_values(agent.qf, batch.obs, actions).min(1).values
    expected = {"qf1_values": q[:, 0], "qf2_values": q[:, 1], "alpha": alpha, "entropy": -log_probs}
    expected["qf_loss"] = (q - before.q_target(batch, next_noise).unsqueeze(1)).square()
    expected["actor_loss"] = alpha * log_probs - min_q
    expected["alpha_loss"] = -alpha * (log_probs - ACT / 2)
    expected["action_size"] = actions.abs()
    assert {f"losses/{name}" for name in expected} == set(logs)
    for name, values in expected.items():
        means = [x.reshape(2, -1).mean(1) for x in (logs[f"losses/{name}"], values)]
        assert torch.allclose(*means, rtol=1e-4), name


def test_target_critics_begin_as_the_critics(script):
    agent, _ = make_agent(script)
    state, target = agent.qf.state_dict(), agent.qf_target.state_dict()
    assert all(torch.equal(target[name], x) for name, x in state.items()) and len(state) == 6
    assert len({x.data_ptr() for x in [*state.values(), *target.values()]}) == 12, "copies"


def test_target_critics_follow_by_tau_and_are_never_trained(script):
    agent, args = make_agent(script, tau=0.1)
    old = [p.clone() for p in agent.qf_target.parameters()]
    agent.update(random_batch(1, 20, OBS, ACT, module=script), *torch.randn(2, 1, 20, ACT))
    for before, after, critic in zip(old, agent.qf_target.parameters(), agent.qf.parameters()):
        assert torch.allclose(after, 0.9 * before + 0.1 * critic, atol=1e-7)
        assert not torch.equal(after, before)


def test_target_entropy_is_minus_half_the_action_dimensions(script):
    assert make_agent(script)[0].target_entropy == -ACT / 2


def test_initial_weights_spread_like_those_of_a_plain_linear_layer(script):
    plain = torch.nn.Linear(300, 200)
    stacked = script.Linear(300, 200, 2, 7)
    assert stacked.weight.shape == (2, 7, 300, 200)
    for weight in stacked.weight.flatten(0, 1):
        assert weight.std().item() == pytest.approx(plain.weight.std().item(), rel=0.02)
        assert weight.abs().max().item() == pytest.approx(300**-0.5, rel=0.01)
    assert stacked.bias.std().item() == pytest.approx(plain.bias.std().item(), rel=0.15)
    x = torch.randn(2, 7, 9, 300)
    expected = torch.nn.functional.linear(x[1, 3], stacked.weight[1, 3].T, stacked.bias[1, 3, 0])
    assert torch.allclose(stacked(x)[1, 3], expected, atol=1e-5)


def test_layer_norm_is_in_the_critics_hidden_layers_alone_and_off_by_default(script):
    """By hand: each hidden layer of each critic has mean 0 and variance 1 over its units before the ReLU."""
    agents = {}
    for layer_norm in (None, False, True):
        torch.manual_seed(1)
        flags = {} if layer_norm is None else {"critic_layer_norm": layer_norm}
        agents[layer_norm] = script.SAC(OBS, ACT, make_args(script, num_seeds=2, **flags))
    state = agents[None].state_dict()
    for agent in agents.values():  # it has no weights, and shifts no random numbers
        assert agent.state_dict().keys() == state.keys()
        assert all(torch.equal(agent.state_dict()[name], x) for name, x in state.items())
    batch = random_batch(2, 10, OBS, ACT, module=script)
    for layer_norm, agent in agents.items():
        for qf in (agent.qf, agent.qf_target):
            linear = [module for module in qf.modules() if isinstance(module, script.Linear)]
            x = torch.cat([batch.obs, batch.actions], -1).unsqueeze(1)
            for i, layer in enumerate(linear):
                x = x.expand(2, layer.weight.shape[1], 10, -1)
                x = torch.einsum("skbi,skio->skbo", x, layer.weight) + layer.bias
                if i < 2:
                    if layer_norm:
                        x = (x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
                    x = x.clamp(min=0)
            q_values = agent.q_values(qf, batch.obs, batch.actions)
            assert torch.allclose(q_values, x.squeeze(-1), atol=1e-5)
        assert not any(isinstance(module, torch.nn.LayerNorm) for module in agent.actor.modules())
