"""What some published runs need beyond flags: a script of which one function is changed.

    python benchmark/interventions.py oracle mbpo --env-id dm_control/cheetah-run-v0 --device cpu
    python benchmark/interventions.py cap model_study --env-id dm_control/humanoid-stand-v0

After the intervention's name come a script (sac, mbpo, ftfl or model_study) and its flags, --resume too. The
run's args.json says what was changed, so that plots.py takes it for no run of the script as it stands.

    cut           imagined next states are cut to the range of the real ones, number by number
    noforce       quadruped does not observe forces and torques (24 of its 78 numbers)
    cool          the temperature starts at 0.01 instead of 1
    orthogonal    actor and critics start from the weights of the same authors' earlier code
    oracle        next states and rewards are the simulator's: a model without error, which is not trained
    true-states   next states are the simulator's, rewards the model's
    true-rewards  rewards are the simulator's, next states the model's
    real-actions  the model's next states and rewards, but of the action that was played in the state
    mean          imagined is the mean of the model's Gaussian, not a sample of it
    fixed         the log-variance is held at 0, so that the loss is a squared error
    cap           the log-variance may be as large as 5 instead of 0.5
"""

import contextlib
import json
import sys
import threading
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gymnasium as gym  # noqa: E402
import mujoco  # noqa: E402
import mujoco.rollout  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from ftfl import fail  # noqa: E402

SCRIPTS = ("sac", "mbpo", "ftfl", "model_study")


# ---------------------------------------- Of what the agent sees, and of where it starts
def cut_to_real_range(script):
    """Have `imagine` cut each number of an imagined next state to the range of the real ones so far."""
    imagine = script.imagine

    def imagine_in_range(agent, model, buffer, *rest):
        real = buffer.data.next_obs[:, : buffer.size]
        low = real.amin(1, keepdim=True)
        high = real.amax(1, keepdim=True)

        def sample(obs, actions):
            next_obs, rewards = script.Ensemble.sample(model, obs, actions)
            return torch.clamp(next_obs, low, high), rewards

        model.sample = sample
        return imagine(agent, model, buffer, *rest)

    script.imagine = imagine_in_range


def leave_out_forces(script):
    """Have `make_env` leave quadruped's forces and torques out of the observation."""
    make_env = script.make_env

    def make_env_without(env_id, full_observation):
        env = make_env(env_id, full_observation)
        kept = []
        for name, space in env.unwrapped.observation_space.spaces.items():
            kept += [name != "force_torque"] * int(np.prod(space.shape))
        box = env.observation_space
        space = gym.spaces.Box(box.low[kept], box.high[kept], dtype=box.dtype)
        return gym.wrappers.TransformObservation(env, lambda obs: obs[kept], space)

    script.make_env = make_env_without


def start_cool(script):
    """Have the temperature start at about where it settles."""

    class SAC(script.SAC):
        def __init__(self, *args):
            super().__init__(*args)
            self.log_alpha.data.fill_(np.log(0.01))

    script.SAC = SAC


def start_orthogonal(script):
    """Have actor and critics start as in the code of "Stealing That Free Lunch": orthogonal matrices times
    the square root of 2, outputs included, times 1 for the log std; biases 0."""

    class SAC(script.SAC):
        def __init__(self, obs_dim, act_dim, args):
            super().__init__(obs_dim, act_dim, args)
            blocks = []
            for layer in [*self.actor.net[::2], *self.qf[::2]]:
                layer.bias.data.zero_()
                blocks += [(matrix, np.sqrt(2)) for matrix in layer.weight.data.flatten(0, -3)]
            blocks += [(matrix[:, :act_dim], np.sqrt(2)) for matrix in self.actor.net[-1].weight.data]
            blocks += [(matrix[:, act_dim:], 1) for matrix in self.actor.net[-1].weight.data]
            for matrix, gain in blocks:
                matrix.copy_(torch.nn.init.orthogonal_(torch.empty(matrix.shape), gain))
            self.qf_target.load_state_dict(self.qf.state_dict())

    script.SAC = SAC


# ---------------------------------------- Of what is imagined: the simulator in the model's place
# What a task makes of rows of obs: next obs and rewards. `roll` moves the simulator by two of its steps from
# the states (joint angles and velocities) that it is given, and returns those after each step, and the
# sensors as they were before it. Both tasks observe their whole state.
def cheetah_run(obs, roll):
    """17 numbers: all of the state but the place along the track, on which nothing depends."""
    states = np.insert(obs, 0, 0, axis=1)
    after, sensors = roll(states)
    speed = sensors("torso_subtreelinvel")[:, 1, 0]  # the second step reads what the first has led to
    return after[:, 0, 1:], np.clip(speed / 10, 0, 1)  # 1 from 10 m/s on


def finger_spin(obs, roll):
    """9 numbers: two joints' angles, the spinner's tip (x, z) around its hinge, two touch sensors, which
    follow from the rest, and three velocities."""
    hinge = np.arctan2(-obs[:, 2], obs[:, 3])
    after, sensors = roll(np.column_stack([obs[:, :2], hinge, obs[:, 6:]]))
    joints, hinge, velocities = after[:, 1, :2], after[:, 1, 2], after[:, 1, 3:]
    tip = 0.13 * np.column_stack([-np.sin(hinge), np.cos(hinge)])  # the spinner's length
    touch = np.log1p(np.hstack([sensors(name)[:, 1] for name in ("touchtop", "touchbottom")]))
    rewards = velocities[:, 2] <= -15  # rad/s
    return np.hstack([joints, tip, touch, velocities]), rewards.astype(float)


