"""What does the model's error cost MBPO? Its runs with the simulator in the model's place, or in a part of
it: those behind REPRODUCTION.md's sections on cheetah-run and finger-spin.

    python benchmark/oracle.py --rows oracle real-actions      # six runs of some ten minutes
    python benchmark/oracle.py --rows oracle --seeds 1         # one of them
    python benchmark/oracle.py --task finger-spin --rows oracle true-rewards   # of some 20 to 30 minutes
    python benchmark/oracle.py --effects RUN RUN               # what their models know of an action's effect
    python benchmark/oracle.py --fits RUN RUN                  # new models, fitted to these runs' transitions
    python benchmark/oracle.py --list                          # the rows, as the commands they stand for

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
runs, and all have their flags and seeds; finger-spin's are of 25,000 steps. What is complete is skipped, what
is partial goes on. Different runs may go side by side. The numbers go to
benchmark/results/oracle/TASK/ROW__seedK.csv.
"""

import csv
import shlex
import sys
from dataclasses import dataclass, replace
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
import studies  # noqa: E402
import sweep  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import plots  # noqa: E402
import sac  # noqa: E402

TAGS = [*grid.TAGS, "charts/episodic_return"]


# What a task makes of rows of obs: next obs and rewards. `roll` moves the simulator by two of its steps from
# the states (joint angles and velocities) that it is given, and returns those after each step, and the
# sensors as they were before it. Both tasks observe their whole state.
def cheetah_run(obs, roll):
    """17 numbers: all of the state but the place along the track, on which nothing depends."""
    after, sensors = roll(np.insert(obs, 0, 0, axis=1))  # the second step reads what the first has led to
    return after[:, 0, 1:], np.clip(sensors("torso_subtreelinvel")[:, 1, 0] / 10, 0, 1)  # 1 from 10 m/s on


def finger_spin(obs, roll):
    """9 numbers: two joints' angles, the spinner's tip (x, z) around its hinge, two touch sensors, which
    follow from the rest, and three velocities."""
    hinge, length = np.arctan2(-obs[:, 2], obs[:, 3]), 0.13
    after, sensors = roll(np.column_stack([obs[:, :2], hinge, obs[:, 6:]]))
    joints, hinge, velocities = after[:, 1, :2], after[:, 1, 2], after[:, 1, 3:]
    tip = length * np.column_stack([-np.sin(hinge), np.cos(hinge)])
    touch = np.log1p(np.hstack([sensors(name)[:, 1] for name in ("touchtop", "touchbottom")]))
    return np.hstack([joints, tip, touch, velocities]), (velocities[:, 2] <= -15).astype(float)  # rad/s


TASKS = {"cheetah-run": (cheetah_run, ""), "finger-spin": (finger_spin, "--total-timesteps 25000")}


def env_id_of(task):
    return f"dm_control/{task}-v0"


def flags_of(task):
    """The flags of all rows on a task."""
    shared = f"--env-id {env_id_of(task)} --device cpu --checkpoint-interval 2500"
    return f"{shared} {sweep.PRESETS['laptop']['flags']} {TASKS[task][1]}"


def true_step(env, obs, actions):
    """What `env`, one of TASKS, makes of rows of obs and actions (rows, .): next obs and rewards."""
    model = env.unwrapped._env.physics.model.ptr

    def roll(states):
        states, controls = np.insert(states, 0, 0, axis=1), np.repeat(actions[:, None], 2, 1)  # time first
        after, read = mujoco.rollout.rollout(model, mujoco.MjData(model), states, controls, nstep=2)

        def sensors(name):
            sensor = model.sensor(name)
            return read[..., sensor.adr[0] : sensor.adr[0] + sensor.dim[0]]

        return after[..., 1:], sensors

    task = env.unwrapped.spec.id.removeprefix("dm_control/").removesuffix("-v0")
    return TASKS[task][0](obs, roll)


def simulate(script, task, states=True, rewards=True):
    """Have the simulator say what an imagined action leads to: next states, rewards, or both; the model says
    the rest. If there is none, it is not trained."""
    env = script.make_env(env_id_of(task), False)

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


def keep_actions(script, task):
    """Have `imagine` take the action that was played in the real state, for rollouts of one step."""

    @torch.no_grad()
    def imagine(agent, model, buffer, synthetic_buffer, is_terminal, step, args):
        real = buffer.take(torch.randint(buffer.size, (args.num_seeds, args.rollouts_per_step)))
        next_obs, rewards = model.sample(real.obs, real.actions)
        terminals = is_terminal(next_obs).float()
        batch = script.Batch(real.obs, real.actions, rewards, next_obs, terminals)
        synthetic_buffer.add(batch)
        return batch

    script.imagine = imagine


