"""FTFL (Fixing That Free Lunch) in a single file: MBPO with two changes to what its model predicts.

MBPO (mbpo.py; Janner et al. 2019) trains SAC on transitions that a learned model imagines. The model predicts
a mean and a variance for each number of the next state and for the reward, and is trained by the Gaussian
likelihood. Barkley & Fridovich-Keil (2025, arXiv 2510.01457) report that it beats SAC in OpenAI Gym and fails
in the DeepMind Control Suite (DMC). They name two causes, both in the targets that the model is trained on:

1. Scale mismatch. One loss covers the change of the state and the reward. In Gym both are of similar size. In
   DMC a reward is about 0.01 at first, while velocities change by several units in a step: the loss is spent
   on the states, and the imagined rewards are wrong. (The likelihood divides each squared error by the
   predicted variance, which should balance this out. Why it does not is partly open: `Ensemble.__init__`.)
   Repair: Target Unit Normalization (TUN). Every target, the reward too, gets mean 0 and variance 1.
2. Residual targets. MBPO's model predicts the change s' - s. The paper finds that this target inflates the
   predicted variance, and so spoils the imagined states. (In our fits they are worse on some tasks only,
   and mostly late: after the gradient steps of four trainings, or more. We do not know why.)
   Repair: Direct Next-state Prediction (DNP). The target is s' itself.

A third cause is not in what we have of the paper: the likelihood also divides the gradient of each prediction
by the predicted variance. So what the model is unsure of, like a rare reward, is learned slowly or never
(Seitzer et al. 2022). Repair: with TUN, their --nll-beta 0.5, see `Ensemble.update`. It is off by default.

DNP is in `Ensemble.raw_targets`, TUN in `Ensemble.targets`, and `Ensemble.to_transition` inverts both. With
--next-state-prediction residual and --no-target-normalization this file is mbpo.py, bit for bit.

The algorithm, and the function that does each step (`main` puts them together):

    for the first 10,000 steps act at random, then with the policy            Actor.sample
    after each step, store the transition in the real buffer                  ReplayBuffer.add
    from step 10,000 on, every 250 steps, train the model                     train_model
        set a fifth of the transitions aside, as the holdout                  split_rows
        measure mean and std of inputs and targets on the rest                Ensemble.fit_normalizers
        take 5,000 gradient steps, each network on its own bootstrap          Ensemble.update
        choose the networks with the smallest holdout error as elites         choose_elites
    from step 10,000 on, in each step
        imagine 400 transitions from real states                              imagine, Ensemble.sample
        20 times: draw a batch, 5 % real and 95 % imagined                    main, ReplayBuffer.take
                  take a gradient step of critics, actor and temperature      SAC.update

ensemble:  several networks that learn the same task; a random elite imagines each transition
elite:     one of the networks that may imagine, chosen anew after each training
holdout:   transitions that no network trains on: they serve to compare the networks and measure their errors
bootstrap: the training set of a single network: drawn with replacement, as large as the original
rollout:   an imagined trajectory that starts at a real state, by default one step long

Shapes: arrays begin with `seeds`. --num-seeds 6 trains six seeds side by side: their networks are stacked, so
that one batched matmul runs them all. With one seed, `seeds` is 1: read (seeds, batch, obs) as (batch, obs).
"""

import atexit
import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import tyro
from torch.optim.adam import adam
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


# ---------------------------------------- Args
@dataclass
class RunArgs:  # what to run, where, and what to write
    env_id: str = "dm_control/humanoid-stand-v0"  # dm_control/DOMAIN-TASK-v0, or a MuJoCo id like Hopper-v5
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side: seed, seed + 1, ...; one run directory each
    total_timesteps: int = 500_000  # environment steps per seed
    full_observation: bool = False  # keep the contact forces and inertias of Ant-v5 and the humanoids of -v5
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda or cuda:N
    num_threads: int = 1  # CPU threads; two runs with one thread each do more than one run with two
    env_workers: bool = False  # a process per environment: faster for many seeds on a GPU, same results
    tf32: bool = False  # on a GPU: matrix products with 10-bit mantissas instead of 23, faster
    compile: bool = False  # torch.compile the updates (on a GPU as CUDA graphs); pays after some minutes
    eval_interval: int = 5_000  # steps between evaluations
    eval_episodes: int = 10  # episodes per evaluation, played with the mean action
    log_interval: int = 100  # steps between logged losses
    run_dir: str = "runs"  # folder that gets one folder per seed: {env}__{script}__{seed}__{time}
    checkpoint_interval: int = 10_000  # steps between checkpoints; SIGTERM and SIGINT (Ctrl-C) leave one, too
    resume: str = ""  # directory of the run to continue (of its first seed), with the flags it had


@dataclass
class AgentArgs:  # SAC: actor, critics and temperature
    learning_starts: int = 10_000  # steps of uniformly random actions before the first update
    utd_ratio: int = 20  # gradient updates per environment step (update-to-data ratio)
    batch_size: int = 256  # transitions in the batch of one update
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # how far the target critics move towards the critics at each update
    actor_lr: float = 3e-4  # Adam's learning rate for the actor
    critic_lr: float = 3e-4  # Adam's learning rate for the critics
    alpha_lr: float = 3e-4  # Adam's learning rate for the temperature
    hidden_dim: int = 256  # width of the two hidden layers of actor and critics
    target_entropy_scale: float = 0.5  # target entropy: minus this times the number of action dimensions
    critic_layer_norm: bool = False  # layer norm in the critics, so that Q does not diverge (REPRODUCTION.md)


@dataclass
class ModelArgs:  # the learned model, and what it imagines
    ensemble_size: int = 7  # networks in the ensemble
    num_elites: int = 5  # networks that imagine: those with the smallest holdout error
    model_hidden_dim: int = 200  # width of the four hidden layers
    model_lr: float = 3e-4  # Adam's learning rate for the model
    model_train_interval: int = 250  # environment steps between trainings of the model
    model_train_steps: int = 5_000  # gradient steps per training (Janner et al. stop by holdout error)
    model_batch_size: int = 256  # transitions per network in one gradient step of the model
    learned_logvar_bounds: bool = False  # learn the bounds of the log-variance, else fixed at -10 and 0.5
    nll_beta: float = 0.0  # weight of each loss: predicted variance^beta, see Ensemble.update
    real_ratio: float = 0.05  # share of real transitions in a batch; with 1 there is no model: this is sac.py
    rollouts_per_step: int = 400  # imagined trajectories per environment step
    rollout_schedule: str = "1:1:0:1"  # START:END:FROM:TO: length grows START to END over steps FROM to TO
    synthetic_buffer_size: int = 1_000_000  # imagined transitions kept; the oldest are overwritten


@dataclass
class FtflArgs:  # the two changes to MBPO
    target_normalization: bool = True  # Target Unit Normalization: targets of mean 0, variance 1, reward too
    next_state_prediction: Literal["direct", "residual"] = "direct"  # the model's target is s', or s' - s


@dataclass
class Args(RunArgs, AgentArgs, ModelArgs, FtflArgs):
    """All flags, in the groups of --help."""


