"""Fit the model alone, to transitions that stay the same: what it learns of states and rewards.

    python benchmark/model_study.py --env-id dm_control/humanoid-stand-v0                 # FTFL's model
    python benchmark/model_study.py --env-id dm_control/humanoid-stand-v0 --script mbpo   # MBPO's
    python benchmark/model_study.py --buffer runs/dm_control-humanoid-stand-v0__ftfl__1__...

The transitions are those of a random policy, or of the run directory or NPZ file that --buffer names. The fit
is `train_model` of mbpo.py or ftfl.py itself, so it is the model's first training in a run, with --steps
gradient steps instead of --model-train-steps. Every --log-interval gradient steps it logs what a run logs of
its model, and what the elites predict of their own errors on the holdout: the variance, as a mean over the
numbers of a group, and how often errors stay within one and two of its square roots (of a Gaussian, 0.68 and
0.95 of all do):

    model/predicted_variance_{position,velocity,other,reward}   in the environment's units, squared
    model/trained_variance_{position,velocity,other,reward}     in the units trained in, squared
    model/within_{one,two}_std_{state,reward}                   share of the held-out numbers

--num-seeds fits side by side: each seed has its own holdout, bootstrap and networks, on the same transitions.
Each gets a run directory that plots.py reads: `forensics` and `demo` draw it. Flags of the script that a
study has not are in args.json with their defaults.
"""

import json
import os
import re
import sys
import zipfile
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import ftfl
import mbpo
from ftfl import HOLDOUT_BLOCK, Batch, fail

SCRIPTS = {"ftfl": ftfl, "mbpo": mbpo}
COLLECT_SEED = 0  # of the random transitions: those of a task are the same in every study, whatever its seeds
COLUMNS = {  # of the printed table
    "model/reward_r2": "reward R2",
    "rewards/real": "real reward",
    "rewards/synthetic": "synthetic",
    "model/next_state_r2": "next-state R2",
    "model/holdout_mse": "holdout MSE",
}


@dataclass
class Args:
    """Flags of a model study: those that ftfl.py has too have its defaults."""

    script: Literal["ftfl", "mbpo"] = "ftfl"  # whose model
    buffer: str = ""  # a run directory with checkpoint.pt (its first seed's transitions), or an NPZ file
    env_id: str = ""  # the task of the random transitions, humanoid-stand by default; else that of --buffer
    collect: int = 10_000  # random transitions, if there is no --buffer: one stream, the same for every seed
    save: str = ""  # an NPZ file to write the transitions to, for --buffer
    steps: int = 5_000  # gradient steps (in a run: --model-train-steps)
    target_normalization: bool = True  # of ftfl: targets of mean 0, variance 1, reward too
    next_state_prediction: Literal["direct", "residual"] = "direct"  # of ftfl: the target is s', or s' - s
    ensemble_size: int = 7  # networks in the ensemble
    num_elites: int = 5  # networks that imagine: those with the smallest holdout error
    model_hidden_dim: int = 200  # width of the four hidden layers
    model_lr: float = 3e-4  # Adam's learning rate
    model_batch_size: int = 256  # transitions per network in one gradient step
    learned_logvar_bounds: bool = False  # learn the bounds of the log-variance, as PETS does
    nll_beta: float = 0.0  # weigh losses by predicted variance^beta: 0 is the likelihood, 1 squared error
    full_observation: bool = False  # random transitions have the forces that Ant-v5 and Humanoid-v5 observe
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds fitted side by side: seed, seed + 1, ...
    log_interval: int = 100  # gradient steps between logged numbers; changes nothing in the fit
    run_dir: str = "runs/forensics"  # folder that gets one folder per seed
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda or cuda:N
    num_threads: int = 1  # CPU threads
    compile: bool = False  # one graph per update: 15 seconds at first, then faster


