"""When do the critics run away? The short runs behind REPRODUCTION.md's page on it.

    python benchmark/critics.py                             # all rows, one after another: many hours
    python benchmark/critics.py --rows ftfl ftfl-norm       # some of them
    python benchmark/critics.py --forces                    # real and imagined toe forces only: two minutes
    python benchmark/critics.py --landings                  # how quadrupeds land, and what it earns: minutes
    python benchmark/critics.py --list                      # the rows, as the commands that they stand for

What is complete is skipped, what is partial goes on. Different rows may run side by side. The numbers go to
benchmark/results/critics/ROW.csv; `make figures` draws them. Four kinds of rows are no commands, but
diagnoses: *-cut cuts imagined next states to the range of the real ones, number by number; *-noforce leaves
the forces and torques (24 of 78 numbers) out of what quadruped observes; *-cool starts the temperature at
0.01 instead of 1; *-orthogonal starts actor and critics from the weights of the same authors' earlier code.
"""

import contextlib
import csv
import json
import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import evaluate  # noqa: E402
import gymnasium as gym  # noqa: E402
import model_study  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import plots  # noqa: E402
import sac  # noqa: E402

SCRIPTS = {"sac": sac, "mbpo": mbpo, "ftfl": ftfl}
START = 10_000  # random steps
SHARED = f"--learning-starts {START} --log-interval 25 --eval-interval 1000000 --eval-episodes 1"
SHARED += " --checkpoint-interval 500 --device cpu"
SMALL_MODEL = "--model-hidden-dim 100 --model-batch-size 128 --model-train-steps 2000"
QUADRUPED, NORM = "--env-id dm_control/quadruped-walk-v0", "--critic-layer-norm"
HUMANOID = "--env-id dm_control/humanoid-stand-v0"
TUN, DNP = "--next-state-prediction residual", "--no-target-normalization"


def row(script, flags="", task=QUADRUPED, utd=10, steps=1_500, model=SMALL_MODEL, seeds=3):
    """(script, its flags): `steps` after the random ones."""
    words = [SHARED, task, f"--num-seeds {seeds}", f"--utd-ratio {utd} --total-timesteps {START + steps}"]
    return script, " ".join([*words, model * (script != "sac"), flags]).split()


ROWS = {
    "ftfl": row("ftfl"),
    "ftfl-norm": row("ftfl", NORM),
    "sac": row("sac"),
    "mbpo": row("mbpo"),
    "ftfl-cut": row("ftfl"),
    "ftfl-length5": row("ftfl", "--rollout-schedule 5:5:0:1"),
    "ftfl-noforce": row("ftfl"),
    "mbpo-noforce": row("mbpo"),
    "tun-noforce": row("ftfl", TUN),
    "mbpo-norm": row("mbpo", NORM),
    "tun": row("ftfl", TUN),
    "dnp": row("ftfl", DNP),
    "ftfl-real25": row("ftfl", "--real-ratio 0.25"),
    "ftfl-real50": row("ftfl", "--real-ratio 0.5"),
    "ftfl-utd1": row("ftfl", utd=1, steps=6_000),
    "ftfl-utd5": row("ftfl", utd=5, steps=3_000),
    "ftfl-utd20": row("ftfl", utd=20),
    "sac-norm": row("sac", NORM),
}
for domain in ("humanoid-stand", "hopper-stand", "cartpole-swingup"):
    task = f"--env-id dm_control/{domain}-v0"
    ROWS |= {f"{domain}-{name}": row(name, task=task) for name in ("ftfl", "mbpo", "sac")}
    ROWS[f"{domain}-ftfl-norm"] = row("ftfl", NORM, task)
ROWS |= {f"{name}-orthogonal": row(name) for name in ("sac", "mbpo", "ftfl")}
ROWS["ftfl-long"] = row("ftfl", steps=20_000, seeds=1)
ROWS["mbpo-long"] = row("mbpo", steps=15_000, seeds=1)
for script, steps in (("ftfl", 15_000), ("mbpo", 12_000)):  # two more seeds of each
    ROWS[f"{script}-long-seeds23"] = row(script, "--seed 2 --compile", steps=steps, seeds=2)