# ---------------------------------------- Networks
class Linear(nn.Module):
    """Linear layers in one batched matmul, with the initial weights of nn.Linear.

    stack is how many there are: (seeds,) for actors, (seeds, 2) for critics, (seeds, networks) for the model.
    """

    def __init__(self, in_dim, out_dim, *stack):
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter(torch.empty(*stack, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(*stack, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x):
        """(*stack, batch, in) -> (*stack, batch, out)"""
        # Adding the bias in place, like the ReLUs below, makes an update 10 % faster.
        return (x @ self.weight).add_(self.bias)


def mlp(dims, *stack, activation):
    """A stack of networks with linear layers of these widths, and the activation between them."""
    layers = []
    for in_dim, out_dim in zip(dims, dims[1:]):
        layers.append(Linear(in_dim, out_dim, *stack))
        layers.append(activation)
    return nn.Sequential(*layers[:-1])  # no activation at the end


class Actor(nn.Module):
    """The policy pi(a|s), a Gaussian squashed by tanh (Haarnoja et al. 2018): one network per seed."""

    def __init__(self, num_seeds, obs_dim, act_dim, hidden_dim):
        super().__init__()
        dims = [obs_dim, hidden_dim, hidden_dim, 2 * act_dim]
        self.net = mlp(dims, num_seeds, activation=nn.ReLU(inplace=True))

    def forward(self, obs):
        """obs (seeds, batch, obs) -> mean and log std before the tanh, (seeds, batch, act) each."""
        mean, log_std = self.net(obs).chunk(2, dim=-1)
        # The log std lies in [-10, 2]. A new network's output is near 0, so the log std starts near -4: the
        # policy starts almost deterministic, as in Barkley & Fridovich-Keil's code of arXiv 2412.14312.
        log_std = -4 + 6 * torch.tanh(log_std)
        return mean, log_std

    def sample(self, obs, noise):
        """Actions in [-1, 1] and log pi(a|s) (seeds, batch), for standard normal noise (seeds, batch, act).

        The noise is an argument, because --compile would change its numbers if it were drawn in here. By the
        change of variables (Haarnoja et al. 2018, app. C), the log density of a = tanh(u) is
        log N(u) - log |da / du|, summed over the action's dimensions.
        """
        mean, log_std = self(obs)
        u = mean + log_std.exp() * noise
        actions = torch.tanh(u)
        log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        # da / du is 1 - tanh(u)^2, which rounds to 0 from |u| = 9 on. This form of its logarithm stays exact.
        log_derivative = 2 * (np.log(2) - u - nn.functional.softplus(-2 * u))
        log_probs = (log_normal - log_derivative).sum(-1)
        return actions, log_probs


# ---------------------------------------- Buffer
# Transitions: obs and next_obs (seeds, batch, obs), actions (seeds, batch, act), rewards and terminations
# (seeds, batch). A termination is 1 where the task ended for good, and 0 elsewhere. An episode that is cut by
# its time limit could have gone on, so there it is 0 as well.
Batch = namedtuple("Batch", ["obs", "actions", "rewards", "next_obs", "terminations"])


class ReplayBuffer:
    """A ring of transitions per seed. All seeds store the same number of rows, so they share one position.

    The buffer of real transitions has room for all steps of a run, so it never wraps: a row keeps its number.
    """

    def __init__(self, num_seeds, capacity, obs_dim, act_dim):
        self.data = Batch(
            obs=torch.zeros(num_seeds, capacity, obs_dim),
            actions=torch.zeros(num_seeds, capacity, act_dim),
            rewards=torch.zeros(num_seeds, capacity),
            next_obs=torch.zeros(num_seeds, capacity, obs_dim),
            terminations=torch.zeros(num_seeds, capacity),
        )
        self.capacity = capacity
        self.pos = 0  # the row that is written next
        self.size = 0  # rows stored

    def add(self, batch):
        """Store a Batch (seeds, rows, ...), over the oldest rows if the buffer is full."""
        num_rows = batch.rewards.shape[1]
        rows = torch.arange(self.pos, self.pos + num_rows, device=batch.obs.device) % self.capacity
        for stored, new in zip(self.data, batch):
            stored[:, rows] = new
        self.pos = (self.pos + num_rows) % self.capacity
        self.size = min(self.size + num_rows, self.capacity)

    def take(self, rows):
        """The Batch at row numbers (seeds, ...). Every seed's rows come from its own ring."""
        # With all rings laid end to end, index_select copies whole rows, faster than data[seeds, rows] does.
        ring_starts = self.capacity * torch.arange(len(rows), device=rows.device)  # (seeds,)
        flat_rows = (ring_starts.unsqueeze(1) + rows.flatten(1)).flatten()
        taken = []
        for stored in self.data:
            values = stored.flatten(0, 1).index_select(0, flat_rows)
            taken.append(values.view(*rows.shape, *values.shape[1:]))
        return Batch(*taken)


# ---------------------------------------- Model
HOLDOUT_BLOCK = 5  # one row in five, 20 %, is held out
WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # one per layer, for its weights and not its biases
STD_FLOOR = 1e-4  # below this std a dimension counts as constant: dividing by it would blow up tiny changes


class Ensemble(nn.Module):
    """Networks that each predict a Gaussian of the next state and the reward from state and action.

    As in PETS (Chua et al. 2018), with a stack of networks per seed. A Batch to train on has a dimension for
    the networks: obs are (seeds, networks, batch, obs). Predictions and targets have the reward as their last
    number: (seeds, networks, batch, obs + 1).
    """

    def __init__(self, obs_dim, act_dim, args):
        super().__init__()
        in_dim = obs_dim + act_dim
        out_dim = obs_dim + 1
        width = args.model_hidden_dim
        dims = [in_dim, width, width, width, width, 2 * out_dim]  # a mean and a log-variance for each target
        self.net = mlp(dims, args.num_seeds, args.ensemble_size, activation=nn.SiLU())

        # Initial weights as in the original MBPO. Its biases are 0: those of nn.Linear, up to 0.07, would
        # swamp a raw DMC reward of 0.01 at first.
        linear_layers = [layer for layer in self.net if isinstance(layer, Linear)]
        for layer in linear_layers:
            layer_in_dim = layer.weight.shape[-2]
            std = 0.5 * layer_in_dim**-0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)

        # A log-variance in [-10, 0.5] is a std in [0.007, 1.3], in the units of the targets. The bounds are
        # fixed, as in Barkley & Fridovich-Keil's earlier code. They matter: in raw units humanoid-stand's
        # velocities need a variance of 10 and more, so their errors count too much where it can't be above
        # 1.65. But that is not all. With a higher fixed cap the reward is learned even worse in raw units,
        # and with learned bounds, as in the original MBPO, it is learned well (REPRODUCTION.md).
        per_target = (args.num_seeds, 1, 1, out_dim)
        learned = args.learned_logvar_bounds
        self.max_logvar = nn.Parameter(torch.full(per_target, 0.5), requires_grad=learned)
        self.min_logvar = nn.Parameter(torch.full(per_target, -10.0), requires_grad=learned)
        self.nll_beta = args.nll_beta
        self.normalize = args.target_normalization
        self.direct = args.next_state_prediction == "direct"

        # What `fit_normalizers` and `choose_elites` set. Registered, so that it is in checkpoints.
        self.register_buffer("input_mean", torch.zeros(args.num_seeds, 1, 1, in_dim))
        self.register_buffer("input_std", torch.ones(args.num_seeds, 1, 1, in_dim))
        self.register_buffer("target_mean", torch.zeros(per_target))
        self.register_buffer("target_std", torch.ones(per_target))
        self.register_buffer("target_is_constant", torch.zeros(per_target, dtype=torch.bool))
        self.register_buffer("elites", torch.arange(args.num_elites).repeat(args.num_seeds, 1))

        # Our own Adam, below the last banner: minimize(loss) is zero_grad, backward and step in one.
        weight_decay = {layer.weight: decay for layer, decay in zip(linear_layers, WEIGHT_DECAY)}
        self.optimizer = Adam(self.parameters(), args.model_lr, weight_decay)

    def forward(self, obs, actions):
        """obs and actions (seeds, networks or 1, batch, ...) -> mean and log-variance of the targets."""
        inputs = torch.cat([obs, actions], dim=-1)
        mean, logvar = self.net((inputs - self.input_mean) / self.input_std).chunk(2, dim=-1)
        # PETS's soft clamp to the bounds. A hard clamp would have no gradient outside of them.
        logvar = self.max_logvar - nn.functional.softplus(self.max_logvar - logvar)
        logvar = self.min_logvar + nn.functional.softplus(logvar - self.min_logvar)
        return mean, logvar

    def update(self, batch):
        """One gradient step on a Batch (seeds, networks, batch, ...). Returns what to log, (seeds, networks).

        The loss is the Gaussian negative log-likelihood, up to a factor of 2 and a constant:
        (y - mean)^2 / var + log var. It is summed over seeds and networks, not averaged, so that each network
        gets the gradient that it would get alone. --nll-beta multiplies each number's loss by var^beta, as a
        constant (beta-NLL, Seitzer et al. 2022): the gradient of the mean is divided by var^(1 - beta).
        """
        mean, logvar = self(batch.obs, batch.actions)
        squared_error = (self.targets(batch) - mean).square()
        weighted_error = squared_error * (-logvar).exp()
        nll = weighted_error + logvar  # (seeds, networks, batch, obs + 1)
        weight = (self.nll_beta * logvar.detach()).exp()  # 1 by default, where beta is 0
        loss = (weight * nll).mean((2, 3)).sum()
        # PETS's loss on the bounds, if they are learned, pulls them together. Otherwise it is a constant.
        bounds_loss = 0.01 * (self.max_logvar - self.min_logvar).sum()
        self.optimizer.minimize(loss + bounds_loss)
        return {
            "model/nll": nll.detach().mean((2, 3)),
            "model/mse_loss": weighted_error.detach().mean((2, 3)),  # (y - mean)^2 / var
            "model/variance_loss": logvar.detach().mean((2, 3)),
        }

    def raw_targets(self, batch):
        """What is to be predicted, (..., obs + 1), in the environment's units."""
        state_target = batch.next_obs - batch.obs
        if self.direct:  # DNP: s' instead of s' - s
            state_target = batch.next_obs
        return torch.cat([state_target, batch.rewards.unsqueeze(-1)], dim=-1)

    def targets(self, batch):
        """What the networks are trained on, (..., obs + 1)."""
        targets = self.raw_targets(batch)
        if self.normalize:  # TUN: z = (y - mean) / std
            targets = (targets - self.target_mean) / self.target_std
        return targets

    def to_transition(self, obs, prediction):
        """Turn a prediction of the targets into next states (..., obs) and rewards (...)."""
        if self.normalize:  # TUN: y = z std + mean
            prediction = prediction * self.target_std + self.target_mean
            # Our addition: a target that has been constant so far, like a reward of 0, is predicted as such.
            prediction = torch.where(self.target_is_constant, self.target_mean, prediction)
        next_obs = obs + prediction[..., :-1]
        if self.direct:  # DNP: the prediction is s' already
            next_obs = prediction[..., :-1]
        return next_obs, prediction[..., -1]

    def fit_normalizers(self, batch):
        """Mean and std of the training rows, a Batch (seeds, 1, rows, ...), for the training to come."""
        inputs = torch.cat([batch.obs, batch.actions], dim=-1)
        std, mean = torch.std_mean(inputs, dim=2, keepdim=True)
        self.input_mean.copy_(mean)  # in place, because a recorded CUDA graph keeps reading the same memory
        self.input_std.copy_(torch.where(std < STD_FLOOR, 1, std))
        if self.normalize:
            std, mean = torch.std_mean(self.raw_targets(batch), dim=2, keepdim=True)
            self.target_mean.copy_(mean)
            self.target_std.copy_(torch.where(std < STD_FLOOR, 1, std))
            self.target_is_constant.copy_(std < STD_FLOOR)

    def sample(self, obs, actions):
        """One imagined step from each row (seeds, rows, ...): a sample of a random elite's Gaussian."""
        mean, logvar = self(obs.unsqueeze(1), actions.unsqueeze(1))  # (seeds, networks, rows, obs + 1)
        # Each row draws its own elite.
        num_elites = self.elites.shape[1]
        choices = torch.randint(num_elites, obs.shape[:2], device=obs.device)  # (seeds, rows)
        networks = self.elites.gather(1, choices)[:, None, :, None]  # (seeds, 1, rows, 1)
        mean = torch.take_along_dim(mean, networks, dim=1)  # (seeds, 1, rows, obs + 1)
        logvar = torch.take_along_dim(logvar, networks, dim=1)
        prediction = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        next_obs, rewards = self.to_transition(obs.unsqueeze(1), prediction)
        return next_obs.squeeze(1), rewards.squeeze(1)


def split_rows(args, size):
    """Row numbers to train on and held out, (seeds, rows) each: in every block of five rows one is held out.

    A row stays on its side for the whole run, which it can since the real buffer never wraps. The networks go
    on from their last weights, so a holdout drawn anew would contain rows that they have trained on. The last
    rows, if they are fewer than five, are on neither side yet.
    """
    num_blocks = size // HOLDOUT_BLOCK
    # The seed is the same each time, and blocks are the first dimension. randint fills row by row, so later
    # calls, with more blocks, draw the same numbers for the earlier ones.
    generator = torch.Generator().manual_seed(args.seed)
    places = torch.randint(HOLDOUT_BLOCK, (num_blocks, args.num_seeds), generator=generator)
    places_by_row = places.T.repeat_interleave(HOLDOUT_BLOCK, dim=1)  # (seeds, rows)
    rows = torch.arange(num_blocks * HOLDOUT_BLOCK).expand(args.num_seeds, -1)
    is_held_out = rows % HOLDOUT_BLOCK == places_by_row
    train_rows = rows[~is_held_out].view(args.num_seeds, -1)
    holdout_rows = rows[is_held_out].view(args.num_seeds, -1)
    return train_rows, holdout_rows


def take_holdout(buffer, holdout_rows):
    """The held-out rows as a Batch (seeds, 1, rows, ...); 5,000 of them at random, if there are more.

    It has its own generator, so the draw does not disturb the run's random numbers.
    """
    shuffled = torch.randperm(holdout_rows.shape[1], generator=torch.Generator().manual_seed(0))
    rows = holdout_rows[:, shuffled[:5_000]]
    return buffer.take(rows.unsqueeze(1).to(buffer.data.obs.device))


def train_model(model, buffer, args):
    """Go on training the networks from their current weights, and choose elites.

    Returns what to log, (seeds, ...) each; losses are those of the last gradient step.
    """
    device = buffer.data.obs.device
    train_rows, holdout_rows = split_rows(args, buffer.size)
    train_rows = train_rows.unsqueeze(1).to(device)  # (seeds, 1, rows)
    model.fit_normalizers(buffer.take(train_rows))

    # In each training every network gets a new bootstrap of its own, and draws its batches from that.
    num_rows = train_rows.shape[2]
    stack = (args.num_seeds, args.ensemble_size)
    resampled = torch.randint(num_rows, (*stack, num_rows), device=device)
    bootstraps = torch.take_along_dim(train_rows, resampled, dim=2)  # (seeds, networks, rows)
    for _ in tqdm(range(args.model_train_steps), desc="model", unit="batch", leave=False, delay=2):
        drawn = torch.randint(num_rows, (*stack, args.model_batch_size), device=device)
        batch_rows = torch.take_along_dim(bootstraps, drawn, dim=2)  # (seeds, networks, batch)
        logs = model.update(buffer.take(batch_rows))

    holdout = take_holdout(buffer, holdout_rows)
    logs["model/holdout_mse"] = choose_elites(model, holdout)
    return logs | evaluate_model(model, holdout)


@torch.no_grad()
def choose_elites(model, holdout):
    """Choose the networks with the smallest error on a held-out Batch as elites. Returns all errors.

    The errors (seeds, networks) are in the units that the networks are trained in. If these are raw units,
    the dimensions with large numbers decide.
    """
    mean, _ = model(holdout.obs, holdout.actions)
    holdout_mse = (model.targets(holdout) - mean).square().mean((2, 3))
    num_elites = model.elites.shape[1]
    model.elites.copy_(holdout_mse.argsort(dim=1)[:, :num_elites])
    return holdout_mse


# ---------------------------------------- Rollouts
def termination_rule(env_id):
    """A function from next states (..., obs) to bool (...), True where the task ends. Add new tasks here."""
    # Of all but InvertedPendulum s[..., 0] is the height; where s[..., 1] is used, it is an angle.
    healthy = {
        "InvertedPendulum-v5": lambda s: s[..., 1].abs() <= 0.2,
        "Hopper-v5": lambda s: (s[..., 0] > 0.7) & (s[..., 1].abs() < 0.2) & (s[..., 1:].abs() < 100).all(-1),
        "Walker2d-v5": lambda s: (s[..., 0] > 0.8) & (s[..., 0] < 2) & (s[..., 1].abs() < 1),
        "Ant-v5": lambda s: (s[..., 0] >= 0.2) & (s[..., 0] <= 1),
        "Humanoid-v5": lambda s: (s[..., 0] > 1) & (s[..., 0] < 2),
    }
    for name in ("HalfCheetah-v5", "HumanoidStandup-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5"):
        healthy[name] = is_finite
    task = env_id.replace("-v4", "-v5")  # which ends by the same rules
    # In dm_control, tasks of the suite (with a hyphen: humanoid-stand) and of manipulation (in lower case:
    # reach_site_features) end by time limits alone. The others, like CmuHumanoidGoToTarget, may end before.
    if task.startswith("dm_control/") and task.endswith("-v0"):
        is_of_suite = "-" in task.removesuffix("-v0")
        is_manipulation = task.islower()
        if is_of_suite or is_manipulation:
            healthy[task] = is_finite
    if task not in healthy:
        fail(f"--env-id {env_id}: which imagined states end it? Add a rule to termination_rule in {__file__}")
    # A NaN is never healthy. (In a run `imagine` then stops with an error.)
    return lambda s: ~(healthy[task](s) & is_finite(s))


def is_finite(s):
    """True for states (..., obs) without NaN or infinity: the healthy ones of a task that never ends."""
    return torch.isfinite(s).all(-1)


@torch.no_grad()
def imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args):
    """Run the policy inside the model, starting at real states, and store the imagined transitions.

    After a terminal state a rollout starts again at a real one (in Janner et al. it ends there). Returns the
    last step of all rollouts, a Batch (seeds, rollouts, ...), to be logged.
    """
    start, end, first_step, last_step = map(int, args.rollout_schedule.split(":"))
    length = int(np.interp(step, [first_step, last_step], [start, end]))
    shape = (args.num_seeds, args.rollouts_per_step)
    act_dim = buffer.data.actions.shape[-1]
    device = buffer.data.obs.device

    def draw_real_obs():
        return buffer.take(torch.randint(buffer.size, shape, device=device)).obs  # (seeds, rollouts, obs)

    obs = draw_real_obs()
    for _ in range(length):
        noise = torch.randn(*shape, act_dim, device=device)
        actions, _ = agent.actor.sample(obs, noise)
        next_obs, rewards = model.sample(obs, actions)
        terminals = is_terminal(next_obs)
        batch = Batch(obs, actions, rewards, next_obs, terminals.float())
        check_finite(batch._asdict(), step)
        synthetic_buffer.add(batch)
        obs = torch.where(terminals.unsqueeze(-1), draw_real_obs(), next_obs)
    return batch


