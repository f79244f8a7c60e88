"""Does another SAC learn the task, and are its critics right? Stable-Baselines3's, with our settings.

    .venv-peers/bin/python benchmark/sb3_sac.py --env-id dm_control/fish-upright-v0

Needs requirements.txt and benchmark/requirements.txt. Prints a line per evaluation: returns of five
episodes with the mean action, the smaller critic's Q at their first states, the discounted return obtained
from there, and the last five training episodes' returns; the means go to benchmark/results/sb3_sac/TASK.csv.
It differs from sac.py in the log std (clipped, not squashed), in the initial weights of actor and critics
(nn.Linear's, too, but drawn in another order), and in the temperature's loss (log alpha for alpha).
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import shimmy  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from stable_baselines3 import SAC  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402

import sac  # noqa: E402

COLUMNS = ["step", "return", "q_start", "discounted_return", "training_return", "alpha"]


@dataclass
class Args:
    env_id: str = "dm_control/fish-upright-v0"  # the task
    total_timesteps: int = 30_000  # environment steps
    learning_starts: int = 10_000  # random steps
    utd_ratio: int = 4  # gradient updates per environment step
    seed: int = 1  # of weights, batches and training episodes
    eval_interval: int = 5_000  # steps between evaluations
    out: str = str(Path(__file__).parent / "results/sb3_sac")  # folder for the CSV


def make_env(env_id):
    """As in sac.py: flat observations in single precision, actions in [-1, 1]."""
    env = gym.wrappers.FlattenObservation(gym.make(env_id))
    env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    space = gym.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
    env = gym.wrappers.TransformObservation(env, lambda obs: obs.astype(np.float32), space)
    return gym.wrappers.RecordEpisodeStatistics(env)


class Evaluation(BaseCallback):
    """Plays five episodes every `eval_interval` steps and writes what they show."""

    def __init__(self, env, args):
        super().__init__()
        self.env, self.args, self.rows = env, args, []

    @torch.no_grad()
    def episode(self, seed):
        """Return, Q at the first state, discounted return."""
        obs, _ = self.env.reset(seed=seed)
        first = torch.as_tensor(obs)[None]
        q = torch.minimum(*self.model.critic(first, self.model.actor(first, deterministic=True)))
        total, discounted, discount, over = 0.0, 0.0, 1.0, False
        while not over:
            action, _ = self.model.predict(obs, deterministic=True)
            obs, reward, terminated, truncated, _ = self.env.step(action)
            total, discounted = total + reward, discounted + discount * reward
            discount, over = discount * 0.99, terminated or truncated
        return total, q.item(), discounted

    def _on_step(self):
        step = self.num_timesteps
        if step % self.args.eval_interval == 0:
            episodes = np.array([self.episode(1000 * step + k) for k in range(5)])
            training = np.mean([info["r"] for info in list(self.model.ep_info_buffer)[-5:]])
            alpha = self.model.log_ent_coef.exp().item()
            self.rows.append([step, *(f"{x:.4g}" for x in (*episodes.mean(0), training, alpha))])
            print(dict(zip(COLUMNS, self.rows[-1])), np.round(episodes[:, 0], 1), flush=True)
        return True


def main(args):
    flags = {name: value for name, value in vars(args).items() if name != "out"}
    sac.check_args(sac.Args(**flags, device="cpu"))
    args.env_id = sac.full_env_id(args.env_id)
    out = Path(args.out) / f"{args.env_id.removeprefix('dm_control/').rsplit('-v', 1)[0]}.csv"
    if out.exists():
        sac.fail(f"--out {args.out}: {out} is there already; name another folder, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    gym.register_envs(shimmy)
    torch.set_num_threads(1)
    env = make_env(args.env_id)
    evaluation = Evaluation(make_env(args.env_id), args)
    steps = dict(learning_starts=args.learning_starts, gradient_steps=args.utd_ratio, train_freq=1)
    steps |= dict(buffer_size=args.total_timesteps, target_entropy=-env.action_space.shape[0] / 2)
    model = SAC("MlpPolicy", env, ent_coef="auto", seed=args.seed, device="cpu", **steps)
    model.learn(args.total_timesteps, callback=evaluation)
    with open(out, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *evaluation.rows])


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
