"""Fixing That Free Lunch (FTFL), whole in this file: MBPO with two changes to the model's targets, no other.

MBPO (mbpo.py; Janner et al. 2019) trains SAC on transitions that a learned model imagines. In OpenAI Gym that
beats SAC; in the DeepMind Control Suite it fails. Barkley & Fridovich-Keil (2025, arXiv 2510.01457) say why:

1. Scale mismatch. One loss fits state change and reward, but a reward is about 0.01 where a velocity is about
   10: the loss is spent on the states, imagined rewards are wrong, critics underestimate, no policy improves.
   Repair: Target Unit Normalization (TUN). Every target, the reward too, gets zero mean and unit variance.
2. Residual targets. The paper says that s' - s looks like noise beside the state: the predicted variance is
   inflated, imagined states are bad. Repair: Direct Next-state Prediction (DNP). The target is s' itself.

TUN is in `Ensemble.targets`, DNP in `raw_targets`; `to_transition` undoes both: targets become a transition.
--no-target-normalization and --next-state-prediction residual switch them off: without both, this is mbpo.py.

The algorithm, and what does each step (`main` puts them together):

    act at random for the first 10,000 steps, then with the policy            Actor.sample
    after each step, store the transition in the real buffer                  ReplayBuffer.add
    after the random ones, every 250 steps, train the model                   train_model
        keep a fifth of the transitions apart: the holdout                    split_rows
        measure mean and std of inputs and targets on the rest                Ensemble.fit_normalizers
        5,000 gradient steps, each network on its own bootstrap               Ensemble.update
        take the networks with the smallest holdout error as elites           evaluate_model
    each step: imagine 400 transitions from real states, the synthetic data   imagine, Ensemble.sample
    each step, 20 times: draw a batch, 5 % real and 95 % synthetic            ReplayBuffer.sample
        one step of critics, actor, temperature and target critics            SAC.update

ensemble:  several networks that learn the same task; of these a random elite imagines each transition
elite:     one of the networks that may imagine, chosen anew after each training
holdout:   transitions that no network ever trains on, to compare networks by and to log errors of
bootstrap: as many draws, with replacement, as training transitions; each network has its own
rollout:   a trajectory that policy and model imagine from a real state on, by default one step long

Shapes: arrays begin with `seeds`. --num-seeds 6 trains six seeds side by side: their networks lie in a stack
for one batched matmul. With one seed, `seeds` is 1: read (seeds, batch, obs) as (batch, obs).
"""

import atexit
import copy
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
from functools import partial
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
class RunArgs:  # what is run, where, and what it leaves
    env_id: str = "dm_control/humanoid-stand-v0"  # dm_control/DOMAIN-TASK-v0, or a MuJoCo id like Hopper-v5
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side: seed, seed + 1, ...; one run directory each
    total_timesteps: int = 500_000  # environment steps per seed
    full_observation: bool = False  # keep the contact forces and inertias that Ant-v5 and Humanoid-v5 observe
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda or cuda:N
    num_threads: int = 1  # CPU threads; two runs of one do more than one of two
    env_workers: bool = False  # a process for each environment, for several seeds on a GPU; the same numbers
    tf32: bool = False  # on a GPU: multiply with 10 bits instead of 23, faster
    compile: bool = False  # a graph per update (on a GPU a CUDA graph): pays after 1,000 steps at UTD 20
    eval_interval: int = 5_000  # steps between evaluations
    eval_episodes: int = 10  # episodes per evaluation, played with the mean action
    log_interval: int = 100  # steps between logged losses
    run_dir: str = "runs"  # folder that gets one folder per seed: {env}__{script}__{seed}__{time}
    checkpoint_interval: int = 10_000  # steps between checkpoints; SIGTERM and SIGINT (Ctrl-C) leave one, too
    resume: str = ""  # a run directory (its first seed's): go on from its checkpoint, with its flags


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
    critic_layer_norm: bool = False  # layer norm in the critics, to hold Q (REPRODUCTION.md)


