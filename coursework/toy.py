"""Small experiments for the homework, each in seconds:

python toy.py noise      exercise 1: does the predicted std find the noise?
python toy.py mismatch   exercise 2: one loss for five large targets and a small one
python toy.py leak       exercise 3: a holdout that leaks, beside an honest one
python toy.py horizon    exercise 4: the error of an imagined trajectory, step by step
python toy.py tun        exercise 5: humanoid-stand's reward, without and with normalized targets
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn


# ---------------------------------------- Exercise 2: scale mismatch
def toy_data(rows, seed):
    """Inputs (rows, 5), and targets (rows, 6): five of order 10, like velocities, then one of order 0.01,
    like a reward. All six are equally easy functions of the inputs."""
    weights = torch.randn(5, 5, generator=torch.Generator().manual_seed(9)) / 5**0.5
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))
    states, reward = 10 * torch.sin(x @ weights), 0.01 * torch.cos(x[:, :1] + x[:, 1:2])
    return x, torch.cat([states, reward], 1)


def make_network():
    """One network for all six targets."""
    return nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 6))


def r2(predicted, real):
    """predicted, real (rows, targets) -> R2 of each target (targets,): 1 - (mean squared error) / (variance).
    1 is perfect, 0 is as good as the mean of `real`, below 0 is worse than that."""
    error = (predicted - real).square().mean(0)
    return 1 - error / real.var(0, correction=0)


def gradient_norms(network, x, y):
    """How hard the loss pulls at each target's head. The loss is the mean of (network(x) - y)^2 over rows and
    targets. Returns (targets,): the norm of its gradient in each row of the last layer's weights."""
    loss = (network(x) - y).square().mean()
    (gradient,) = torch.autograd.grad(loss, [network[-1].weight])  # (targets, 64)
    return gradient.norm(dim=1)


def fit(x, y, x_test, unit_variance, steps=1_000):
    """Train one network on the mean squared error of all targets, with Adam at 1e-3 and batches of 64 rows
    drawn with replacement. With `unit_variance` it is trained on targets of mean 0 and variance 1. Returns
    what it predicts for x_test, (rows, targets), in the units of y."""
    mean, std = (y.mean(0), y.std(0)) if unit_variance else (0, 1)
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        loss = (network(x[rows]) - (y[rows] - mean) / std).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network(x_test).detach() * std + mean


def mismatch():
    """R2 of states and reward on rows not trained on, from raw targets and from targets of unit variance."""
    (x, y), (x_test, y_test) = toy_data(2_000, seed=0), toy_data(500, seed=1)
    torch.manual_seed(1)
    norms = gradient_norms(make_network(), x, y)
    print(f"gradient norms before training: states {norms[:5].mean():.2g}, reward {norms[5]:.2g}")
    for unit_variance in (False, True):
        scores = r2(fit(x, y, x_test, unit_variance), y_test)
        name = "unit variance" if unit_variance else "raw targets"
        print(f"{name:14s} R2 of the states {scores[:5].mean():6.2f}, of the reward {scores[5]:8.2f}")


# ---------------------------------------- The others: with ftfl.py's ensemble
def raw_ensemble(obs_dim, act_dim, args):
    """ftfl.py's ensemble, trained on s' and r as they are: exercises 1 to 4 do without 5 and 6."""
    import ftfl

    class RawEnsemble(ftfl.Ensemble):
        def targets(self, batch):
            return torch.cat([batch.next_obs, batch.rewards.unsqueeze(-1)], -1)

        def to_transition(self, obs, prediction):
            return prediction[..., :-1], prediction[..., -1]

        def fit_normalizers(self, batch):
            pass

    return RawEnsemble(obs_dim, act_dim, args)


def make_buffer(batch):
    """A buffer of one seed that holds these transitions (rows, ...)."""
    import ftfl

    rows, obs_dim = batch.obs.shape
    buffer = ftfl.ReplayBuffer(1, rows, obs_dim, batch.actions.shape[-1])
    buffer.add(ftfl.Batch(*(x.unsqueeze(0) for x in batch)))
    return buffer


def noise():
    """Fit s' = s + noise, whose std is 0.02 where s < 0 and 0.3 where s > 0. Print what std the networks
    predict."""
    import ftfl

    torch.manual_seed(1)
    s = 2 * torch.rand(1, 2, 2_000, 1) - 1
    std = torch.where(s < 0, 0.02, 0.3)
    args = ftfl.Args(ensemble_size=2, num_elites=2, model_hidden_dim=32, model_lr=3e-3)
    model = raw_ensemble(1, 1, args)
    zero = torch.zeros(1, 2, 2_000)
    batch = ftfl.Batch(s, zero.unsqueeze(-1), zero, s + std * torch.randn(s.shape), zero)
    for step in range(1_501):
        rows = torch.randint(2_000, (128,))
        logs = model.update(ftfl.Batch(*(x[:, :, rows] for x in batch)))
        if step % 300 == 0:
            print(f"step {step:4d}: loss {logs['model/nll'].mean():6.2f}")
    for value in (-0.8, -0.4, 0.4, 0.8):
        _, logvar = model(torch.full((1, 1, 1, 1), value), torch.zeros(1, 1, 1, 1))
        print(
            f"at s = {value:4.1f}: std {0.02 if value < 0 else 0.3}, predicted "
            f"{(logvar[..., 0] / 2).exp().mean():.3f}"
        )


