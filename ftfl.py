"""Fixing That Free Lunch (FTFL), whole in this file: MBPO with two changes to the model's targets, and no other.

MBPO (mbpo.py) fails in the DeepMind Control Suite for two reasons (Barkley & Fridovich-Keil 2025, arXiv 2510.01457):

1. Scale mismatch. One loss fits state change and reward, but a reward is about 0.01 where a velocity is about 10: the
   loss is spent on the states, imagined rewards are wrong, the critics underestimate, the policy never improves.
   Repair: Target Unit Normalization. Every target dimension, reward included, gets zero mean and unit variance.
2. Residual targets. s' - s looks like noise beside the state, the predicted variance is inflated, imagined states are bad.
   Repair: Direct Next-state Prediction. The target is s' itself.

Both live in `Ensemble.targets`, and in `Ensemble.to_transition`, which turns a prediction back. Two flags switch them:
--no-target-normalization and --next-state-prediction residual. With both off this file is mbpo.py, to the last bit.

    python ftfl.py --env-id dm_control/walker-walk-v0 --total-timesteps 50000

In the shape comments `seeds` is --num-seeds: every network is a stack with one entry per seed, trained side by side.
A first reading can go from the banner "Updates" straight to `main`: what lies between is evaluation, files and checkpoints.
"""

import atexit
import copy
import fcntl
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from torch.optim.adam import adam
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


# ------------------------------------------------------------------------------------------------ Args
@dataclass
class Args:
    # The experiment
    env_id: str = "dm_control/humanoid-stand-v0"
    """the task: dm_control/DOMAIN-TASK-v0, or a Gymnasium MuJoCo id such as Hopper-v5"""
    seed: int = 1
    """the first seed"""
    num_seeds: int = 1
    """seeds trained side by side in this process: seed, seed + 1, ...; one run directory each"""
    total_timesteps: int = 500_000
    """environment steps per seed"""
    full_observation: bool = False
    """keep the contact forces and inertias that Ant-v5 and Humanoid-v5 observe by default"""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N"""
    num_threads: int = 1
    """CPU threads; two runs with one thread each do more than one run with two"""
    env_workers: Literal["auto", "yes", "no"] = "auto"
    """a process for each environment; auto: with several seeds on a GPU and several CPU cores. The numbers are the same"""
    compile: bool = False
    """make each update one graph with torch.compile (a CUDA graph on a GPU): half a minute at first, then faster"""

    # The agent
    learning_starts: int = 10_000
    """steps of uniformly random actions before the first update"""
    utd_ratio: int = 20
    """gradient updates per environment step (update-to-data ratio)"""
    batch_size: int = 256
    """transitions in the batch of one update"""
    gamma: float = 0.99
    """discount factor"""
    tau: float = 0.005
    """how far the target critics move towards the critics at each update"""
    actor_lr: float = 3e-4
    """Adam's learning rate for the actor"""
    critic_lr: float = 3e-4
    """Adam's learning rate for the critics"""
    alpha_lr: float = 3e-4
    """Adam's learning rate for the temperature"""
    hidden_dim: int = 256
    """width of the two hidden layers of actor and critics"""
    target_entropy_scale: float = 0.5
    """the target entropy is minus this times the number of action dimensions"""

    # The two changes to MBPO
    target_normalization: bool = True
    """Target Unit Normalization: the model's targets get zero mean and unit variance, the reward's too"""
    next_state_prediction: Literal["direct", "residual"] = "direct"
    """Direct Next-state Prediction: the model's target is s' (direct), not s' - s (residual)"""

    # The model
    ensemble_size: int = 7
    """networks in the ensemble"""
    num_elites: int = 5
    """networks used for rollouts: those with the smallest holdout error"""
    model_hidden_dim: int = 200
    """width of the four hidden layers (Tuned FTFL: 400)"""
    model_lr: float = 3e-4
    """Adam's learning rate for the model"""
    model_train_interval: int = 250
    """environment steps between trainings of the model"""
    model_train_steps: int = 5_000
    """gradient steps per training of the model"""
    model_batch_size: int = 256
    """transitions per network in one gradient step of the model"""
    learned_logvar_bounds: bool = False
    """learn the bounds of the predicted log-variance (as PETS) instead of fixing them to [-10, 0.5]"""
    fit_buffer: str = ""
    """a buffer.npz: train only the model on it for --model-train-steps steps, log how well it fits and stop"""

    # Synthetic data
    real_ratio: float = 0.05
    """share of real transitions in a batch; with 1 there is no model and this is sac.py"""
    rollouts_per_step: int = 400
    """imagined trajectories per environment step"""
    rollout_schedule: str = "1:1:0:1"
    """START:END:FROM:TO, rollout length: START until step FROM, then linearly to END at step TO"""
    synthetic_buffer_size: int = 1_000_000
    """imagined transitions kept; the oldest are overwritten"""

    # Evaluation, logs and files
    eval_interval: int = 5_000
    """steps between evaluations"""
    eval_episodes: int = 10
    """episodes per evaluation, played with the mean action in environments of their own"""
    log_interval: int = 100
    """steps between logged losses"""
    run_dir: str = "runs"
    """folder that gets one folder per seed: {env}__{script}__{seed}__{time}"""
    checkpoint_interval: int = 10_000
    """steps between checkpoints; the last two are kept, and SIGTERM and SIGINT (Ctrl-C) leave one too"""
    resume: str = ""
    """a run directory (or one of its checkpoints): go on with that run, with its flags"""
    save_buffer: bool = False
    """write all real transitions to buffer.npz in the run directory at the end"""
    save_model: bool = False
    """write the agent to agent.pt in the run directory at the end"""
    capture_video: bool = False
    """record one episode at each evaluation (needs MUJOCO_GL=egl, or osmesa without a GPU)"""
    evaluate: str = ""
    """an agent.pt: play --eval-episodes episodes with it, print their returns and stop"""


def fail(message, code=2):
    """Report a user's mistake (code 2), or what stopped the run (code 1), in one line and exit."""
    tqdm.write(f"error: {message}", file=sys.stderr)  # on a line of its own, if there is a progress bar
    sys.exit(code)


def check_args(args):
    """Stop at the first flag that makes no sense, before anything is run or written."""
    for name, value in vars(args).items():
        flag = "--" + name.replace("_", "-")
        if name in ("gamma", "tau", "real_ratio"):
            if not 0 <= value <= 1:
                fail(f"{flag} is a fraction and must lie in [0, 1], not {value}")
        elif isinstance(value, int) and not isinstance(value, bool):
            at_least = 0 if name == "seed" else 1
            if not at_least <= value <= 10**12:
                fail(f"{flag} must be at least {at_least} (and at most 10^12), not {value}")
        elif isinstance(value, float) and not 0 < value < math.inf:
            fail(f"{flag} must be a positive number, not {value}")
    if args.resume and (other := "evaluate" if args.evaluate else "fit_buffer" if getattr(args, "fit_buffer", "") else ""):
        fail(f"--resume goes on with a training run, --{other.replace('_', '-')} does something else: give one of the two")
    if args.learning_starts > args.total_timesteps:
        fail(f"--learning-starts {args.learning_starts} lies beyond --total-timesteps {args.total_timesteps}")
    if args.capture_video and (gl := os.environ.get("MUJOCO_GL", "egl")) not in ("egl", "osmesa", "glfw"):
        fail(f"--capture-video renders: MUJOCO_GL must be egl, osmesa or glfw, not {gl}")
    if args.compile and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        fail("--compile needs a C++ compiler (g++ or clang++) on the PATH")
    try:
        if torch.empty(0, device=resolve_device(args)).device.type not in ("cpu", "cuda"):
            raise RuntimeError("neither a CPU nor an NVIDIA or AMD GPU")
    except (RuntimeError, AssertionError) as error:
        fail(f"--device {args.device} can't be used here (try cpu): {str(error).splitlines()[0]}")


def check_model_args(args):
    """The same for the flags of the model."""
    if args.num_elites > args.ensemble_size:
        fail(f"--num-elites {args.num_elites} is more than --ensemble-size {args.ensemble_size}")
    if args.learning_starts < 2 * HOLDOUT_BLOCK:
        fail(f"--learning-starts must be at least {2 * HOLDOUT_BLOCK} for a model to be trained, not {args.learning_starts}")
    if args.synthetic_buffer_size < args.rollouts_per_step:
        fail(f"--synthetic-buffer-size must be at least --rollouts-per-step, not {args.synthetic_buffer_size}")
    try:
        start, end, first, last = (int(part) for part in args.rollout_schedule.split(":"))
    except ValueError:
        fail(f"--rollout-schedule must be START:END:FROM:TO, four whole numbers, not {args.rollout_schedule!r}")
    if start < 1 or end < 1 or first < 0 or last <= first:
        fail(f"--rollout-schedule {args.rollout_schedule} needs lengths of at least 1 and steps 0 <= FROM < TO")


@contextmanager
def enough_memory():
    """One clear line where what is made inside does not fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and "overflow" not in str(error):
            raise
        fail(f"out of memory: fewer --total-timesteps, --num-seeds, or smaller sizes ({str(error).splitlines()[0][:200]})")


def resolve_device(args):
    """The torch device that --device names."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)