# ---------------------------------------- Transitions
def short(error):
    """An exception as text that fits on a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def read_run(run_dir):
    """The checkpoint of a run of any script. Raises if there is none or it is damaged; runs no code in it."""
    path = Path(run_dir) / "checkpoint.pt"
    if not path.is_file():
        raise ValueError(
            "no checkpoint.pt in it (seeds trained side by side have one, in the first's directory)"
        )
    with zipfile.ZipFile(path) as file:  # torch writes checksums, but does not look at them
        if damaged := file.testzip():
            raise ValueError(f"damaged at {damaged}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["script"] not in ("sac", "mbpo", "ftfl"):
        raise ValueError("no run of sac.py, mbpo.py or ftfl.py")
    check_task_name(state["flags"]["env_id"])
    return state


def check_task_name(env_id):
    """Raise if gymnasium would import a module to make this task: MODULE:TASK in a file is code."""
    if not re.fullmatch(r"[\w/-]+", env_id):
        raise ValueError(f"no name of a task: {env_id!r}")


def read_buffer(path):
    """The transitions that --buffer names: a Batch of float32 arrays (rows, ...), the task, and whether its
    observations are the full ones. Of a run, the first seed's. Exits if they can't be used."""
    try:
        if Path(path).is_dir():
            state = read_run(path)
            env_id, arrays = state["flags"]["env_id"], [x[0].numpy() for x in state["buffer"]["data"]]
        else:
            with np.load(path, allow_pickle=False) as file:
                env_id, arrays = str(file["env_id"]), [file[name] for name in Batch._fields]
            check_task_name(env_id)
        if any(x.dtype.kind not in "fiub" or not np.isfinite(x).all() for x in arrays):
            raise ValueError("not all of it are finite numbers")
        batch = Batch(*(x.astype(np.float32) for x in arrays))
        rows, obs_dim = batch.obs.shape
        if rows < 2 * HOLDOUT_BLOCK:
            raise ValueError(f"{rows} transitions, where {2 * HOLDOUT_BLOCK} are needed")
        for full_observation in (False, True):
            env = ftfl.make_env(env_id, full_observation)
            env.close()
            if env.observation_space.shape == (obs_dim,):
                break
        act_dim = env.action_space.shape[0]
        expected = Batch(env.observation_space.shape, (act_dim,), (), env.observation_space.shape, ())
        if tuple(x.shape for x in batch) != tuple((rows, *shape) for shape in expected):
            raise ValueError(f"arrays of other shapes than {env_id} has")
        return batch, env_id, full_observation
    except Exception as error:  # a broken file can raise anything
        fail(f"--buffer {path}: no transitions to fit a model to ({short(error)})")


def collect(script, args, num_rows, seed=COLLECT_SEED):
    """Transitions of uniformly random actions, as a Batch of float32 arrays (rows, ...). The first of so many
    more are the same ones."""
    args = replace(args, seed=seed, num_seeds=1)
    generator, starts, rows = torch.Generator().manual_seed(seed), [0], []
    envs = script.make_envs(args)
    obs = script.reset_envs(envs, args, starts, np.ones(1, dtype=bool))
    for step in tqdm(range(1, num_rows + 1), f"random {args.env_id}", unit="step"):
        actions = 2 * torch.rand(1, envs.single_action_space.shape[0], generator=generator).numpy() - 1
        next_obs, rewards, terminations, truncations, _ = envs.step(actions)
        rows.append([x[0] for x in (obs, actions, rewards, next_obs, terminations)])
        obs = next_obs
        if terminations[0] or truncations[0]:
            starts = [step]
            obs = script.reset_envs(envs, args, starts, terminations | truncations)
    envs.close()
    return Batch(*(np.array(x, dtype=np.float32) for x in zip(*rows)))


def save_transitions(path, batch, env_id):
    """Write a Batch of arrays (rows, ...) to an NPZ file, as a whole."""
    temporary = Path(f"{path}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **batch._asdict(), env_id=env_id)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        fail(f"--save {path} can't be written: {short(error)}", 1)


# ---------------------------------------- Groups of observations
def observation_groups(env_id, full_observation):
    """What each number of a flat observation is, (obs,) str: "position" (angles, heights, directions),
    "velocity" or "other", read off the names that DMC and Gymnasium give to the parts of an observation.

    "other" is what is measured by force, touch or inertia, parts that mix both (quadruped's
    egocentric_state), and everything in a task that names no parts.
    """
    env = ftfl.make_env(env_id, full_observation)
    env.close()
    obs_dim, env = env.observation_space.shape[0], env.unwrapped
    sizes = dict(getattr(env, "observation_structure", None) or {"unnamed": obs_dim})
    if hasattr(env.observation_space, "spaces"):  # a Dict, flattened in its order
        sizes = {name: int(np.prod(space.shape)) for name, space in env.observation_space.spaces.items()}
    sizes.pop("skipped_qpos", None)  # coordinates that are left out of the observation
    other = "force frc touch sensor imu inert actuator state rangefinder ten_ unnamed".split()
    groups = []
    for name, size in sizes.items():
        group = "velocity" if "vel" in name else "position"
        groups += ["other" if any(word in name for word in other) else group] * size
    return np.array(groups)


@torch.no_grad()
def evaluate(script, model, holdout, groups):
    """What the script logs of a model on its holdout, and what the elites predict of their errors there.

    holdout is a Batch (seeds, 1, rows, ...), groups as of `observation_groups`. Returns {tag: (seeds, ...)}.
    The elites are chosen anew, as after each training of a run; nothing else changes.
    """
    logs = {"model/holdout_mse": script.choose_elites(model, holdout)}
    logs |= script.evaluate_model(model, holdout)

    elites = model.elites[:, :, None, None]
    mean, logvar = model(holdout.obs, holdout.actions)
    mean = torch.take_along_dim(mean, elites, dim=1)  # (seeds, elites, rows, obs + 1)
    std = torch.take_along_dim((0.5 * logvar).exp(), elites, dim=1)
    distances = ((model.targets(holdout) - mean) / std).abs()  # from the mean, counted in std
    for name, limit in (("one", 1), ("two", 2)):
        is_within = (distances < limit).float()
        logs[f"model/within_{name}_std_state"] = is_within[..., :-1]
        logs[f"model/within_{name}_std_reward"] = is_within[..., -1]

    # The script logs a std in the environment's units, too, for which it knows its own targets.
    variances = {"trained": std.square(), "predicted": logs["model/predicted_std"].square()}
    groups = np.append(groups, "reward")
    for group in dict.fromkeys(groups):
        dims = torch.as_tensor(np.flatnonzero(groups == group), device=std.device)
        for units, variance in variances.items():
            logs[f"model/{units}_variance_{group}"] = variance[..., dims]
    return logs


# ---------------------------------------- Study
def fit(script, args, batch, groups, num_steps, record):
    """Fit a new model to a Batch of arrays (rows, ...). Returns the model.

    args are those of the script. record(step, logs) gets {tag: (seeds, ...)} every args.log_interval gradient
    steps and at the end.
    """
    device = torch.device(args.device)
    script.set_up_torch(args, device)
    torch.manual_seed(args.seed)
    obs_dim = batch.obs.shape[1]
    act_dim = batch.actions.shape[1]
    with device:
        model = script.Ensemble(obs_dim, act_dim, args)
        buffer = script.ReplayBuffer(args.num_seeds, len(batch.obs), obs_dim, act_dim)
        buffer.add(Batch(*[torch.as_tensor(x).expand(args.num_seeds, *x.shape) for x in batch]))
    if args.compile:
        script.compile_updates({"model": model}, device)
    _, holdout_rows = script.split_rows(args, buffer.size)
    holdout = script.take_holdout(buffer, holdout_rows)
    update = model.update
    step = 0

    def update_and_record(batch):
        nonlocal step
        logs = update(batch)
        step += 1
        if step % args.log_interval == 0 or step == num_steps:
            if not logs["model/nll"].isfinite().all():
                fail(f"gradient step {step}: the loss is not finite (a smaller --model-lr?)", 1)
            record(step, logs | evaluate(script, model, holdout, groups))
        return logs

    # The script's own training calls this in place of `update`, so that nothing of it is written again here.
    model.update = update_and_record
    script.train_model(model, buffer, replace(args, model_train_steps=num_steps))
    model.update = update
    return model


def main(study):
    """Collect or read transitions, fit, log, print a table. Returns the run directories, one per seed."""
    script = SCRIPTS[study.script]
    for name, least in {"collect": 2 * HOLDOUT_BLOCK, "steps": 1}.items():
        if getattr(study, name) < least:
            fail(f"--{name} must be at least {least}, not {getattr(study, name)}")
    if study.save and (Path(study.save).suffix != ".npz" or not Path(study.save).resolve().parent.is_dir()):
        fail(f"--save {study.save}: must be a file named .npz, in a folder that is there")
    names = {f.name for f in fields(script.Args)} & {f.name for f in fields(study)} - {"env_id"}
    args = script.Args(**{name: getattr(study, name) for name in names})
    args.env_id = study.env_id or args.env_id
    if study.buffer:
        batch, args.env_id, args.full_observation = read_buffer(study.buffer)
        if study.env_id not in ("", args.env_id, args.env_id.rsplit("-v", 1)[0]):
            fail(f"--env-id {study.env_id}: the transitions of --buffer are of {args.env_id}")
    script.check_args(args)
    args.env_id = script.full_env_id(args.env_id)
    args.device = str(script.choose_device(args))
    if study.buffer:
        digest = zlib.crc32(b"".join(x.tobytes() for x in batch))  # two files may have one name
        about = f"{Path(study.buffer).resolve().name} {len(batch.obs)} {digest:08x}"
    else:
        batch, about = collect(script, args, study.collect), f"random {args.env_id} {study.collect}"
    if study.save:
        save_transitions(study.save, batch, args.env_id)

    groups = observation_groups(args.env_id, args.full_observation)
    run_dirs = script.make_run_dirs(args)
    for run_dir in run_dirs:
        flags = json.loads((run_dir / "args.json").read_text())
        flags |= {"model_study": about, "gradient_steps": study.steps}
        (run_dir / "args.json").write_text(json.dumps(flags, indent=2))
    writers = [SummaryWriter(str(run_dir)) for run_dir in run_dirs]
    last = {}  # {tag: a number per seed}

    def record(step, logs):
        script.log(writers, logs, step)
        for tag in COLUMNS:
            last[tag] = logs[tag].reshape(args.num_seeds, -1).mean(1).tolist()

    fit(script, args, batch, groups, study.steps, record)
    for writer in writers:
        writer.close()
    print(f"{study.script} {args.env_id}, on {about}: after {study.steps:,} gradient steps, on the holdout")
    print("seed" + "".join(f"{text:>15s}" for text in COLUMNS.values()) + "  directory")
    for k, run_dir in enumerate(run_dirs):
        numbers = "".join(f"{last[tag][k]:15.4g}" for tag in COLUMNS)
        print(f"{args.seed + k:4d}{numbers}  {run_dir}")
    return run_dirs


def parse_args(argv=None):
    """The flags of the command line."""
    argv = sys.argv[1:] if argv is None else argv
    study = tyro.cli(Args, args=argv, description=__doc__)
    switches = ("--target-normalization", "--no-target-normalization", "--next-state-prediction")
    for flag in (word.split("=")[0].replace("_", "-") for word in argv):
        if study.script == "mbpo" and flag in switches:
            fail(f"{flag}: mbpo.py has no such switch; --script ftfl has")
    return study


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal may not know the letters of a folder's name
    try:
        main(parse_args())
    except KeyboardInterrupt:
        fail("stopped: the logs end here, and plots.py takes them with --unfinished only", 130)
    except (OSError, MemoryError, RuntimeError) as error:
        if not re.search("emory|overflow|Errno", text := short(error)):
            raise  # a bug keeps its traceback
        fail(f"{text} (a smaller --model-hidden-dim, --num-seeds or --collect?)")