# ---------------------------------------- SAC
class SAC(nn.Module):
    """Actor, twin critics Q1 and Q2, target critics and temperature of every seed (Haarnoja et al. 2018)."""

    def __init__(self, obs_dim, act_dim, args):
        super().__init__()
        self.gamma = args.gamma
        self.tau = args.tau
        self.target_entropy = -args.target_entropy_scale * act_dim
        self.actor = Actor(args.num_seeds, obs_dim, act_dim, args.hidden_dim)
        activation = nn.ReLU(inplace=True)
        if args.critic_layer_norm:  # without a learned scale and shift, which all seeds would share
            norm = nn.LayerNorm(args.hidden_dim, elementwise_affine=False)
            activation = nn.Sequential(norm, activation)
        dims = [obs_dim + act_dim, args.hidden_dim, args.hidden_dim, 1]
        self.qf = mlp(dims, args.num_seeds, 2, activation=activation)  # two critics per seed
        self.qf_target = copy.deepcopy(self.qf).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(args.num_seeds, 1))
        # Adam is element-wise, so one optimizer for a stack is an independent one for each of its networks.
        # (It is our own, below the last banner: minimize(loss) is zero_grad, backward and step in one.)
        self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)
        self.q_optimizer = Adam(self.qf.parameters(), args.critic_lr)
        self.a_optimizer = Adam([self.log_alpha], args.alpha_lr)

    def q_values(self, qf, obs, actions):
        """Q1 and Q2, (seeds, 2, batch), by the critics or the target critics."""
        inputs = torch.cat([obs, actions], dim=-1)
        inputs = inputs.unsqueeze(1)  # (seeds, 1, batch, obs + act): both critics get the same
        return qf(inputs).squeeze(-1)

    @torch.no_grad()
    def q_target(self, batch, next_noise):
        """y = r + gamma (1 - terminal) (min_i Qi'(s', a') - alpha log pi(a'|s')), a' ~ pi. (seeds, batch)"""
        next_actions, next_log_probs = self.actor.sample(batch.next_obs, next_noise)
        next_q = self.q_values(self.qf_target, batch.next_obs, next_actions).min(1).values
        next_v = next_q - self.log_alpha.exp() * next_log_probs
        return batch.rewards + self.gamma * (1 - batch.terminations) * next_v

    def update(self, batch, next_noise, noise):
        """One step of critics, actor, temperature and target critics on a Batch (seeds, batch, ...).

        next_noise and noise, standard normal (seeds, batch, act), make actions for next_obs and for obs.
        Losses are means over the batch and sums over seeds, so each seed's gradient is its own. Returns what
        to log, (seeds, ...) each.
        """
        q_target = self.q_target(batch, next_noise)
        q_values = self.q_values(self.qf, batch.obs, batch.actions)  # (seeds, 2, batch)
        qf_loss = (q_values - q_target.unsqueeze(1)).square().mean(-1)  # (seeds, 2)
        self.q_optimizer.minimize(qf_loss.sum())

        alpha = self.log_alpha.exp()  # (seeds, 1)
        actions, log_probs = self.actor.sample(batch.obs, noise)
        min_q = self.q_values(self.qf, batch.obs, actions).min(1).values
        actor_loss = (alpha.detach() * log_probs - min_q).mean(-1)  # (seeds,)
        self.actor_optimizer.minimize(actor_loss.sum())

        # Some code has log alpha in the place of alpha here. In the paper it is alpha.
        alpha_loss = (-alpha * (log_probs.detach() + self.target_entropy)).mean(-1)  # (seeds,)
        self.a_optimizer.minimize(alpha_loss.sum())

        with torch.no_grad():
            for target_param, param in zip(self.qf_target.parameters(), self.qf.parameters()):
                target_param.lerp_(param, self.tau)  # Q' <- (1 - tau) Q' + tau Q
        return {
            "losses/qf1_values": q_values[:, 0].detach(),
            "losses/qf2_values": q_values[:, 1].detach(),
            "losses/qf_loss": qf_loss.detach(),
            "losses/actor_loss": actor_loss.detach(),
            "losses/alpha": alpha.detach(),
            "losses/alpha_loss": alpha_loss.detach(),
            "losses/entropy": -log_probs.detach(),
            "losses/action_size": actions.detach().abs(),
        }