# ------------------------------------------------------------------------------------------------ Random numbers
# One generator per seed and use, so that a seed draws the same numbers whoever trains beside it.
AGENT_STREAM = 0
EVAL_STREAM = 1
MODEL_STREAM = 2
HOLDOUT_STREAM = 3


def make_rng(args, *stream, device="cpu"):
    """One torch.Generator per seed; `stream` (whole numbers) keeps different uses of one seed apart."""
    seeds = [np.random.SeedSequence([args.seed + k, *stream]).generate_state(1) for k in range(args.num_seeds)]
    return [torch.Generator(device).manual_seed(int(seed.item())) for seed in seeds]


def rand(rng, *shape):
    """Uniform in [0, 1), (seeds, *shape)."""
    return torch.stack([torch.rand(shape, generator=g, device=g.device) for g in rng])


def randn(rng, *shape):
    """Standard normal, (seeds, *shape)."""
    return torch.stack([torch.randn(shape, generator=g, device=g.device) for g in rng])


def randint(rng, high, *shape):
    """Whole numbers in [0, high), (seeds, *shape)."""
    return torch.stack([torch.randint(high, shape, generator=g, device=g.device) for g in rng])


# ------------------------------------------------------------------------------------------------ Environment
# MBPO-style work leaves contact forces and inertias out: Ant observes 27 numbers instead of 105, Humanoid 45 of 348.
COMPACT_OBSERVATION = {
    "Ant-v5": {"include_cfrc_ext_in_observation": False},
    "Humanoid-v5": {
        "include_cinert_in_observation": False,
        "include_cvel_in_observation": False,
        "include_qfrc_actuator_in_observation": False,
        "include_cfrc_ext_in_observation": False,
    },
}