ROWS["ftfl-paper"] = row("ftfl", utd=20, model="")
ROWS["ftfl-paper-norm"] = row("ftfl", NORM, utd=20, model="")
# Six seeds on a GPU; for those in benchmark/results the time there ended before the 1,500 steps
GPU = "--device cuda --compile --env-workers --log-interval 50"
ROWS["ftfl-paper-gpu"] = row("ftfl", GPU, utd=20, steps=1_200, model="", seeds=6)
ROWS["humanoid-stand-ftfl-paper-gpu"] = row("ftfl", GPU, HUMANOID, utd=20, steps=1_900, model="", seeds=6)
# The same with the other algorithms, as far as FTFL is known
for name, script, flags in (
    ("mbpo", "mbpo", ""),
    ("sac", "sac", ""),
    ("tun", "ftfl", TUN),
    ("dnp", "ftfl", DNP),
):
    flags = f"--compile {flags}"
    ROWS[f"humanoid-stand-{name}-paper"] = row(script, flags, HUMANOID, utd=20, steps=1_900, model="")
    ROWS[f"{name}-paper"] = row(script, flags, utd=20, model="")
for script in ("mbpo", "sac"):
    ROWS[f"{script}-paper-norm"] = row(script, f"--compile {NORM}", utd=20, model="")
ROWS["humanoid-stand-ftfl-paper"] = row("ftfl", "--compile", HUMANOID, utd=20, steps=1_900, model="")
# How long does SAC take to learn to walk, once its critics hold?
EVALUATED = f"{NORM} --eval-interval 5000 --eval-episodes 5"
for utd, steps in ((1, 75_000), (10, 50_000)):
    ROWS[f"walk-sac-utd{utd}-norm"] = row("sac", EVALUATED, utd=utd, steps=steps, seeds=1)
LONG = f"{EVALUATED} {GPU} --log-interval 250 --checkpoint-interval 20000"
WITHOUT = f"{EVALUATED.removeprefix(NORM)} --compile --log-interval 100"
ROWS["walk-sac-utd1"] = row("sac", WITHOUT, utd=1, steps=90_000, seeds=1)
ROWS["walk-sac-utd4-norm-gpu"] = row("sac", LONG, utd=4, steps=100_000)
ROWS["walk-sac-utd10-norm-cool"] = row("sac", EVALUATED, steps=30_000, seeds=1)
ROWS["walk-ftfl-utd10-norm"] = row("ftfl", f"{EVALUATED} --compile", steps=30_000, seeds=1)

TAGS = {  # column: tag
    "q": "losses/qf1_values",
    "qf_loss": "losses/qf_loss",
    "alpha": "losses/alpha",
    "entropy": "losses/entropy",
    "action_size": "losses/action_size",
    "out_of_range": "model/out_of_range",
    "reward_real": "rewards/real",
    "reward_synthetic": "rewards/synthetic",
    "reward_r2": "model/reward_r2",
    "next_state_r2": "model/next_state_r2",
    "return": "eval/episodic_return",
    "q_start": "eval/q_start",
    "discounted_return": "eval/discounted_return",
    "episode": "charts/episodic_return",
}


@dataclass
class Args:
    rows: tuple[str, ...] = tuple(ROWS)  # which rows
    run_dir: str = "runs/critics"  # folder with a folder per row
    out: str = str(ROOT / "benchmark/results/critics")  # folder for a CSV per row
    num_threads: int = 1  # CPU threads
    forces: bool = False  # fit the models of FTFL and MBPO to random transitions; run no rows
    landings: bool = False  # play episodes without action and with random ones; run no rows
    agent: str = ""  # with --landings: a run directory whose agent plays, too, its mean actions
    keep: bool = False  # keep the checkpoints of complete rows (1 GB each)
    list: bool = False  # print the rows, run nothing


def cut_to_real_range(script):
    """Have `imagine` cut each number of an imagined next state to the range of the real ones so far."""
    imagine = script.imagine

    def imagine_in_range(agent, model, buffer, *rest):
        real = buffer.data.next_obs[:, : buffer.size]
        low, high = real.amin(1, keepdim=True), real.amax(1, keepdim=True)

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


DIAGNOSES = {"-cut": cut_to_real_range, "-noforce": leave_out_forces, "-cool": start_cool}
DIAGNOSES["-orthogonal"] = start_orthogonal


