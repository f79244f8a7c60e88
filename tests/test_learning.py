"""What the paper claims, as behaviour of the models, in seconds; and that each script learns, in minutes."""

import os

import numpy as np
import pytest
import torch
from conftest import filled_buffer, make_args, read_scalars

import ftfl
import mbpo
import sac


def small_rewards_beside_large_velocities(module):
    """A world with rewards around 0.01 and velocities around 30; both can be learned."""
    generator = torch.Generator().manual_seed(0)
    obs = 2 * torch.rand(1, 2000, 3, generator=generator) - 1
    actions = 2 * torch.rand(1, 2000, 1, generator=generator) - 1
    change = 30 * (actions + 0.5 * obs + 0.3 * torch.randn(1, 2000, 3, generator=generator))
    rewards = 0.01 * (1 + obs[..., 0] * actions[..., 0])
    return module.Batch(obs, actions, rewards, obs + change, torch.zeros(1, 2000))


def test_where_rewards_are_small_beside_states_ftfl_learns_them_and_mbpo_does_not():
    """Cause one, in each of three seeds: by R2, and by the noise that every imagined reward has."""
    logs = {}
    flags = {"model_hidden_dim": 32, "model_lr": 1e-3, "model_batch_size": 64, "model_train_steps": 400}
    for module in (mbpo, ftfl):
        args = make_args(module, num_seeds=3, **flags)
        torch.manual_seed(1)
        batch = small_rewards_beside_large_velocities(module)
        buffer = filled_buffer(module, module.Batch(*[x.expand(3, *x.shape[1:]) for x in batch]))
        logs[module] = module.train_model(module.Ensemble(3, 1, args), buffer, args)
    assert (logs[ftfl]["model/reward_r2"] > 0.8).all()
    assert (logs[mbpo]["model/reward_r2"] < 0).all()
    noise = {module: x["rewards/synthetic_std"].flatten(1).mean(1) for module, x in logs.items()}
    assert (noise[mbpo] > 0.01).all() and (noise[ftfl] < 0.002).all(), "rewards are 0.01"


# A pendulum that a random policy drops within 6 steps
COMMON = {"env_id": "InvertedPendulum-v5", "learning_starts": 500, "hidden_dim": 64, "eval_interval": 500}
COMMON |= {"batch_size": 128, "actor_lr": 1e-3, "critic_lr": 1e-3, "eval_episodes": 5, "num_seeds": 4}
MODEL = {"model_hidden_dim": 64, "model_train_steps": 200, "model_lr": 1e-3, "rollouts_per_step": 50}
MODEL |= {"utd_ratio": 4, "total_timesteps": 1500}
BUDGETS = {sac: {"utd_ratio": 1, "total_timesteps": 4000}, mbpo: MODEL, ftfl: MODEL}


@pytest.mark.skipif("NIGHTLY" not in os.environ, reason="make nightly: minutes")
def test_it_learns(script, tmp_path):
    """From a random policy's return to at least five times that, each of four seeds."""
    for run_dir in script.main(script.Args(**COMMON | BUDGETS[script], run_dir=str(tmp_path))):
        scalars = read_scalars(run_dir)
        random_return = np.mean([value for step, value in scalars["charts/episodic_return"] if step <= 500])
        assert 3 < random_return < 10
        last = scalars["eval/episodic_return"][-1][1]
        assert last >= 5 * random_return, f"{random_return:.1f}, trained {scalars['eval/episodic_return']}"
