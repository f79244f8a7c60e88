"""Where will MBPO fail? The paper's two causes measured task by task on random transitions, without an agent.

    python benchmark/taxonomy.py --jobs 2 --out NEW.csv                         # a night on two cores
    python benchmark/taxonomy.py --env-ids Hopper-v5 Ant-v5 --out NEW.csv       # minutes

Per task and seed, from the transitions of a random policy:

    reward_share          var(r) / (var(r) + sum of var(s' - s)): the reward's part in a squared error without
                          normalization. FTFL's is 1 / (dims + 1), whatever the task
    mismatch              the largest std of a number of s' - s over the std of r
    noise_{median,q90}    var(s' - s) / var(s') over the numbers of s: median and 90 % quantile
    noise_above_half      share of numbers with more than 1/2 of it; noise_velocity_*: of velocities alone
    reward_mean, reward_zero   what a random policy earns per step, and the share of steps without reward

and of a model fitted to them, for each setting of ftfl.py's switches (mbpo, tun, dnp, ftfl), on the holdout:

    SETTING_reward_r2, SETTING_next_state_r2    as the scripts log them
    SETTING_reward_ratio                        mean imagined over mean real reward
    SETTING_reward_out_of_range                 share of imagined rewards outside of the real ones' range

A line is written to --out as soon as it is known; what is there already is not computed again: other flags
need another file. `plots.py taxonomy` draws it. The model is half as wide as the scripts', so that 50 tasks
take a night; with --model-hidden-dim 200 it is theirs.
"""

import csv
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import model_study  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from tqdm import tqdm  # noqa: E402

import ftfl  # noqa: E402

PAPER = ["hopper-hop", "hopper-stand", "quadruped-walk", "quadruped-run"]
PAPER = [f"dm_control/{task}-v0" for task in [*PAPER, "humanoid-stand", "humanoid-walk", "humanoid-run"]]
PAPER += [
    f"{task}-v5" for task in ("InvertedPendulum", "Hopper", "HalfCheetah", "Walker2d", "Ant", "Humanoid")
]
SETTINGS = {  # name: (normalized, what the model predicts)
    "mbpo": (False, "residual"),
    "tun": (True, "residual"),
    "dnp": (False, "direct"),
    "ftfl": (True, "direct"),
}
STATISTICS = ["reward_share", "mismatch", "noise_median", "noise_q90", "noise_above_half"]
STATISTICS += ["noise_velocity_median", "noise_velocity_q90", "noise_velocity_above_half"]
STATISTICS += ["reward_mean", "reward_zero"]
MODEL = ["reward_r2", "reward_ratio", "next_state_r2", "reward_out_of_range"]
COLUMNS = ["env_id", "seed", "transitions", "dims", *STATISTICS]
COLUMNS += [f"{setting}_{name}" for setting in SETTINGS for name in MODEL]


@dataclass
class Args:
    env_ids: tuple[str, ...] = ()  # which tasks; by default the paper's 13 and the rest of DMC's suite
    seeds: tuple[int, ...] = (1, 2, 3)  # of the transitions and of the models
    transitions: int = 10_000  # random ones per task and seed
    steps: int = 3_000  # gradient steps of each model
    model_hidden_dim: int = 100  # width of the four hidden layers (the scripts' is 200)
    jobs: int = 1  # processes side by side, of one thread each
    out: str = str(ROOT / "benchmark/results/taxonomy.csv")  # the table; the default is complete


