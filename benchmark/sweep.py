"""Many runs, on this machine or on a cluster. Ray decides what runs where and when; this file says what.

    python benchmark/sweep.py --preset smoke                      # a minute, on all cores of this machine
    python benchmark/sweep.py --preset paper --dry-run            # every command, and what they all cost
    python benchmark/sweep.py --preset paper --address auto       # on the Ray cluster that this machine is in
    python benchmark/sweep.py --algos sac ftfl --tasks Hopper-v5 --seeds 1 2 3 -- --utd-ratio 4

A run is one command of one script, and has a folder of its own, RUN_DIR/ALGO/TASK/seedK (RUN_DIR is
runs/PRESET, if --run-dir does not say otherwise): in it are the script's run directory, its output (log.txt)
and a lock. What stands after -- goes to the scripts; sac.py gets none of the model's flags. The longest runs
begin first. Whatever stopped a sweep, start it again by the same command: complete runs are skipped, others
go on from their checkpoint. A run that fails is tried twice more, and the others go on. The exit code is 1 if
a run failed, 2 for a mistake in the flags, 128 + n after signal n: all runs then leave a checkpoint first.
"""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import sac  # noqa: E402

ALGOS = {  # name: the script, and the flags that make it this algorithm
    "sac": (sac, ""),
    "mbpo": (mbpo, ""),
    "tun": (ftfl, "--next-state-prediction residual"),
    "dnp": (ftfl, "--no-target-normalization"),
    "ftfl": (ftfl, ""),
    "tuned": (ftfl, "--model-hidden-dim 400"),
}
DMC = ["hopper-hop", "hopper-stand", "quadruped-walk", "quadruped-run"]
DMC = [f"dm_control/{task}-v0" for task in [*DMC, "humanoid-stand", "humanoid-walk", "humanoid-run"]]
GYM = ["InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"]
PRESETS = {
    "paper": {  # Fig 1, 4, 5
        "algos": ["sac", "mbpo", "ftfl", "tuned"],
        "tasks": [*DMC, *GYM],
        "seeds": [1, 2, 3, 4, 5, 6],
        "dmc flags": "--total-timesteps 500000",
        "gym flags": "--total-timesteps 300000",
    },
    "laptop": {  # REPRODUCTION.md, "The laptop grid"
        "algos": ["sac", "mbpo", "tun", "dnp", "ftfl"],
        # Chosen by benchmark/pilots.py: walker-stand, finger-spin and cheetah-run
        "tasks": ["InvertedPendulum-v5", "Hopper-v5", "dm_control/cheetah-run-v0"]
        + ["dm_control/walker-stand-v0", "dm_control/finger-spin-v0", "dm_control/quadruped-walk-v0"],
        "seeds": [1, 2, 3],
        # 20,000 gradient steps of the model within the first 2,500 steps after the random ones
        "flags": "--total-timesteps 12500 --learning-starts 5000 --utd-ratio 4 --critic-layer-norm "
        "--model-hidden-dim 100 --model-batch-size 128 --model-train-steps 2000 --eval-interval 2500 "
        "--compile",
    },
    "hopper": {  # REPRODUCTION.md, "Hopper at the scripts' defaults"
        "algos": ["sac", "mbpo", "ftfl"],
        "tasks": ["Hopper-v5"],
        "seeds": [1, 2, 3],
        "flags": "--total-timesteps 20000 --eval-interval 2500 --compile",
    },
    "smoke": {  # seconds per run: does everything work here?
        "algos": ["sac", "mbpo", "ftfl"],
        "tasks": ["InvertedPendulum-v5", "dm_control/cartpole-swingup-v0"],
        "seeds": [1],
        "flags": "--total-timesteps 300 --learning-starts 100 --utd-ratio 1 --hidden-dim 16 --batch-size 32 "
        "--model-hidden-dim 16 --model-batch-size 32 --model-train-steps 20 --model-train-interval 100 "
        "--rollouts-per-step 10 --synthetic-buffer-size 1000 "
        "--eval-interval 150 --eval-episodes 1 --log-interval 10 --checkpoint-interval 50",
    },
}

