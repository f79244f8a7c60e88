"""Each script learns: InvertedPendulum, from a random policy's return to at least five times that, in about a
minute."""

import numpy as np
from conftest import read_scalars

import ftfl
import mbpo
import sac

# A pendulum that a random policy drops within 6 steps
COMMON = {"env_id": "InvertedPendulum-v5", "learning_starts": 500, "hidden_dim": 64, "eval_interval": 500}
COMMON |= {"batch_size": 128, "actor_lr": 1e-3, "critic_lr": 1e-3, "eval_episodes": 5, "num_seeds": 4}
MODEL = {"model_hidden_dim": 64, "model_train_steps": 200, "model_lr": 1e-3, "rollouts_per_step": 50}
MODEL |= {"utd_ratio": 4, "total_timesteps": 1500}
BUDGETS = {sac: {"utd_ratio": 1, "total_timesteps": 4000}, mbpo: MODEL, ftfl: MODEL}


def test_it_learns(script, tmp_path):
    """Four seeds, each of them."""
    for run_dir in script.main(script.Args(**COMMON | BUDGETS[script], run_dir=str(tmp_path))):
        scalars = read_scalars(run_dir)
        random_return = np.mean([value for step, value in scalars["charts/episodic_return"] if step <= 500])
        assert 3 < random_return < 10
        last = scalars["eval/episodic_return"][-1][1]
        assert last >= 5 * random_return, f"{random_return:.1f}, trained {scalars['eval/episodic_return']}"