# ---------------------------------------- Main
def main(args):
    """Train. Returns the run directories, one per seed."""
    check_args(args)
    args.env_id = full_env_id(args.env_id)
    device = choose_device(args)
    signals = catch_signals()  # a list, to which SIGTERM and Ctrl-C append
    set_up_torch(args, device)
    # All seeds share one stream of random numbers: seed 1 alone is a different run from seed 1 beside others.
    torch.manual_seed(args.seed)

    envs = make_envs(args)
    # Those for evaluation reset themselves, so that all can go on until the last episode has ended.
    eval_envs = make_envs(args, per_seed=args.eval_episodes, autoreset_mode="NextStep")
    obs_dim = envs.single_observation_space.shape[0]
    act_dim = envs.single_action_space.shape[0]
    use_model = args.real_ratio < 1
    num_real = round(args.real_ratio * args.batch_size)
    num_synthetic = args.batch_size - num_real
    with device:  # tensors that are created in here live on it
        agent = SAC(obs_dim, act_dim, args)
        buffer = ReplayBuffer(args.num_seeds, args.total_timesteps, obs_dim, act_dim)
        parts = {"agent": agent, "buffer": buffer}  # what a checkpoint saves
        if use_model:
            model = Ensemble(obs_dim, act_dim, args)
            synthetic_buffer = ReplayBuffer(args.num_seeds, args.synthetic_buffer_size, obs_dim, act_dim)
            is_terminal = termination_rule(args.env_id)
            parts["model"] = model
            parts["synthetic_buffer"] = synthetic_buffer
    if args.compile:
        compile_updates(parts, device)

    if args.resume:
        run_dirs, start, episode_starts = load_checkpoint(args, parts)
        obs = fast_forward(envs, args, buffer, episode_starts, start)
    else:
        run_dirs = make_run_dirs(args)
        start = 0  # steps done before
        # The step after which each seed's episode began. The environment is reset with a seed made of this
        # step and the run's seed, so that --resume can replay the episode.
        episode_starts = [0] * args.num_seeds
        obs = reset_envs(envs, args, episode_starts, np.ones(args.num_seeds, dtype=bool))
    writers = [SummaryWriter(str(run_dir), purge_step=start + 1, flush_secs=10) for run_dir in run_dirs]

    def to_tensor(x):
        return torch.as_tensor(x, dtype=torch.float32, device=device)

    start_time = time.time()
    steps = range(start + 1, args.total_timesteps + 1)
    for step in tqdm(steps, f"{SCRIPT} {args.env_id}", args.total_timesteps, initial=start, unit="step"):
        # Act: at random at first, then with a sample of the policy.
        if step <= args.learning_starts:
            actions = 2 * torch.rand(args.num_seeds, act_dim, device=device) - 1  # (seeds, act)
        else:
            with torch.no_grad():
                noise = torch.randn(args.num_seeds, 1, act_dim, device=device)
                actions, _ = agent.actor.sample(to_tensor(obs).unsqueeze(1), noise)
                actions = actions.squeeze(1)

        # Step and store. Where an episode ends, next_obs is its last observation, not the next one's first.
        next_obs, rewards, terminations, truncations, infos = envs.step(actions.cpu().numpy())
        check_finite({"an observation": next_obs, "a reward": rewards}, step)
        transition = (obs, actions, rewards, next_obs, terminations)
        buffer.add(Batch(*[to_tensor(x).unsqueeze(1) for x in transition]))
        obs = next_obs
        ended = terminations | truncations
        if ended.any():
            log_episodes(writers, infos, ended, step)
            for k in np.flatnonzero(ended):
                episode_starts[k] = step
            obs = reset_envs(envs, args, episode_starts, ended)

        if step >= args.learning_starts:
            if use_model:
                # Train the model, and imagine.
                if (step - args.learning_starts) % args.model_train_interval == 0:
                    model_logs = train_model(model, buffer, args)
                    check_finite({"model/nll": model_logs["model/nll"]}, step)
                    log(writers, model_logs, step)
                imagined = imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args)

            # Update.
            for _ in range(args.utd_ratio):
                rows = torch.randint(buffer.size, (args.num_seeds, num_real), device=device)
                batch = buffer.take(rows)
                if use_model:
                    shape = (args.num_seeds, num_synthetic)
                    rows = torch.randint(synthetic_buffer.size, shape, device=device)
                    synthetic_batch = synthetic_buffer.take(rows)
                    batch = Batch(*[torch.cat(pair, dim=1) for pair in zip(batch, synthetic_batch)])
                # Noise for the actions at next_obs and at obs.
                next_noise = torch.randn(args.num_seeds, args.batch_size, act_dim, device=device)
                noise = torch.randn(args.num_seeds, args.batch_size, act_dim, device=device)
                losses = agent.update(batch, next_noise, noise)

            # Log.
            check_finite(losses, step)
            if step % args.log_interval == 0:
                log(writers, losses, step)
                steps_per_second = args.num_seeds * (step - start) / (time.time() - start_time)
                log(writers, {"charts/SPS": [steps_per_second] * args.num_seeds}, step)
                if use_model:
                    log(writers, compare_ranges(buffer, imagined), step)

        is_last = step == args.total_timesteps
        if step % args.eval_interval == 0 or is_last:
            results = evaluate(agent, eval_envs, args, step)
            check_finite(results, step)
            log(writers, results, step)
        if step % args.checkpoint_interval == 0 or is_last or signals:
            save_checkpoint(args, parts, run_dirs, writers, step, episode_starts)
        if signals and not is_last:
            fail(f"stopped by a signal after step {step}; --resume {run_dirs[0]} goes on", 128 + signals[0])

    for closable in (envs, eval_envs, *writers):
        closable.close()
    for run_dir, returns in zip(run_dirs, results["eval/episodic_return"]):
        print(f"{run_dir}: return {returns.mean():.1f} at step {step}, mean of {args.eval_episodes} episodes")
    return run_dirs