@dataclass
class ModelArgs:  # the learned model, and what it imagines
    ensemble_size: int = 7  # networks in the ensemble
    num_elites: int = 5  # networks that imagine: those with the smallest holdout error
    model_hidden_dim: int = 200  # width of the four hidden layers (Tuned FTFL, as we guess: 400)
    model_lr: float = 3e-4  # Adam's learning rate for the model
    model_train_interval: int = 250  # environment steps between trainings of the model
    model_train_steps: int = 5_000  # gradient steps per training (Janner et al. stop by holdout error)
    model_batch_size: int = 256  # transitions per network in one gradient step of the model
    learned_logvar_bounds: bool = False  # learn the bounds of the log-variance, as PETS and Janner et al. do
    nll_beta: float = 0.0  # each error counts variance^beta times as much (Seitzer et al. 2022); 0: as it is
    real_ratio: float = 0.05  # share of real transitions in a batch; with 1 there is no model: this is sac.py
    rollouts_per_step: int = 400  # imagined trajectories per environment step
    rollout_schedule: str = "1:1:0:1"  # START:END:FROM:TO: length START to step FROM, linear to END at TO
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
    """A stack of linear layers in one batched matmul, with the initial weights of nn.Linear."""

    def __init__(self, in_dim, out_dim, *stack):
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter(torch.empty(*stack, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(*stack, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x):
        return (x @ self.weight).add_(self.bias)  # (*stack, batch, in) -> (*stack, batch, out)


def mlp(dims, *stack, activation=nn.ReLU(inplace=True)):  # in place, as add_ is: an update takes 10 % less
    """A stack of networks with linear layers of these widths, and the activation between them."""
    layers = []
    for in_dim, out_dim in zip(dims, dims[1:]):
        layers += [Linear(in_dim, out_dim, *stack), activation]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """A Gaussian squashed by tanh, pi(a|s) (SAC, Haarnoja et al. 2018): one network per seed."""

    def __init__(self, num_seeds, obs_dim, act_dim, hidden_dim):
        super().__init__()
        self.net = mlp([obs_dim, hidden_dim, hidden_dim, 2 * act_dim], num_seeds)

    def forward(self, obs):
        """obs (seeds, batch, obs) -> mean and log std before the tanh, (seeds, batch, act) each."""
        mean, log_std = self.net(obs).chunk(2, -1)
        return mean, -4 + 6 * torch.tanh(log_std)  # log std in [-10, 2], at first near -4 (often 0 elsewhere)

    def sample(self, obs, noise):
        """Actions in [-1, 1] for standard normal `noise` (seeds, batch, act), and log pi (seeds, batch).
        Change of variables (Haarnoja et al. 2018, app. C): log pi(tanh(u)) = log N(u) - log |d tanh(u) / du|.
        1 - tanh(u)^2 rounds to 0 from |u| = 9 on, its logarithm as 2 (log 2 - u - softplus(-2u)) is exact."""
        mean, log_std = self(obs)
        u = mean + log_std.exp() * noise
        log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        log_derivative = 2 * (np.log(2) - u - nn.functional.softplus(-2 * u))
        return torch.tanh(u), (log_normal - log_derivative).sum(-1)


class Adam(nn.Module):
    """Adam (Kingma & Ba 2015): torch's class can't be compiled. weight_decay: of the first parameters."""

    def __init__(self, params, lr, weight_decay=()):
        super().__init__()
        self.params, self.lr, self.weight_decay = list(params), lr, weight_decay
        self.exp_avgs = [torch.zeros_like(p) for p in self.params]  # running means of the gradients,
        self.exp_avg_sqs = [torch.zeros_like(p) for p in self.params]  # and of their squares
        self.steps = [torch.zeros((), device=p.device) for p in self.params]
        for name in ("exp_avgs", "exp_avg_sqs", "steps"):  # into buffers, and so into the state_dict
            for i, x in enumerate(getattr(self, name)):
                self.register_buffer(f"{name}_{i}", x)

    def minimize(self, loss):
        """One step down the gradient of a scalar loss. Only this optimizer's parameters move."""
        grads = torch.autograd.grad(loss, self.params)
        fused = not torch.compiler.is_compiling()  # one kernel for all; compiled code is fused anyway
        options = dict(amsgrad=False, maximize=False, capturable=loss.is_cuda, fused=fused, weight_decay=0)
        options |= dict(lr=self.lr, beta1=0.9, beta2=0.999, eps=1e-8)
        with torch.no_grad():
            for grad, param, decay in zip(grads, self.params, self.weight_decay):  # ends with weight_decay
                grad.add_(param, alpha=decay)
            adam(self.params, grads, self.exp_avgs, self.exp_avg_sqs, [], self.steps, **options)


# ---------------------------------------- Buffer
# Transitions: obs and next_obs (seeds, ..., batch, obs), actions (seeds, ..., batch, act), rewards and
# terminations (seeds, ..., batch); a termination is 1 at a true terminal state, else 0, also at a time limit
Batch = namedtuple("Batch", "obs actions rewards next_obs terminations")


class ReplayBuffer:
    """A ring of transitions per seed. All seeds store equally many rows, so they share one position."""

    def __init__(self, num_seeds, capacity, obs_dim, act_dim):
        shapes = Batch((obs_dim,), (act_dim,), (), (obs_dim,), ())
        self.data = Batch(*(torch.zeros(num_seeds, capacity, *shape) for shape in shapes))
        self.capacity, self.pos, self.size = capacity, 0, 0

    def add(self, batch):
        """Store a Batch of (seeds, rows, ...), over the oldest rows if the buffer is full."""
        num_rows = batch.rewards.shape[1]
        rows = torch.arange(self.pos, self.pos + num_rows, device=batch.obs.device) % self.capacity
        for stored, new in zip(self.data, batch):
            stored[:, rows] = new
        self.pos = (self.pos + num_rows) % self.capacity
        self.size = min(self.size + num_rows, self.capacity)

    def sample(self, rows):
        """The Batch at `rows` (seeds, ...): row numbers for each seed in its own buffer."""
        seeds = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (rows.dim() - 1))
        flat = (seeds * self.capacity + rows).flatten()  # all seeds' rows in one
        # index_select copies whole rows: an update of the model takes 4 to 7 % less than by x[seeds, rows]
        picked = (x.flatten(0, 1).index_select(0, flat) for x in self.data)
        return Batch(*(x.view(*rows.shape, *x.shape[1:]) for x in picked))

    def state_dict(self):
        """For a checkpoint: the rows stored so far, and the position of the next."""
        return {"pos": self.pos, "data": [x[:, : self.size].cpu().clone() for x in self.data]}

    def load_state_dict(self, state):
        """The inverse. The capacity need not be the same, if all rows fit."""
        self.size = state["data"][0].shape[1]
        self.pos = state["pos"] if self.size == self.capacity else self.size
        for stored, saved in zip(self.data, state["data"]):
            stored[:, : self.size] = saved


# ---------------------------------------- Model
HOLDOUT_BLOCK = 5  # one row in five, 20 %, is held out
WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # per layer, on weights only
STD_FLOOR = 1e-4  # divided by a smaller std, a nearly constant dimension would blow up as soon as it moves


class Ensemble(nn.Module):
    """Networks that each predict a Gaussian over (next state, reward) from (state, action): a stack per seed.
    As in PETS (Chua et al. 2018). Inputs are normalized, and so are targets (Target Unit Normalization)."""

    def __init__(self, obs_dim, act_dim, args):
        super().__init__()
        stack, width = (args.num_seeds, args.ensemble_size), args.model_hidden_dim
        in_dim, out_dim = obs_dim + act_dim, obs_dim + 1
        self.net = mlp([in_dim, width, width, width, width, 2 * out_dim], *stack, activation=nn.SiLU())
        for layer in self.net[::2]:  # MBPO's initial weights; nn.Linear's biases exceed a small reward
            std = 0.5 * layer.weight.shape[-2] ** -0.5
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)
        shape, learned = (args.num_seeds, 1, 1, out_dim), args.learned_logvar_bounds
        # Std of 0.0067 to 1.3 in the targets' units: a raw velocity may change by more, a raw reward by less
        self.max_logvar = nn.Parameter(torch.full(shape, 0.5), requires_grad=learned)
        self.min_logvar = nn.Parameter(torch.full(shape, -10.0), requires_grad=learned)
        self.register_buffer("input_mean", torch.zeros(args.num_seeds, 1, 1, in_dim))
        self.register_buffer("input_std", torch.ones(args.num_seeds, 1, 1, in_dim))
        self.register_buffer("target_mean", torch.zeros(shape))
        self.register_buffer("target_std", torch.ones(shape))  # 0 where below STD_FLOOR
        self.register_buffer("elites", torch.arange(args.num_elites).repeat(args.num_seeds, 1))
        self.normalize, self.direct = args.target_normalization, args.next_state_prediction == "direct"
        self.nll_beta = args.nll_beta
        params = [layer.weight for layer in self.net[::2]] + [layer.bias for layer in self.net[::2]]
        params += [self.max_logvar, self.min_logvar] if learned else []
        self.optimizer = Adam(params, args.model_lr, WEIGHT_DECAY)

    def forward(self, obs, actions):
        """obs, actions (seeds, networks or 1, batch, .) -> mean, logvar (seeds, networks, batch, obs + 1)."""
        x = (torch.cat([obs, actions], -1) - self.input_mean) / self.input_std
        mean, logvar = self.net(x).chunk(2, -1)
        # Soft clamp: v <- max - softplus(max - v), v <- min + softplus(v - min). A hard clamp's gradient is 0
        logvar = self.max_logvar - nn.functional.softplus(self.max_logvar - logvar)
        logvar = self.min_logvar + nn.functional.softplus(logvar - self.min_logvar)
        return mean, logvar

    def update(self, batch):
        """One gradient step on a Batch (seeds, networks, batch, ...). Returns what to log, (seeds, networks).
        Twice the Gaussian negative log-likelihood, but for a constant: (y - mean)^2 / var + log var."""
        mean, logvar = self(batch.obs, batch.actions)
        mse_loss = ((self.targets(batch) - mean).square() * (-logvar).exp()).mean((2, 3))
        variance_loss = logvar.mean((2, 3))
        nll = mse_loss + variance_loss
        weight = (self.nll_beta * logvar.detach()).exp()  # variance^beta, 1 for beta 0
        loss = (weight * ((self.targets(batch) - mean).square() * (-logvar).exp() + logvar)).mean((2, 3))
        bounds_loss = 0.01 * (self.max_logvar - self.min_logvar).sum()  # of PETS, for learned bounds
        self.optimizer.minimize(loss.sum() + bounds_loss)
        logs = {"model/nll": nll, "model/mse_loss": mse_loss, "model/variance_loss": variance_loss}
        return {tag: values.detach() for tag, values in logs.items()}

    def raw_targets(self, batch):
        """What is to be predicted, (..., obs + 1), the reward last, in the environment's units."""
        next_state = batch.next_obs if self.direct else batch.next_obs - batch.obs  # DNP: s', not s' - s
        return torch.cat([next_state, batch.rewards.unsqueeze(-1)], -1)

    def targets(self, batch):
        """What the networks are trained on, (..., obs + 1)."""
        targets = self.raw_targets(batch)
        if self.normalize:  # TUN: z = (y - mean) / std
            targets = (targets - self.target_mean) / torch.where(self.target_std == 0, 1, self.target_std)
        return targets

    def to_transition(self, obs, prediction):
        """From a prediction of targets: next states (..., obs), rewards (...) in the environment's units."""
        if self.normalize:  # TUN: y = z std + mean. Where std is 0, always the mean
            prediction = prediction * self.target_std + self.target_mean
        next_obs = prediction[..., :-1] if self.direct else obs + prediction[..., :-1]
        return next_obs, prediction[..., -1]

    def fit_normalizers(self, batch):
        """Statistics of the training rows, a Batch (seeds, 1, rows, ...), for the training that follows."""
        std, mean = torch.std_mean(torch.cat([batch.obs, batch.actions], -1), 2, keepdim=True)
        self.input_mean.copy_(mean)  # in place: a CUDA graph reads where it was recorded
        self.input_std.copy_(torch.where(std < STD_FLOOR, 1, std))
        if self.normalize:
            std, mean = torch.std_mean(self.raw_targets(batch), 2, keepdim=True)
            self.target_mean.copy_(mean)
            self.target_std.copy_(torch.where(std < STD_FLOOR, 0, std))

    def sample(self, obs, actions):
        """One imagined step from each row (seeds, rows, .): a sample of a random elite's Gaussian."""
        mean, logvar = self(obs.unsqueeze(1), actions.unsqueeze(1))  # (seeds, networks, rows, obs + 1)
        picks = torch.randint(self.elites.shape[1], obs.shape[:2], device=obs.device)  # (seeds, rows)
        networks = self.elites.gather(1, picks)[:, None, :, None]  # (seeds, 1, rows, 1)
        mean, logvar = (torch.take_along_dim(x, networks, 1) for x in (mean, logvar))
        prediction = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        next_obs, rewards = self.to_transition(obs.unsqueeze(1), prediction)
        return next_obs.squeeze(1), rewards.squeeze(1)