# Environment steps per second of one seed on one core, with 1 and with 20 updates per step, and 20 gradient
# steps of the model: "Whole runs" in benchmark/README.md. `seconds` makes an estimate of them
RATES = {  # (what stands for the task, script): rates
    ("walker", "sac"): (188.6, 10.86),
    ("walker", "mbpo"): (5.07, 3.45),
    ("walker", "ftfl"): (5.06, 3.45),
    ("humanoid", "sac"): (165.8, 9.87),
    ("humanoid", "mbpo"): (4.06, 2.86),
    ("humanoid", "ftfl"): (3.80, 2.75),
}
WIDE = 2.7  # times as long takes a gradient step of a model 400 wide as of one 200 wide
RETRIES = 2
OWN = "--env-id --seed --num-seeds --run-dir --resume --device".split()  # set here, not after --
MAY_CHANGE = "total_timesteps device num_threads env_workers tf32 compile eval_interval log_interval"
MAY_CHANGE = {*MAY_CHANGE.split(), "checkpoint_interval", "resume", "run_dir"}  # when a run goes on

# Starts a script that is told to stop (SIGTERM) when the process that waits for it is killed. Linux only;
# elsewhere the script goes on, and keeps its lock, so that the next attempt waits for its end
START = """import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray blocks SIGINT
if os.getppid() == int(sys.argv[1]):  # else it was killed before
    os.execv(sys.argv[2], sys.argv[2:])"""


@dataclass
class Args:
    preset: str = ""  # paper, laptop, hopper or smoke; what --algos, --tasks and --seeds leave open
    algos: tuple[str, ...] = ()  # sac, mbpo, ftfl, tuned (a larger model), tun or dnp (one of FTFL's changes)
    tasks: tuple[str, ...] = ()  # the scripts' --env-id
    seeds: tuple[int, ...] = ()  # which seeds
    num_seeds: int = 1  # seeds side by side in one process; on a GPU, take all
    run_dir: str = ""  # folder of all runs, by default runs/PRESET; on a cluster, one that all nodes share
    address: str = ""  # of a Ray cluster (auto: the one this machine is in); by default this machine alone
    cpus: float = 1  # cores per run
    gpus: float = 0  # GPUs per run, 0.5 for two runs on one; with 0 the runs stay on the CPU
    dry_run: bool = False  # print the commands, their number and an estimate of their time, and start nothing


@dataclass
class Run:
    name: str  # ALGO/TASK/seedK
    folder: Path
    script: str  # its name
    words: list  # the script's flags, but for --run-dir or --resume
    flags: dict  # what the script makes of them


# ---------------------------------------- What is to be run
def split_flags(text):
    """{flag: its values} of a command line; of a flag given twice, the last one counts."""
    flags, values = {}, None
    for word in shlex.split(text) if isinstance(text, str) else text:
        if word.startswith("--"):
            name, *value = word.split("=", 1)
            flags[name.replace("_", "-")] = values = value
        elif values is None:
            ftfl.fail(f"after -- come flags of the scripts, not {word}")
        else:
            values.append(word)
    return flags


def run_dir_of(args):
    return Path(args.run_dir or f"runs/{args.preset or 'sweep'}").resolve()


def plan(args, passed=()):
    """The Runs of a sweep. A mistake ends the program here, before anything is started."""
    if args.preset and args.preset not in PRESETS:
        ftfl.fail(f"--preset {args.preset}: there are {', '.join(PRESETS)}")
    preset = PRESETS.get(args.preset, {})
    algos, tasks, seeds = (getattr(args, x) or preset.get(x, ()) for x in ("algos", "tasks", "seeds"))
    for flag, values in {"--algos": algos, "--tasks": tasks, "--seeds": seeds}.items():
        if not values or len(set(values)) < len(values):
            ftfl.fail(f"{flag} needs values, each once, or a --preset")
    for algo in algos:
        if algo not in ALGOS:
            ftfl.fail(f"--algos {algo}: there are {', '.join(ALGOS)}")
    if not 0.001 <= args.cpus < 1e6 or not 0 <= args.gpus < 1e6 or args.gpus > 1 and args.gpus % 1:
        ftfl.fail("--cpus must be 0.001 or more, --gpus a share of one, or a whole number")
    n, seeds, passed = args.num_seeds, sorted(seeds), split_flags(passed)
    groups = [seeds[i : i + n] for i in range(0, len(seeds), n)] if n > 0 else []
    if not groups or any(group != list(range(group[0], group[0] + n)) for group in groups):
        ftfl.fail(f"--num-seeds {n}: --seeds {seeds} are no groups of {n} that follow each other")
    if seeds[0] < 0 or groups[-1][0] > 2**32 - n:
        ftfl.fail(f"--seeds must lie in [0, 2^32), not {seeds[0]} to {seeds[-1]}")
    for flag in passed:
        if flag in OWN:
            ftfl.fail(f"{flag} can't stand after --: the sweep sets it")
    model_flags = {f"--{no}{f.name.replace('_', '-')}" for f in fields(ftfl.ModelArgs) for no in ("", "no-")}
    runs = []
    for task in tasks:
        for algo in algos:
            script, own = ALGOS[algo]
            kind = "dmc flags" if task.startswith("dm_control/") else "gym flags"
            flags = split_flags(preset.get("flags", "")) | split_flags(preset.get(kind, ""))
            flags |= passed | split_flags(own)
            if script is sac:
                flags = {name: values for name, values in flags.items() if name not in model_flags}
            flags["--device"] = ["cuda" if args.gpus else "cpu"]
            words = [word for name, values in flags.items() for word in (name, *values)]
            parsed = script.parse_args(["--env-id", task, *words])
            # Where the runs are, there may be a GPU, and more threads
            here = replace(parsed, device="cpu", num_threads=min(parsed.num_threads, 1))
            script.check_args(here)
            env_id = script.full_env_id(task)
            if script is not sac:
                script.termination_rule(env_id)
            for group in groups:
                seed = f"seed{group[0]}" + (f"-{group[-1]}" if n > 1 else "")
                name = f"{algo}/{env_id.replace('/', '-')}/{seed}"
                words_of = ["--env-id", env_id, "--seed", str(group[0]), "--num-seeds", str(n), *words]
                of = asdict(replace(parsed, env_id=env_id, seed=group[0], num_seeds=n))
                runs.append(Run(name, run_dir_of(args) / name, script.__name__, words_of, of))
    if len({run.name for run in runs}) < len(runs):
        ftfl.fail(f"--tasks {' '.join(tasks)}: one is there twice")
    for run in {run.folder.parent: run for run in runs}.values():
        refuse_other_flags(run, run_dir_of(args))
    return runs