def without_noise(script, task):
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
def action_effects(run_dir, task, rows=4_000):
    """What the model in a run's checkpoint knows of its task, and what it knows of the difference that an
    action makes: two lines, {column: value}, for two actions of the policy in each real state, and for two
    uniform ones. An R2 of effects is 1 - (mean squared error of the difference between what the two actions
    lead to) / (mean square of the true one); the share of effects is what is left of the variance when the
    state is known. Of next states the median over their numbers, of the change s' - s; r2_by_number has all.
    The value of a next state is what the target critics say of it; sampled_ is with the noise that imagined
    ones have."""
    script, args, agent, step = evaluate.load(run_dir)
    state = model_study.read_run(run_dir)
    if args.env_id != env_id_of(task) or "model" not in state:
        plots.fail(f"--effects {run_dir}: it must be a run of mbpo.py or ftfl.py, on {task} (--task)")
    all_obs, all_actions = (x[0] for x in state["buffer"]["data"][:2])
    obs_dim, act_dim = all_obs.shape[1], all_actions.shape[1]
    model, env = script.Ensemble(obs_dim, act_dim, args), script.make_env(args.env_id, False)
    model.load_state_dict(state["model"])
    torch.manual_seed(0)
    obs = all_obs[torch.randint(len(all_obs), (rows,))]
    next_noise = torch.randn(1, rows, act_dim)

    def value(next_obs):
        next_actions, _ = agent.actor.sample(next_obs[None], next_noise)
        return agent.q_values(agent.qf_target, next_obs[None], next_actions).min(1).values[0]

    def results(next_obs, rewards):
        """(rows, obs + 2): the change, the reward, and the value of the next state."""
        return torch.cat([next_obs - obs, rewards[:, None], value(next_obs)[:, None]], -1)

    lines = []
    for kind in ("policy", "uniform"):
        true, known, sampled = [], [], []
        for _ in range(2):
            actions = agent.actor.sample(obs[None], torch.randn(1, rows, act_dim))[0][0]
            if kind == "uniform":
                actions = 2 * torch.rand(rows, act_dim) - 1
            next_obs, rewards = true_step(env, obs.double().numpy(), actions.double().numpy())
            true.append(results(torch.as_tensor(next_obs).float(), torch.as_tensor(rewards).float()))
            mean, _ = model(obs[None, None], actions[None, None])
            next_obs, rewards = model.to_transition(obs[None, None], mean[:, model.elites[0]])
            known.append(torch.stack([results(*elite) for elite in zip(next_obs[0], rewards[0])]))
            sampled.append(results(*(x[0] for x in model.sample(obs[None], actions[None]))))
        variance, effect = true[0].var(0), true[0] - true[1]  # (obs + 2,), (rows, obs + 2)

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
        line |= {"algorithm": plots.algorithm(vars(args) | line), "actions": kind}
        for name, numbers in columns.items():
            found = {"reward": numbers[-2], "next_state": numbers[:-2].median(), "value": numbers[-1]}
            line |= {f"{of}_{name}": f"{number:.4g}" for of, number in found.items()}
        line["r2_by_number"] = " ".join(f"{number:.3g}" for number in columns["r2"][:-2])
        lines.append(line)
    return lines


FITS = ("mbpo", "tun", "ftfl")  # whose models --fits fits, with 20,000 gradient steps


def about_data(data, rows):
    """Of transitions, without a model, {column: value}: what share has a reward, and a change s' - s of more
    than 1, number by number; and the R2 on `rows` of a linear regression from (s, a), fitted to the rest."""
    ones, rest = np.ones((len(data.obs), 1)), np.delete(np.arange(len(data.obs)), rows)
    x = np.hstack([data.obs, data.actions, ones])
    y = np.hstack([data.next_obs - data.obs, data.rewards[:, None]])
    errors = x[rows] @ np.linalg.lstsq(x[rest], y[rest])[0] - y[rows]
    r2 = 1 - (errors**2).mean(0) / y[rows].var(0)
    about = {"rewarded": (data.rewards > 0).mean(), "linear_reward_r2": r2[-1]}
    by_number = {"changed": (abs(y[:, :-1]) > 1).mean(0), "linear_r2": r2[:-1]}
    about = {name: f"{x:.4g}" for name, x in about.items()}
    return about | {f"{k}_by_number": " ".join(f"{x:.3g}" for x in v) for k, v in by_number.items()}