def split_rows(args, size):
    """Row numbers for training and held out, (seeds, rows) each. One row of each block of five is held
    out, for life: a holdout drawn anew would hold rows already trained on. Unfinished blocks wait."""
    generator = torch.Generator().manual_seed(args.seed)  # so old blocks get their old picks again
    picks = torch.randint(HOLDOUT_BLOCK, (size // HOLDOUT_BLOCK, args.num_seeds), generator=generator)
    held_out = (picks.T.unsqueeze(-1) == torch.arange(HOLDOUT_BLOCK)).flatten(1)  # (seeds, rows)
    return [mask.nonzero()[:, 1].view(args.num_seeds, -1) for mask in (~held_out, held_out)]


def train_model(model, buffer, args):
    """Train the networks, from their last weights on; choose elites. Returns what to log, (seeds, ...)."""
    train_rows, holdout_rows = (rows.to(buffer.data.obs.device) for rows in split_rows(args, buffer.size))
    model.fit_normalizers(buffer.sample(train_rows.unsqueeze(1)))
    # Bootstrap: each network gets its own draw, with replacement, of as many rows
    stack, num_rows, device = (args.num_seeds, args.ensemble_size), train_rows.shape[1], train_rows.device
    picks = torch.randint(num_rows, (*stack, num_rows), device=device)
    bootstraps = torch.take_along_dim(train_rows.unsqueeze(1), picks, -1)  # (seeds, networks, rows)
    for _ in tqdm(range(args.model_train_steps), desc="model", unit="batch", leave=False, delay=2):
        picks = torch.randint(num_rows, (*stack, args.model_batch_size), device=device)
        logs = model.update(buffer.sample(torch.take_along_dim(bootstraps, picks, -1)))
    return logs | evaluate_model(model, buffer, holdout_rows)


@torch.no_grad()
def evaluate_model(model, buffer, holdout_rows):
    """Choose the elites by holdout error. Returns what to log, (seeds, ...) each.
    The error that ranks is in units of the targets; where these are the environment's, large numbers decide.
    The rest is in the environment's units, to compare runs with other targets. R2 is 1 - (mean squared error
    of an elite) / (variance); for next states, the variance of the one-step change s' - s."""
    # At most 5,000, at random: an even stride could fall in step with the episodes.
    picks = torch.randperm(holdout_rows.shape[1], generator=torch.Generator().manual_seed(0))[:5_000]
    rows = holdout_rows[:, picks.to(holdout_rows.device)].unsqueeze(1)
    batch = buffer.sample(rows)  # (seeds, 1, rows, ...)
    mean, logvar = model(batch.obs, batch.actions)
    holdout_mse = (model.targets(batch) - mean).square().mean((2, 3))  # (seeds, networks)
    model.elites.copy_(holdout_mse.argsort(1)[:, : model.elites.shape[1]])

    elites = model.elites[..., None, None]
    std = torch.take_along_dim((0.5 * logvar).exp(), elites, 1) * model.target_std
    next_obs, rewards = model.to_transition(batch.obs, torch.take_along_dim(mean, elites, 1))
    predicted = torch.cat([next_obs - batch.obs, rewards.unsqueeze(-1)], -1)  # (seeds, elites, rows, obs + 1)
    real = torch.cat([batch.next_obs - batch.obs, batch.rewards.unsqueeze(-1)], -1)
    mse, variance = (predicted - real).square().mean((1, 2)), real.var(2).squeeze(1)  # (seeds, obs + 1)
    r2 = torch.where(variance < STD_FLOOR**2, torch.nan, 1 - mse / variance)
    logs = {"model/holdout_mse": holdout_mse, "model/predicted_std": std, "model/reward_r2": r2[:, -1]}
    logs["model/next_state_r2"] = r2[:, :-1].nanmedian(1).values  # one bad dimension can ruin a mean
    logs |= {"rewards/real": batch.rewards, "rewards/synthetic": rewards}
    return logs | {"rewards/synthetic_std": std[..., -1]}


# ---------------------------------------- Rollouts
def termination_rule(env_id):
    """A function from next states (..., obs) to bool (...), True where the task ends. Add new tasks here."""
    healthy = {
        "InvertedPendulum": lambda s: s[..., 1].abs() <= 0.2,
        "Hopper": lambda s: (s[..., 0] > 0.7) & (s[..., 1].abs() < 0.2) & (s[..., 1:].abs() < 100).all(-1),
        "Walker2d": lambda s: (s[..., 0] > 0.8) & (s[..., 0] < 2) & (s[..., 1].abs() < 1),
        "Ant": lambda s: (s[..., 0] >= 0.2) & (s[..., 0] <= 1),
        "Humanoid": lambda s: (s[..., 0] > 1) & (s[..., 0] < 2),
    }
    task = env_id.rsplit("-v", 1)[0]
    never = task in ("HalfCheetah", "HumanoidStandup", "Pusher", "Reacher", "Swimmer")
    # Of DMC, the suite's tasks (named domain-task) and manipulation's (in lower case) run to the time limit
    never |= task.startswith("dm_control/") and ("-" in task or task.islower())
    if task not in healthy and not never:
        fail(f"--env-id {env_id}: which imagined states end it? Add a rule to termination_rule in {__file__}")
    rule = healthy.get(task, lambda s: torch.ones_like(s[..., 0], dtype=torch.bool))
    return lambda s: ~(rule(s) & torch.isfinite(s).all(-1))


@torch.no_grad()
def imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args):
    """Run the policy inside the model, from real states, into `synthetic_buffer`. At a terminal state a
    rollout starts anew at a real one (Janner et al.: ends). Returns the last Batch (seeds, rollouts, ...)."""
    start, end, first, last = map(int, args.rollout_schedule.split(":"))
    length = int(np.interp(step, [first, last], [start, end]))
    shape, device = (args.num_seeds, length + 1, args.rollouts_per_step), buffer.data.obs.device
    real_obs = buffer.sample(torch.randint(buffer.size, shape, device=device)).obs  # to start from (again)
    obs = real_obs[:, 0]  # (seeds, rollouts, obs)
    for t in range(length):
        noise = torch.randn(*obs.shape[:2], buffer.data.actions.shape[-1], device=device)
        actions, _ = agent.actor.sample(obs, noise)
        next_obs, rewards = model.sample(obs, actions)
        terminals = is_terminal(next_obs)
        batch = Batch(obs, actions, rewards, next_obs, terminals.float())
        check_finite(batch._asdict(), step)
        synthetic_buffer.add(batch)
        obs = torch.where(terminals.unsqueeze(-1), real_obs[:, t + 1], next_obs)
    return batch


def out_of_range(real, imagined):
    """1 where a number of `imagined` (seeds, rows, ...) lies outside the range of `real`. Only logged."""
    return ((imagined < real.amin(1, keepdim=True)) | (imagined > real.amax(1, keepdim=True))).float()


# ---------------------------------------- SAC
class SAC(nn.Module):
    """Actor, twin critics Q1 and Q2, target critics and temperature of every seed (Haarnoja et al. 2018)."""

    def __init__(self, obs_dim, act_dim, args):
        super().__init__()
        self.gamma, self.tau, self.target_entropy = args.gamma, args.tau, -args.target_entropy_scale * act_dim
        self.actor = Actor(args.num_seeds, obs_dim, act_dim, args.hidden_dim)
        dims, activation = [obs_dim + act_dim, args.hidden_dim, args.hidden_dim, 1], nn.ReLU(inplace=True)
        if args.critic_layer_norm:  # without weights, which the seeds would share
            norm = nn.LayerNorm(args.hidden_dim, elementwise_affine=False)
            activation = nn.Sequential(norm, activation)
        self.qf = mlp(dims, args.num_seeds, 2, activation=activation)
        self.qf_target = copy.deepcopy(self.qf).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(args.num_seeds, 1))
        # Adam works number by number, so one optimizer over a stack is one independent optimizer per seed.
        self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)
        self.q_optimizer = Adam(self.qf.parameters(), args.critic_lr)
        self.a_optimizer = Adam([self.log_alpha], args.alpha_lr)

    def q_values(self, qf, obs, actions):
        """Q1 and Q2, (seeds, 2, batch), by the critics or the target critics."""
        x = torch.cat([obs, actions], -1).unsqueeze(1)  # (seeds, 1, batch, obs + act): the same rows for both
        return qf(x).squeeze(-1)

    @torch.no_grad()
    def q_target(self, batch, noise):
        """y = r + gamma (1 - terminal) (min_i Qi'(s', a') - alpha log pi(a'|s')), a' ~ pi. (seeds, batch)"""
        next_actions, next_log_probs = self.actor.sample(batch.next_obs, noise)
        next_q = self.q_values(self.qf_target, batch.next_obs, next_actions).min(1).values
        next_v = next_q - self.log_alpha.exp() * next_log_probs
        return batch.rewards + self.gamma * (1 - batch.terminations) * next_v

    def update(self, batch, noise):
        """One step of critics, actor, temperature and target critics on a Batch (seeds, batch, ...). noise:
        normal, (seeds, 2, batch, act), for next and current actions. Losses are means over the batch and sums
        over seeds: each seed's gradient is its own. Returns what to log, (seeds, ...) each."""
        target = self.q_target(batch, noise[:, 0])
        q_values = self.q_values(self.qf, batch.obs, batch.actions)  # (seeds, 2, batch)
        qf_loss = (q_values - target.unsqueeze(1)).square().mean(-1)  # (seeds, 2)
        self.q_optimizer.minimize(qf_loss.sum())

        alpha = self.log_alpha.exp()  # (seeds, 1)
        actions, log_probs = self.actor.sample(batch.obs, noise[:, 1])
        min_q = self.q_values(self.qf, batch.obs, actions).min(1).values
        actor_loss = (alpha.detach() * log_probs - min_q).mean(-1)  # (seeds,)
        self.actor_optimizer.minimize(actor_loss.sum())

        # Some code has log alpha for alpha here; alpha itself is the dual's variable (Haarnoja et al. 2018).
        alpha_loss = (-alpha * (log_probs.detach() + self.target_entropy)).mean(-1)  # (seeds,)
        self.a_optimizer.minimize(alpha_loss.sum())

        with torch.no_grad():
            for target_param, param in zip(self.qf_target.parameters(), self.qf.parameters()):
                target_param.lerp_(param, self.tau)  # Q' <- (1 - tau) Q' + tau Q
        logs = {"qf1_values": q_values[:, 0], "qf2_values": q_values[:, 1], "qf_loss": qf_loss}
        logs |= {"actor_loss": actor_loss, "alpha": alpha, "alpha_loss": alpha_loss}
        logs |= {"entropy": -log_probs, "action_size": actions.abs()}
        return {f"losses/{name}": values.detach() for name, values in logs.items()}