def own_flags(algo):
    """The names of the flags that make an algorithm what it is."""
    return {re.sub("^--(no-)?", "", flag).replace("-", "_") for flag in split_flags(ALGOS[algo][1])}


def refuse_other_flags(run, run_dir):
    """A folder has runs of a task with the same flags only: else a figure would compare what differs in more
    than the algorithm."""
    algo, task, _ = run.name.split("/")
    for path in run_dir.glob(f"*/{task}/*/*/args.json"):
        other = path.relative_to(run_dir).parts[0]
        try:
            there = json.loads(path.read_text())
        except json.JSONDecodeError:
            continue  # killed while it was written
        if other not in ALGOS:
            continue
        names = run.flags.keys() if other == algo else run.flags.keys() & there.keys()
        for name in sorted(names - MAY_CHANGE - {"seed"} - own_flags(algo) - own_flags(other)):
            if there.get(name) != run.flags[name]:
                flag, was = f"{algo}'s --{name.replace('_', '-')} is {run.flags[name]}", there.get(name)
                ftfl.fail(f"{flag}, but was {was} in {path.parent}: name another --run-dir")


def seconds(run):
    """What a run takes on one core, estimated from two rates: 1/rate = rest + updates * update. The rest
    counts as the model's, and grows with its gradient steps. Left out: random steps, evaluations, --compile,
    GPUs, and other sizes of networks and batches than the defaults and WIDE."""
    flags = run.flags
    kind = "humanoid" if "umanoid" in flags["env_id"] else "walker"
    one, twenty = (1 / rate for rate in RATES[kind, run.script])
    update = (twenty - one) / 19
    rest = one - update
    if run.script != "sac":
        rest *= flags["model_train_steps"] / flags["model_train_interval"] / 20
        rest *= WIDE if flags["model_hidden_dim"] == 400 else 1
    steps = flags["total_timesteps"] - flags["learning_starts"]
    return flags["num_seeds"] * steps * (rest + flags["utd_ratio"] * update)


# ---------------------------------------- One run
def progress(folder):
    """(steps, run directory) of the checkpoint in a run's folder; (0, None) before the first."""
    found = [(0, None)]
    for path in folder.glob("*/checkpoint.pt"):
        try:  # mmap: the buffers, which may be gigabytes, are not read
            found.append((torch.load(path, "cpu", weights_only=True, mmap=True)["step"], path.parent))
        except Exception:
            found.append((0, path.parent))  # damaged: the script says so
    return max(found, key=lambda pair: (pair[0], str(pair[1] or "")))


def is_complete(run):
    return progress(run.folder)[0] >= run.flags["total_timesteps"]


def command(run):
    """What a person would type to begin the run, or to go on with it."""
    run_dir = progress(run.folder)[1]
    where = ["--resume", str(run_dir)] if run_dir else ["--run-dir", str(run.folder)]
    return [sys.executable, str(ROOT / f"{run.script}.py"), *run.words, *where]


