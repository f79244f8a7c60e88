"""Exercise 1: the Gaussian negative log-likelihood, and the soft clamp of the log-variance."""

import math

from checks.common import (
    ACT,
    OBS,
    check,
    close,
    expect_pair,
    expect_shape,
    hint,
    make_args,
    make_model,
    numbers,
    random_batch,
    raw_columns,
    unchanged,
    use_raw_targets,
    variant,
)


def network_that_says(model, output):
    """Put a network in place of the model's that gives this output. Returns it; it notes its input as `x`."""
    import torch.nn as nn

    class Says(nn.Module):
        def forward(self, x):
            self.x = x
            return output

    model.net = Says()
    return model.net


def forward(logvar, mean=None, model=None):
    """What the student's forward makes of a network's raw output, (2, 7, rows, obs + 1) each."""
    import torch

    model, rows = model or make_model(), logvar.shape[2]
    mean = torch.zeros_like(logvar) if mean is None else mean
    network_that_says(model, torch.cat([mean, logvar], -1))
    output = model(torch.zeros(2, 1, rows, OBS), torch.zeros(2, 1, rows, ACT))
    output = expect_pair("forward", output)
    for name, x in zip(("mean", "logvar"), output):
        expect_shape(name, x, logvar.shape)
    return output


def raw_logvars(*values):
    """These numbers as a network's raw log-variances: a row each."""
    import torch

    return torch.tensor(values).view(1, 1, -1, 1).expand(2, 7, -1, OBS + 1).clone()


@check("1a", "the network gets normalized states and actions, and its first half is the mean")
def inputs_and_mean():
    import torch

    model = make_model()
    model.input_mean += torch.arange(OBS + ACT)
    model.input_std *= 1 + torch.arange(OBS + ACT)
    model.input_mean[1, ..., 1:] -= 3  # each seed has its own
    model.input_std[1, ..., 1:] *= 2
    mean = torch.randn(2, 7, 20, OBS + 1)
    network = network_that_says(model, torch.cat([mean, torch.full_like(mean, -3.0)], -1))
    obs, actions = torch.randn(2, 1, 20, OBS), torch.randn(2, 1, 20, ACT)
    with unchanged("forward", obs, actions):
        output = expect_pair("forward", model(obs, actions))
    if not hasattr(network, "x"):
        hint("forward does not call self.net")
    expect_shape("what self.net gets", network.x, (2, 1, 20, OBS + ACT))
    x = torch.cat([obs, actions], -1)
    if close(network.x, x):
        hint("self.net gets raw inputs: subtract input_mean and divide by input_std first")
    if close(network.x, torch.cat([actions, obs], -1)) or not close(network.x[..., 0], obs[..., 0]):
        hint("self.net gets inputs in another order than (state, action), or normalized in another way")
    if close(network.x, (x - model.input_mean[:1]) / model.input_std[:1]):
        hint("a seed's inputs are normalized with another seed's mean and std")
    if not close(network.x, (x - model.input_mean) / model.input_std):
        hint("the inputs of self.net are not (input - input_mean) / input_std, each number with its own")
    expect_shape("mean", output[0], mean.shape)
    if not close(output[0], mean):
        hint("mean is not the first half of self.net's outputs as they are (of the last axis)")


@check("1a", "log-variances stay between their bounds")
def inside_the_bounds():
    low, high = variant()["min_logvar"], variant()["max_logvar"]
    model = make_model()
    if not (close(model.max_logvar.max(), high) and close(model.min_logvar.min(), low)):
        hint(f"the bounds must be {low} and {high}: your variant says so, and __init__ sets them")
    _, logvar = forward(raw_logvars(-1000.0, -50.0, 0.0, 50.0, 1000.0))
    above, below = (logvar > high + 1e-3).any(), (logvar < low - 1e-3).any()
    if above and below:
        hint("the clamp is missing: logvar goes beyond max_logvar and below min_logvar")
    if above:
        hint("logvar goes beyond max_logvar: v <- max - softplus(max - v) is missing or has a wrong sign")
    if below:
        hint("logvar goes below min_logvar: v <- min + softplus(v - min) is missing or has a wrong sign")
    middle = (low + high) / 2
    _, logvar = forward(raw_logvars(middle))
    if not close(logvar, raw_logvars(middle), 0.1):
        hint(
            f"halfway between the bounds, at {middle:g}, the clamp must change next to nothing; yours gives "
            f"{logvar.mean():.3g}"
        )