# ---------------------------------------- Main
def main(args):
    """Train. Returns the run directories, one per seed."""
    device, signals = check_args(args), []
    signal.signal(signal.SIGTERM, lambda n, _: signals.append(n))  # stop after a step; Ctrl-C twice: at once
    signal.signal(signal.SIGINT, lambda n, _: sys.exit(128 + n) if signals else signals.append(n))
    torch.set_num_threads(args.num_threads)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if args.tf32 else "ieee"
    if device.type == "cpu":
        fast_matmul()
    torch.manual_seed(args.seed)  # one stream for all seeds: alone, a seed is another run than beside others
    envs, eval_envs = make_envs(args), make_envs(args, args.eval_episodes)
    obs_dim, act_dim = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    num_real = round(args.real_ratio * args.batch_size)
    use_model = args.real_ratio < 1
    with device:  # what is made in here lives there
        agent = SAC(obs_dim, act_dim, args)
        buffer = ReplayBuffer(args.num_seeds, args.total_timesteps, obs_dim, act_dim)
        parts = {"agent": agent, "buffer": buffer}
        if use_model:
            model, is_terminal = Ensemble(obs_dim, act_dim, args), termination_rule(args.env_id)
            synthetic_buffer = ReplayBuffer(args.num_seeds, args.synthetic_buffer_size, obs_dim, act_dim)
            parts |= {"model": model, "synthetic_buffer": synthetic_buffer}
    if args.compile:  # an update becomes one graph, with its gradients; on a GPU a CUDA graph
        torch._dynamo.config.trace_autograd_ops = True
        mode = "default" if device.type == "cpu" else "reduce-overhead"
        for part in (parts[name] for name in ("agent", "model") if name in parts):
            part.update = torch.compile(part.update, fullgraph=True, mode=mode)
    run_dirs, start, episode_starts = load_checkpoint(args, parts) if args.resume else make_run_dirs(args)
    obs = replay_episodes(envs, args, buffer, episode_starts, start)  # at step 0 just a reset
    writers = [SummaryWriter(str(folder), purge_step=start + 1, flush_secs=10) for folder in run_dirs]

    to_tensor = partial(torch.as_tensor, dtype=torch.float32, device=device)
    steps, start_time = range(start + 1, args.total_timesteps + 1), time.time()
    for step in tqdm(steps, f"{SCRIPT} {args.env_id}", args.total_timesteps, initial=start, unit="step"):
        # Act: with a sample of the policy, after some random steps
        if step <= args.learning_starts:
            actions = 2 * torch.rand(args.num_seeds, act_dim, device=device) - 1  # (seeds, act)
        else:
            noise = torch.randn(args.num_seeds, 1, act_dim, device=device)
            actions = agent.actor.sample(to_tensor(obs).unsqueeze(1), noise)[0].detach().squeeze(1)

        # Step and store. Where an episode ends, next_obs is its true last observation
        next_obs, rewards, terminations, truncations, infos = envs.step(actions.cpu().numpy())
        check_finite({"an observation": next_obs, "a reward": rewards}, step)
        transition = (obs, actions, rewards, next_obs, terminations)
        buffer.add(Batch(*(to_tensor(x).unsqueeze(1) for x in transition)))
        obs, ended = next_obs, terminations | truncations
        for k in np.flatnonzero(ended):
            writers[k].add_scalar("charts/episodic_return", infos["episode"]["r"][k], step)
            writers[k].add_scalar("charts/episodic_length", infos["episode"]["l"][k], step)
            episode_starts[k] = step
        if ended.any():
            obs = reset_envs(envs, args, episode_starts, ended)

        if step >= args.learning_starts:
            if use_model:
                if (step - args.learning_starts) % args.model_train_interval == 0:
                    logs = train_model(model, buffer, args)
                    check_finite({"model/nll": logs["model/nll"]}, step)
                    log(writers, logs, step)

                imagined = imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args)

            # Update: batches and noise of all updates are drawn here, since compiled code draws other numbers
            rows = torch.randint(buffer.size, (args.num_seeds, args.utd_ratio, num_real), device=device)
            batches = buffer.sample(rows)  # (seeds, utd, real, ...)
            if use_model:
                shape = (args.num_seeds, args.utd_ratio, args.batch_size - num_real)
                rows = torch.randint(synthetic_buffer.size, shape, device=device)
                batches = Batch(*(torch.cat(xs, 2) for xs in zip(batches, synthetic_buffer.sample(rows))))
            noise = torch.randn(args.num_seeds, args.utd_ratio, 2, args.batch_size, act_dim, device=device)
            for u in range(args.utd_ratio):
                losses = agent.update(Batch(*(x[:, u] for x in batches)), noise[:, u])
            check_finite(losses, step)
            if step % args.log_interval == 0:
                sps = args.num_seeds * (step - start) / (time.time() - start_time)
                logs = losses | {"charts/SPS": torch.full((args.num_seeds,), sps)}
                if use_model:
                    real = Batch(*(x[:, : buffer.size] for x in buffer.data))
                    logs["rewards/out_of_range"] = out_of_range(real.rewards, imagined.rewards)
                    logs["model/out_of_range"] = out_of_range(real.next_obs, imagined.next_obs)
                log(writers, logs, step)

        if step % args.eval_interval == 0 or step == args.total_timesteps:
            results = evaluate(agent, eval_envs, args, step)
            log(writers, results, step)
        if step % args.checkpoint_interval == 0 or step == args.total_timesteps or signals:
            save_checkpoint(args, parts, run_dirs, writers, step, episode_starts)
        if signals:
            fail(f"stopped by a signal after step {step}; --resume {run_dirs[0]} goes on", 128 + signals[0])

    for closable in (envs, eval_envs, *writers):
        closable.close()
    for run_dir, returns in zip(run_dirs, results["eval/episodic_return"]):
        print(f"{run_dir}: return {returns.mean():.1f} at step {step}, mean of {args.eval_episodes} episodes")
    return run_dirs


