"""Why does MBPO fall behind SAC on cheetah-run, though its model is good? The runs behind REPRODUCTION.md's
section on it.

    python benchmark/cheetah.py --rows oracle real-actions      # six runs of some ten minutes
    python benchmark/cheetah.py --rows oracle --seeds 1         # one of them
    python benchmark/cheetah.py --effects RUN RUN               # what their models know of an action's effect
    python benchmark/cheetah.py --list                          # the rows, as the commands they stand for

An imagined transition (s, a, r, s') differs from a real one in two ways: the action is the policy's of
now, and r and s' are the model's. Each row of mbpo.py takes one of them away, or a part:

    oracle        the policy's actions, but r and s' are the simulator's: a model without error
    true-states   s' is the simulator's, r the model's
    true-rewards  r is the simulator's, s' the model's
    real-actions  the model's r and s', but the action is the one that was played in s
    mean          as MBPO, but r and s' are the mean of the model's Gaussian, not a sample of it
    real50        as MBPO, but half of each batch is real
    paper-model   as MBPO, with the scripts' model instead of the laptop preset's

Real actions and the simulator's r and s' together are SAC. The rows sac, mbpo and ftfl are the laptop grid's
runs, and all have their flags and seeds. What is complete is skipped, what is partial goes on. Different runs
may go side by side. The numbers go to benchmark/results/cheetah/ROW__seedK.csv.
"""

import csv
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import critics  # noqa: E402
import evaluate  # noqa: E402
import grid  # noqa: E402
import model_study  # noqa: E402
import mujoco  # noqa: E402
import mujoco.rollout  # noqa: E402
import numpy as np  # noqa: E402
import sweep  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import plots  # noqa: E402
import sac  # noqa: E402

TASK = "dm_control/cheetah-run-v0"
FLAGS = f"--env-id {TASK} --device cpu --checkpoint-interval 2500 {sweep.PRESETS['laptop']['flags']}"
TAGS = [*grid.TAGS, "charts/episodic_return"]