@check("1a", "the clamp is soft: its gradient never vanishes")
def soft():
    import torch

    low, high = variant()["min_logvar"], variant()["max_logvar"]
    for value in (high + 8, low - 8):
        raw = raw_logvars(value).requires_grad_()
        _, logvar = forward(raw)
        if not logvar.requires_grad:
            hint("no gradient comes through logvar: is it detached, or made under no_grad?")
        (gradient,) = torch.autograd.grad(logvar.sum(), raw)
        if (gradient <= 0).any():
            hint(
                "the clamp is hard: outside of the bounds its gradient is 0, and the network can't "
                "come back. "
                "softplus is a soft max(0, .)"
            )
    _, logvar = forward(raw_logvars(high, low))
    expected = raw_logvars(high - math.log(2), low + math.log(2))
    if not close(logvar, expected, 2e-3):
        hint(
            f"at raw log-variances of exactly {high:g} and {low:g} the soft clamp gives "
            f"{high - math.log(2):.3f} and "
            f"{low + math.log(2):.3f}, yours {numbers(logvar[0, 0, :, 0])}: compare with the two formulas"
        )
    model, softplus = make_model(), torch.nn.functional.softplus
    with torch.no_grad():  # learned bounds: each seed and target has its own
        model.max_logvar[1] -= 1
        model.min_logvar[..., -1] += 0.5
    raw = raw_logvars(high + 1, low - 1)
    _, logvar = forward(raw, model=model)

    def clamped(max_logvar, min_logvar):
        return min_logvar + softplus(max_logvar - softplus(max_logvar - raw) - min_logvar)

    bounds = model.max_logvar, model.min_logvar
    if close(logvar, clamped(bounds[0][:1], bounds[1][:1]), 2e-3):
        hint("a seed's log-variance is clamped to another seed's max_logvar and min_logvar")
    if not close(logvar, clamped(*bounds), 2e-3):
        hint(
            "each target of each seed has bounds of its own: self.max_logvar and self.min_logvar as they are"
        )


def update_with(error, logvar, **flags):
    """What the student's update logs and minimizes if the means are off by `error`, with this logvar. Both
    are tensors, of the shape (2, 7, 16, obs + 1) or one that can be expanded to it."""
    import torch.nn as nn

    model = make_model(**flags)
    batch, asked = random_batch(2, 7, 16), []
    right = 2 * raw_columns(batch) - 1  # as if they were normalized

    def targets(batch):
        asked.append(batch)
        return right.clone()

    def predict(obs, actions):
        mean = right + error
        return mean, logvar.expand_as(mean)

    class Notes(nn.Module):
        def minimize(self, loss):
            self.loss = loss

    model.forward, model.targets, model.optimizer = predict, targets, Notes()
    with unchanged("update", *batch):
        logs = model.update(batch)
    if not asked:
        hint("update does not ask self.targets(batch), which says what the networks are to predict")
    if (
        not isinstance(logs, dict)
        or not {"model/nll", "model/mse_loss", "model/variance_loss"} <= logs.keys()
    ):
        hint("update must return a dict with model/nll, model/mse_loss and model/variance_loss")
    for name, values in logs.items():
        expect_shape(f"{name}, one number per seed and network,", values, (2, 7))
    if not hasattr(model.optimizer, "loss"):
        hint("update does not call self.optimizer.minimize")
    return model, logs, model.optimizer.loss


@check("1b", "the loss is the Gaussian negative log-likelihood")
def known_likelihoods():
    import torch

    offset = torch.linspace(0.2, 1.4, 7)
    for logvar in (0.0, -2.0, 0.4):
        model, logs, loss = update_with(offset.view(-1, 1, 1), torch.tensor(logvar))
        squared = offset.square().expand(2, 7)
        mse, variance, nll = (logs[f"model/{name}"] for name in ("mse_loss", "variance_loss", "nll"))
        right = squared * math.exp(-logvar)
        if close(mse, squared * math.exp(logvar)) and logvar:
            hint("the squared error is multiplied by the variance: a likelihood divides by it, exp(-logvar)")
        if close(mse, squared * math.exp(-logvar / 2)) and logvar:
            hint(
                "the squared error is divided by the std: a likelihood divides by the variance, exp(-logvar)"
            )
        if close(mse, squared) and logvar:
            hint("the squared error is not divided by the predicted variance")
        if close(mse, right / 2):
            hint(
                "model/mse_loss is half of what is asked: twice the negative log-likelihood, without the 1/2"
            )
        if not close(mse, right):
            hint(
                f"model/mse_loss: with errors of {offset[0]:.1f} and a log-variance of {logvar} it must be "
                f"{right[0, 0]:.3g}, yours is {mse[0, 0].item():.3g}. It is a mean over rows and targets"
            )
        if close(variance, torch.full((2, 7), -logvar)) and logvar:
            hint("wrong sign of the log-variance term: + log var is what keeps the variance from growing")
        if not close(variance, torch.full((2, 7), logvar)):
            hint("model/variance_loss is not the mean of logvar over rows and targets")
        if close(nll, mse - variance) and logvar:
            hint("wrong sign of the log-variance term: + log var is what keeps the variance from growing")
        if not close(nll, mse + variance):
            hint("model/nll is not mse_loss + variance_loss")
        if not torch.is_tensor(loss) or loss.dim():
            hint("self.optimizer.minimize needs one number: sum over seeds and networks")
        bounds = variant()["bounds_weight"] * (model.max_logvar - model.min_logvar).sum()
        if close(loss, right.mean() + logvar) or close(loss, right.mean() + logvar + bounds):
            hint("self.optimizer.minimize gets a mean over seeds and networks: give it the sum")
        if not close(loss, nll.sum()) and not close(loss, nll.sum() + bounds):
            hint("self.optimizer.minimize must get nll's sum over seeds and networks, and the bounds' loss")