def run_dirs_of(folder):
    """The run directories of a row, by seed."""
    about = [(json.loads(path.read_text()), path.parent) for path in Path(folder).glob("*/args.json")]
    return [run_dir for _, run_dir in sorted((flags["seed"], run_dir) for flags, run_dir in about)]


def mark(script, changed):
    """Have `make_run_dirs` note in args.json that the script is a changed one, and how: else plots.py would
    take the run for one of the unchanged script."""
    make_run_dirs = script.make_run_dirs

    def make_marked(args):
        made = make_run_dirs(args)
        for path in (run_dir / "args.json" for run_dir in made):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"changed": changed}, indent=2))
        return made

    script.make_run_dirs = make_marked


def is_logged(run_dirs):
    """Whether the logs of all these runs reach their end."""
    runs = map(plots.read_run_dir, run_dirs)
    return all(plots.last_step(run) >= run.flags["total_timesteps"] for run in runs)


def run(script, flags, folder, changes=(), changed=""):
    """Run a command to its end, from where it is, in a `folder` of its own. `changes` are made to the script
    before, and undone; `changed` is what args.json calls them."""
    flags = [*flags, "--run-dir", str(folder)]
    run_dirs = run_dirs_of(folder)
    if run_dirs and (run_dirs[0] / "checkpoint.pt").exists():
        flags = ["--resume", str(run_dirs[0])]
    elif run_dirs and is_logged(run_dirs):
        return run_dirs  # complete: critics.main has removed its checkpoint
    elif run_dirs:
        for path in Path(folder).glob("*/*"):  # killed before its first checkpoint
            path.unlink()
        for run_dir in run_dirs:
            run_dir.rmdir()
    before, handlers = dict(vars(script)), {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        for change in changes:
            change(script)
        if changes:
            mark(script, changed)
        args = script.parse_args(flags)
        if args.resume and script.read_checkpoint(args.resume)["step"] == args.total_timesteps:
            return run_dirs  # complete, but killed before its CSV was written
        return script.main(args)
    finally:
        vars(script).update(before)
        for number, handler in handlers.items():  # main's only note a signal; after main nobody reads that
            signal.signal(number, handler)


@contextlib.contextmanager
def whole(path):
    """A file to write that becomes `path` once it is complete: what is stopped midway replaces nothing."""
    part = Path(f"{path}.tmp")
    try:
        with open(part, "w", newline="") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def export(run_dirs, path):
    """Write the numbers of a row's runs as CSV: a line per seed and logged step, of four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "step", *TAGS])
        for run_dir in run_dirs:
            about = plots.read_run_dir(run_dir)
            columns = {c: dict(zip(*about.scalars.get(tag, ((), ())))) for c, tag in TAGS.items()}
            for step in sorted(set().union(*columns.values())):
                values = [columns[c].get(step, np.nan) for c in TAGS]
                cells = ["" if np.isnan(v) else f"{v:.4g}" for v in values]
                writer.writerow([about.flags["seed"], int(step), *cells])


FORCES = slice(44, 56)  # the toes' forces among quadruped's numbers
BINS = np.arange(-15, 15.5, 0.5)


def real_and_imagined_forces(out):
    """Write a histogram of the toes' forces as CSV: real next states, and those that the models imagine from
    the same rows, all held out; and how many states have all twelve forces beyond 2."""
    flags = ftfl.Args(env_id="dm_control/quadruped-walk-v0", device="cpu", model_hidden_dim=100)
    flags.model_batch_size, flags.model_train_steps = 128, 2_000
    torch.set_num_threads(1)
    ftfl.fast_matmul()
    batch = model_study.collect(ftfl, flags, START)
    states = {}
    for name, residual in (("ftfl", False), ("mbpo", True)):
        flags.target_normalization = not residual
        flags.next_state_prediction = "residual" if residual else "direct"
        torch.manual_seed(flags.seed)
        model = ftfl.Ensemble(batch.obs.shape[1], batch.actions.shape[1], flags)
        buffer = ftfl.ReplayBuffer(1, START, batch.obs.shape[1], batch.actions.shape[1])
        buffer.add(ftfl.Batch(*(torch.as_tensor(x)[None] for x in batch)))
        ftfl.train_model(model, buffer, flags)
        held_out = buffer.take(ftfl.split_rows(flags, buffer.size)[1])
        with torch.no_grad():
            states[name] = model.sample(held_out.obs, held_out.actions)[0][0].numpy()
        states["real"] = held_out.next_obs[0].numpy()
    with whole(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["from", "to", *states])
        shares = [
            np.histogram(x[:, FORCES].clip(-15, 14.9), BINS)[0] / x[:, FORCES].size for x in states.values()
        ]
        for low, high, *values in zip(BINS, BINS[1:], *shares):
            writer.writerow([low, high, *(f"{v:.4f}" for v in values)])
        beyond = [(np.abs(x[:, FORCES]) > 2).all(1).mean() for x in states.values()]
        writer.writerow(["all beyond 2", "", *(f"{v:.4f}" for v in beyond)])


def landings(out, agent_dir="", number=0, episodes=100, policies=("none", "random")):
    """Write how upright quadruped-walk's robot is when an episode begins, after four seconds (200 steps) and
    at its end (1: on its feet, -1: on its back), and what the episode earns, as CSV. All policies play the
    same episodes. Of several agents in a run, `number` says which, from 0."""
    env = sac.make_env("dm_control/quadruped-walk-v0", False)
    physics, rng = env.unwrapped._env.physics, np.random.default_rng(1)
    shape = env.action_space.shape
    known = {"none": lambda obs: np.zeros(shape), "random": lambda obs: rng.uniform(-1, 1, shape)}
    policies = {name: known[name] for name in policies}
    if agent_dir:
        _, agents, agent, _ = evaluate.load(agent_dir)
        if agents.env_id != "dm_control/quadruped-walk-v0":
            plots.fail(f"--agent {agent_dir}: its task is {agents.env_id}, not quadruped-walk")

        @torch.no_grad()
        def mean_action(obs):
            obs = torch.as_tensor(obs, dtype=torch.float32)
            mean, _ = agent.actor(obs.expand(agents.num_seeds, 1, -1))
            return torch.tanh(mean)[number, 0].numpy()

        policies["agent"] = mean_action
    kept = []  # of policies that do not play now
    if Path(out).exists():
        with open(out, newline="") as file:
            kept = [row for row in csv.reader(file) if row[0] not in ("policy", *policies)]
    with whole(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["policy", "episode", "start", "after_200", "end", "return"])
        for name, policy in policies.items():
            for episode in range(1, episodes + 1):
                obs, _ = env.reset(seed=episode)
                upright, rewards, over = [physics.torso_upright()], [], False
                while not over:
                    obs, reward, _, over, _ = env.step(policy(obs).astype(np.float32))
                    upright.append(physics.torso_upright())
                    rewards.append(reward)
                numbers = (upright[0], upright[min(200, len(rewards))], upright[-1], sum(rewards))
                writer.writerow([name, episode, *(f"{float(x):.4g}" for x in numbers)])
        writer.writerows(kept)


def main(args):
    if args.agent and not args.landings:
        plots.fail("--agent is for --landings, which is missing")
    if args.landings:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        return landings(Path(args.out) / "landings.csv", args.agent)
    if args.forces:
        Path(args.out).mkdir(parents=True, exist_ok=True)
        return real_and_imagined_forces(Path(args.out) / "forces.csv")
    for name in args.rows:
        if name not in ROWS:
            plots.fail(f"--rows {name}: there is no such row, but {', '.join(ROWS)}")
    for name in args.rows:
        script, flags = ROWS[name]
        out = Path(args.out) / f"{name}.csv"
        changes = {ending[1:]: change for ending, change in DIAGNOSES.items() if name.endswith(ending)}
        if args.list:
            no_command = f"  (no command: {', '.join(changes)})" * bool(changes)
            print(f"{name}: python {script}.py {shlex.join(flags)}{no_command}")
        elif out.exists():
            print(f"{name}: complete")
        else:
            flags = [*flags, "--num-threads", str(args.num_threads)]
            folder, changed = Path(args.run_dir) / name, ", ".join(changes)
            run_dirs = run(SCRIPTS[script], flags, folder, changes.values(), changed)
            export(run_dirs, out)
            if not args.keep:
                (run_dirs[0] / "checkpoint.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
