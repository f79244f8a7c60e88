"""Play episodes with the agents of a run, and print their returns.

    python benchmark/evaluate.py runs/dm_control-cartpole-swingup-v0__ftfl__1__...
    python benchmark/evaluate.py runs/Hopper-v5__sac__1__... --video   # and films an episode per seed

RUN is the directory with checkpoint.pt: of seeds trained side by side the first one's, and all of them play.
The episodes are played as in a run's evaluations, with the mean action. --seed and the step of the checkpoint
decide them: with the run's --seed, and its --eval-episodes as --episodes, they are those of the evaluation at
that step, if there was one and the run was on a CPU.
"""

import os
import sys
from ctypes.util import find_library
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from model_study import read_run, short

from sac import fail


@dataclass
class Args:
    """Flags of an evaluation."""

    run: tyro.conf.Positional[str]  # a run directory with checkpoint.pt, of sac.py, mbpo.py or ftfl.py
    episodes: int = 10  # episodes per agent
    seed: int = 0  # of the episodes; which networks play does not depend on it
    video: bool = False  # film one episode per agent into RUN/videos


def load(run_dir):
    """The script (a module), its Args, the SAC with the agents of all seeds, and the step of a run directory.

    Sets torch up as the run did: another library for products rounds differently, and then the episodes soon
    differ. Exits with one line if the run can't be read.
    """
    try:
        state = read_run(run_dir)
        script = import_module(state["script"])
        args = script.Args(**state["flags"] | {"device": "cpu", "num_threads": 1, "env_workers": False})
        script.set_up_torch(args, torch.device(args.device))
        env = script.make_env(args.env_id, args.full_observation)
        env.close()
        agent = script.SAC(env.observation_space.shape[0], env.action_space.shape[0], args)
        agent.load_state_dict(state["agent"])
        return script, args, agent, int(state["step"])
    except Exception as error:  # a broken file can raise anything
        fail(f"RUN {run_dir}: no agent to evaluate ({short(error)})")


def play(script, args, agent, step, episodes, seed):
    """Returns of `episodes` episodes per agent, (seeds, episodes). They begin as `seed` and `step` say."""
    args = replace(args, seed=seed, eval_episodes=episodes)
    envs = script.make_envs(args, episodes, autoreset_mode="NextStep")
    returns = script.evaluate(agent, envs, args, step)["eval/episodic_return"]
    envs.close()
    return returns


def check_renderer():
    """Choose MuJoCo's renderer, if MUJOCO_GL does not, and load it. Exits with one line if that fails."""
    software = find_library("OSMesa") and not torch.cuda.is_available()
    renderer = os.environ.setdefault("MUJOCO_GL", "osmesa" if software else "egl")
    try:
        if renderer not in ("egl", "osmesa", "glfw"):
            raise ValueError("it must be egl, osmesa or glfw")
        from dm_control import mujoco  # here, because it picks its renderer when it is imported

        physics = mujoco.Physics.from_xml_string("<mujoco><worldbody/></mujoco>")
        physics.render(8, 8)
        physics.free()
    except Exception as error:  # a missing library raises what it likes
        fail(f"--video: can't render with MUJOCO_GL={renderer}; egl or osmesa may be there ({short(error)})")


def film(script, args, agent, step, seed, folder):
    """Film one episode per agent into `folder`. Returns the episodes' returns, (seeds,)."""

    def make(name):
        env = script.make_env(args.env_id, args.full_observation)
        env.unwrapped.render_mode = "rgb_array"  # DMC's and Gymnasium's tasks look at it when they render
        first = dict(episode_trigger=lambda episode: episode == 0, disable_logger=True)
        first["fps"] = round(1 / env.unwrapped.dt)  # Shimmy's own, 1,000 dt, is slow motion
        return gym.wrappers.RecordVideo(env, str(folder), name_prefix=name, **first)

    names = [f"seed-{args.seed + k}-step-{step}-played-{seed}" for k in range(args.num_seeds)]
    args = replace(args, seed=seed, eval_episodes=1)
    envs = gym.vector.SyncVectorEnv([partial(make, name) for name in names], autoreset_mode="NextStep")
    returns = script.evaluate(agent, envs, args, step)["eval/episodic_return"][:, 0]
    envs.close()
    return returns


def main(flags):
    """Print the returns. Returns them, (seeds, episodes)."""
    bounds = {"episodes": (1, 1_000), "seed": (0, 2**32 - 1)}
    for name, (least, most) in bounds.items():
        if not least <= getattr(flags, name) <= most:
            fail(f"--{name} must lie in [{least}, {most}], not {getattr(flags, name)}")
    if flags.video:
        check_renderer()
    script, args, agent, step = load(flags.run)
    returns = play(script, args, agent, step, flags.episodes, flags.seed)

    print(f"{args.env_id}, {script.SCRIPT}.py after {step:,} steps: return with the mean action")
    print(f"{'episode':>9s}" + "".join(f"{f'seed {args.seed + k}':>12s}" for k in range(args.num_seeds)))
    rows = dict(enumerate(returns.T, 1)) | {"mean": returns.mean(1)}
    rows |= {"std": returns.std(1, ddof=1)} if flags.episodes > 1 else {}
    for name, values in rows.items():
        print(f"{name:>9}" + "".join(f"{value:12.2f}" for value in values))
    if flags.video:
        folder = Path(flags.run) / "videos"
        filmed = film(script, args, agent, step, flags.seed, folder)
        print(f"{folder}: an episode per seed, of return {', '.join(f'{value:.2f}' for value in filmed)}")
    return returns


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal may not know the letters of a folder's name
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:
        fail("stopped", 130)