def suite_tasks():
    """The ids of DMC's suite that the scripts take everywhere: all but lqr, whose actions have no bounds, and
    quadruped-escape, whose terrain needs a renderer."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # before the import, as in make_env
    from dm_control import suite

    tasks = [f"{domain}-{task}" for domain, task in suite.ALL_TASKS if domain != "lqr"]
    return [f"dm_control/{task}-v0" for task in tasks if task != "quadruped-escape"]


def statistics(batch, velocities):
    """{name: number} of the transitions in a Batch of arrays (rows, ...). velocities: bool (obs,).
    Numbers that hardly vary have no noise; without any variation of the reward, the mismatch is infinite."""
    change, reward = (x.astype(np.float64) for x in (batch.next_obs - batch.obs, batch.rewards))
    change_var, state_var = change.var(0), batch.next_obs.astype(np.float64).var(0)
    moving = state_var > ftfl.STD_FLOOR**2
    noise = np.where(moving, change_var / np.where(moving, state_var, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "reward_share": reward.var() / (reward.var() + change_var.sum()),
            "mismatch": np.sqrt(change_var.max() / reward.var()),
        }
    for name, ratios in {"noise": noise[moving], "noise_velocity": noise[moving & velocities]}.items():
        found[f"{name}_median"] = np.median(ratios) if len(ratios) else np.nan
        found[f"{name}_q90"] = np.quantile(ratios, 0.9) if len(ratios) else np.nan
        found[f"{name}_above_half"] = (ratios > 0.5).mean() if len(ratios) else np.nan
    return found | {"reward_mean": reward.mean(), "reward_zero": (reward == 0).mean()}


@torch.no_grad()
def of_model(model, buffer, holdout_rows):
    """{name: number} of a fitted model, on the rows held out."""
    logs = ftfl.evaluate_model(model, ftfl.take_holdout(buffer, holdout_rows))
    batch = buffer.take(holdout_rows)
    _, imagined = model.sample(batch.obs, batch.actions)
    real, synthetic = logs["rewards/real"].mean().item(), logs["rewards/synthetic"].mean().item()
    return {
        "reward_r2": logs["model/reward_r2"].item(),
        "reward_ratio": synthetic / real if real else np.nan,
        "next_state_r2": logs["model/next_state_r2"].item(),
        "reward_out_of_range": ftfl.out_of_range(buffer.data.rewards, imagined).mean().item(),
    }


def measure(env_id, seed, args):
    """One line of the table, {column: value}."""
    torch.set_num_threads(1)
    ftfl.fast_matmul()
    flags = ftfl.Args(env_id=env_id, seed=seed, device="cpu", model_hidden_dim=args.model_hidden_dim)
    with open("/dev/null", "w") as sys.stderr:  # its progress bars: there is one for all
        flags.env_id = ftfl.full_env_id(env_id)
        batch = model_study.collect(ftfl, flags, args.transitions, seed)
        velocities = model_study.observation_groups(env_id, False) == "velocity"
        row = {"env_id": flags.env_id, "seed": seed, "transitions": len(batch.obs), "dims": len(velocities)}
        row |= statistics(batch, velocities)
        for setting, (flags.target_normalization, flags.next_state_prediction) in SETTINGS.items():
            torch.manual_seed(seed)
            model = ftfl.Ensemble(batch.obs.shape[1], batch.actions.shape[1], flags)
            buffer = ftfl.ReplayBuffer(1, len(batch.obs), batch.obs.shape[1], batch.actions.shape[1])
            buffer.add(ftfl.Batch(*(torch.as_tensor(x)[None] for x in batch)))
            flags.model_train_steps = args.steps
            ftfl.train_model(model, buffer, flags)
            _, holdout_rows = ftfl.split_rows(flags, buffer.size)
            found = of_model(model, buffer, holdout_rows)
            row |= {f"{setting}_{name}": value for name, value in found.items()}
    sys.stderr = sys.__stderr__
    return row


def as_worker():
    """Leave Ctrl-C to the parent, and no lock of tqdm's behind when it kills this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())


def read(path):
    """The lines of a table, [{column: text}]; none if it is not there."""
    if not Path(path).exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def check_args(args):
    """The ids of the tasks, with their versions and each once, and the lines that --out has. A mistake in the
    last task, too, ends the program here, before the first is measured."""
    for name, least in (("transitions", 2 * ftfl.HOLDOUT_BLOCK), ("steps", 1), ("jobs", 1)):
        if getattr(args, name) < least:
            ftfl.fail(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if not args.seeds:
        ftfl.fail("--seeds needs at least one")
    for seed in args.seeds:
        ftfl.check_args(ftfl.Args(seed=seed, model_hidden_dim=args.model_hidden_dim))
    env_ids = args.env_ids or [*PAPER, *(task for task in suite_tasks() if task not in PAPER)]
    tasks = [ftfl.full_env_id(env_id) for env_id in env_ids]
    try:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        with open(args.out, "a+") as file:
            file.seek(0)
            head = file.readline()
        lines = read(args.out)
    except (OSError, ValueError) as error:
        ftfl.fail(f"--out {args.out} can't be written: {model_study.short(error)}")
    whole = all(None not in (*line, *line.values()) for line in lines)
    if head.strip() not in ("", ",".join(COLUMNS)) or not whole:
        ftfl.fail(f"--out {args.out}: it is no table of this program, or a line of it is not whole")
    if lines and Path(args.out).resolve() == Path(Args.out).resolve():
        for name in ("transitions", "steps", "model_hidden_dim"):
            if getattr(args, name) != getattr(Args, name):
                flag = name.replace("_", "-")
                ftfl.fail(
                    f"--{flag} needs an --out of its own: the default has lines with {getattr(Args, name)}"
                )
    if others := {line["transitions"] for line in lines} - {str(args.transitions)}:
        ftfl.fail(f"--out {args.out} has lines of --transitions {', '.join(others)}: name another file")
    return list(dict.fromkeys(tasks)), lines


def main(args):
    tasks, lines = check_args(args)
    done = {(line["env_id"], int(line["seed"])) for line in lines}
    wanted = [
        (task, seed) for seed in dict.fromkeys(args.seeds) for task in tasks if (task, seed) not in done
    ]
    if not wanted:
        print(f"{args.out} has all of these lines; name another --out to measure them anew")
    out, failed = Path(args.out), []
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    context = multiprocessing.get_context("spawn")  # forked, torch's threads may hang
    pool = ProcessPoolExecutor(args.jobs, context, as_worker)
    with pool, open(out, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not out.stat().st_size:
            writer.writeheader()
        try:
            futures = {pool.submit(measure, *pair, args): f"{pair[0]}, seed {pair[1]}" for pair in wanted}
            for future in tqdm(as_completed(futures), "tasks x seeds", len(wanted), disable=not wanted):
                if error := future.exception():
                    failed.append(f"{futures[future]}: {model_study.short(error)}")
                    continue
                row = future.result()
                writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
                file.flush()
        except (KeyboardInterrupt, SystemExit) as stop:
            # The lines so far stay; what is under way is given up
            for process in multiprocessing.active_children():
                process.kill()
            ftfl.fail("stopped; the same command goes on", getattr(stop, "code", 130))
    if failed:
        ftfl.fail(f"not measured: {'; '.join(failed)}", 1)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except KeyboardInterrupt:  # before the first task was begun
        ftfl.fail("stopped", 130)