# ---------------------------------------- The rest: environments, evaluation, files
SCRIPT = Path(__file__).stem


class Adam(nn.Module):
    """Adam (Kingma & Ba 2015) as torch has it, in a form that can be part of a compiled update.

    weight_decay is {parameter: decay}; a parameter that is not in it has none.
    """

    def __init__(self, params, lr, weight_decay=None):
        super().__init__()
        self.lr = lr
        self.params = [p for p in params if p.requires_grad]
        self.decays = [(weight_decay or {}).get(p, 0) for p in self.params]
        self.exp_avgs = [torch.zeros_like(p) for p in self.params]  # running means of the gradients,
        self.exp_avg_sqs = [torch.zeros_like(p) for p in self.params]  # and of their squares
        self.steps = [torch.zeros((), device=p.device) for p in self.params]
        for name in ("exp_avgs", "exp_avg_sqs", "steps"):  # as buffers, they are in the state_dict
            for i, x in enumerate(getattr(self, name)):
                self.register_buffer(f"{name}_{i}", x)

    def minimize(self, loss):
        """One step down the gradient of a scalar loss. Only this optimizer's parameters move."""
        grads = torch.autograd.grad(loss, self.params)
        options = {"lr": self.lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0}
        options |= {"amsgrad": False, "maximize": False, "capturable": loss.is_cuda}
        # One kernel for all parameters. Compiled code is fused anyway.
        options["fused"] = not torch.compiler.is_compiling()
        with torch.no_grad():
            for grad, param, decay in zip(grads, self.params, self.decays):
                grad.add_(param, alpha=decay)
            adam(self.params, grads, self.exp_avgs, self.exp_avg_sqs, [], self.steps, **options)