# ---------------------------------------- The rest: environments, evaluation, files
SCRIPT = Path(__file__).stem


def fail(message, code=2):
    """Say in one line what the user's mistake is (code 2), or what stopped the run, and exit."""
    tqdm.write(f"error: {' '.join(message.split())}", file=sys.stderr)  # above the progress bar
    sys.exit(code)


def check_args(args):
    """Stop at the first flag that makes no sense. Returns the device. Adds the version to --env-id."""
    try:
        start, end, first, last = map(int, args.rollout_schedule.split(":"))
        assert start >= 1 and end >= 1 and 0 <= first < last
    except (ValueError, AssertionError):
        fail("--rollout-schedule must be START:END:FROM:TO, lengths of at least 1 and steps 0 <= FROM < TO")
    bounds = {"gamma": (0, 1), "tau": (0, 1), "seed": (0, 2**32 - args.num_seeds)}  # torch takes 32 bits
    bounds["num_threads"] = (1, os.cpu_count())
    bounds["learning_starts"] = (2 * HOLDOUT_BLOCK, args.total_timesteps)
    bounds["num_elites"] = (1, args.ensemble_size)
    bounds["nll_beta"] = (0, 1)
    bounds["synthetic_buffer_size"] = (args.rollouts_per_step * max(start, end), 10**12)
    one = 1 / max(args.batch_size, 1)  # at least one row of a batch is real, and one synthetic
    bounds["real_ratio"] = (0, 1) if args.real_ratio in (0, 1) else (one, 1 - one)
    for name, value in sorted(vars(args).items(), key=lambda item: item[0] in bounds):  # simple ones first
        least, most = bounds.get(name, (1e-12 if isinstance(value, float) else 1, 10**12))
        if type(value) in (int, float) and not least <= value <= most:
            fail(f"--{name.replace('_', '-')} must lie in [{least}, {most}], not {value}")
    if args.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        fail("--compile needs a C++ compiler (g++ or clang++) on the PATH")
    try:
        args.env_id = make_env(args.env_id, True).unwrapped.spec.id  # Humanoid is Humanoid-v5
    except Exception as error:
        fail(f"--env-id {args.env_id} can't be used: {error}")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if args.device not in ["auto", "cpu", *gpus, *(["cuda"] if gpus else [])]:
        fail(f"--device {args.device}: this machine has {['cpu', *gpus]}")
    return torch.device(("cuda" if gpus else "cpu") if args.device == "auto" else args.device)