def is_locked(file):
    """Take the lock of an open file, if nobody has it. It is given back by closing the file, in all processes
    that have it: a script holds it as long as it lives. On a network file system the server keeps it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True


def is_running(run):
    try:
        with open(run.folder / "lock", "a") as file:  # NFS locks only what may be written
            return is_locked(file)
    except OSError:  # not begun, or what keeps its node from beginning it
        return False


def on_a_node(run):
    """What Ray does: an attempt. Returns its exit code, or what keeps this node from it, and the node."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    try:
        return attempt(run), node
    except OSError as error:
        return f"{socket.gethostname()} can't work in --run-dir, which all nodes must share: {error}", node


def attempt(run):
    """Bring a run to its end. Returns the last exit code."""
    run_dir = run.folder.parents[2]
    if not run_dir.is_dir():  # the sweep has made it; one of this node's own would be seen by nobody
        raise FileNotFoundError(f"there is no {run_dir}")
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / "lock", "a") as lock, open(run.folder / "log.txt", "a") as log:
        while is_locked(lock):  # by a script whose node was lost, or whose sweep was killed, until it ends
            time.sleep(1)
        for _ in range(1 + RETRIES):
            if is_complete(run):
                return 0
            if not progress(run.folder)[1]:  # a beginning without a checkpoint would be a second run in plots
                for path in run.folder.glob("*/"):
                    shutil.rmtree(path)
            words = command(run)
            print("\n$", shlex.join(words), file=log, flush=True)  # a killed script's last line has no end
            start = [sys.executable, "-c", START, str(os.getpid()), *words]
            env = os.environ | {"TQDM_MININTERVAL": "5"}  # a short log
            # In a session of its own: Ctrl-C is for the sweep, which then stops its runs
            kwargs = {"stdout": log, "stderr": log, "env": env, "start_new_session": True}
            process = subprocess.Popen(start, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()], **kwargs)
            try:
                while (code := process.poll()) is None:
                    time.sleep(0.5)
            except KeyboardInterrupt:  # from ray.cancel
                process.terminate()
                process.wait()
                raise
            if code in (0, 2):  # 2: a mistake in the flags, which another attempt would find, too
                break
        return code


def end_of_log(run, size=2000):
    try:
        with open(run.folder / "log.txt", "rb") as file:
            file.seek(max(0, os.path.getsize(file.fileno()) - size))
            return file.read().decode(errors="replace").replace("\r", "\n")
    except FileNotFoundError:
        return ""


# ---------------------------------------- The sweep
def is_seen_complete(run, patience=60):
    """Whether a run that a node calls complete is so in this machine's folder. A network file system may need
    a while to show it."""
    until = time.time() + patience
    while not (complete := is_complete(run)) and time.time() < until:
        time.sleep(1)
    return complete


def share_done(run):
    """Of a run that is not complete, from its progress bar. The model's trainings have one, too."""
    bars = re.findall(r" (\d+)/\d+ \[", re.sub(r"model: [^\n]*", "", end_of_log(run, 20_000)))
    return min(int(bars[-1]) / run.flags["total_timesteps"], 1) if bars else 0


def work_done(runs, done):
    """{run's name: what is done of it, in seconds of `seconds`}."""
    return {run.name: seconds(run) * (1 if run.name in done else share_done(run)) for run in runs}


def show(runs, done, failed, elapsed, before):
    """A line of the table. Time left: of the work left, as fast as work was done since the sweep began, where
    `before` of it was done."""
    runs = [run for run in runs if run.name not in failed]
    running = sum(is_running(run) for run in runs if run.name not in done)
    work, left = sum(work_done(runs, done).values()), "unknown"
    if (gained := work - sum(before[run.name] for run in runs)) > 0:
        left = timedelta(seconds=round((sum(map(seconds, runs)) - work) * elapsed / gained))
    numbers = (running, len(runs) - len(done) - running, len(done), len(failed))
    columns = (timedelta(seconds=round(elapsed)), *numbers, left)
    print(*(f"{x!s:>9}" for x in columns[:-1]), f"{left!s:>19}", flush=True)