def fail(message, code=2):
    """Say in one line what the user's mistake is (code 2), or what stopped the run, and exit."""
    tqdm.write(f"error: {' '.join(message.split())}", file=sys.stderr)  # above the progress bar
    sys.exit(code)


def check_args(args):
    """Stop at the first flag that makes no sense, with a line that names it."""
    try:
        start, end, first_step, last_step = map(int, args.rollout_schedule.split(":"))
        schedule_is_right = 1 <= min(start, end) <= max(start, end) <= 50 and 0 <= first_step < last_step
    except ValueError:
        schedule_is_right = False
    if not schedule_is_right:
        fail(
            "--rollout-schedule must be START:END:FROM:TO, lengths from 1 to 50 and steps 0 <= FROM < TO "
            "(Janner et al. write FROM:TO:START:END)"
        )
    smallest_share = 1 / max(args.batch_size, 1)  # at least one row of a batch is real, and one imagined
    bounds = {
        "gamma": (0, 1),
        "tau": (0, 1),
        "seed": (0, 2**32 - args.num_seeds),  # torch takes 32 bits
        "num_threads": (1, os.cpu_count()),
        "learning_starts": (2 * HOLDOUT_BLOCK, args.total_timesteps),
        "num_elites": (1, args.ensemble_size),
        "nll_beta": (0, 1),
        "synthetic_buffer_size": (args.rollouts_per_step * max(start, end), 10**12),
        "real_ratio": (0, 1) if args.real_ratio in (0, 1) else (smallest_share, 1 - smallest_share),
    }
    # The other flags come first: the bounds above are made of them.
    for name, value in sorted(vars(args).items(), key=lambda item: item[0] in bounds):
        least, most = bounds.get(name, (1e-12 if isinstance(value, float) else 1, 10**12))
        if type(value) in (int, float) and not least <= value <= most:
            fail(f"--{name.replace('_', '-')} must lie in [{least}, {most}], not {value}")
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if args.compile and not any(shutil.which(compiler) for compiler in compilers):
        fail("--compile needs a C++ compiler (g++ or clang++) on the PATH")


def full_env_id(env_id):
    """The id with its version: Humanoid is Humanoid-v5. Stops if SAC can't learn this task."""
    module, colon, _ = env_id.rpartition(":")  # gymnasium imports the module of MODULE:TASK first
    try:
        return module + colon + make_env(env_id, True).unwrapped.spec.id
    except Exception as error:
        fail(f"--env-id {env_id} can't be used: {error}")


def choose_device(args):
    """The torch.device of --device. Stops if this machine does not have it."""
    names = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if len(names) > 1:
        names.append("cuda")
    name = names[-1] if args.device == "auto" else args.device
    if name not in names:
        fail(f"--device {args.device}: this machine has {names}")
    return torch.device(name)


def catch_signals():
    """Note SIGTERM, SIGHUP and Ctrl-C in the list that is returned, so that a run can end after its step."""
    signals = []

    def note(number, frame):
        if signals and number == signal.SIGINT:
            sys.exit(128 + number)  # Ctrl-C twice: at once
        signals.append(number)

    if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
        signal.signal(signal.SIGTERM, note)
        signal.signal(signal.SIGINT, note)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
            signal.signal(signal.SIGHUP, note)
    return signals


def set_up_torch(args, device):
    """Threads, and the precision of matrix products."""
    torch.set_num_threads(args.num_threads)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if args.tf32 else "ieee"
    if device.type == "cpu":
        fast_matmul()


def fast_matmul():
    """Have oneDNN multiply, which with AVX-512 is up to twice as fast as MKL (Zen 4: 1.1, Zen 5: 2.1 times).

    torch does so once bfloat16 is allowed. If oneDNN then really rounds to it (with AMX), that is taken back.
    """
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    x = torch.arange(2.0**16).view(1, 256, 256).sin()
    error = (x @ x - x.double() @ x.double()).abs().max()
    if error > 1e-3:  # float32 errs by 1e-6, bfloat16 by 6e-2
        torch.backends.mkldnn.matmul.fp32_precision = "none"


def compile_updates(parts, device):
    """Make each update one graph, its gradients and its optimizer included; on a GPU a CUDA graph."""
    torch._dynamo.config.trace_autograd_ops = True
    mode = "default" if device.type == "cpu" else "reduce-overhead"
    for part in parts.values():
        if hasattr(part, "update"):
            part.update = torch.compile(part.update, fullgraph=True, mode=mode)