def fast_matmul():
    """Have oneDNN multiply: with AVX-512 up to twice as fast as MKL (Zen 4: 1.1, Zen 5: 2.1 times). torch
    does so once bfloat16 is allowed. If oneDNN then really rounds to it (with AMX), that is taken back."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    x = torch.arange(2.0**16).view(1, 256, 256).sin()
    if (x @ x - x.double() @ x.double()).abs().max() > 1e-3:  # float32 errs by 1e-6, bfloat16 by 6e-2
        torch.backends.mkldnn.matmul.fp32_precision = "none"


def make_env(env_id, full_observation):
    """One environment: flat observations, actions in [-1, 1], its return in info["episode"]."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # no renderer: without a display it only prints warnings
    import shimmy  # here, because dm_control picks its renderer when it is imported

    gym.register_envs(shimmy)
    left_out = {"Ant-v5": ["cfrc_ext"], "Humanoid-v5": ["cinert", "cvel", "qfrc_actuator", "cfrc_ext"]}
    kwargs = {f"include_{x}_in_observation": False for x in left_out.get(env_id, []) if not full_observation}
    env = gym.make(env_id, disable_env_checker=True, **kwargs)
    env.reset(seed=0)  # some find only now that there is no renderer
    box, obs_space, act_space = gym.spaces.Box, env.observation_space, env.action_space
    if not isinstance(act_space, box) or np.abs([act_space.low, act_space.high]).max() > 1e6:
        raise ValueError(f"SAC needs continuous, bounded actions, not {act_space}")
    boxes = obs_space.spaces.values() if isinstance(obs_space, gym.spaces.Dict) else [obs_space]
    if any(not isinstance(b, box) or b.dtype == np.uint8 or b.shape[2:] and b.shape[0] > 1 for b in boxes):
        raise ValueError("it observes pixels or discrete values, not vectors of numbers")
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.RescaleAction(env, act_space.dtype.type(-1), act_space.dtype.type(1))
    return gym.wrappers.RecordEpisodeStatistics(env)


