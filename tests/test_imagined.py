"""Imagined transitions: one batch computed by hand in numpy, and in a whole run each row that SAC is updated
with, piece by piece."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import filled_buffer, make_args, random_batch

import ftfl
import mbpo

OBS, ACT, SEEDS, ROWS = 4, 2, 2, 30
CASES = [(mbpo, {})]
for normalized in (True, False):
    for state in ("direct", "residual"):
        CASES.append((ftfl, {"target_normalization": normalized, "next_state_prediction": state}))


def layers(net, *index):
    """The (weight, bias) of each linear layer of one network of a stack, in double precision."""
    return [tuple(x.detach()[index].double().numpy() for x in (m.weight, m.bias)) for m in net[::2]]


def forward(x, layers, activation):
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if i < len(layers) - 1:
            x = activation(x)
    return x


def softplus(x):
    return np.log1p(np.exp(x))


@pytest.mark.maintainer  # the networks, too, are computed by hand: others would be no mistake
@pytest.mark.parametrize("module,switches", CASES)
def test_one_imagined_batch_is_the_one_computed_by_hand(module, switches):
    args = make_args(module, num_seeds=SEEDS, rollouts_per_step=ROWS, model_train_steps=200, **switches)
    torch.manual_seed(1)
    batch = random_batch(SEEDS, 100, OBS, ACT, module=module)
    batch = batch._replace(next_obs=3 * batch.next_obs + 5)  # residual and direct targets differ
    buffer, agent = filled_buffer(module, batch), module.SAC(OBS, ACT, args)
    model, synthetic = module.Ensemble(OBS, ACT, args), module.ReplayBuffer(SEEDS, ROWS, OBS, ACT)
    module.train_model(model, buffer, args)

    middle = 0.0
    for _ in range(2):  # the second time, about half of the imagined states are terminal
        torch.manual_seed(2)
        module.imagine(agent, model, buffer, synthetic, lambda s: s[..., 0] > middle, 0, args)
        middle = synthetic.data.next_obs[..., 0].median().item() + 1e-3
    torch.manual_seed(2)
    starts = torch.randint(buffer.size, (SEEDS, ROWS))
    action_noise = torch.randn(SEEDS, ROWS, ACT).double().numpy()
    picks = torch.randint(args.num_elites, (SEEDS, ROWS))
    model_noise = torch.randn(SEEDS, 1, ROWS, OBS + 1)[:, 0].double().numpy()

    training_rows, _ = module.split_rows(args, buffer.size)
    for k in range(SEEDS):
        obs, acts, rewards, next_obs = (x[k].double().numpy() for x in batch[:4])
        rows = training_rows[k].numpy()
        inputs = np.concatenate([obs, acts], 1)[rows]
        targets = np.concatenate([next_obs - obs, rewards[:, None]], 1)[rows]
        if switches.get("next_state_prediction", "residual") == "direct":
            targets[:, :-1] = next_obs[rows]
        for i in range(ROWS):
            s = obs[starts[k, i]]
            out = forward(s, layers(agent.actor.net, k), lambda x: np.maximum(x, 0)).squeeze(0)
            mean, log_std = out[:ACT], -10 + 12 * (np.tanh(out[ACT:]) + 1) / 2
            a = np.tanh(mean + np.exp(log_std) * action_noise[k, i])

            x = (np.concatenate([s, a]) - inputs.mean(0)) / inputs.std(0, ddof=1)
            network = model.elites[k, picks[k, i]].item()
            out = forward(x, layers(model.net, k, network), lambda x: x / (1 + np.exp(-x))).squeeze(0)
            mean, logvar = out[: OBS + 1], out[OBS + 1 :]
            logvar = 0.5 - softplus(0.5 - logvar)
            logvar = -10 + softplus(logvar + 10)
            y = mean + np.exp(logvar / 2) * model_noise[k, i]
            if switches.get("target_normalization"):
                y = y * targets.std(0, ddof=1) + targets.mean(0)
            s_next = y[:-1]
            if switches.get("next_state_prediction", "residual") == "residual":
                s_next = s + s_next
            expected = module.Batch(s, a, y[-1], s_next, float(s_next[0] > middle))
            for name, value, imagined in zip(module.Batch._fields, expected, synthetic.data):
                assert imagined[k, i].numpy() == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert 0.1 < synthetic.data.terminations.mean() < 0.9
    assert len(set(model.elites.flatten().tolist())) > args.num_elites, "both seeds have the same elites"


def dynamics(obs, actions, seed):
    """next_obs, rewards of a known world; `seed` numbers the imagined worlds, the real one is number 0."""
    x, y, a = obs[..., 0], obs[..., 1], actions[..., 0]
    next_obs = [0.6 * x + a + 0.1 * seed, 0.5 * y - x + 0.3]
    return next_obs, x + 10 * y + 100 * a + 1000 * seed


class Known(gym.Env):
    """Ends where the second number is above 0.4. That of the next state does not depend on the action: of the
    planted first states, every second one is the last before the end."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs, self.t = np.array([-1.0 if self.episode % 2 else 1.0, 0.01 * self.episode]), 0
        self.episode += 1
        return self.obs.copy(), {}

    def step(self, action):
        next_obs, reward = dynamics(self.obs, action, 0)
        self.obs, self.t = np.array(next_obs), self.t + 1
        return self.obs.copy(), float(reward), bool(self.obs[1] > 0.4), self.t == 3, {}


def test_the_parts_of_each_trained_row_belong_to_each_other(model_script, tmp_path, monkeypatch):
    """Whatever SAC is updated with, real or imagined, obeys its world's dynamics: s, a, r, s' and terminal of
    one moment, of one seed. The model is replaced by one that knows the dynamics, each seed by its own."""
    module, seen, update = model_script, [], model_script.SAC.update

    def sample(self, obs, actions):
        seeds = torch.arange(1, len(obs) + 1).view(-1, 1)
        next_obs, rewards = dynamics(obs, actions, seeds)
        return torch.stack(next_obs, -1), rewards

    def spy(agent, batch, *noise):
        seen.append(batch)
        return update(agent, batch, *noise)

    monkeypatch.setattr(module.Ensemble, "sample", sample)
    monkeypatch.setattr(module.SAC, "update", spy)
    monkeypatch.setattr(module, "termination_rule", lambda env_id: lambda s: s[..., 1] > 0.4)
    monkeypatch.setattr(module, "make_env", lambda *_: gym.wrappers.RecordEpisodeStatistics(Known()))
    monkeypatch.setattr(module, "full_env_id", lambda env_id: env_id)
    flags = {"total_timesteps": 80, "learning_starts": 40, "num_seeds": 3, "utd_ratio": 2, "real_ratio": 0.5}
    flags |= {"rollout_schedule": "3:3:0:1", "synthetic_buffer_size": 70, "run_dir": str(tmp_path)}
    module.main(make_args(module, **flags))

    assert len(seen) == 82
    for k in range(3):
        rows = module.Batch(*(torch.cat([x[k] for x in xs]) for xs in zip(*seen)))
        worlds = (rows.rewards / 1000).round()
        assert set(worlds.tolist()) == {0, k + 1}, "real rows, and those that this seed's model imagined"
        next_obs, rewards = dynamics(rows.obs, rows.actions, worlds)
        assert torch.allclose(rows.rewards, rewards, atol=1e-2)
        assert torch.allclose(rows.next_obs, torch.stack(next_obs, -1), atol=1e-4)
        assert torch.equal(rows.terminations, (rows.next_obs[:, 1] > 0.4).float())
        for world in (0, k + 1):
            assert 0 < rows.terminations[worlds == world].mean() < 1
