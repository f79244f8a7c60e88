"""Exercise 2: scale mismatch, in a toy."""

from checks.common import check, close, expect_shape, hint, numbers, unchanged


@check("2a", "R2 is 1 for perfect predictions, 0 for the mean, and a number per target")
def known_r2():
    import torch
    import toy

    real = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 60.0]])
    mean = real.mean(0).expand(3, 2)
    for predicted, right in ((real, 1.0), (mean, 0.0)):
        score = toy.r2(predicted.clone(), real.clone())
        expect_shape("r2", score, (2,))
        if not close(score, torch.full((2,), right)) and not close(score, torch.full((2,), right), 0.51):
            hint(
                f"R2 must be {right} here, yours is {numbers(score)}: 1 - (mean squared error) / "
                f"(variance of `real`)"
            )
    real = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 100.0])
    predicted = real + torch.tensor([2.0, 50.0])
    with unchanged("r2", predicted, real):
        score = toy.r2(predicted, real)
    right = 1 - torch.tensor([4.0, 2500.0]) / real.var(0)
    if close(score, 1 - torch.tensor([2.0, 50.0]) / real.std(0), 0.02):
        hint("R2 compares squares: the mean squared error with the variance, not the error with the std")
    if not close(score, right, 0.02):
        hint(
            f"R2 of predictions that are off by 2 and by 50 must be {numbers(right)}, yours is "
            f"{numbers(score)}. "
            "Each target has a variance of its own"
        )


@check("2b", "the gradient at each target's head")
def known_gradients():
    import torch
    import toy

    torch.manual_seed(0)
    network = toy.make_network()
    x, y = toy.toy_data(50, seed=3)
    with unchanged("gradient_norms", x, y):
        norms = toy.gradient_norms(network, x, y)
    expect_shape("gradient_norms", norms, (6,))
    with torch.no_grad():  # by the chain rule: d loss / d w_j = 2 / (rows targets) sum of (error_j h)
        hidden = network[:-1](x)
        right = torch.stack([(e.unsqueeze(1) * hidden).sum(0).norm() for e in (network(x) - y).T]) / 150
    if close(norms / right, torch.full((6,), (norms / right)[0].item()), 1e-2) and not close(
        norms, right, 1e-2
    ):
        hint(
            f"your norms are {(norms / right)[0].item():.3g} times the right ones: the loss is a mean "
            f"over rows and targets"
        )
    if not close(norms / right, torch.ones(6), 1e-2):
        hint(
            f"the norms must be {numbers(right)}, yours are {numbers(norms)}: of the loss of all "
            f"targets, in each row "
            "of the last layer's weights"
        )


@check("2c", "raw targets: the states are learned, the reward is not", seconds=30)
def raw():
    states, reward = scores(unit_variance=False)
    if states < 0.85:
        hint(
            f"from raw targets the states' R2 must reach 0.85, yours is {states:.2f}: is the network "
            f"trained, on rows of x "
            "with their own rows of y?"
        )
    if reward > 0:
        hint(
            f"from raw targets the reward's R2 stays below 0, yours is {reward:.2f}: are the targets "
            f"divided by something "
            "although unit_variance is False?"
        )


@check("2c", "targets of unit variance: both are learned", seconds=30)
def unit_variance():
    states, reward = scores(unit_variance=True)
    if min(states, reward) < 0.8:
        if states < 0.8 and reward < -1:
            hint(
                f"with unit variance R2 is {states:.3g} and {reward:.3g}: are the predictions scaled "
                f"back, times std "
                "plus mean, into the units of y?"
            )
        hint(
            f"with unit variance both R2 must reach 0.8, yours are {states:.2f} (states) and "
            f"{reward:.2f} (reward): has "
            "each target its own mean and std?"
        )


def scores(unit_variance):
    """R2 of the states (their mean) and of the reward, of the student's fit."""
    import torch
    import toy

    (x, y), (x_test, y_test) = toy.toy_data(2_000, seed=0), toy.toy_data(500, seed=1)
    with unchanged("fit", x, y, x_test):
        predicted = toy.fit(x, y, x_test, unit_variance)
    expect_shape("what fit returns", predicted, (500, 6))
    r2 = toy.r2(predicted.detach(), y_test)
    if not torch.isfinite(r2).all():
        hint("fit returns NaN or infinity")
    return r2[:5].mean().item(), r2[5].item()
