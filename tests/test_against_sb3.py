"""SAC's update against Stable-Baselines3's, weight for weight. tests/sb3_fixture.py made the numbers."""

import numpy as np
import pytest
import torch
from conftest import ROOT, make_args

# SB3 has two critics and this loss: an edit that makes SAC another algorithm is no mistake.
pytestmark = pytest.mark.maintainer
FIXTURE = dict(np.load(ROOT / "tests/data/sb3_sac.npz"))


def part(prefix):
    """The arrays of the fixture whose names begin with `prefix`/, by the rest of the name."""
    return {
        name.removeprefix(f"{prefix}/"): x for name, x in FIXTURE.items() if name.startswith(f"{prefix}/")
    }


def weights(agent):
    """{network/layer: tensor} with the names of the fixture; the tensors are views of the agent's own."""
    found = {}
    for name, net in {"actor": agent.actor.net, "qf": agent.qf, "qf_target": agent.qf_target}.items():
        for i, layer in enumerate(net[::2]):
            for kind in ("weight", "bias"):
                x = getattr(layer, kind).detach()[0]  # of the only seed
                views = {name: x} if name == "actor" else {f"{name}1": x[0], f"{name}2": x[1]}
                found |= {f"{key}/{i}.{kind}": view for key, view in views.items()}
    return found


@pytest.fixture
def agent(script):
    """Our SAC with SB3's initial weights; its temperature is fixed by a learning rate that moves nothing."""
    about, data = part("about"), part("data")
    lr, hidden_dim = float(about["lr"]), part("before")["actor/0.bias"].shape[0]
    flags = {"gamma": float(about["gamma"]), "tau": float(about["tau"]), "hidden_dim": hidden_dim}
    args = make_args(script, actor_lr=lr, critic_lr=lr, alpha_lr=1e-12, **flags)
    agent = script.SAC(data["obs"].shape[-1], data["actions"].shape[-1], args)
    with torch.no_grad():
        agent.log_alpha.fill_(np.log(about["alpha"]))
        for name, x in weights(agent).items():
            x.copy_(torch.as_tensor(part("before")[name]).view_as(x))
    return agent


def test_ten_updates_are_those_of_stable_baselines3(script, agent):
    data, alpha = part("data"), agent.log_alpha.item()
    updates = len(data["rewards"])
    for u in range(updates):
        batch = script.Batch(*(torch.as_tensor(data[name][u])[None] for name in script.Batch._fields))
        next_noise, noise = torch.as_tensor(data["noise"][u])
        agent.update(batch, next_noise[None], noise[None])
    assert updates == 10 and agent.log_alpha.item() == alpha
    ours, before, after = weights(agent), part("before"), part("after")
    assert ours.keys() == after.keys() and len(ours) == 30
    for name, x in ours.items():
        moved = np.abs(after[name] - before[name]).max()
        assert moved > (5e-6 if "target" in name else 5e-4), f"{name} hardly moved: nothing is compared"
        # Adam moves a weight by up to lr = 3e-4 per update, a target by 0.005 of the distance
        error = np.abs(x.numpy().reshape(after[name].shape) - after[name]).max()
        assert error < (2e-7 if "target" in name else 5e-6), f"{name}: {error}"