def make_env(env_id, full_observation=False, render=False, video_dir=None, video_name=""):
    """One environment with flat observations and actions in [-1, 1]; its return ends up in info["episode"]."""
    if multiprocessing.parent_process():  # a worker: signals are for the process that trains, which then asks it for its state
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kwargs = {} if full_observation else COMPACT_OBSERVATION.get(env_id, {})
    env = gym.make(env_id, disable_env_checker=True, **kwargs, **({"render_mode": "rgb_array"} if render else {}))
    obs_space, act_space = env.observation_space, env.action_space
    if not isinstance(act_space, gym.spaces.Box):
        fail(f"--env-id {env_id} has the action space {act_space}, but SAC needs continuous actions (a Box)")
    parts = obs_space.spaces.values() if isinstance(obs_space, gym.spaces.Dict) else [obs_space]
    if any(not isinstance(p, gym.spaces.Box) or p.dtype == np.uint8 or len(p.shape) > 2 and p.shape[0] > 1 for p in parts):
        fail(f"--env-id {env_id} observes pixels or discrete values, but these networks need vectors of numbers")
    if video_dir:
        env = gym.wrappers.RecordVideo(
            env, str(video_dir), episode_trigger=lambda k: k == 0, name_prefix=video_name, disable_logger=True
        )
    if isinstance(obs_space, gym.spaces.Dict) or len(obs_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    if np.abs([act_space.low, act_space.high]).max() < 1e6:  # dm_control/lqr has no real bounds: there, [-1, 1] it is
        env = gym.wrappers.RescaleAction(env, act_space.dtype.type(-1), act_space.dtype.type(1))
    if env.spec.max_episode_steps is None:  # DMC cuts its episodes itself, at 1000 steps at the latest, but for lqr
        env = gym.wrappers.TimeLimit(env, 1000)
    return Resumable(gym.wrappers.RecordEpisodeStatistics(env))


def make_envs(args, per_seed=1, video_dirs=None, video_name=""):
    """A vector of `per_seed` environments for each seed (seed by seed), that reset themselves in the step that ends.

    The observation of a reset is returned in place of the last one, which is in infos["final_obs"].
    """
    if sys.platform == "linux" and "DISPLAY" not in os.environ:  # a renderer that finds no display only prints warnings
        os.environ.setdefault("MUJOCO_GL", "egl" if args.capture_video else "disable")
    try:
        import shimmy  # here, because dm_control picks its renderer when it is imported

        gym.register_envs(shimmy)
        dirs = video_dirs or [None] * args.num_seeds
        fns = [partial(make_env, args.env_id, args.full_observation, args.capture_video, d, video_name) for d in dirs]
        fns = [fn for fn in fns for _ in range(per_seed)]
        same_step = gym.vector.AutoresetMode.SAME_STEP
        auto = args.num_seeds > 1 and os.cpu_count() > 1 and resolve_device(args).type == "cuda"
        if not video_dirs and (args.env_workers == "yes" or args.env_workers == "auto" and auto):
            fork = "fork" if sys.platform == "linux" else None  # quick and small, and the workers never touch torch
            envs = gym.vector.AsyncVectorEnv(fns, autoreset_mode=same_step, context=fork)
            atexit.register(envs.close)  # else Python would send them a SIGTERM, which they ignore, and wait
        else:
            envs = gym.vector.SyncVectorEnv(fns, autoreset_mode=same_step)
        if not video_dirs:  # find out before the first step, not at the first evaluation, that there is no renderer
            envs.reset()
            if args.capture_video:
                envs.call("render")
        return envs
    except Exception as error:
        reason = " ".join(str(error).split())
        if "OpenGL" in reason or "render" in reason or "EGL" in reason:
            reason += " (it needs a renderer: set MUJOCO_GL to egl, or to osmesa without a GPU)"
        fail(f"--env-id {args.env_id} can't be made: {reason}")


def observation_groups(args):
    """What each number of a flat observation is, (obs,) str: "position" (angles, heights, directions), "velocity", "other".

    Read off the names that DMC and Gymnasium give to the parts of an observation. "other" is what is measured by force,
    touch or inertia, parts that mix both (quadruped's egocentric_state), and everything in a task that names no parts.
    """
    env = make_env(args.env_id, args.full_observation)
    obs_dim, env = env.observation_space.shape[0], env.unwrapped
    sizes = dict(getattr(env, "observation_structure", None) or {"unnamed": obs_dim})
    if isinstance(env.observation_space, gym.spaces.Dict):
        sizes = {name: gym.spaces.flatdim(space) for name, space in env.observation_space.items()}
    sizes.pop("skipped_qpos", None)  # coordinates that are left out of the observation
    other = ("force", "frc", "touch", "sensor", "imu", "inert", "actuator", "state", "rangefinder", "ten_", "unnamed")
    groups = []
    for name, size in sizes.items():
        group = "other" if any(word in name for word in other) else "velocity" if "vel" in name else "position"
        groups += [group] * size
    return np.array(groups)


# ------------------------------------------------------------------------------------------------ Networks
class Linear(nn.Module):
    """A stack of linear layers, one per seed and per entry of `stack`, in one batched matmul. Initialized as nn.Linear."""

    def __init__(self, rng, in_dim, out_dim, *stack):
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter((2 * rand(rng, *stack, in_dim, out_dim) - 1) * bound)  # (seeds, *stack, in, out)
        self.bias = nn.Parameter((2 * rand(rng, *stack, 1, out_dim) - 1) * bound)  # (seeds, *stack, 1, out)

    def forward(self, x):
        if self.weight.shape[-1] == 1:  # a matmul with one column is slow: one SAC update takes 14.0 ms with it, 13.3 so
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias
        return x @ self.weight + self.bias  # (seeds, *stack, batch, out)


LOG_STD_MIN, LOG_STD_MAX = -10, 2


class Actor(nn.Module):
    """A Gaussian squashed by tanh, pi(a|s): one per seed."""

    def __init__(self, rng, obs_dim, act_dim, hidden_dim):
        super().__init__()
        self.net = nn.Sequential(
            Linear(rng, obs_dim, hidden_dim),
            nn.ReLU(),
            Linear(rng, hidden_dim, hidden_dim),
            nn.ReLU(),
            Linear(rng, hidden_dim, 2 * act_dim),
        )

    def forward(self, obs):
        """obs (seeds, batch, obs) -> mean and log std before the tanh, (seeds, batch, act) each."""
        mean, log_std = self.net(obs).chunk(2, -1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(log_std) + 1)
        return mean, log_std

    def sample(self, obs, noise):
        """The action for standard normal `noise` (seeds, batch, act), in [-1, 1], and its log-probability (seeds, batch).

        Noise 0 gives the mean action.
        """
        mean, log_std = self(obs)
        u = mean + log_std.exp() * noise
        return torch.tanh(u), tanh_gaussian_log_prob(u, noise, log_std)


def tanh_gaussian_log_prob(u, noise, log_std):
    """log pi(tanh(u)) for u = mean + exp(log_std) * noise, summed over the last dimension.

    Change of variables: log N(u) - log |d tanh(u) / du|. The derivative 1 - tanh(u)^2 rounds to 0 from |u| = 9 on; its
    logarithm as 2 (log 2 - u - softplus(-2u)) is exact for any u (Haarnoja et al. 2018, appendix C, in a stable form).
    """
    log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    log_derivative = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return (log_normal - log_derivative).sum(-1)


class Critics(nn.Module):
    """The twin critics Q1 and Q2, as a stack of two per seed."""

    def __init__(self, rng, obs_dim, act_dim, hidden_dim):
        super().__init__()
        self.net = nn.Sequential(
            Linear(rng, obs_dim + act_dim, hidden_dim, 2),
            nn.ReLU(),
            Linear(rng, hidden_dim, hidden_dim, 2),
            nn.ReLU(),
            Linear(rng, hidden_dim, 1, 2),
        )

    def forward(self, obs, actions):
        """obs (seeds, batch, obs), actions (seeds, batch, act) -> Q1 and Q2, (seeds, 2, batch)."""
        x = torch.cat([obs, actions], -1).unsqueeze(1)  # (seeds, 1, batch, obs + act): both critics see the same rows
        return self.net(x).squeeze(-1)


class Adam:
    """torch's Adam (Kingma & Ba 2015) as a function of the loss, so that --compile can make one graph of a whole update."""

    def __init__(self, params, lr, weight_decay=None):
        """weight_decay: one number per parameter; this times the parameter is added to its gradient."""
        self.params, self.lr = list(params), lr
        self.weight_decay = weight_decay or [0.0] * len(self.params)
        self.exp_avgs = [torch.zeros_like(p) for p in self.params]  # running means of the gradients,
        self.exp_avg_sqs = [torch.zeros_like(p) for p in self.params]  # and of their squares
        self.steps = [torch.zeros((), device=p.device) for p in self.params]

    def minimize(self, loss):
        """One step down the gradient of a scalar loss. Only this optimizer's parameters get a gradient, and move."""
        grads = torch.autograd.grad(loss, self.params)
        fused = not torch.compiler.is_compiling()  # one kernel for all parameters; compiled code is fused as it is
        for decay in dict.fromkeys(self.weight_decay):  # torch's function takes one number for all that it is given

            def group(tensors):
                return [x for x, d in zip(tensors, self.weight_decay, strict=True) if d == decay]

            with torch.no_grad():
                adam(group(self.params), group(grads), group(self.exp_avgs), group(self.exp_avg_sqs), [], group(self.steps),
                     lr=self.lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=decay, amsgrad=False, maximize=False,
                     foreach=False, fused=fused, capturable=loss.is_cuda)  # fmt: skip

    def state_dict(self):
        """For a checkpoint."""
        return {"exp_avgs": self.exp_avgs, "exp_avg_sqs": self.exp_avg_sqs, "steps": self.steps}

    def load_state_dict(self, state):
        """The inverse."""
        for name, tensors in self.state_dict().items():
            for x, saved in zip(tensors, state[name], strict=True):
                x.copy_(saved)


def compiled(update, device):
    """torch.compile of a whole update into one graph; on a GPU a CUDA graph, whose outputs its next call overwrites."""
    torch._dynamo.config.trace_autograd_ops = True  # so that the gradients are in the graph, too
    return torch.compile(update, fullgraph=True, mode=None if device.type == "cpu" else "reduce-overhead")


# ------------------------------------------------------------------------------------------------ Buffer
class Batch(NamedTuple):
    """Transitions. Leading dimensions (seeds, ..., batch); `terminations` is 1 for a true terminal state, else 0."""

    obs: torch.Tensor  # (..., obs)
    actions: torch.Tensor  # (..., act)
    rewards: torch.Tensor  # (...)
    next_obs: torch.Tensor  # (..., obs)
    terminations: torch.Tensor  # (...)


class ReplayBuffer:
    """A ring of transitions per seed. All seeds store equally many rows, so they share one position."""

    def __init__(self, num_seeds, capacity, obs_dim, act_dim, device):
        shapes = Batch((obs_dim,), (act_dim,), (), (obs_dim,), ())
        self.data = Batch(*(torch.zeros(num_seeds, capacity, *shape, device=device) for shape in shapes))
        self.seeds = torch.arange(num_seeds, device=device)
        self.capacity, self.pos, self.size = capacity, 0, 0

    def add(self, batch):
        """Store a Batch of (seeds, rows, ...), over the oldest rows if the buffer is full."""
        num_rows = batch.rewards.shape[1]
        rows = torch.arange(self.pos, self.pos + num_rows, device=self.seeds.device) % self.capacity
        for stored, new in zip(self.data, batch):
            stored[:, rows] = new
        self.pos = (self.pos + num_rows) % self.capacity
        self.size = min(self.size + num_rows, self.capacity)

    def sample(self, rows):
        """The Batch at `rows` (seeds, ...): row numbers for each seed in its own buffer."""
        first = self.seeds.view(-1, *[1] * (rows.dim() - 1)) * self.capacity
        flat = (first + rows).flatten()  # copies whole rows: 1,792 of them in 0.2 ms, where [seeds, rows] takes 0.4
        return Batch(*(x.flatten(0, 1).index_select(0, flat).view(*rows.shape, *x.shape[2:]) for x in self.data))

    def state_dict(self):
        """For a checkpoint: the rows stored so far, on the CPU, and the position of the next."""
        return {"pos": self.pos, "data": [x[:, : self.size].cpu().clone() for x in self.data]}

    def load_state_dict(self, state):
        """The inverse. The capacity need not be the same, if all rows fit."""
        self.size = state["data"][0].shape[1]
        self.pos = state["pos"] if self.size == self.capacity else self.size
        for stored, saved in zip(self.data, state["data"], strict=True):
            stored[:, : self.size] = saved


# ------------------------------------------------------------------------------------------------ Model
HOLDOUT_BLOCK = 5  # one row in five, 20 %, is held out
WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # per layer, on weights only
STD_FLOOR = 1e-4  # a (nearly) constant dimension keeps its unit: divided by its std, it would blow up once it moves


class Ensemble(nn.Module):
    """Networks that each predict a Gaussian over (next state, reward) from (state, action): a stack per seed.

    Inputs are normalized. Targets are too (Target Unit Normalization).
    """

    def __init__(self, rng, obs_dim, act_dim, args):
        super().__init__()
        size, width, in_dim, out_dim = args.ensemble_size, args.model_hidden_dim, obs_dim + act_dim, obs_dim + 1
        dims = [in_dim, width, width, width, width, 2 * out_dim]
        self.layers = nn.ModuleList(Linear(rng, *dims[i : i + 2], size) for i in range(5))
        num_seeds, device = len(rng), rng[0].device
        self.learned_logvar_bounds = args.learned_logvar_bounds
        ones = torch.ones(num_seeds, 1, 1, out_dim, device=device)
        self.max_logvar = nn.Parameter(0.5 * ones, requires_grad=args.learned_logvar_bounds)
        self.min_logvar = nn.Parameter(-10 * ones, requires_grad=args.learned_logvar_bounds)
        self.register_buffer("input_mean", torch.zeros(num_seeds, 1, 1, in_dim, device=device))
        self.register_buffer("input_std", torch.ones(num_seeds, 1, 1, in_dim, device=device))
        self.target_normalization, self.direct = args.target_normalization, args.next_state_prediction == "direct"
        self.register_buffer("target_mean", torch.zeros(num_seeds, 1, 1, out_dim, device=device))
        self.register_buffer("target_std", torch.ones(num_seeds, 1, 1, out_dim, device=device))
        elites = torch.arange(args.num_elites, device=device).repeat(num_seeds, 1)  # (seeds, elites)
        self.register_buffer("elites", elites)
        params = [layer.weight for layer in self.layers] + [layer.bias for layer in self.layers]
        params += [self.max_logvar, self.min_logvar] if args.learned_logvar_bounds else []
        weight_decay = list(WEIGHT_DECAY) + [0.0] * (len(params) - len(WEIGHT_DECAY))
        self.optimizer = Adam(params, args.model_lr, weight_decay)
        if args.compile:
            self.update = compiled(self.update, device)

    def forward(self, obs, actions):
        """Mean and log-variance of the targets, (seeds, networks, batch, obs + 1), from obs (seeds, networks or 1, batch,
        obs) and actions (seeds, networks or 1, batch, act)."""
        x = (torch.cat([obs, actions], -1) - self.input_mean) / self.input_std
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        mean, logvar = self.layers[-1](x).chunk(2, -1)
        logvar = self.max_logvar - F.softplus(self.max_logvar - logvar)  # a soft clamp, with a gradient beyond the bound
        logvar = self.min_logvar + F.softplus(logvar - self.min_logvar)
        return mean, logvar

    def update(self, batch):
        """One gradient step on the Gaussian negative log-likelihood of a Batch (seeds, networks, batch, ...).

        Returns its two parts, (seeds, networks) each.
        """
        mean, logvar = self(batch.obs, batch.actions)
        mse_loss = ((mean - self.targets(batch)).square() * (-logvar).exp()).mean((2, 3))
        variance_loss = logvar.mean((2, 3))
        loss = (mse_loss + variance_loss).sum()
        if self.learned_logvar_bounds:
            loss = loss + 0.01 * (self.max_logvar - self.min_logvar).sum()
        self.optimizer.minimize(loss)
        return mse_loss.detach(), variance_loss.detach()

    def targets(self, batch):
        """What the networks are trained on, (..., obs + 1): the next state s', and the reward last, normalized."""
        next_state = batch.next_obs if self.direct else batch.next_obs - batch.obs  # Direct Next-state Prediction: s'
        targets = torch.cat([next_state, batch.rewards.unsqueeze(-1)], -1)
        if self.target_normalization:  # Target Unit Normalization: z = (y - mean) / std
            targets = (targets - self.target_mean) / self.target_std
        return targets

    def to_transition(self, obs, targets):
        """The inverse of `targets`: next states (..., obs) and rewards (...), in the environment's units."""
        if self.target_normalization:
            targets = targets * self.target_std + self.target_mean  # y = z std + mean
        next_obs = targets[..., :-1] if self.direct else obs + targets[..., :-1]
        return next_obs, targets[..., -1]

    def update_normalizer(self, batch):
        """Statistics of the training rows, a Batch of (seeds, 1, rows, ...), for the training that follows."""
        mean, std = mean_and_std(torch.cat([batch.obs, batch.actions], -1))
        self.input_mean.copy_(mean)  # in place: a CUDA graph reads where it was recorded
        self.input_std.copy_(std)
        if self.target_normalization:
            self.target_mean.zero_()  # so that `targets` are in the environment's units for once
            self.target_std.fill_(1)
            mean, std = mean_and_std(self.targets(batch))
            self.target_mean.copy_(mean)
            self.target_std.copy_(std)

    def sample(self, obs, actions, rng):
        """One imagined step from (seeds, rows, ...), drawn from the predicted Gaussians, not their means.

        The rows are dealt to the elites at random, equally many to each. (The other networks compute zeros.)
        """
        (num_seeds, num_rows), num_elites = obs.shape[:2], self.elites.shape[1]
        per_elite = -(-num_rows // num_elites)  # rounded up
        slots = rand(rng, num_elites * per_elite).argsort(1)[:, :num_rows]  # one for each row
        seeds = torch.arange(num_seeds, device=obs.device).unsqueeze(1)
        dealt = seeds, self.elites.gather(1, slots // per_elite), slots % per_elite  # seed, network, place: (seeds, rows)

        def deal(x):  # (seeds, rows, dims) -> (seeds, networks, per_elite, dims)
            hands = x.new_zeros(num_seeds, self.layers[0].weight.shape[1], per_elite, x.shape[-1])
            hands[dealt] = x
            return hands

        mean, logvar = (x[dealt].unsqueeze(1) for x in self(deal(obs), deal(actions)))  # (seeds, 1, rows, obs + 1)
        targets = mean + (0.5 * logvar).exp() * randn(rng, *mean.shape[1:])
        next_obs, rewards = self.to_transition(obs.unsqueeze(1), targets)
        return next_obs.squeeze(1), rewards.squeeze(1)


def mean_and_std(x):
    """Mean and std over the rows of x (seeds, 1, rows, dims), (seeds, 1, 1, dims) each; std 1 where it is almost 0."""
    std, mean = torch.std_mean(x, 2, keepdim=True)
    return mean, torch.where(std < STD_FLOOR, 1.0, std)


def draw_holdout(rng, capacity):
    """Which rows of a buffer are held out, (seeds, capacity) bool: one at random in each block of five.

    Drawn once and for life. A holdout drawn anew would hold rows that the warm-started networks have trained on.
    """
    return F.one_hot(randint(rng, HOLDOUT_BLOCK, -(-capacity // HOLDOUT_BLOCK)), HOLDOUT_BLOCK).flatten(1).bool()


def split_rows(holdout, size):
    """Row numbers for training (seeds, rows) and held out (seeds, rows), of the full blocks among the first `size`."""
    holdout = holdout[:, : size // HOLDOUT_BLOCK * HOLDOUT_BLOCK]
    return [mask.nonzero()[:, 1].view(len(holdout), -1) for mask in (~holdout, holdout)]


def train_model(model, buffer, train_rows, num_steps, batch_size, rng):
    """Gradient steps on the Gaussian negative log-likelihood, each network on its own rows (seeds, networks, rows).

    Returns what to log, of the last step, (seeds,) each.
    """
    _, num_networks, num_rows = train_rows.shape
    for _ in tqdm(range(num_steps), desc="model", unit="batch", leave=False, delay=2):
        picks = randint(rng, num_rows, num_networks, batch_size)
        batch = buffer.sample(torch.take_along_dim(train_rows, picks, -1))  # (seeds, networks, batch, ...)
        mse_loss, variance_loss = model.update(batch)
    logs = {"model/nll": mse_loss + variance_loss, "model/mse_loss": mse_loss, "model/variance_loss": variance_loss}
    return {tag: values.mean(1) for tag, values in logs.items()}


def bootstrap_rows(train_rows, num_networks, rng):
    """For each network its own draw, with replacement, of as many training rows: (seeds, networks, rows)."""
    picks = randint(rng, train_rows.shape[1], num_networks, train_rows.shape[1])
    return torch.take_along_dim(train_rows.unsqueeze(1), picks, -1)


@torch.no_grad()
def evaluate_model(model, buffer, holdout_rows, groups):
    """Choose the elites by holdout error. Returns what to log, (seeds,) each.

    The error that ranks is in the units trained in: in the environment's, the dimension with the largest numbers would
    decide alone. Everything else is in the environment's units, so that it compares across target choices; R2 is
    1 - (mean squared error of an elite) / (variance), that of next states relative to the one-step change s' - s.
    groups: what observation_groups returns; predicted variances are means over the dimensions of a group.
    """
    # At most 5,000, at random, but the same ones for every model: an even stride would fall in step with the episodes.
    picks = torch.randperm(holdout_rows.shape[1], generator=torch.Generator().manual_seed(0))[:5_000].sort().values
    rows = holdout_rows[:, picks.to(holdout_rows.device)]
    batch = buffer.sample(rows.unsqueeze(1))  # (seeds, 1, rows, ...)
    mean, logvar = model(batch.obs, batch.actions)
    holdout_mse = (mean - model.targets(batch)).square().mean((2, 3))  # (seeds, networks)
    model.elites = holdout_mse.argsort(1)[:, : model.elites.shape[1]]

    mean, logvar = (torch.take_along_dim(x, model.elites[:, :, None, None], 1) for x in (mean, logvar))
    next_obs, rewards = model.to_transition(batch.obs, mean)  # (seeds, elites, rows, ...)
    obs_error = (next_obs - batch.next_obs).square().mean((1, 2))  # (seeds, obs)
    obs_var = (batch.next_obs - batch.obs).var(2).squeeze(1)
    moving = obs_var > STD_FLOOR**2
    reward_error = (rewards - batch.rewards).square().mean((1, 2))  # (seeds,)
    reward_var = batch.rewards.var(2).squeeze(1)
    variance = (logvar.exp() * model.target_std**2).mean((1, 2))  # (seeds, obs + 1)
    groups = np.append(groups, "reward")
    members = {name: np.flatnonzero(groups == name) for name in ("position", "velocity", "other", "reward")}
    variances = {name: variance[:, torch.as_tensor(dims, device=variance.device)] for name, dims in members.items()}
    return {
        "model/holdout_mse": holdout_mse.mean(1),
        "model/predicted_std": ((0.5 * logvar).exp() * model.target_std).mean((1, 2, 3)),
        "model/reward_r2": torch.where(reward_var > STD_FLOOR**2, 1 - reward_error / reward_var, torch.nan),
        "model/next_state_r2": torch.where(moving, 1 - obs_error / obs_var, torch.nan).nanmean(1),
        "rewards/real": batch.rewards.mean((1, 2)),
        "rewards/synthetic": rewards.mean((1, 2)),
        **{f"model/predicted_variance_{name}": values.mean(1) for name, values in variances.items()},
    }


# ------------------------------------------------------------------------------------------------ Rollouts
def termination_rule(env_id):
    """A function from next states (..., obs) to bool (...), True where the task ends. Add a rule here for a new task."""
    healthy = {
        "InvertedPendulum": lambda s: s[..., 1].abs() <= 0.2,
        # The tip of two poles of length 0.6 must be above 1; s[1:5] are sin and cos of both joint angles. MuJoCo's own
        # tip lags by a part of a step, so 1 in 5,000 real steps differs at the edge. All other rules are exact.
        "InvertedDoublePendulum": lambda s: 0.6 * (s[..., 3] + s[..., 3] * s[..., 4] - s[..., 1] * s[..., 2]) > 1,
        "Hopper": lambda s: (s[..., 0] > 0.7) & (s[..., 1].abs() < 0.2) & (s[..., 1:].abs() < 100).all(-1),
        "Walker2d": lambda s: (s[..., 0] > 0.8) & (s[..., 0] < 2) & (s[..., 1].abs() < 1),
        "Ant": lambda s: (s[..., 0] >= 0.2) & (s[..., 0] <= 1),
        "Humanoid": lambda s: (s[..., 0] > 1) & (s[..., 0] < 2),
        "dm_control/lqr-lqr_2_1": lambda s: s.norm(dim=-1) >= 1e-6,
        "dm_control/lqr-lqr_6_2": lambda s: s.norm(dim=-1) >= 1e-6,
    }
    task = env_id.rsplit("-v", 1)[0]
    never = task in ("HalfCheetah", "HumanoidStandup", "Pusher", "Reacher", "Swimmer")
    # Of DMC's tasks, those of the suite (named domain-task) and of manipulation (in lower case) run to the time limit.
    never |= task.startswith("dm_control/") and ("-" in task or task.islower())
    if task not in healthy and not never:
        fail(f"--env-id {env_id}: when does an imagined state end the task? Add a rule to termination_rule in {__file__}")
    rule = healthy.get(task, lambda s: torch.ones_like(s[..., 0], dtype=torch.bool))
    return lambda s: ~(rule(s) & torch.isfinite(s).all(-1))


def rollout_length(schedule, step):
    """The rollout length at `step` on the line START:END:FROM:TO, rounded down."""
    start, end, first, last = (int(part) for part in schedule.split(":"))
    progress = min(max((step - first) / (last - first), 0), 1)
    return int(start + progress * (end - start))


@torch.no_grad()
def imagine(agent, model, buffer, synthetic_buffer, is_terminal, length, num_rollouts, rng):
    """Replay the policy inside the model from real states; every imagined step goes into `synthetic_buffer`.

    A trajectory that reaches a terminal state starts again from another real state, so none goes on past its end and
    every seed stores equally many rows.
    """
    obs = buffer.sample(randint(rng, buffer.size, num_rollouts)).obs  # (seeds, rollouts, obs)
    for _ in range(length):
        actions, _ = agent.actor.sample(obs, randn(rng, num_rollouts, buffer.data.actions.shape[-1]))
        next_obs, rewards = model.sample(obs, actions, rng)
        check_finite({"an imagined state": next_obs, "an imagined reward": rewards})
        terminals = is_terminal(next_obs)
        synthetic_buffer.add(Batch(obs, actions, rewards, next_obs, terminals.float()))
        if length > 1:
            fresh_obs = buffer.sample(randint(rng, buffer.size, num_rollouts)).obs
            obs = torch.where(terminals.unsqueeze(-1), fresh_obs, next_obs)


def out_of_range(buffer, synthetic_buffer, num_rows):
    """Share of the newest imagined rewards, and of all numbers in the newest imagined next states, that lie below or above
    everything that the environment has given so far: nothing is clipped, so this is what the critics see. (seeds,) each"""
    num_rows = min(num_rows, synthetic_buffer.size)
    rows = torch.arange(synthetic_buffer.pos - num_rows, synthetic_buffer.pos, device=buffer.seeds.device)

    def share(real, imagined):  # (seeds, rows, ...)
        real, imagined = real[:, : buffer.size], imagined[:, rows % synthetic_buffer.capacity]
        outside = (imagined < real.amin(1, keepdim=True)) | (imagined > real.amax(1, keepdim=True))
        return outside.float().flatten(1).mean(1)

    return {
        "rewards/out_of_range": share(buffer.data.rewards, synthetic_buffer.data.rewards),
        "model/out_of_range": share(buffer.data.next_obs, synthetic_buffer.data.next_obs),
    }


# ------------------------------------------------------------------------------------------------ Updates
class SAC(nn.Module):
    """Actor, twin critics, their targets and the temperature of every seed, and one update of all of them."""

    def __init__(self, rng, obs_dim, act_dim, args):
        super().__init__()
        self.gamma, self.tau = args.gamma, args.tau
        self.target_entropy = -args.target_entropy_scale * act_dim
        self.actor = Actor(rng, obs_dim, act_dim, args.hidden_dim)
        self.qf = Critics(rng, obs_dim, act_dim, args.hidden_dim)
        self.qf_target = copy.deepcopy(self.qf).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.zeros(len(rng), 1, device=rng[0].device))  # (seeds, 1)
        # Adam works number by number, so one optimizer over the stack is one independent optimizer per seed.
        self.actor_optimizer = Adam(self.actor.parameters(), args.actor_lr)
        self.q_optimizer = Adam(self.qf.parameters(), args.critic_lr)
        self.a_optimizer = Adam([self.log_alpha], args.alpha_lr)
        if args.compile:
            self.update = compiled(self.update, rng[0].device)

    @torch.no_grad()
    def q_target(self, batch, noise):
        """y = r + gamma (1 - terminal) (min(Q1', Q2')(s', a') - alpha log pi(a'|s')), a' ~ pi(.|s'). (seeds, batch)

        A time limit is no terminal state, so the sum goes on through it.
        """
        next_actions, next_log_probs = self.actor.sample(batch.next_obs, noise)
        next_q = self.qf_target(batch.next_obs, next_actions).min(1).values - self.log_alpha.exp() * next_log_probs
        return batch.rewards + self.gamma * (1 - batch.terminations) * next_q

    def update(self, batch, noise):
        """One gradient step of critics, actor and temperature, then of the target critics.

        batch: a Batch of (seeds, batch, ...). noise: standard normal, (seeds, 2, batch, act), for the next and the
        current action. Losses are means over the batch and sums over the seeds, so each seed's gradient is its own.
        Returns what to log, (seeds, ...) each; `log` takes the means, only for updates that are logged.
        """
        target = self.q_target(batch, noise[:, 0])
        q_values = self.qf(batch.obs, batch.actions)  # (seeds, 2, batch)
        qf_loss = (q_values - target.unsqueeze(1)).square().mean(-1)  # (seeds, 2)
        self.q_optimizer.minimize(qf_loss.sum())

        alpha = self.log_alpha.exp()  # (seeds, 1)
        actions, log_probs = self.actor.sample(batch.obs, noise[:, 1])
        min_q = self.qf(batch.obs, actions).min(1).values
        actor_loss = (alpha.detach() * log_probs - min_q).mean(-1)  # (seeds,)
        self.actor_optimizer.minimize(actor_loss.sum())

        # Some code multiplies by log alpha here; we use alpha itself, the gradient of the dual (Haarnoja et al. 2018).
        alpha_loss = (-alpha * (log_probs.detach() + self.target_entropy)).mean(-1)  # (seeds,)
        self.a_optimizer.minimize(alpha_loss.sum())

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.tau)
        return {
            "losses/qf1_values": q_values[:, 0].detach(),
            "losses/qf2_values": q_values[:, 1].detach(),
            "losses/qf_loss": qf_loss.detach(),
            "losses/actor_loss": actor_loss.detach(),
            "losses/alpha": alpha.detach(),
            "losses/alpha_loss": alpha_loss.detach(),
        }


# ------------------------------------------------------------------------------------------------ Evaluation
@torch.no_grad()
def play_episodes(agent, envs, args, step, rng=None):
    """One episode in every environment, with the mean action, or with sampled actions if `rng` is given.

    Its starting states depend on seed and step alone. Returns float64 arrays (time, seeds, episodes): `rewards`,
    `log_probs`, `q_values` (the smaller critic's), `terminations`, and `alive`, which is 0 after an episode's end.
    """
    device, episodes = agent.log_alpha.device, envs.num_envs // args.num_seeds
    seeds = [np.random.SeedSequence([args.seed + k, step]).generate_state(episodes) for k in range(args.num_seeds)]
    obs, _ = envs.reset(seed=[int(seed) for seed in np.concatenate(seeds)])
    alive, history = np.ones(envs.num_envs), []
    while alive.any():
        obs = torch.as_tensor(obs, dtype=torch.float32, device=device).view(args.num_seeds, episodes, -1)
        act_dim = envs.single_action_space.shape[0]
        noise = randn(rng, episodes, act_dim) if rng else torch.zeros(*obs.shape[:2], act_dim, device=device)
        actions, log_probs = agent.actor.sample(obs, noise)
        q_values = agent.qf(obs, actions).min(1).values
        obs, rewards, terminations, truncations, _ = envs.step(actions.flatten(0, 1).cpu().numpy())
        log_probs, q_values = (x.flatten().cpu().double().numpy() for x in (log_probs, q_values))
        history.append((rewards * alive, log_probs * alive, q_values * alive, terminations * alive, alive))
        alive = alive * ~(terminations | truncations)
    names = ("rewards", "log_probs", "q_values", "terminations", "alive")
    stacked = np.array(history).reshape(len(history), 5, args.num_seeds, episodes)
    return {name: stacked[:, i] for i, name in enumerate(names)}


def critic_bias(episodes, gamma, alpha):
    """Mean of Q(s, a) minus the discounted soft return obtained from (s, a) on, (seeds,).

    G_t = r_t + gamma (G_{t+1} - alpha log pi(a_{t+1}|s_{t+1})), and 0 after a terminal state. A time limit cuts this sum,
    so states from which the cut weighs more than gamma^steps = 1 % are left out. nan where no state remains.
    episodes: what play_episodes returns for sampled actions. alpha: (seeds,).
    """
    rewards, log_probs, alive = episodes["rewards"], episodes["log_probs"], episodes["alive"]
    soft_return = np.zeros_like(rewards)  # (time, seeds, episodes)
    following = np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        soft_return[t] = rewards[t] + gamma * following
        following = (soft_return[t] - alpha[:, None] * log_probs[t]) * alive[t]
    steps_left = np.cumsum(alive[::-1], 0)[::-1]
    terminated = episodes["terminations"].any(0)
    counted = (alive > 0) & (terminated | (gamma**steps_left <= 0.01))
    error = ((episodes["q_values"] - soft_return) * counted).sum((0, 2))
    return np.where(counted.any((0, 2)), error / np.maximum(counted.sum((0, 2)), 1), np.nan)


def evaluate(agent, envs, args, step):
    """Returns of the mean action, and the critics' bias along episodes with sampled actions; (seeds,) each."""
    episodes = play_episodes(agent, envs, args, step)
    sampled = play_episodes(agent, envs, args, step, rng=make_rng(args, EVAL_STREAM, step, device=agent.log_alpha.device))
    alpha = agent.log_alpha.detach().exp().squeeze(-1).cpu().double().numpy()
    return {
        "eval/episodic_return": episodes["rewards"].sum(0).mean(-1),
        "eval/episodic_length": episodes["alive"].sum(0).mean(-1),
        "critic/bias": critic_bias(sampled, args.gamma, alpha),
    }


def record_video(agent, args, run_dirs, step):
    """One episode per seed with the mean action, filmed into the run directories."""
    video_dirs = [run_dir / "videos" for run_dir in run_dirs]
    envs = make_envs(args, video_dirs=video_dirs, video_name=f"step-{step}")
    play_episodes(agent, envs, args, step)
    envs.close()


# ------------------------------------------------------------------------------------------------ Files and logs
def make_run_dirs(args):
    """A new folder per seed under --run-dir."""
    script, run_dirs = Path(__file__).stem, []
    for seed in range(args.seed, args.seed + args.num_seeds):
        run_dir = Path(args.run_dir) / f"{args.env_id.replace('/', '-')}__{script}__{seed}__{int(time.time())}"
        try:
            run_dir.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    run_dir.mkdir()
                    break
                except FileExistsError:  # another run of this seed started in the same second
                    run_dir = run_dir.with_name(run_dir.name + "+")
        except OSError as error:
            fail(f"--run-dir {args.run_dir} can't be written to: {error}")
        run_dirs.append(run_dir)
    write_flags(args, run_dirs)
    return run_dirs


def write_flags(args, run_dirs):
    """All flags as args.json into each run directory, and the names of all directories of this run."""
    for k, run_dir in enumerate(run_dirs):
        flags = asdict(args) | {"script": Path(__file__).stem, "seed": args.seed + k, "resume": ""}
        text = json.dumps(flags | {"run_dirs": [d.name for d in run_dirs]}, indent=2) + "\n"
        with replacing(run_dir / "args.json") as file:
            file.write(text.encode())


@contextmanager
def replacing(path):
    """A file to write into, that takes the place of `path` once it is whole and on the disk; until then `path` stays."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync(path.parent)  # the new name itself
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync(path):
    """Wait until a file, or the list of files of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_writer(run_dir, start=0):
    """A TensorBoard writer that has the flags as text; with a step to resume from, what was logged after that is dropped."""
    if start:
        return SummaryWriter(str(run_dir), purge_step=start + 1)
    writer = SummaryWriter(str(run_dir))
    flags = json.loads((run_dir / "args.json").read_text())
    table = "\n".join(f"|{name}|{value}|" for name, value in flags.items())
    writer.add_text("hyperparameters", f"|flag|value|\n|-|-|\n{table}")
    return writer


def log(writers, scalars, step):
    """Write the means of {tag: values (seeds, ...)} to each seed's writer; nan is left out."""
    for tag, values in scalars.items():
        for writer, value in zip(writers, torch.as_tensor(values).reshape(len(writers), -1).mean(1).tolist()):
            if not math.isnan(value):
                writer.add_scalar(tag, value, step)


def save_buffer(buffer, groups, args, run_dirs):
    """Write each seed's real transitions to buffer.npz, oldest first, with what observation_groups says of the task."""
    for k, run_dir in enumerate(run_dirs):
        arrays = {name: x[k, : buffer.size].cpu().numpy() for name, x in buffer.data._asdict().items()}
        with replacing(run_dir / "buffer.npz") as file:
            np.savez(file, env_id=args.env_id, groups=groups, **arrays)


def save_agent(agent, args, run_dirs):
    """Write each seed's agent, alone in its stack, to agent.pt."""
    for k, run_dir in enumerate(run_dirs):
        flags = {name: getattr(args, name) for name in ("env_id", "hidden_dim", "full_observation")}
        state = {name: x[k : k + 1].cpu().clone() for name, x in agent.state_dict().items()}
        with replacing(run_dir / "agent.pt") as file:
            torch.save({**flags, "agent": state}, file)


def load_file(path, device="cpu"):
    """What torch.save wrote: tensors and plain values only, so that no code in a stranger's file can run.

    Raises if the file is damaged: torch itself does not look at the checksums that it writes.
    """
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise ValueError(f"damaged at {damaged}")
    return torch.load(path, map_location=device, weights_only=True)


def evaluate_file(args):
    """--evaluate: play episodes with a saved agent in the task it was trained on; print a table of their returns."""
    device = resolve_device(args)
    try:
        saved = load_file(args.evaluate, device)
        args.env_id, args.hidden_dim = saved["env_id"], saved["hidden_dim"]
        args.full_observation, args.num_seeds = saved["full_observation"], 1
        state = saved["agent"]
    except Exception as error:
        fail(f"--evaluate {args.evaluate} is no agent.pt written by --save-model: {type(error).__name__}")
    envs = make_envs(args, per_seed=args.eval_episodes)
    obs_dim, act_dim = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    agent = SAC(make_rng(args, AGENT_STREAM, device=device), obs_dim, act_dim, args)
    try:
        agent.load_state_dict(state)
    except RuntimeError:
        fail(f"--evaluate {args.evaluate} holds networks of another shape than {args.env_id} needs")
    if args.capture_video:
        record_video(agent, args, [Path(args.evaluate).parent], 0)
    episodes = play_episodes(agent, envs, args, 0)
    envs.close()
    returns, lengths = episodes["rewards"].sum(0)[0], episodes["alive"].sum(0)[0]
    print(f"{args.env_id}, mean action, seed {args.seed}\nepisode      return  length")
    for k, (episodic_return, length) in enumerate(zip(returns, lengths), 1):
        print(f"{k:7d}  {episodic_return:10.2f}  {int(length):6d}")
    print(f"   mean  {returns.mean():10.2f}  {lengths.mean():6.0f}\n    std  {returns.std():10.2f}  {lengths.std():6.0f}")


def load_buffer(args, device):
    """A ReplayBuffer with the transitions of --fit-buffer for each seed, and their groups; sets --env-id to their task."""
    try:
        with np.load(args.fit_buffer, allow_pickle=False) as file:
            batch = Batch(*(torch.as_tensor(file[name], dtype=torch.float32, device=device) for name in Batch._fields))
            args.env_id, groups = str(file["env_id"]), file["groups"]
        rows = batch.rewards.shape[0]
        if rows < 2 * HOLDOUT_BLOCK or batch.next_obs.shape != batch.obs.shape or batch.actions.shape[:-1] != (rows,):
            raise ValueError
        if groups.shape != batch.obs.shape[1:]:
            raise ValueError
        check_finite(batch._asdict())
        buffer = ReplayBuffer(args.num_seeds, rows, batch.obs.shape[1], batch.actions.shape[1], device)
        buffer.add(Batch(*(x.expand(args.num_seeds, *x.shape) for x in batch)))
    except Exception as error:
        fail(f"--fit-buffer {args.fit_buffer} is no buffer.npz written by --save-buffer: {type(error).__name__} {error}")
    return buffer, groups


def fit_saved_buffer(args):
    """--fit-buffer: the model study without an agent. Returns the run directories, one per seed."""
    device = resolve_device(args)
    buffer, groups = load_buffer(args, device)
    rng = make_rng(args, MODEL_STREAM, device=device)
    model = Ensemble(rng, buffer.data.obs.shape[-1], buffer.data.actions.shape[-1], args)
    holdout = draw_holdout(make_rng(args, HOLDOUT_STREAM), buffer.capacity).to(device)
    run_dirs = make_run_dirs(args)
    writers = [make_writer(run_dir) for run_dir in run_dirs]

    train_rows, holdout_rows = split_rows(holdout, buffer.size)
    model.update_normalizer(buffer.sample(train_rows.unsqueeze(1)))
    train_rows = bootstrap_rows(train_rows, args.ensemble_size, rng)
    progress = tqdm(total=args.model_train_steps, desc=f"{Path(__file__).stem} model {args.env_id}", unit="batch")
    while progress.n < args.model_train_steps:
        num_steps = min(args.log_interval, args.model_train_steps - progress.n)
        logs = train_model(model, buffer, train_rows, num_steps, args.model_batch_size, rng)
        try:
            check_finite(logs)
        except FloatingPointError as error:
            fail(f"gradient step {progress.n + num_steps}: {error}", 1)
        logs |= evaluate_model(model, buffer, holdout_rows, groups)
        progress.update(num_steps)
        log(writers, logs, progress.n)
    progress.close()
    for tag, values in logs.items():
        print(f"{tag:24s}" + "".join(f"{value:12.4f}" for value in values.tolist()))
    for writer in writers:
        writer.close()
    return run_dirs


# ------------------------------------------------------------------------------------------------ Checkpoints
# What --resume may change: the rest of the flags are those of the run
MAY_CHANGE = set(
    "total_timesteps device num_threads env_workers compile eval_interval log_interval checkpoint_interval resume save_buffer "
    "save_model capture_video".split()
)


def parse_args(argv=None):
    """The flags of the command line. With --resume, those of that run, but for MAY_CHANGE."""
    args = tyro.cli(Args, args=argv, description=__doc__)
    if not args.resume:
        return args
    stored = Args(**read_flags(args.resume)[0])
    args = tyro.cli(Args, args=argv, default=stored, description=__doc__)
    for name, value in vars(stored).items():
        if name not in MAY_CHANGE and getattr(args, name) != value:
            flag = "--" + name.replace("_", "-")
            fail(f"{flag} {getattr(args, name)}: the run of --resume has {flag} {value}, which can't change any more")
    return args


def read_flags(resume):
    """The flags of a run, {name: value}, and the directories of its seeds, from one of them or from a checkpoint."""
    folder = Path(resume).resolve()
    folder = folder.parent if folder.suffix == ".pt" else folder
    try:
        names = json.loads((folder / "args.json").read_text())["run_dirs"]
        names = names if len(names) > 1 else [folder.name]  # the directory of a single seed may have been renamed
        run_dirs = [folder.parent / Path(name).name for name in names]
        stored = json.loads((run_dirs[0] / "args.json").read_text())  # --seed is that of the first seed
        flags = {name: stored.get(name, default) for name, default in vars(Args()).items()}
        for name, default in vars(Args()).items():
            number = isinstance(default, float) and isinstance(flags[name], (int, float))
            if not number and type(flags[name]) is not type(default):
                raise ValueError(f"--{name.replace('_', '-')} {flags[name]}")
        script = stored["script"]
    except Exception as error:
        fail(f"--resume {resume} is no run directory with a readable args.json: {type(error).__name__}: {error}")
    if script != Path(__file__).stem:
        fail(f"--resume {resume} is a run of {script}.py: resume it with that script")
    if missing := [run_dir for run_dir in run_dirs if not run_dir.is_dir()]:
        fail(f"--resume {resume}: {missing[0]}, of a seed of the same run, is missing")
    return flags, run_dirs


class Resumable(gym.Wrapper):
    """Gives an environment a `state` that can be read, saved as text, and set in another environment of the same task."""

    def step(self, action):
        """As ever, but where DMC's physics diverges, that is said in the same way as of any number that is not finite."""
        try:
            return self.env.step(action)
        except RuntimeError as error:
            if type(error).__name__ != "PhysicsError":
                raise
            raise FloatingPointError(f"NaN or infinity in the physics: {' '.join(str(error).split())}") from None

    def _parts(self):
        """Objects with plain numbers in their attributes (wrappers, the environment, DMC's task), the random generator,
        and MuJoCo's model and data; or None: only DMC's suite and Gymnasium's MuJoCo tasks lay open all that they hold."""
        layers, env = [self.env], self.unwrapped
        while layers[-1] is not env:
            layers.append(layers[-1].env)
        if isinstance(env, gym.envs.mujoco.MujocoEnv):
            return layers, env.np_random, env.model, env.data
        if getattr(getattr(env, "env_type", None), "name", "") == "RL_CONTROL":  # Shimmy's word for the suite
            physics = env._env.physics
            return [*layers, env._env, env._env.task], env.np_random, physics.model.ptr, physics.data.ptr
        return None

    @property
    def state(self):
        """All that the coming steps and resets depend on, as JSON; "" where the environment can't give it.

        MuJoCo's integration state alone would not do: rewards are also read from what MuJoCo derived in its last substep
        (positions of bodies, sensors, ...), and resets move parts of the model. So this is every array of both.
        """
        if not (parts := self._parts()):
            return ""
        layers, random, model, data = parts
        numbers = (bool, int, float, np.number, np.ndarray)
        plain = [{k: v for k, v in vars(layer).items() if isinstance(v, numbers)} for layer in layers]
        legacy = isinstance(random, np.random.RandomState)  # DMC's; it keeps a second normal draw beside its bit generator
        random_state = random.get_state(legacy=False) if legacy else random.bit_generator.state
        values = [plain, random_state, data.time, arrays_of(model), arrays_of(data)]
        return json.dumps(values, default=lambda x: x.tolist())

    @state.setter
    def state(self, text):
        import mujoco  # here, because it picks its renderer when it is imported

        layers, random, model, data = self._parts()
        plain, random_state, data.time, model_arrays, data_arrays = json.loads(text)
        for layer, values in zip(layers, plain, strict=True):
            for name, value in values.items():
                if name in vars(layer):
                    vars(layer)[name] = np.array(value) if isinstance(value, list) else value
        if isinstance(random, np.random.RandomState):
            random.set_state(random_state)
        else:
            random.bit_generator.state = random_state
        set_arrays(model, model_arrays)
        set_arrays(data, data_arrays)
        mujoco.mj_forward(model, data)  # makes room for what depends on the contacts,
        set_arrays(data, data_arrays)  # and overwrites what the last substep had left


def set_arrays(owner, values):
    """Write {name: nested list} into the arrays of an MjModel or MjData, where the shape is the same."""
    for name, array in arrays_of(owner).items():
        value = np.array(values.get(name, []), array.dtype)
        if value.shape == array.shape:
            array[...] = value


def arrays_of(owner):
    """{name: array} of the real numbers of an MjModel or MjData, and of which constraints are on.

    Without what only looks depend on, without the meshes' fixed trees, and without whole numbers: those are indices, which
    never change or follow from the rest, and which from a stranger's file could lead MuJoCo anywhere.
    """
    names = [name for name in dir(owner) if not name.startswith(("_", "tex_", "mesh_", "skin_", "bvh_"))]
    arrays = {name: x for name in names if isinstance(x := getattr(owner, name), np.ndarray)}
    return {name: x for name, x in arrays.items() if x.size and (x.dtype.kind == "f" or name == "eq_active")}


def check_finite(values):
    """Raise FloatingPointError with the name of the first of {name: numbers} that holds NaN or infinity."""
    finite = [torch.as_tensor(x).isfinite().all() for x in values.values()]
    if not torch.stack(finite).all():  # one wait for the GPU, not one per name
        raise FloatingPointError(f"NaN or infinity in {next(name for name, ok in zip(values, finite) if not ok)}")


def check_parameters(networks):
    """The same for all parameters of {name: module or optimizer}."""
    modules = {name: x for name, x in networks.items() if isinstance(x, nn.Module)}
    check_finite({f"the parameter {name}.{k}": p for name, x in modules.items() for k, p in x.named_parameters()})


def state_of(networks):
    """A copy of the states of {name: module or optimizer}."""
    return {name: copy.deepcopy(x.state_dict()) for name, x in networks.items()}


def save_checkpoint(run_dirs, writers, args, networks, buffers, generators, obs, env_states):
    """Everything that the rest of a run depends on, as checkpoint-STEP.pt in the first seed's directory; two are kept.

    networks: {name: state_dict}. buffers: {name: ReplayBuffer}, "real" first. obs: the last observations, (seeds, obs).
    env_states: one string per seed, "" for an environment that starts a new episode on resuming. Returns the file.
    """
    step = buffers["real"].size
    path = run_dirs[0] / f"checkpoint-{step:09d}.pt"
    try:
        for writer, run_dir in zip(writers, run_dirs):  # what was logged up to here must not be younger than the checkpoint
            writer.flush()
            for events in run_dir.glob("events.out.tfevents.*"):
                fsync(events)
        state = {"flags": asdict(args), "networks": networks, "generators": [g.get_state() for g in generators]}
        state |= {"buffers": {name: buffer.state_dict() for name, buffer in buffers.items()}}
        state |= {"obs": torch.as_tensor(obs), "env_states": list(env_states)}
        with replacing(path) as file:
            torch.save(state, file)
        for old in sorted(run_dirs[0].glob("checkpoint-*.pt"))[:-2]:
            old.unlink()
    except (OSError, RuntimeError) as error:  # torch turns some of the disk's errors into RuntimeErrors
        files = sorted(run_dirs[0].glob("checkpoint-*.pt"))
        earlier = f"the one before is whole: --resume {files[-1]}" if files else "there is none before it"
        fail(f"the checkpoint of step {step} can't be written to {run_dirs[0]} ({' '.join(str(error).split())}); {earlier}", 1)
    return path


def load_checkpoint(run_dirs, args, networks, buffers, generators, envs):
    """Set everything to the newest checkpoint of --resume, or to that which it names. Returns its step and observations."""
    files = sorted(run_dirs[0].glob("checkpoint-*.pt"))
    if not files:
        fail(f"--resume {args.resume}: there is no checkpoint in {run_dirs[0]}")
    path = Path(args.resume) if args.resume.endswith(".pt") else files[-1]
    try:
        state = load_file(path)
        changed = [k for k, v in asdict(args).items() if k not in MAY_CHANGE and state["flags"][k] != v]
        if changed:
            raise ValueError(f"it is of a run with another --{changed[0].replace('_', '-')}")
        step, obs = state["buffers"]["real"]["data"][0].shape[1], state["obs"].numpy()
        if step > args.total_timesteps:
            fail(f"--total-timesteps {args.total_timesteps}: the run of --resume is at step {step} already")
        for name, x in (networks | buffers).items():
            x.load_state_dict((state["networks"] | state["buffers"])[name])
        for generator, saved in zip(generators, state["generators"], strict=True):
            if generator.get_state().shape == saved.shape:
                generator.set_state(saved)
            else:  # of another device
                generator.manual_seed(generator.initial_seed() + step)
        if all(state["env_states"]):
            envs.set_attr("state", state["env_states"])
        else:
            print("note: these environments can't be set to where they were: a new episode begins", file=sys.stderr)
            seeds = [np.random.SeedSequence([args.seed + k, step]).generate_state(1) for k in range(args.num_seeds)]
            obs, _ = envs.reset(seed=[int(seed.item()) for seed in seeds])
    except Exception as error:
        older = [file for file in files if file.name < path.name]
        hint = f"the one before it: --resume {older[-1]}" if older else "there is no older one"
        reason = " ".join(str(error).split())[:200]
        fail(f"--resume {path}: this checkpoint can't be used ({type(error).__name__}: {reason}); {hint}")
    for file in files:  # those of the future that is now given up
        if file.name > path.name:
            file.rename(file.with_name(file.name + ".set-aside"))
    write_flags(args, run_dirs)
    return step, obs


def lock(run_dir):
    """Keep other processes from training the same run. The lock ends with the process, however that ends."""
    handle = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(f"--resume {run_dir}: another process is training this run")
    return handle


def catch_signals():
    """A list that the first SIGTERM or SIGINT is put into; a second one ends the process at once."""
    caught = []

    def handler(number, frame):
        print(f"\n{signal.Signals(number).name}: stopping at the end of this step, once more stops now", file=sys.stderr)
        caught.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    return caught


# ------------------------------------------------------------------------------------------------ Main
def main(args):
    """Train. Returns the run directories, one per seed."""
    check_args(args)
    check_model_args(args)
    torch.set_num_threads(args.num_threads)
    if args.evaluate:
        return evaluate_file(args)
    if args.fit_buffer:
        return fit_saved_buffer(args)
    device = resolve_device(args)
    envs, eval_envs = make_envs(args), make_envs(args, per_seed=args.eval_episodes)
    rng = make_rng(args, AGENT_STREAM, device=device)
    obs_dim, act_dim = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    use_model, num_real = args.real_ratio < 1, round(args.real_ratio * args.batch_size)
    with enough_memory():
        agent = SAC(rng, obs_dim, act_dim, args)
        buffer = ReplayBuffer(args.num_seeds, args.total_timesteps, obs_dim, act_dim, device)
        if use_model:
            is_terminal = termination_rule(args.env_id)
            model_rng = make_rng(args, MODEL_STREAM, device=device)
            model = Ensemble(model_rng, obs_dim, act_dim, args)
            groups = observation_groups(args)
            holdout = draw_holdout(make_rng(args, HOLDOUT_STREAM), buffer.capacity).to(device)
            synthetic_buffer = ReplayBuffer(args.num_seeds, args.synthetic_buffer_size, obs_dim, act_dim, device)
    networks = {"agent": agent, "actor_optimizer": agent.actor_optimizer, "q_optimizer": agent.q_optimizer}
    networks |= {"a_optimizer": agent.a_optimizer}
    buffers, generators = {"real": buffer}, rng
    if use_model:
        networks |= {"model": model, "model_optimizer": model.optimizer}
        buffers, generators = buffers | {"synthetic": synthetic_buffer}, rng + model_rng
    obs, _ = envs.reset(seed=[args.seed + k for k in range(args.num_seeds)])
    run_dirs, start = read_flags(args.resume)[1] if args.resume else make_run_dirs(args), 0
    run_lock = lock(run_dirs[0])
    if args.resume:
        start, obs = load_checkpoint(run_dirs, args, networks, buffers, generators, envs)
    writers = [make_writer(run_dir, start) for run_dir in run_dirs]
    threading.excepthook = lambda failure: None  # TensorBoard's thread: the same error reaches the loop with the next number
    signals, good = catch_signals(), state_of(networks)

    def to_tensor(x):  # (seeds, ...) -> (seeds, 1, ...): one row for each seed
        return torch.as_tensor(x, dtype=torch.float32, device=device).unsqueeze(1)

    start_time, title = time.time(), f"{Path(__file__).stem} {args.env_id}"
    progress = tqdm(total=args.total_timesteps, initial=start, desc=title, unit="step", smoothing=0.05)
    try:
        for step in range(start + 1, args.total_timesteps + 1):
            # Act: a sample of the policy, after some random steps
            if step <= args.learning_starts:
                actions = 2 * rand(rng, 1, act_dim) - 1  # (seeds, 1, act)
            else:
                with torch.no_grad():
                    actions, _ = agent.actor.sample(to_tensor(obs), randn(rng, 1, act_dim))

            # Step and store; where an episode ended, `next_obs` is already the first one of the next episode
            if not actions.isfinite().all():
                check_parameters(networks)  # names the cause, if the last update left it
                check_finite({"an action": actions})
            next_obs, rewards, terminations, truncations, infos = envs.step(actions.squeeze(1).cpu().numpy())
            true_next_obs = next_obs.copy()
            for k in np.flatnonzero(terminations | truncations):
                true_next_obs[k] = infos["final_obs"][k]
                episode = infos["final_info"]["episode"]
                writers[k].add_scalar("charts/episodic_return", episode["r"][k], step)
                writers[k].add_scalar("charts/episodic_length", episode["l"][k], step)
                progress.set_postfix_str(f"return {episode['r'][k]:.1f}", refresh=False)
            check_finite({"an observation": true_next_obs, "a reward": rewards})
            buffer.add(
                Batch(to_tensor(obs), actions, to_tensor(rewards), to_tensor(true_next_obs), to_tensor(terminations))
            )
            obs = next_obs

            # Train the model, from its last weights, on all real transitions but the held out ones
            if use_model and step >= args.learning_starts and (step - args.learning_starts) % args.model_train_interval == 0:
                train_rows, holdout_rows = split_rows(holdout, buffer.size)
                model.update_normalizer(buffer.sample(train_rows.unsqueeze(1)))
                train_rows = bootstrap_rows(train_rows, args.ensemble_size, model_rng)
                logs = train_model(model, buffer, train_rows, args.model_train_steps, args.model_batch_size, model_rng)
                check_finite(logs)
                log(writers, logs | evaluate_model(model, buffer, holdout_rows, groups), step)

            # Imagine: replay the current policy inside the model
            if use_model and step >= args.learning_starts:
                length = rollout_length(args.rollout_schedule, step)
                imagine(agent, model, buffer, synthetic_buffer, is_terminal, length, args.rollouts_per_step, model_rng)

            # Update: all batches of this step are drawn at once
            if step >= args.learning_starts:
                batches = buffer.sample(randint(rng, buffer.size, args.utd_ratio, num_real))  # (seeds, utd, real, ...)
                if use_model:
                    picks = randint(model_rng, synthetic_buffer.size, args.utd_ratio, args.batch_size - num_real)
                    batches = Batch(*(torch.cat(pair, 2) for pair in zip(batches, synthetic_buffer.sample(picks))))
                noise = randn(rng, args.utd_ratio, 2, args.batch_size, act_dim)
                for u in range(args.utd_ratio):
                    losses = agent.update(Batch(*(x[:, u] for x in batches)), noise[:, u])

                check_finite(losses)
                if step % args.log_interval == 0:
                    log(writers, losses, step)
                    if use_model:
                        log(writers, out_of_range(buffer, synthetic_buffer, args.rollouts_per_step * args.log_interval), step)
                    sps = args.num_seeds * (step - start) / (time.time() - start_time)
                    log(writers, {"charts/SPS": np.full(args.num_seeds, sps)}, step)

            if step % args.eval_interval == 0 or step == args.total_timesteps:
                results = evaluate(agent, eval_envs, args, step)
                log(writers, results, step)
                progress.set_postfix_str(f"eval return {results['eval/episodic_return'].mean():.1f}", refresh=False)
                if args.capture_video:
                    record_video(agent, args, run_dirs, step)
            progress.update()

            if step % args.log_interval == 0:
                check_parameters(networks)
                good = state_of(networks)
            if step % args.checkpoint_interval == 0 or step == args.total_timesteps or signals:
                check_parameters(networks)
                path = save_checkpoint(
                    run_dirs, writers, args, state_of(networks), buffers, generators, obs, envs.get_attr("state")
                )
                if signals:
                    name = signal.Signals(signals[0]).name
                    fail(f"stopped by {name} after step {step}; --resume {path.parent} goes on", 128 + signals[0])

        if args.save_buffer:
            save_buffer(buffer, observation_groups(args), args, run_dirs)
        if args.save_model:
            save_agent(agent, args, run_dirs)
    except FloatingPointError as error:
        # The networks of at most --log-interval steps ago, with all data since. If the transition of this step is not
        # stored, the environment may be broken, or ahead of `obs`: then a new episode begins on resuming.
        env_states = envs.get_attr("state") if buffer.size == step else [""] * args.num_seeds
        path = save_checkpoint(run_dirs, writers, args, good, buffers, generators, obs, env_states)
        fail(f"step {step}: {error}; the last good state is in {path}", 1)
    except (MemoryError, RuntimeError) as error:
        with enough_memory():
            raise error
    except OSError as error:
        fail(f"{run_dirs[0]} can't be written to ({error}): --resume goes on from the last checkpoint", 1)
    finally:
        progress.close()
        for closable in (envs, eval_envs, *writers):
            with suppress(OSError):  # a full disk has been told of; all that a checkpoint needs was flushed before it
                closable.close()
        os.close(run_lock)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_dirs


if __name__ == "__main__":
    main(parse_args())
