"""Beta-NLL (Seitzer et al. 2022): each number's loss is multiplied by its variance^beta, as a constant."""

import pytest
import torch
from conftest import filled_buffer, make_args, random_batch

import ftfl

OBS, ACT, ROWS = 4, 2, 32


def gradients(module, beta):
    """The gradient of one update with respect to what the networks put out, and what it should be.

    Both are means and log-variances before the soft clamp, (seeds, networks, batch, 2 * (obs + 1)).
    """
    torch.manual_seed(1)
    model = module.Ensemble(OBS, ACT, make_args(module, num_seeds=2, nll_beta=beta))
    batch = random_batch(2, ROWS, OBS, ACT, module=module)
    batch = batch._replace(rewards=3 * batch.obs[..., 0])
    batch = module.Batch(*[x.unsqueeze(1).repeat_interleave(7, 1) for x in batch])

    outputs, losses = [], []
    hook = model.net.register_forward_hook(lambda net, inputs, output: outputs.append(output))
    model.optimizer.minimize = losses.append
    model.update(batch)
    hook.remove()
    (found,) = torch.autograd.grad(losses[0], outputs[0])

    mean, raw_logvar = outputs[0].detach().double().chunk(2, -1)
    upper, lower = model.max_logvar.detach().double(), model.min_logvar.detach().double()
    capped = upper - torch.nn.functional.softplus(upper - raw_logvar)
    logvar = lower + torch.nn.functional.softplus(capped - lower)
    slope_of_clamp = torch.sigmoid(upper - raw_logvar) * torch.sigmoid(capped - lower)
    error = mean - model.targets(batch).double()
    weight = logvar.exp() ** beta / (ROWS * (OBS + 1))
    of_mean = weight * 2 * error / logvar.exp()
    of_logvar = weight * (1 - error**2 / logvar.exp()) * slope_of_clamp
    return found.double(), torch.cat([of_mean, of_logvar], -1), error


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_gradient_is_the_one_computed_by_hand(model_script, beta):
    found, expected, error = gradients(model_script, beta)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-7)
    if beta == 1:  # the mean is then trained by the squared error alone, whatever variance the model claims
        of_squared_error = 2 * error / (ROWS * (OBS + 1))
        assert torch.allclose(found[..., : OBS + 1], of_squared_error, rtol=1e-3, atol=1e-7)


def test_it_is_off_by_default_and_then_the_loss_is_the_likelihood(model_script):
    assert model_script.Args().nll_beta == 0
    by_default, expected, _ = gradients(model_script, model_script.Args().nll_beta)
    other, *_ = gradients(model_script, 0.5)
    assert torch.allclose(by_default, expected, rtol=1e-3, atol=1e-7)
    assert not torch.allclose(by_default, other, rtol=0.1)


def rare_rewards(module):
    """A world in which 2 % of the transitions earn a reward, by a rule that can be learned."""
    generator = torch.Generator().manual_seed(0)
    obs = 2 * torch.rand(1, 2000, 3, generator=generator) - 1
    actions = 2 * torch.rand(1, 2000, 1, generator=generator) - 1
    noise = 0.3 * obs[..., :1].abs() * torch.randn(1, 2000, 3, generator=generator)
    next_obs = obs + 0.1 * actions + noise
    score = obs[..., 0] + 0.5 * obs[..., 1] + 0.5 * actions[..., 0]
    is_rewarded = score > torch.quantile(score, 0.98)
    rewards = is_rewarded.float() * (1 + obs[..., 2])
    return module.Batch(obs, actions, rewards, next_obs, torch.zeros(1, 2000))


def test_within_a_budget_the_likelihood_fails_at_rare_rewards_and_beta_does_not():
    """The mechanism: what the model is unsure of is learned slowly, unless beta multiplies it back."""
    r2 = {}
    flags = {"model_hidden_dim": 32, "model_lr": 3e-3, "model_batch_size": 64, "model_train_steps": 400}
    for beta in (0.0, 0.5):
        args = make_args(ftfl, num_seeds=3, nll_beta=beta, **flags)
        torch.manual_seed(1)
        model = ftfl.Ensemble(3, 1, args)
        batch = ftfl.Batch(*[x.expand(3, *x.shape[1:]) for x in rare_rewards(ftfl)])
        r2[beta] = ftfl.train_model(model, filled_buffer(ftfl, batch), args)["model/reward_r2"]
    assert (r2[0.5] > r2[0.0] + 0.15).all(), "in each of three seeds"
    assert r2[0.5].median() > 0.65 and r2[0.0].median() < 0.6