SIMULATED = {"dm_control/cheetah-run-v0": cheetah_run, "dm_control/finger-spin-v0": finger_spin}


def true_step(env, obs, actions):
    """What `env` (its task is in SIMULATED) makes of obs and actions (rows, .): next obs and rewards."""
    model = env.unwrapped._env.physics.model.ptr

    def roll(states):
        states = np.insert(states, 0, 0, axis=1)  # the time comes first
        controls = np.repeat(actions[:, None], 2, 1)
        after, read = mujoco.rollout.rollout(model, mujoco.MjData(model), states, controls, nstep=2)

        def sensors(name):
            sensor = model.sensor(name)
            return read[..., sensor.adr[0] : sensor.adr[0] + sensor.dim[0]]

        return after[..., 1:], sensors

    return SIMULATED[env.unwrapped.spec.id](obs, roll)


def simulate(script, states=True, rewards=True):
    """Have the simulator say what an imagined action leads to: next states, rewards, or both; the model says
    the rest. If there is none, it is not trained."""

    class Ensemble(script.Ensemble):
        def __init__(self, obs_dim, act_dim, args):
            super().__init__(obs_dim, act_dim, args)
            if args.env_id not in SIMULATED:
                fail(f"--env-id {args.env_id}: only {' and '.join(SIMULATED)} can be simulated")
            self.env = script.make_env(args.env_id, False)

        def sample(self, obs, actions):
            flat_obs = obs.flatten(0, 1).double().cpu().numpy()
            flat_actions = actions.flatten(0, 1).double().cpu().numpy()
            next_obs, earned = true_step(self.env, flat_obs, flat_actions)
            next_obs = torch.as_tensor(next_obs, dtype=obs.dtype, device=obs.device).view_as(obs)
            earned = torch.as_tensor(earned, dtype=obs.dtype, device=obs.device).view(obs.shape[:2])
            if states and rewards:
                return next_obs, earned
            imagined_obs, imagined_rewards = super().sample(obs, actions)
            return (next_obs, imagined_rewards) if states else (imagined_obs, earned)

    script.Ensemble = Ensemble
    if states and rewards:
        script.train_model = lambda model, buffer, args: {"model/nll": torch.zeros(args.num_seeds)}


def keep_actions(script):
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


def without_noise(script):
    """Have a random elite's mean imagined, without noise."""

    class Ensemble(script.Ensemble):
        imagining = False

        def forward(self, obs, actions):
            mean, logvar = super().forward(obs, actions)
            return mean, torch.full_like(logvar, -np.inf) if self.imagining else logvar

        def sample(self, obs, actions):
            self.imagining = True
            try:
                return super().sample(obs, actions)
            finally:
                self.imagining = False

    script.Ensemble = Ensemble


# ---------------------------------------- Of the model's variance
def fix_variance(script):
    """Have the log-variance be 0: the likelihood is then the squared error."""

    class Ensemble(script.Ensemble):
        def forward(self, obs, actions):
            mean, logvar = super().forward(obs, actions)
            return mean, torch.zeros_like(logvar)

    script.Ensemble = Ensemble


def raise_cap(script):
    """Have the variance be as large as a velocity's on humanoid-stand may be: up to e^5 = 148."""

    class Ensemble(script.Ensemble):
        def __init__(self, *args):
            super().__init__(*args)
            self.max_logvar.data.fill_(5)

    script.Ensemble = Ensemble


INTERVENTIONS = {
    "cut": cut_to_real_range,
    "noforce": leave_out_forces,
    "cool": start_cool,
    "orthogonal": start_orthogonal,
    "oracle": simulate,
    "true-states": partial(simulate, rewards=False),
    "true-rewards": partial(simulate, states=False),
    "real-actions": keep_actions,
    "mean": without_noise,
    "fixed": fix_variance,
    "cap": raise_cap,
}


# ---------------------------------------- Application
def mark(script, changed):
    """Have `make_run_dirs` note in args.json that the script is a changed one, and how."""
    make_run_dirs = script.make_run_dirs

    def make_marked(args):
        run_dirs = make_run_dirs(args)
        for run_dir in run_dirs:
            path = run_dir / "args.json"
            about = json.loads(path.read_text()) | {"changed": changed}
            path.write_text(json.dumps(about, indent=2))
        return run_dirs

    script.make_run_dirs = make_marked


@contextlib.contextmanager
def applied(name, script):
    """The script (a module) with an intervention, and afterwards as it was."""
    before = dict(vars(script))
    try:
        INTERVENTIONS[name](script)
        mark(script, name)
        yield script
    finally:
        vars(script).update(before)


def main(argv):
    if len(argv) < 2 or argv[0] not in INTERVENTIONS or argv[1] not in SCRIPTS:
        fail(f"INTERVENTION and SCRIPT: one of {', '.join(INTERVENTIONS)}, and one of {', '.join(SCRIPTS)}")
    name, script_name, *flags = argv
    program = import_module(script_name)
    args = program.parse_args(flags)
    script = program
    if script_name == "model_study":
        script = program.SCRIPTS[args.script]
    try:
        with applied(name, script):
            program.main(args)
    except KeyboardInterrupt:  # of a model study; a script catches it
        fail("stopped", 130)
    except (OSError, MemoryError, RuntimeError) as error:
        script.explain(error)


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    threading.excepthook = lambda _: None  # as in the scripts
    main(sys.argv[1:])