def true_step(env, obs, actions):
    """What `env`, a cheetah-run, makes of rows of obs (rows, 17) and actions (rows, 6): next obs and rewards.
    The observation is the state, but for the place along the track, on which nothing depends."""
    physics = env.unwrapped._env.physics
    model = physics.model.ptr
    states = np.zeros((len(obs), mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    states[:, 2:] = obs  # after time and place
    # Sensors are read before each step: a second one reads what the first has led to
    after, sensors = mujoco.rollout.rollout(model, mujoco.MjData(model), states, actions[:, None], nstep=2)
    speed = sensors[:, 1, model.sensor("torso_subtreelinvel").adr[0]]
    return after[:, 0, 2:], np.clip(speed / 10, 0, 1)  # the suite's reward: 1 from 10 m/s on


def simulate(script, states=True, rewards=True):
    """Have the simulator say what an imagined action leads to: next states, rewards, or both; the model says
    the rest. If there is none, it is not trained."""
    env = script.make_env(TASK, False)

    class Ensemble(script.Ensemble):
        def sample(self, obs, actions):
            flat = (x.flatten(0, 1).double().numpy() for x in (obs, actions))
            next_obs, earned = (torch.as_tensor(x, dtype=torch.float32) for x in true_step(env, *flat))
            truth = next_obs.view_as(obs), earned.view(obs.shape[:2])
            imagined = truth if states and rewards else super().sample(obs, actions)
            return truth[0] if states else imagined[0], truth[1] if rewards else imagined[1]

    script.Ensemble = Ensemble
    if states and rewards:
        script.train_model = lambda model, buffer, args: {"model/nll": torch.zeros(args.num_seeds)}


def keep_actions(script):
    """Have `imagine` take the action that was played in the real state, for rollouts of one step."""

    @torch.no_grad()
    def imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args):
        real = buffer.sample(torch.randint(buffer.size, (args.num_seeds, args.rollouts_per_step)))
        next_obs, rewards = model.sample(real.obs, real.actions)
        terminals = is_terminal(next_obs).float()
        batch = script.Batch(real.obs, real.actions, rewards, next_obs, terminals)
        synthetic_buffer.add(batch)
        return batch

    script.imagine = imagine


def without_noise(script):
    """Have a random elite's mean imagined, without noise."""

    class Ensemble(script.Ensemble):
        def forward(self, obs, actions):
            mean, logvar = super().forward(obs, actions)
            return mean, torch.full_like(logvar, -np.inf) if self.imagining else logvar

        imagining = False

        def sample(self, obs, actions):
            self.imagining = True
            try:
                return super().sample(obs, actions)
            finally:
                self.imagining = False

    script.Ensemble = Ensemble


@torch.no_grad()
def action_effects(run_dir, rows=4_000):
    """What the model in a run's checkpoint knows of cheetah-run, and what it knows of the difference that an
    action makes: two lines, {column: value}, for two actions of the policy in each real state, and for two
    uniform ones. An R2 of effects is 1 - (mean squared error of the difference between what the two actions
    lead to) / (mean square of the true one); the share of effects is what is left of the variance when the
    state is known. Of next states the median over their numbers, of the change s' - s. The value of a next
    state is what the target critics say of it; sampled_ is with the noise that imagined ones have."""
    script, args, agent, step = evaluate.load(run_dir)
    state = model_study.read_run(run_dir)
    if args.env_id != TASK or "model" not in state:
        plots.fail(f"--effects {run_dir}: it must be a run of mbpo.py or ftfl.py, on {TASK}")
    model, env = script.Ensemble(17, 6, args), script.make_env(TASK, False)
    model.load_state_dict(state["model"])
    all_obs = state["buffer"]["data"][0][0]
    torch.manual_seed(0)
    obs = all_obs[torch.randint(len(all_obs), (rows,))]
    next_noise = torch.randn(1, rows, 6)

    def value(next_obs):
        next_actions, _ = agent.actor.sample(next_obs[None], next_noise)
        return agent.q_values(agent.qf_target, next_obs[None], next_actions).min(1).values[0]

    def results(next_obs, rewards):
        """(rows, 19): the change, the reward, and the value of the next state."""
        return torch.cat([next_obs - obs, rewards[:, None], value(next_obs)[:, None]], -1)

    lines = []
    for kind in ("policy", "uniform"):
        true, known, sampled = [], [], []
        for _ in range(2):
            actions = agent.actor.sample(obs[None], torch.randn(1, rows, 6))[0][0]
            if kind == "uniform":
                actions = 2 * torch.rand(rows, 6) - 1
            next_obs, rewards = true_step(env, obs.double().numpy(), actions.double().numpy())
            true.append(results(torch.as_tensor(next_obs).float(), torch.as_tensor(rewards).float()))
            mean, _ = model(obs[None, None], actions[None, None])
            next_obs, rewards = model.to_transition(obs[None, None], mean[:, model.elites[0]])
            known.append(torch.stack([results(*elite) for elite in zip(next_obs[0], rewards[0])]))
            sampled.append(results(*(x[0] for x in model.sample(obs[None], actions[None]))))
        variance, effect = true[0].var(0), true[0] - true[1]  # (19,), (rows, 19)

        def effect_r2(first, second):
            errors = (first - second - effect).square().flatten(0, -2).mean(0)
            return 1 - errors / effect.square().mean(0)

        columns = {
            "r2": 1 - (known[0] - true[0]).square().mean((0, 1)) / variance,
            "effect_share": effect.square().mean(0) / 2 / variance,
            "effect_r2": effect_r2(*known),
            "sampled_effect_r2": effect_r2(*sampled),
        }
        line = {"script": script.__name__, "width": args.model_hidden_dim, "seed": args.seed, "step": step}
        line["actions"] = kind
        for name, numbers in columns.items():
            found = {"reward": numbers[-2], "next_state": numbers[:-2].median(), "value": numbers[-1]}
            line |= {f"{of}_{name}": f"{number:.4g}" for of, number in found.items()}
        lines.append(line)
    return lines


ROWS = {  # name: (script, further flags, changes to the script)
    "sac": (sac, "", []),
    "mbpo": (mbpo, "", []),
    "ftfl": (ftfl, "", []),
    "oracle": (mbpo, "", [simulate]),
    "true-states": (mbpo, "", [partial(simulate, rewards=False)]),
    "true-rewards": (mbpo, "", [partial(simulate, states=False)]),
    "real-actions": (mbpo, "", [keep_actions]),
    "mean": (mbpo, "", [without_noise]),
    "real50": (mbpo, "--real-ratio 0.5", []),
    "paper-model": (mbpo, "--model-hidden-dim 200 --model-batch-size 256 --model-train-steps 5000", []),
}


@dataclass
class Args:
    rows: tuple[str, ...] = tuple(ROWS)  # which rows
    seeds: tuple[int, ...] = (1, 2, 3)  # a run of each
    run_dir: str = "runs/cheetah"  # folder with a folder per run
    out: str = str(ROOT / "benchmark/results/cheetah")  # folder for a CSV per run
    effects: tuple[str, ...] = ()  # measure the models in these run directories; run no rows
    list: bool = False  # print the rows, run nothing


def words_of(script, flags):
    """A command's flags, of which sac.py takes none of the model's."""
    flags = sweep.split_flags(flags).items()
    kept = [(name, values) for name, values in flags if script is not sac or not name.startswith("--model")]
    return [word for name, values in kept for word in (name, *values)]


def export(run_dir, out):
    """Write a run's numbers as CSV."""
    tags = tuple(tag for tag in TAGS if tag in plots.read_run_dir(run_dir).scalars)
    plots.export((str(run_dir),), str(out), tags)
    folder = str(run_dir.parent.parent)  # of this machine
    out.write_text(out.read_text().replace(folder, Args.run_dir))


def main(args):
    if args.effects:
        lines = [line for run_dir in args.effects for line in action_effects(run_dir)]
        Path(args.out).mkdir(parents=True, exist_ok=True)
        with open(Path(args.out) / "effects.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, lines[0], lineterminator="\n")
            writer.writeheader()
            return writer.writerows(lines)
    for name in args.rows:
        if name not in ROWS:
            plots.fail(f"--rows {name}: there is no such row, but {', '.join(ROWS)}")
    for seed in args.seeds:
        for name in args.rows:
            script, flags, changes = ROWS[name]
            words, run = words_of(script, f"{FLAGS} {flags} --seed {seed}"), f"{name}__seed{seed}"
            out = Path(args.out) / f"{run}.csv"
            if args.list:
                print(f"{run}: python {script.__name__}.py {shlex.join(words)}")
            elif out.exists():
                print(f"{run}: complete")
            else:
                out.parent.mkdir(parents=True, exist_ok=True)  # what can't be written fails before the run
                (run_dir,) = critics.run(script, words, Path(args.run_dir) / run, changes)
                export(run_dir, out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