def leak():
    """Train the same ensemble again and again on 100 noisy rows. Twice: with a holdout that is the same in
    each training, and with one that is drawn anew each time, so that its rows were trained on before."""
    import ftfl

    rows = 100
    obs = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))
    y = torch.cat([obs, obs[:, :1]], 1) + 0.5 * noise
    batch = ftfl.Batch(obs, torch.zeros(rows, 1), y[:, 3], y[:, :3], torch.zeros(rows))
    args = ftfl.Args(ensemble_size=3, num_elites=2, model_hidden_dim=64, model_lr=1e-3)
    args = replace(args, model_train_steps=50, model_batch_size=64)
    curves = []
    for leaks in (False, True):
        torch.manual_seed(1)
        model, buffer, curve = raw_ensemble(3, 1, args), make_buffer(batch), []
        for training in range(40):
            logs = ftfl.train_model(model, buffer, replace(args, seed=training if leaks else 0))
            curve.append(logs["model/holdout_mse"].mean().item())
        curves.append(curve)
    print("holdout error after each training (the noise alone is 0.25)")
    print("training   honest   leaked")
    for training in (1, 2, 5, 10, 20, 30, 40):
        print(f"{training:8d}" + "".join(f"{curve[training - 1]:9.3f}" for curve in curves))


def pendulum(obs, actions):
    """One step of a pendulum: obs (..., 3) is cos, sin and angular velocity, actions (..., 1) a torque."""
    angle, speed = torch.atan2(obs[..., 1], obs[..., 0]), obs[..., 2]
    speed = 0.99 * speed + 0.15 * torch.sin(angle) + 0.2 * actions[..., 0]
    angle = angle + 0.2 * speed
    return torch.stack([angle.cos(), angle.sin(), speed], -1)


def horizon(steps=20):
    """Train an ensemble on single steps of a pendulum. Then imagine trajectories of 20 steps, take the same
    actions in the real pendulum, and print how far they are apart."""
    import ftfl

    torch.manual_seed(1)
    angle, speed = 6.28 * torch.rand(2_000), 2 * torch.randn(2_000)
    obs = torch.stack([angle.cos(), angle.sin(), speed], -1)
    actions = 2 * torch.rand(2_000, 1) - 1
    next_obs = pendulum(obs, actions)
    batch = ftfl.Batch(obs, actions, next_obs[:, 0], next_obs, torch.zeros(2_000))
    args = ftfl.Args(model_hidden_dim=64, model_lr=1e-3, rollouts_per_step=200)
    args = replace(args, rollout_schedule=f"{steps}:{steps}:0:1", model_train_steps=1_000)
    model, buffer = raw_ensemble(3, 1, args), make_buffer(batch)
    ftfl.train_model(model, buffer, args)
    imagined = ftfl.ReplayBuffer(1, steps * 200, 3, 1)
    never = lambda s: torch.zeros(s.shape[:-1], dtype=torch.bool)  # noqa: E731
    ftfl.imagine(ftfl.SAC(3, 1, args), model, buffer, imagined, never, 0, args)
    rows = ftfl.Batch(*(x[0].unflatten(0, (steps, 200)) for x in imagined.data))  # (steps, rollouts, ...)
    real = rows.obs[0]
    for t in range(steps):
        real = pendulum(real, rows.actions[t])
        if t + 1 in (1, 2, 5, 10, 20):
            error = (rows.next_obs[t] - real).square().sum(-1).sqrt().median()
            print(f"after {t + 1:2d} imagined steps: {error:.3f} from the real state (median)")


def tun_scores(seed):
    """Fit a small ensemble to humanoid-stand, 600 gradient steps, without and with target normalization.
    Returns the two R2 of the reward on held-out rows."""
    import ftfl

    with np.load(Path(__file__).parent / "data" / "humanoid_stand.npz") as file:
        batch = ftfl.Batch(*(torch.as_tensor(file[name].astype(np.float32)) for name in ftfl.Batch._fields))
    scores, obs_dim, act_dim = [], batch.obs.shape[1], batch.actions.shape[1]
    for normalize in (False, True):
        args = ftfl.Args(seed=seed, ensemble_size=3, num_elites=2, model_hidden_dim=100, model_lr=1e-3)
        args = replace(args, model_batch_size=128, model_train_steps=600, target_normalization=normalize)
        torch.manual_seed(seed)
        model = ftfl.Ensemble(obs_dim, act_dim, args)
        logs = ftfl.train_model(model, make_buffer(batch), args)
        scores.append(logs["model/reward_r2"].item())
    return scores


def tun():
    """What tun_scores finds, for two seeds."""
    for seed in (1, 2):
        raw, normalized = tun_scores(seed)
        print(f"seed {seed}: reward R2 {raw:6.2f} raw, {normalized:6.2f} with target normalization")


if __name__ == "__main__":
    experiments = {f.__name__: f for f in (noise, mismatch, leak, horizon, tun)}
    if len(sys.argv) != 2 or sys.argv[1] not in experiments:
        sys.exit(f"python toy.py {'|'.join(experiments)}")
    torch.set_num_threads(1)
    experiments[sys.argv[1]]()