def make_env(env_id, full_observation):
    """One environment: flat observations, actions in [-1, 1], its return in info["episode"]."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # no renderer: without a display it only prints warnings
    import shimmy  # here, because dm_control picks its renderer when it is imported

    gym.register_envs(shimmy)
    of_humanoids = ["cinert", "cvel", "qfrc_actuator", "cfrc_ext"]
    left_out = {"Ant-v5": ["cfrc_ext"], "Humanoid-v5": of_humanoids, "HumanoidStandup-v5": of_humanoids}
    kwargs = {}
    if not full_observation:
        for part in left_out.get(env_id, []):
            kwargs[f"include_{part}_in_observation"] = False
    env = gym.make(env_id, disable_env_checker=True, **kwargs)
    env.reset(seed=0)  # some environments find out only now that there is no renderer
    actions = env.action_space
    if not isinstance(actions, gym.spaces.Box) or not np.issubdtype(actions.dtype, np.floating):
        raise ValueError(f"SAC needs continuous actions, not {actions}")
    if len(actions.shape) != 1:
        raise ValueError(f"SAC needs actions that are a vector, not of shape {actions.shape}")
    if np.abs([actions.low, actions.high]).max() > 1e6 or (actions.low >= actions.high).any():
        raise ValueError(f"SAC needs bounded actions, of which none is constant, not {actions}")
    spaces = [env.observation_space]
    if isinstance(env.observation_space, gym.spaces.Dict):
        spaces = env.observation_space.spaces.values()
    if not all(is_vector(space) for space in spaces):
        raise ValueError("it observes pixels, discrete values or nested parts, not vectors of numbers")
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.RescaleAction(env, actions.dtype.type(-1), actions.dtype.type(1))
    return gym.wrappers.RecordEpisodeStatistics(env)


def is_vector(space):
    """Whether a space is of a few numbers each, not of pixels: integers of 8 bits, or three dimensions."""
    if not isinstance(space, gym.spaces.Box) or space.dtype == np.uint8:
        return False
    return len(space.shape) <= 2 or space.shape[0] == 1


def make_envs(args, per_seed=1, autoreset_mode="Disabled"):
    """A vector env with `per_seed` environments for each seed, by default reset by hand (`reset_envs`)."""
    makers = [lambda: make_env(args.env_id, args.full_observation)] * (args.num_seeds * per_seed)
    vector = gym.vector.AsyncVectorEnv if args.env_workers else gym.vector.SyncVectorEnv
    envs = vector(makers, autoreset_mode=autoreset_mode)
    # Workers ignore SIGTERM, as this process does, so Python could not end them at exit. This can.
    atexit.register(envs.close)
    return envs


def reset_envs(envs, args, episode_starts, which):
    """Begin episodes in the environments of the mask `which` (seeds,). Returns all observations."""
    seeds = []
    for k, step in enumerate(episode_starts):  # an episode is known by its seed and the step it began after
        seeds.append(np.random.SeedSequence((args.seed + k, step)).generate_state(1).item())
    obs, _ = envs.reset(seed=seeds, options={"reset_mask": which})
    return obs


def fast_forward(envs, args, buffer, episode_starts, step):
    """Bring new environments to where those of a run were at `step`. Returns the observations.

    An episode is determined by its seed and its actions, so each environment is reset to its seed and plays
    its actions again. The seeds' episodes began at different steps, and environments step together. So one
    whose episode begins later first plays actions of its earlier ones, only to keep pace, and is then reset.
    """
    due = np.ones(args.num_seeds, dtype=bool)  # to be reset
    for t in range(min(episode_starts), step + 1):
        due |= np.array(episode_starts) == t
        if due.any():
            obs = reset_envs(envs, args, episode_starts, due)
        if t < step:
            obs, _, terminations, truncations, _ = envs.step(buffer.data.actions[:, t].cpu().numpy())
            due = terminations | truncations
    return obs


@torch.no_grad()
def evaluate(agent, envs, args, step):
    """One episode in every environment with the mean action. Returns what to log, (seeds, episodes) each.

    The critics' bias is about eval/q_start - eval/discounted_return; about, since Q counts entropy, too.
    """
    seeds = np.random.SeedSequence((args.seed, step, 1)).generate_state(envs.num_envs).tolist()
    obs, _ = envs.reset(seed=seeds)
    alive = np.ones(envs.num_envs, dtype=bool)
    returns = np.zeros(envs.num_envs)
    lengths = np.zeros(envs.num_envs)
    discounted_returns = np.zeros(envs.num_envs)
    q_start = None
    t = 0
    while alive.any():
        obs = torch.as_tensor(obs, dtype=torch.float32, device=agent.log_alpha.device)
        obs = obs.view(args.num_seeds, args.eval_episodes, -1)
        mean, _ = agent.actor(obs)
        actions = torch.tanh(mean)
        if q_start is None:
            q_start = agent.q_values(agent.qf, obs, actions).min(1).values
        obs, rewards, terminations, truncations, _ = envs.step(actions.flatten(0, 1).cpu().numpy())
        returns += alive * rewards
        lengths += alive
        discounted_returns += alive * args.gamma**t * rewards
        alive = alive & ~(terminations | truncations)
        t += 1
        if t == 100_000:
            fail(f"--env-id {args.env_id} needs a time limit: an episode goes on after {t:,} steps")
    shape = (args.num_seeds, args.eval_episodes)
    return {
        "eval/episodic_return": returns.reshape(shape),
        "eval/episodic_length": lengths.reshape(shape),
        "eval/q_start": q_start.cpu().numpy(),
        "eval/discounted_return": discounted_returns.reshape(shape),
    }


@torch.no_grad()
def evaluate_model(model, holdout):
    """How well the elites predict a held-out Batch (seeds, 1, rows, ...). Returns what to log, (seeds, ...).

    Everything is in the environment's units, so that models with other targets can be compared.
    """
    mean, logvar = model(holdout.obs, holdout.actions)
    elites = model.elites[:, :, None, None]
    mean = torch.take_along_dim(mean, elites, dim=1)  # (seeds, elites, rows, obs + 1)
    std = torch.take_along_dim((0.5 * logvar).exp(), elites, dim=1)
    next_obs, rewards = model.to_transition(holdout.obs, mean)
    # to_transition is affine: the std in the environment's units is what one std more changes there.
    next_obs_plus_std, rewards_plus_std = model.to_transition(holdout.obs, mean + std)
    next_obs_std = next_obs_plus_std - next_obs
    rewards_std = rewards_plus_std - rewards

    # R2 compares with the variance of s' - s, not of s': to predict that nothing moves is worth about 0.
    state_mse = (next_obs - holdout.next_obs).square().mean((1, 2))  # (seeds, obs)
    state_r2 = r_squared(state_mse, (holdout.next_obs - holdout.obs).var((1, 2)))
    reward_mse = (rewards - holdout.rewards).square().mean((1, 2))  # (seeds,)
    return {
        "model/predicted_std": torch.cat([next_obs_std, rewards_std.unsqueeze(-1)], dim=-1),
        "model/reward_r2": r_squared(reward_mse, holdout.rewards.var((1, 2))),
        "model/next_state_r2": state_r2.nanmedian(1).values,  # one bad dimension could ruin a mean
        "rewards/real": holdout.rewards,
        "rewards/synthetic": rewards,  # what the elites predict on the same rows
        "rewards/synthetic_std": rewards_std,
    }


def r_squared(mse, variance):
    """1 for a perfect prediction, 0 for one as good as the mean; nan where there is nothing to explain."""
    return torch.where(variance < STD_FLOOR**2, torch.nan, 1 - mse / variance)


def out_of_range(real, imagined):
    """1 where a number of `imagined` (seeds, rows, ...) is outside of the range of `real`, else 0."""
    too_low = imagined < real.amin(1, keepdim=True)
    too_high = imagined > real.amax(1, keepdim=True)
    return (too_low | too_high).float()


def compare_ranges(buffer, imagined):
    """The shares of imagined rewards and states that lie outside of the real ones' range, to log."""
    rewards = buffer.data.rewards[:, : buffer.size]
    next_obs = buffer.data.next_obs[:, : buffer.size]
    return {
        "rewards/out_of_range": out_of_range(rewards, imagined.rewards),
        "model/out_of_range": out_of_range(next_obs, imagined.next_obs),
    }


def check_finite(values, step):
    """Stop the run if any of {name: numbers} holds NaN or infinity; the last checkpoint is from before."""
    for name, x in values.items():
        if not torch.as_tensor(x).isfinite().all():
            fail(f"step {step}: NaN or infinity in {name}; --resume goes on from the last checkpoint", 1)


def log(writers, scalars, step):
    """Write the means of {tag: values (seeds, ...)} to each seed's writer; nan is left out."""
    for tag, values in scalars.items():
        means = torch.as_tensor(values).reshape(len(writers), -1).mean(1).tolist()
        for writer, mean in zip(writers, means):
            if not np.isnan(mean):
                writer.add_scalar(tag, mean, step)


def log_episodes(writers, infos, ended, step):
    """Write return and length of the training episodes that ended."""
    for k in np.flatnonzero(ended):
        writers[k].add_scalar("charts/episodic_return", infos["episode"]["r"][k], step)
        writers[k].add_scalar("charts/episodic_length", infos["episode"]["l"][k], step)


