"""What all tests share: single-threaded torch, small networks, a scripted environment, and a reader of event
files."""

import os
import shutil
import signal
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "disable")
os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "benchmark")]

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import sac  # noqa: E402

torch.set_num_threads(1)
sac.fast_matmul()  # as main() does: the products of all tests are then the same
ROOT = Path(__file__).parent.parent
NEEDS_COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler"
)
SIGNALS = [number for name in ("SIGTERM", "SIGINT", "SIGHUP") if (number := getattr(signal, name, None))]
HANDLERS = {number: signal.getsignal(number) for number in SIGNALS}  # before any main() has been called
SMALL = {"hidden_dim": 16, "batch_size": 20, "utd_ratio": 1, "eval_episodes": 1, "log_interval": 1}
SMALL_MODEL = {
    "model_hidden_dim": 16,
    "model_train_steps": 5,
    "model_batch_size": 16,
    "rollouts_per_step": 10,
}


@pytest.fixture(autouse=True)
def signal_handlers():
    """main() leaves its handlers installed: it ends with its process, but here others follow, and pytest
    itself would ignore SIGTERM."""
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(params=[sac, mbpo, ftfl], ids=lambda module: module.__name__)
def script(request):
    """Each of the three scripts as a module."""
    return request.param


@pytest.fixture(params=[mbpo, ftfl], ids=lambda module: module.__name__)
def model_script(request):
    """The two scripts that have a model."""
    return request.param


def make_args(module, **flags):
    """Small settings of a script, for the flags that it has."""
    small = {name: value for name, value in (SMALL | SMALL_MODEL).items() if hasattr(module.Args, name)}
    return module.Args(**small | flags)


def read_scalars(run_dir, all_tags=False):
    """{tag: [(step, value), ...]} of a run directory, but for the speed, which no two runs share."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if all_tags or tag != "charts/SPS"]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


def random_batch(num_seeds, rows, obs_dim, act_dim, seed=0, module=sac):
    """Transitions of plausible sizes: (num_seeds, rows, ...)."""
    g = torch.Generator().manual_seed(seed)
    obs = torch.randn(num_seeds, rows, obs_dim, generator=g)
    actions = 2 * torch.rand(num_seeds, rows, act_dim, generator=g) - 1
    next_obs = obs + 0.1 * torch.randn(num_seeds, rows, obs_dim, generator=g)
    rewards = 0.01 * torch.rand(num_seeds, rows, generator=g)
    terminations = (torch.rand(num_seeds, rows, generator=g) < 0.2).float()
    return module.Batch(obs, actions, rewards, next_obs, terminations)


def compiled(update):
    """An update as main() compiles it for the CPU."""
    torch._dynamo.config.trace_autograd_ops = True
    return torch.compile(update, fullgraph=True)


def read_checkpoint(run_dir):
    """What a run left in its checkpoint, by whichever script."""
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def filled_buffer(module, batch):
    """A ReplayBuffer that holds exactly `batch`."""
    num_seeds, rows, obs_dim = batch.obs.shape
    buffer = module.ReplayBuffer(num_seeds, rows, obs_dim, batch.actions.shape[-1])
    buffer.add(batch)
    return buffer


class Scripted(gym.Env):
    """Observes (steps in this episode, episode number). Even episodes end in a terminal state at step 5, odd
    ones are
    cut by a time limit at step 7. The reward is the step's number."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        return np.array([0.0, self.episode]), {}

    def step(self, action):
        self.t += 1
        obs = np.array([float(self.t), self.episode])
        even = self.episode % 2 == 0
        return obs, float(self.t), even and self.t == 5, not even and self.t == 7, {}


class DiscreteActions(Scripted):
    action_space = gym.spaces.Discrete(2)


class Pixels(Scripted):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)


class FloatPixels(Scripted):
    observation_space = gym.spaces.Box(0, 1, (8, 8, 3), np.float32)


for name in ("Scripted", "DiscreteActions", "Pixels", "FloatPixels"):
    gym.register(f"{name}-v0", globals()[name])