def make_envs(args, eval_episodes=0):
    """A vector env: per seed one environment, reset by hand (`reset_envs`), or one per evaluated episode."""
    fns = [lambda: make_env(args.env_id, args.full_observation)] * (args.num_seeds * (eval_episodes or 1))
    vector = gym.vector.AsyncVectorEnv if args.env_workers else gym.vector.SyncVectorEnv
    envs = vector(fns, autoreset_mode="NextStep" if eval_episodes else "Disabled")
    atexit.register(envs.close)  # Python ends workers by a SIGTERM, which these note
    return envs


def reset_envs(envs, args, episode_starts, which):
    """Begin episodes in the environments of the mask `which` (seeds,). Returns the observations."""
    entropies = [(args.seed + k, step) for k, step in enumerate(episode_starts)]
    seeds = [np.random.SeedSequence(entropy).generate_state(1).item() for entropy in entropies]
    return envs.reset(seed=seeds, options={"reset_mask": which})[0]


def replay_episodes(envs, args, buffer, episode_starts, step):
    """Bring the environments to where they were at `step`: an episode is its seed and its actions."""
    due = np.ones(args.num_seeds, dtype=bool)
    for t in range(min(episode_starts), step + 1):
        due |= np.array(episode_starts) == t
        if due.any():  # also one that ends before its episode begins: it plays actions of earlier episodes
            obs = reset_envs(envs, args, episode_starts, due)
        if t < step:
            obs, _, terminations, truncations, _ = envs.step(buffer.data.actions[:, t].cpu().numpy())
            due = terminations | truncations
    return obs


@torch.no_grad()
def evaluate(agent, envs, args, step):
    """One episode in every environment with the mean action. Returns what to log, (seeds, episodes) each.
    The critics' bias is about eval/q_start - eval/discounted_return: q_start has entropy in it."""
    seeds = np.random.SeedSequence((args.seed, step, 1)).generate_state(envs.num_envs).tolist()
    (obs, _), alive, history = envs.reset(seed=seeds), np.ones(envs.num_envs), []
    while alive.any():
        obs = torch.as_tensor(obs, dtype=torch.float32, device=agent.log_alpha.device)
        obs = obs.view(args.num_seeds, args.eval_episodes, -1)
        actions = torch.tanh(agent.actor(obs)[0])
        q_values = agent.q_values(agent.qf, obs, actions).min(1).values.flatten().cpu().numpy()
        obs, rewards, terminations, truncations, _ = envs.step(actions.flatten(0, 1).cpu().numpy())
        history.append((alive * rewards, alive, q_values))
        alive = alive * ~(terminations | truncations)
    rewards, alive, q = np.array(history).reshape(-1, 3, args.num_seeds, args.eval_episodes).swapaxes(0, 1)
    logs = {"episodic_return": rewards.sum(0), "episodic_length": alive.sum(0), "q_start": q[0]}
    logs["discounted_return"] = np.tensordot(args.gamma ** np.arange(len(q)), rewards, 1)
    return {f"eval/{name}": values for name, values in logs.items()}