def cores_here():
    """Those that this process may use: of a Slurm job, the job's. Ray would count the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def connect(args):
    """Ray, started on this machine or connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        ftfl.fail("Ray is missing: pip install -r benchmark/requirements-sweep.txt")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    local = {"include_dashboard": False, "num_cpus": cores_here()}
    local["object_store_memory"] = 100_000_000  # nothing large goes through it
    try:
        host, _, port = args.address.partition(":")
        if port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(args.address or "local", **quiet, **({} if args.address else local))
    except (OSError, ValueError, RuntimeError) as error:
        ftfl.fail(f"--address {args.address}: {str(error)[:200]}")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) >= args.cpus and n.get("GPU", 0) >= args.gpus for n in nodes):
        what = f"--cpus {args.cpus:g} --gpus {args.gpus:g}: no node has as many"
        if not args.address:
            ftfl.fail(what)
        print(f"{what}; waiting for one", flush=True)
    return ray


def dry_run(runs):
    """Print what a sweep would start now, and what it costs."""
    wanted = [run for run in runs if not is_complete(run)]
    for run in wanted:
        print(shlex.join(command(run)))
    hours = (sum(map(seconds, wanted)) - sum(work_done(wanted, ()).values())) / 3600
    cores = cores_here()
    print(f"# {len(wanted)} runs, and {len(runs) - len(wanted)} that are complete")
    print(f"# {hours:,.1f} core-hours by the rates in benchmark/sweep.py")
    print(f"# {hours / cores / 24:,.1f} days on the {cores} cores of this machine")
    longest = max((seconds(run) * (1 - share_done(run)) for run in wanted), default=0)
    print(f"# {longest / 3600:,.1f} hours at least: what the longest run still takes")


def main(args, passed=()):
    runs = sorted(plan(args, passed), key=seconds, reverse=True)  # else few cores have the long ones last
    if args.dry_run:
        return dry_run(runs)
    done, failed, signals = {run.name for run in runs if is_complete(run)}, {}, []
    try:
        run_dir_of(args).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir_of(args)) as file:
            is_locked(file)
    except OSError as error:
        ftfl.fail(
            f"--run-dir {run_dir_of(args)} can't be written to, or files in it can't be locked: {error}"
        )
    before, began, due = work_done(runs, done), time.time(), 0
    ray = connect(args)
    for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends the sweep at once
        signal.signal(number, lambda n, _: os._exit(128 + n) if signals else signals.append(n))
    # A run whose node is lost begins again elsewhere, however often that happens
    task = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_retries=-1)(on_a_node)
    useless = set()  # nodes that can't work in the folder
    refs = {task.remote(run): run for run in runs if run.name not in done}
    print(*(f"{x:>9}" for x in ("time", "running", "waiting", "done", "failed")), f"{'time left':>19}")
    while refs and not signals:
        finished, _ = ray.wait(list(refs), timeout=1)
        for ref in finished:
            run = refs.pop(ref)
            try:
                code, node = ray.get(ref)
            except ray.exceptions.RayError as error:
                code, node = str(error).strip().splitlines()[-1], ""
            if node and isinstance(code, str):
                if node not in useless:
                    print(f"{code}. What it can't begin goes to other nodes", flush=True)
                useless.add(node)
                if any(there["Alive"] and there["NodeID"] not in useless for there in ray.nodes()):
                    elsewhere = {"ray.io/node-id": f"!in({','.join(useless)})"}
                    refs[task.options(label_selector=elsewhere).remote(run)] = run
                    continue
            if code == 0 and not is_seen_complete(run):
                code = "its node's --run-dir is another folder than this machine's"
            if code == 0:
                done.add(run.name)
            else:
                end = "\n    ".join([f"{run.folder}/log.txt ends:", *end_of_log(run).splitlines()[-10:]])
                failed[run.name] = f"{run.name} failed ({'exit code ' * isinstance(code, int)}{code}). {end}"
                print(f"{run.name} failed", flush=True)
        if finished or time.time() > due:
            show(runs, done, failed, time.time() - began, before)
            due = time.time() + 60
    if signals and refs:
        print("stopped by a signal: waiting for the checkpoints of what is running", flush=True)
        for ref in refs:
            ray.cancel(ref)
        ray.wait(list(refs), num_returns=len(refs))
        while any(map(is_running, refs.values())):
            time.sleep(0.5)
        ftfl.fail("stopped by a signal; the same command goes on", 128 + signals[0])
    ray.shutdown()
    print(f"{len(done)} runs complete, {len(failed)} failed")
    for text in failed.values():
        print(text, file=sys.stderr)
    sys.exit(1 if failed else 0)


def read_command_line(flags, description):
    """The `flags` before --, and the words after it."""
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return tyro.cli(flags, args=sys.argv[1:at], description=description), sys.argv[at + 1 :]


if __name__ == "__main__":
    main(*read_command_line(Args, __doc__))
