"""Ten updates of Stable-Baselines3's SAC, weight by weight, for tests/test_against_sb3.py.

    .venv-peers/bin/python tests/sb3_fixture.py          # writes tests/data/sb3_sac.npz

It is left as it is, but for what differs from ours by design: the log std is squashed as ours is, not
clipped; no 1e-6 is added in the logarithm of tanh's derivative; the temperature is fixed; and its critics'
Adam has half the epsilon, because their loss is half of ours. The noise is drawn here and written down.
"""

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure

OBS, ACT, HIDDEN, ROWS, UPDATES, ALPHA = 5, 2, 32, 64, 10, 0.2
OUT = Path(__file__).parent.parent / "tests/data/sb3_sac.npz"


class Sizes(gym.Env):
    """Nothing but the sizes that SB3 asks an environment for."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACT,), np.float32)


def layers(network):
    """{0.weight, 0.bias, ...} of the linear layers in order, weights (in, out) as ours."""
    linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights = {f"{i}.weight": layer.weight.detach().numpy().T for i, layer in enumerate(linear)}
    return weights | {f"{i}.bias": layer.bias.detach().numpy() for i, layer in enumerate(linear)}


def networks(model):
    """All weights: {network/layer: array}."""
    mean, log_std = layers(model.actor.mu), layers(model.actor.log_std)
    actor = layers(model.actor.latent_pi)
    for name in ("weight", "bias"):  # our actor has one layer for both
        actor[f"2.{name}"] = np.concatenate([mean[f"0.{name}"], log_std[f"0.{name}"]], -1)
    parts = {"actor": actor}
    for name, critic in {"qf": model.critic, "qf_target": model.critic_target}.items():
        parts |= {f"{name}{i + 1}": layers(network) for i, network in enumerate(critic.q_networks)}
    return {f"{part}/{name}": x.copy() for part, weights in parts.items() for name, x in weights.items()}


def main():
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    kwargs = {"net_arch": [HIDDEN, HIDDEN]}
    model = SAC("MlpPolicy", Sizes(), ent_coef=ALPHA, device="cpu", policy_kwargs=kwargs, batch_size=ROWS)
    model.set_logger(configure(None, []))
    model.actor.action_dist.epsilon = 0
    for group in model.critic.optimizer.param_groups:
        group["eps"] = 0.5e-8
    squashed = torch.nn.Module()
    squashed.layer, squashed.forward = model.actor.log_std, lambda x: -4 + 6 * torch.tanh(squashed.layer(x))
    model.actor.log_std = squashed

    def floats(*shape):
        return rng.standard_normal((UPDATES, *shape)).astype(np.float32)

    data = {"obs": floats(ROWS, OBS), "next_obs": floats(ROWS, OBS), "rewards": floats(ROWS)}
    data["noise"] = floats(2, ROWS, ACT)
    data["actions"] = rng.uniform(-1, 1, (UPDATES, ROWS, ACT)).astype(np.float32)
    data["terminations"] = (rng.uniform(size=(UPDATES, ROWS)) < 0.2).astype(np.float32)
    before = networks(model)
    for u in range(UPDATES):
        x = {name: torch.as_tensor(values[u]) for name, values in data.items()}
        batch = SimpleNamespace(observations=x["obs"], next_observations=x["next_obs"], actions=x["actions"])
        batch.rewards, batch.dones, batch.discounts = x["rewards"][:, None], x["terminations"][:, None], None
        model.replay_buffer.sample = lambda *_, batch=batch, **__: batch
        noise = iter([x["noise"][1], x["noise"][0]])  # SB3 draws for obs first, then for next_obs
        torch.distributions.Normal.rsample = lambda self, *_, noise=noise: self.loc + self.scale * next(noise)
        model.train(gradient_steps=1, batch_size=ROWS)
    after = networks(model)
    about = {"version": stable_baselines3.__version__, "alpha": ALPHA, "gamma": model.gamma, "tau": model.tau}
    about["lr"] = model.learning_rate
    OUT.parent.mkdir(exist_ok=True)
    arrays = {f"data/{k}": v for k, v in data.items()} | {f"about/{k}": np.array(v) for k, v in about.items()}
    arrays |= {f"before/{k}": v for k, v in before.items()} | {f"after/{k}": v for k, v in after.items()}
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT}: {OUT.stat().st_size} bytes, Stable-Baselines3 {stable_baselines3.__version__}")


if __name__ == "__main__":
    main()