def fits(run_dir, task, num_steps=20_000):
    """Fit new models of the laptop preset's size to all transitions of a run. Returns a line per model,
    {column: value}: the R2 on its holdout of the reward, and of each number's change s' - s; `about_data`."""
    data, env_id, full_observation = model_study.read_buffer(run_dir)
    run, lines = model_study.read_run(run_dir), []
    groups = model_study.observation_groups(env_id, full_observation)
    for setting in FITS:
        words = f"{flags_of(task)} {studies.SETTINGS[setting]} --seed {run['flags']['seed']}"
        args = replace(ftfl.parse_args(words.split()), log_interval=num_steps)
        model = model_study.fit(ftfl, args, data, groups, num_steps, lambda step, logs: None)
        rows = ftfl.split_rows(args, len(data.obs))[1][0]
        held_out = ftfl.Batch(*(torch.as_tensor(x)[None, None, rows] for x in data))
        with torch.no_grad():
            mean, _ = model(held_out.obs, held_out.actions)  # (1, networks, rows, obs + 1)
            next_obs, rewards = model.to_transition(held_out.obs, mean[:, model.elites[0]])
        errors = torch.cat([next_obs - held_out.next_obs, (rewards - held_out.rewards)[..., None]], -1)
        real = torch.cat([held_out.next_obs - held_out.obs, held_out.rewards[..., None]], -1)
        r2 = (1 - errors.square().mean((0, 1, 2)) / real.var((0, 1, 2))).tolist()
        line = {"data": run["script"], "seed": args.seed, "transitions": len(data.obs), "model": setting}
        line |= {"reward_r2": f"{r2[-1]:.4g}", "r2_by_number": " ".join(f"{x:.3g}" for x in r2[:-1])}
        lines.append(line | about_data(data, rows.numpy()))
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
    task: str = "cheetah-run"  # or finger-spin
    seeds: tuple[int, ...] = (1, 2, 3)  # a run of each
    run_dir: str = "runs/oracle"  # folder with a folder per task and run
    out: str = str(ROOT / "benchmark/results/oracle")  # folder with a folder per task for the CSV
    effects: tuple[str, ...] = ()  # measure the models in these run directories; run no rows
    fits: tuple[str, ...] = ()  # fit models to these run directories' transitions; run no rows
    list: bool = False  # print the rows, run nothing


def words_of(script, flags):
    """A command's flags, of which sac.py takes none of the model's."""
    flags = sweep.split_flags(flags).items()
    kept = [(name, values) for name, values in flags if script is not sac or not name.startswith("--model")]
    return [word for name, values in kept for word in (name, *values)]


def export(run_dir, out):
    """Write a run's numbers as CSV."""
    tags = tuple(tag for tag in TAGS if tag in plots.read_run_dir(run_dir).scalars)
    grid.export_as(out, run_dir, tags, run_dir.parent.parent.parent, Args.run_dir)


def main(args):
    if args.task not in TASKS:
        plots.fail(f"--task {args.task}: there is no such task, but {', '.join(TASKS)}")
    for run_dir in args.fits:  # all of them, before minutes of fits to the first
        try:
            env_id = model_study.read_run(run_dir)["flags"]["env_id"]
        except Exception as error:
            plots.fail(f"--fits {run_dir}: no run to fit models to ({model_study.short(error)})")
        if env_id != env_id_of(args.task):
            plots.fail(f"--fits {run_dir}: it must be a run on {args.task} (--task)")
    folder = Path(args.out) / args.task
    for name, run_dirs, measure in (("effects", args.effects, action_effects), ("fits", args.fits, fits)):
        lines = [line for run_dir in run_dirs for line in measure(run_dir, args.task)]
        if lines:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"{name}.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, lines[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)
    if args.effects or args.fits:
        return
    for name in args.rows:
        if name not in ROWS:
            plots.fail(f"--rows {name}: there is no such row, but {', '.join(ROWS)}")
    for seed in args.seeds:
        for name in args.rows:
            script, flags, changes = ROWS[name]
            words = words_of(script, f"{flags_of(args.task)} {flags} --seed {seed}")
            run = f"{name}__seed{seed}"
            out = folder / f"{run}.csv"
            if args.list:
                print(f"{run}: python {script.__name__}.py {shlex.join(words)}")
            elif out.exists():
                print(f"{run}: complete")
            else:
                out.parent.mkdir(parents=True, exist_ok=True)  # what can't be written fails before the run
                changes = [partial(change, task=args.task) for change in changes]
                (run_dir,) = critics.run(script, words, Path(args.run_dir) / args.task / run, changes, name)
                export(run_dir, out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