def make_run_dirs(args):
    """Make a new folder per seed, with flags and versions in args.json. Returns the folders."""
    task = args.env_id.replace("/", "-").replace(":", "-")
    seeds = range(args.seed, args.seed + args.num_seeds)
    run_dirs = [Path(args.run_dir) / f"{task}__{SCRIPT}__{seed}__{time.time_ns()}" for seed in seeds]
    try:
        for run_dir in run_dirs:
            run_dir.mkdir(parents=True)
        write_flags(args, run_dirs)
    except OSError as error:
        fail(f"--run-dir {args.run_dir} can't be written to: {error}")
    return run_dirs


def write_flags(args, run_dirs):
    """Write args.json into each seed's folder that has none yet: the flags, and with what they were run."""
    about = asdict(args) | {
        "script": SCRIPT,
        "run_dirs": [run_dir.name for run_dir in run_dirs],
        "versions": package_versions(),
        "commit": git_commit(),
        "source": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12],  # tells two edits apart
    }
    for k, run_dir in enumerate(run_dirs):
        run_dir.mkdir(exist_ok=True)
        if not (run_dir / "args.json").exists():
            (run_dir / "args.json").write_text(json.dumps(about | {"seed": args.seed + k}, indent=2))


def package_versions():
    """The versions of what decides about the numbers of a run."""
    return {name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco", "dm_control")}


def git_commit():
    """The commit of this script, followed by -dirty if the code has changed since; empty without git."""
    if not shutil.which("git"):
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip()


def buffer_state(buffer):
    """A ReplayBuffer for a checkpoint: the rows stored so far, and the position of the next."""
    return {"pos": buffer.pos, "data": [x[:, : buffer.size].cpu().clone() for x in buffer.data]}


def load_buffer(buffer, state):
    """The inverse of `buffer_state`. The capacity need not be the same, if all rows fit."""
    buffer.size = state["data"][0].shape[1]
    buffer.pos = state["pos"] if buffer.size == buffer.capacity else buffer.size
    for stored, saved in zip(buffer.data, state["data"]):
        stored[:, : buffer.size] = saved


def save_checkpoint(args, parts, run_dirs, writers, step, episode_starts):
    """Write all that the rest of a run depends on into checkpoint.pt of the first seed's directory."""
    state = {
        "script": SCRIPT,
        "flags": asdict(args),
        "run_dirs": [run_dir.name for run_dir in run_dirs],
        "step": step,
        "episode_starts": episode_starts,
        "versions": package_versions(),
        "rng": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
    }
    for name, part in parts.items():
        if isinstance(part, ReplayBuffer):
            state[name] = buffer_state(part)
        else:
            state[name] = part.state_dict()
            check_finite({f"the {name}'s {key}": x for key, x in state[name].items()}, step)
    for writer in writers:
        writer.flush()  # the log must not end before the checkpoint
    path = run_dirs[0] / "checkpoint.pt"
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)  # at once, so that a kill leaves the old one or the new one


def read_checkpoint(run_dir):
    """What `save_checkpoint` wrote. Stops if it can't be used."""
    path = Path(run_dir) / "checkpoint.pt"
    about = Path(run_dir) / "args.json"
    if about.is_file() and not path.is_file():
        first = json.loads(about.read_text())["run_dirs"][0]
        if first != about.resolve().parent.name:
            fail(f"--resume {run_dir}: no checkpoint.pt there; that of all its seeds is in {first}")
    try:
        with zipfile.ZipFile(path) as file:  # torch writes checksums, but does not look at them
            damaged = file.testzip()
        state = torch.load(path, map_location="cpu", weights_only=True)  # so no code in it can run
        script = state["script"]
    except Exception as error:
        fail(f"--resume {run_dir}: no checkpoint.pt to go on from ({type(error).__name__}: {error})")
    if damaged:
        fail(f"--resume {run_dir}: its checkpoint.pt is damaged ({damaged})")
    if script != SCRIPT:
        fail(f"--resume {run_dir}: it is a run of {script}.py, no checkpoint.pt to go on from")
    return state


def load_checkpoint(args, parts):
    """Set everything to the checkpoint of --resume. Returns the run directories, the step, episode_starts."""
    state = read_checkpoint(args.resume)
    if state["step"] >= args.total_timesteps:
        fail(f"--total-timesteps must be more than the {state['step']} that the run of --resume has done")
    for name, part in parts.items():
        if isinstance(part, ReplayBuffer):
            load_buffer(part, state[name])
        else:
            part.load_state_dict(state[name])
    cpu_rng, *gpu_rngs = state["rng"]
    torch.set_rng_state(cpu_rng)
    torch.cuda.set_rng_state_all(gpu_rngs[: torch.cuda.device_count()])
    first = Path(args.resume).resolve()
    run_dirs = [first] + [first.parent / name for name in state["run_dirs"][1:]]
    write_flags(args, run_dirs)  # makes the other seeds' folders anew where only the first was copied
    versions = package_versions()
    if (before := state.get("versions", versions)) != versions:
        tqdm.write(
            f"note: --resume with {versions}, where it was {before}: the numbers may differ", sys.stderr
        )
    return run_dirs, state["step"], state["episode_starts"]


def parse_args(argv=None):
    """The flags of the command line. With --resume those of that run; only some may change."""
    may_change = ["total_timesteps", "device", "num_threads", "env_workers", "tf32", "compile", "resume"]
    may_change += ["eval_interval", "log_interval", "checkpoint_interval"]
    args = parse_flags(argv, Args())
    words = sys.argv[1:] if argv is None else argv
    if not args.resume and any(word.startswith("--resume") for word in words):
        fail("--resume needs a run directory")
    if args.resume:
        flags = read_checkpoint(args.resume)["flags"]
        if differing := flags.keys() ^ vars(args).keys():
            fail(f"--resume {args.resume}: it is of another version of this script, see {sorted(differing)}")
        args = parse_flags(argv, Args(**flags | {"resume": args.resume}))
        for name, value in flags.items():
            if name not in may_change and getattr(args, name) != value:
                fail(f"--{name.replace('_', '-')} was {value} in the run of --resume and can't be changed")
    return args


def parse_flags(argv, defaults):
    """The Args of a command line, for which --help shows the groups one by one."""
    groups = {}
    for group in Args.__bases__:
        values = {field.name: getattr(defaults, field.name) for field in fields(group)}
        groups[group.__name__.removesuffix("Args")] = group(**values)
    header = __doc__.split("\n\n")[0]
    parsed = tyro.cli(tyro.conf.OmitArgPrefixes[dict], args=argv, default=groups, description=header)
    flags = {}
    for group in parsed.values():
        flags.update(vars(group))
    return Args(**flags)


def explain(error):
    """Turn an error of the machine (a full disk or memory, a simulation that diverges) into a line."""
    text = f"{type(error).__name__}: {str(error)[:200]}"
    if any(words in text for words in ("MemoryError", "allocate memory", "out of memory", "overflow")):
        fail(f"{text}; smaller sizes?")
    of_machine = any(words in text for words in ("Errno", "PytorchStream", "iostream", "PhysicsError"))
    if of_machine and not isinstance(error, FileNotFoundError):
        fail(f"{text}; --resume goes on", 1)
    raise error  # a bug keeps its traceback


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # a terminal may not know the letters of a folder's name
        sys.stdout.reconfigure(errors="replace")
    # TensorBoard's thread prints no error of its own: the next number that is logged raises it in this one.
    threading.excepthook = lambda _: None
    try:
        main(parse_args())
    except (OSError, MemoryError, RuntimeError) as error:
        explain(error)