def check_finite(values, step):
    """Stop the run if any of {name: numbers} holds NaN or infinity; the last checkpoint is from before."""
    for name, x in values.items():
        if not torch.as_tensor(x).isfinite().all():
            fail(f"step {step}: NaN or infinity in {name}; --resume goes on from the last checkpoint", 1)


def log(writers, scalars, step):
    """Write the means of {tag: values (seeds, ...)} to each seed's writer; nan is left out."""
    for tag, values in scalars.items():
        for writer, value in zip(writers, torch.as_tensor(values).reshape(len(writers), -1).mean(1).tolist()):
            if not np.isnan(value):
                writer.add_scalar(tag, value, step)


def make_run_dirs(args):
    """A new folder per seed with flags and versions in args.json. Returns what `load_checkpoint` does."""
    seeds, task = range(args.seed, args.seed + args.num_seeds), args.env_id.replace("/", "-")
    names = [f"{task}__{SCRIPT}__{seed}__{time.time_ns()}" for seed in seeds]
    versions = {name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco", "dm_control")}
    git = "git describe --always --dirty --abbrev=40 --exclude=*".split() if shutil.which("git") else ["echo"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    about = {"script": SCRIPT, "run_dirs": names, "versions": versions, "commit": commit}
    try:
        for seed, folder in zip(seeds, (Path(args.run_dir) / name for name in names)):
            folder.mkdir(parents=True)
            (folder / "args.json").write_text(json.dumps(asdict(args) | {"seed": seed} | about, indent=2))
    except OSError as error:
        fail(f"--run-dir {args.run_dir} can't be written to: {error}")
    return [Path(args.run_dir) / name for name in names], 0, [0] * args.num_seeds


def save_checkpoint(args, parts, run_dirs, writers, step, episode_starts):
    """All that the rest of a run depends on, in the first seed's checkpoint.pt, replaced as a whole."""
    state = {name: part.state_dict() for name, part in parts.items()}
    for name in {"agent", "model"} & state.keys():
        check_finite({f"the {name}'s {key}": x for key, x in state[name].items()}, step)
    for writer in writers:
        writer.flush()  # the log must not end before the checkpoint
    rng = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    state |= {"script": SCRIPT, "flags": asdict(args), "run_dirs": [run_dir.name for run_dir in run_dirs]}
    state |= {"step": step, "episode_starts": episode_starts, "rng": rng}
    torch.save(state, run_dirs[0] / "checkpoint.tmp")
    os.replace(run_dirs[0] / "checkpoint.tmp", run_dirs[0] / "checkpoint.pt")


def read_checkpoint(run_dir):
    """What save_checkpoint wrote. No code in a stranger's file can run."""
    try:
        with zipfile.ZipFile(Path(run_dir) / "checkpoint.pt") as file:
            assert file.testzip() is None, "damaged"  # torch writes checksums, but does not look at them
        state = torch.load(Path(run_dir) / "checkpoint.pt", map_location="cpu", weights_only=True)
        assert state["script"] == SCRIPT, f"it is a run of {state['script']}.py"
        return state
    except Exception as error:
        fail(f"--resume {run_dir}: no checkpoint.pt to go on from ({type(error).__name__}: {error})")


def load_checkpoint(args, parts):
    """Set everything to the checkpoint of --resume. Returns the run directories, the step, episode_starts."""
    state = read_checkpoint(args.resume)
    if state["step"] >= args.total_timesteps:
        fail(f"--total-timesteps must be more than the {state['step']} that the run of --resume has done")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"][0])
    torch.cuda.set_rng_state_all(state["rng"][1 : 1 + torch.cuda.device_count()])
    first = Path(args.resume).resolve()
    return [first, *(first.parent / x for x in state["run_dirs"][1:])], state["step"], state["episode_starts"]


def parse_args(argv=None):
    """The flags of the command line. With --resume those of that run; only some may change."""
    may_change = ["total_timesteps", "device", "num_threads", "env_workers", "tf32", "compile", "resume"]
    may_change += ["eval_interval", "log_interval", "checkpoint_interval"]

    def parse(defaults):
        groups = {g.__name__[:-4]: g(**{f.name: defaults[f.name] for f in fields(g)}) for g in Args.__bases__}
        header = __doc__.split("\n\n")[0]
        parsed = tyro.cli(tyro.conf.OmitArgPrefixes[dict], args=argv, default=groups, description=header)
        return Args(**{name: value for group in parsed.values() for name, value in vars(group).items()})

    args = parse(vars(Args()))
    if args.resume:
        flags = read_checkpoint(args.resume)["flags"]
        args = parse(flags | {"resume": args.resume})
        for name, value in flags.items():
            if name not in may_change and getattr(args, name) != value:
                fail(f"--{name.replace('_', '-')} of the run of --resume is {value} for good")
    return args


if __name__ == "__main__":
    threading.excepthook = lambda _: None  # TensorBoard's: the next number raises its error again
    try:
        main(parse_args())
    except (OSError, MemoryError, RuntimeError) as error:  # a full disk or memory, a simulation that diverges
        text = f"{type(error).__name__}: {str(error)[:200]}"
        memory = any(x in text for x in ("MemoryError", "allocate memory", "out of memory", "overflow"))
        if not memory and not any(x in text for x in ("Errno", "PytorchStream", "iostream", "PhysicsError")):
            raise  # a bug keeps its traceback
        fail(f"{text}; {'smaller sizes?' if memory else '--resume goes on'}", 2 if memory else 1)