@check("1b", "learned bounds of the log-variance are pulled together")
def bounds_loss():
    import torch

    model, _, loss = update_with(torch.tensor(0.1), torch.tensor(0.0), learned_logvar_bounds=True)
    weight = variant()["bounds_weight"]
    if not loss.requires_grad:
        hint(f"the bounds' loss is missing: {weight} times the sum of (max_logvar - min_logvar)")
    bounds = (model.max_logvar, model.min_logvar)
    high, low = torch.autograd.grad(loss, bounds, allow_unused=True)
    if high is None or low is None or not (close(high / weight, torch.ones_like(high)) and close(low, -high)):
        hint(f"the bounds' loss is not {weight} times the sum of (max_logvar - min_logvar)")


@check("1b", "--nll-beta multiplies the likelihood of each number in the loss by variance^beta")
def weighted():
    import torch

    error = torch.randn(2, 7, 16, OBS + 1)
    logvar = (2 * torch.rand(2, 7, 16, OBS + 1) - 1.5).requires_grad_()
    model, logs, loss = update_with(error, logvar, nll_beta=0.5)
    squared, v = error.square(), logvar.detach()
    nll, weight = squared * (-v).exp() + v, (0.5 * v).exp()
    if not close(logs["model/nll"], nll.mean((2, 3))):
        hint("what is logged must not depend on self.nll_beta: only the loss does")
    bounds = variant()["bounds_weight"] * (model.max_logvar - model.min_logvar).sum()

    def is_loss(terms):
        total = terms.mean((2, 3)).sum()
        return close(loss, total) or close(loss, total + bounds)

    if is_loss(nll):
        hint("self.nll_beta has no effect: multiply each number's nll by exp(self.nll_beta * logvar)")
    if is_loss(nll / weight):
        hint("the factor is 1 / variance^beta; it must be variance^beta, exp(self.nll_beta * logvar)")
    if is_loss(weight * (nll - v) + v) or is_loss(nll - v + weight * v):
        hint("the factor of --nll-beta belongs to both terms, the squared error's and the log-variance")
    if not is_loss(weight * nll):
        hint(
            "with --nll-beta, each number's nll must be multiplied by exp(self.nll_beta * logvar) of its own"
        )
    (gradient,) = torch.autograd.grad(loss, logvar)
    per_number = 16 * (OBS + 1) * gradient  # the loss is a mean over these
    if close(per_number, weight * (1 - squared * (-v).exp() + 0.5 * nll)):
        hint("a gradient flows through the factor of --nll-beta: take the log-variance detached there")
    if not close(per_number, weight * (1 - squared * (-v).exp())):
        hint("the gradient in the log-variances is not that of nll, times exp(self.nll_beta * logvar)")


@check("1b", "after some hundred steps the predicted std is the noise's", seconds=30)
def finds_the_noise():
    import torch

    import ftfl

    model = ftfl.Ensemble(1, 1, make_args(ensemble_size=2, num_elites=1, model_hidden_dim=32, model_lr=3e-3))
    use_raw_targets(model)
    s, zero = 2 * torch.rand(2, 2, 128, 1) - 1, torch.zeros(2, 2, 128)
    for _ in range(400):
        noise = torch.where(s < 0, 0.05, 0.5) * torch.randn(s.shape)
        logs = model.update(ftfl.Batch(s, zero.unsqueeze(-1), zero, s + noise, zero))
    if any(x.requires_grad for x in logs.values()):
        hint("update returns numbers that still hold their graph: detach what is logged")
    with torch.no_grad():
        mean, logvar = model(torch.tensor([-0.6, 0.6]).view(1, 1, 2, 1), torch.zeros(1, 1, 2, 1))
    std = (0.5 * logvar[..., 0]).exp().mean((0, 1))
    if (mean[..., 0] - torch.tensor([-0.6, 0.6])).abs().mean() > 0.25:
        hint("after 400 updates the mean is still far off: does the gradient reach every network?")
    if not (0.02 < std[0] < 0.15 and 0.3 < std[1] < 0.8):
        hint(f"the noise's std is 0.05 on one side and 0.5 on the other; your networks say {numbers(std)}")
