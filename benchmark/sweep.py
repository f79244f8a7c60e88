"""Many runs, on this machine or on a Ray cluster: those of a preset, or published ones by name.

    python benchmark/sweep.py --preset smoke                      # a minute, on all cores of this machine
    python benchmark/sweep.py --preset paper --dry-run            # every command, and what they all cost
    python benchmark/sweep.py --preset decisive --gpus 1          # one run at a time on each GPU
    python benchmark/sweep.py --preset paper --address auto       # on the Ray cluster that this machine is in
    python benchmark/sweep.py --algos sac ftfl --tasks Hopper-v5 --seeds 1 2 3 -- --utd-ratio 4
    python benchmark/sweep.py --rows critics-ftfl --export        # a row of benchmark/experiments.py, to CSV

A run is one command of one script, and has a folder of its own, RUN_DIR/ALGO/TASK/seedK or RUN_DIR/ROW/seedK
(RUN_DIR is runs/PRESET or runs/rows, if --run-dir does not say otherwise): in it are the script's run
directory, its output (log.txt) and a lock. What stands after -- goes to the scripts; none gets flags that
only others have. The longest runs begin first. Whatever stopped a sweep, start it again by the same command:
complete runs are skipped, others go on from their checkpoint, and model studies, which have none, begin
again. A run that fails is tried twice more, and the others go on. The exit code is 1 if a run failed, 2 for a
mistake in the flags, 128 + n after signal n: all runs then leave a checkpoint first.
"""

import fcntl
import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmark")]

import model_study  # noqa: E402
from experiments import ALGOS, PRESETS, ROWS  # noqa: E402

import ftfl  # noqa: E402
import mbpo  # noqa: E402
import sac  # noqa: E402

PROGRAMS = {"sac": sac, "mbpo": mbpo, "ftfl": ftfl, "model_study": model_study}
RESULTS = ROOT / "benchmark/results"

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
STUDY_RATE = 37  # gradient steps of a model alone per second
WIDE = 2.7  # times as long takes a gradient step of a model 400 wide as of one 200 wide
RETRIES = 2
STOPPED = 130  # the exit code of what was not begun any more
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
    rows: tuple[str, ...] = ()  # of benchmark/experiments.py: names, or how they begin; all: every one
    preset: str = ""  # paper, decisive, laptop, hopper or smoke; what the next three flags leave open
    algos: tuple[str, ...] = ()  # sac, mbpo, ftfl, or another one of ALGOS in benchmark/experiments.py
    tasks: tuple[str, ...] = ()  # the scripts' --env-id
    seeds: tuple[int, ...] = ()  # which seeds; of rows, by default all
    num_seeds: int = 0  # seeds side by side in one process; 0: as the preset says, or 1. On a GPU, take all
    run_dir: str = ""  # folder of all runs, by default runs/PRESET or runs/rows; a cluster's nodes share it
    jobs: int = 0  # runs side by side on this machine; 0: as many as --cpus and --gpus allow
    address: str = ""  # of a Ray cluster (auto: the one this machine is in); by default this machine alone
    cpus: float = 1  # cores per run
    gpus: float = 0  # GPUs per run, 0.5 for two runs on one; with 0 the runs stay on the CPU
    export: bool = False  # write the CSV of each complete run of --rows
    out: str = str(RESULTS)  # with --export: the folder of the CSV files
    dry_run: bool = False  # print the commands, their number and an estimate of their time, and start nothing


@dataclass
class Run:
    name: str  # ALGO/TASK/seedK or ROW/seedK
    run_dir: Path  # of the sweep
    script: str  # its name
    words: list  # the script's flags, but for --run-dir or --resume
    flags: dict  # what the script makes of them
    row: str = ""  # its full name, if it is a row's
    intervention: str = ""  # of benchmark/interventions.py
    needs: "Run | None" = None  # the run whose transitions this one fits a model to

    @property
    def folder(self):
        return self.run_dir / self.name


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


def flags_of(program):
    """All flags that a program has."""
    names = [field.name.replace("_", "-") for field in fields(PROGRAMS[program].Args)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names}


def run_dir_of(args):
    default = args.preset or ("rows" if args.rows else "sweep")
    return Path(args.run_dir or f"runs/{default}").resolve()


def plan(args, passed=()):
    """The Runs of a sweep. A mistake ends the program here, before anything is started."""
    passed = split_flags(passed)
    for flag in passed:
        if flag in OWN:
            ftfl.fail(f"{flag} can't stand after --: the sweep sets it")
    if not 0.001 <= args.cpus < 1e6 or not 0 <= args.gpus <= 1:
        ftfl.fail("--cpus must be 0.001 or more, and --gpus lie in [0, 1]")
    if args.jobs < 0:
        ftfl.fail(f"--jobs must be at least 1, or 0, not {args.jobs}")
    if args.export and not args.rows:
        ftfl.fail("--export is for --rows; plots.py export writes the CSV of other runs")
    if args.export and passed and Path(args.out).resolve() == RESULTS:
        ftfl.fail(f"{list(passed)[0]} changes the rows: --export then needs an --out of its own")
    runs = runs_of_rows(args, passed) if args.rows else runs_of_preset(args, passed)
    for run in {run.folder.parent: run for run in runs}.values():
        refuse_other_flags(run)
    return runs


def runs_of_preset(args, passed):
    """Those of --algos, --tasks and --seeds."""
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
    num_seeds = args.num_seeds or preset.get("num_seeds", 1)
    runs = []
    for task in tasks:
        kind = "dmc flags" if task.startswith("dm_control/") else "gym flags"
        for algo in algos:
            script, own = ALGOS[algo]
            flags = split_flags(preset.get("flags", "")) | split_flags(preset.get(kind, ""))
            flags |= passed | split_flags(own)
            name = f"{algo}/{sac.full_env_id(task).replace('/', '-')}"
            runs += runs_of(args, name, script, task, flags, seeds, num_seeds)
    if len({run.name for run in runs}) < len(runs):
        ftfl.fail(f"--tasks {' '.join(tasks)}: one is there twice")
    return runs


def runs_of_rows(args, passed):
    """Those of --rows."""
    for flag in ("preset", "algos", "tasks"):
        if getattr(args, flag):
            ftfl.fail(f"--{flag} can't be with --rows: a row has its own")
    by_name = {row.full_name: row for row in ROWS}
    wanted = {}
    for name in args.rows:
        found = {name: by_name[name]} if name in by_name else {}
        if not found:
            found = {x: row for x, row in by_name.items() if x.startswith(name) or name == "all"}
        if not found:
            ftfl.fail(f"--rows {name}: no row of benchmark/experiments.py is named so or begins so")
        wanted |= found
    runs = {}
    for row in wanted.values():
        needs = None
        if row.needs:
            (needs,) = runs_of_row(args, by_name[row.needs], passed)
        for run in runs_of_row(args, row, passed, needs):
            if not args.seeds or run.flags["seed"] in args.seeds:
                runs[run.name] = run
                if needs:
                    runs[needs.name] = needs
    if not runs:
        ftfl.fail(f"--seeds {' '.join(map(str, args.seeds))}: no run of --rows begins with one of them")
    return list(runs.values())


def runs_of_row(args, row, passed, needs=None):
    flags = split_flags(row.flags) | passed
    num_seeds = len(row.seeds) if row.together else min(args.num_seeds or 1, len(row.seeds))
    about = {"row": row.full_name, "intervention": row.intervention, "needs": needs}
    return runs_of(args, row.full_name, row.script, row.task, flags, row.seeds, num_seeds, **about)


def runs_of(args, name, program, task, flags, seeds, num_seeds, **about):
    """The Runs of a program on a task: one per `num_seeds` seeds, side by side. It gets no flags that only
    other programs have."""
    n, seeds = num_seeds, sorted(seeds)
    groups = [seeds[i : i + n] for i in range(0, len(seeds), n)] if n > 0 else []
    if not groups or any(group != list(range(group[0], group[0] + n)) for group in groups):
        ftfl.fail(f"--num-seeds {n}: --seeds {seeds} are no groups of {n} that follow each other")
    if seeds[0] < 0 or seeds[-1] >= 2**32:
        ftfl.fail(f"--seeds must lie in [0, 2^32), not {seeds[0]} to {seeds[-1]}")

    others = set().union(*map(flags_of, PROGRAMS)) - flags_of(program)
    flags = {flag: values for flag, values in flags.items() if flag not in others}
    if args.gpus:
        flags["--device"] = ["cuda"]
    flags.setdefault("--device", ["cpu"])
    words = [word for flag, values in flags.items() for word in (flag, *values)]
    module = PROGRAMS[program]
    env_id = sac.full_env_id(task)
    parsed = module.parse_args(["--env-id", env_id, *words])
    if module is not model_study:
        # Where the runs are, there may be a GPU, and more threads
        module.check_args(replace(parsed, device="cpu", num_threads=min(parsed.num_threads, 1)))
        if module is not sac:
            module.termination_rule(env_id)

    runs = []
    for group in groups:
        seed = f"seed{group[0]}" + (f"-{group[-1]}" if n > 1 else "")
        here = {"env_id": env_id, "seed": group[0], "num_seeds": n}
        start = ["--env-id", env_id, "--seed", str(group[0]), "--num-seeds", str(n)]
        parsed_here = asdict(replace(parsed, **here))
        runs.append(Run(f"{name}/{seed}", run_dir_of(args), program, start + words, parsed_here, **about))
    return runs


def own_flags(algo):
    """The names of the flags that make an algorithm what it is."""
    return {re.sub("^--(no-)?", "", flag).replace("-", "_") for flag in split_flags(ALGOS[algo][1])}


def refuse_other_flags(run):
    """A folder has runs of a row, or of a preset's task, with the same flags only: else a figure would
    compare what differs in more than the algorithm."""
    mine, task = run.name.split("/")[:2]
    pattern = f"{mine}/*/*/args.json" if run.row else f"*/{task}/*/*/args.json"
    for path in run.run_dir.glob(pattern):
        other = path.relative_to(run.run_dir).parts[0]
        try:
            there = json.loads(path.read_text())
        except json.JSONDecodeError:
            continue  # killed while it was written
        if not run.row and other not in ALGOS:
            continue
        names = run.flags.keys()
        if other != mine or run.script == "model_study":  # args.json of a study has the flags of ftfl.py
            names = names & there.keys()
        if not run.row:
            names = names - own_flags(mine) - own_flags(other)
        for name in sorted(names - MAY_CHANGE - {"seed"}):
            if there.get(name) != run.flags[name]:
                flag, was = f"{mine}'s --{name.replace('_', '-')} is {run.flags[name]}", there.get(name)
                ftfl.fail(f"{flag}, but was {was} in {path.parent}: name another --run-dir")


def seconds(run):
    """What a run takes on one core, estimated from two rates: 1/rate = rest + updates * update. The rest
    counts as the model's, and grows with its gradient steps. Left out: random steps, evaluations, --compile,
    GPUs, and other sizes of networks and batches than the defaults and WIDE."""
    flags = run.flags
    if run.script == "model_study":
        wide = WIDE if flags["model_hidden_dim"] == 400 else 1
        return flags["num_seeds"] * flags["steps"] * wide / STUDY_RATE
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
    if run.script == "model_study":  # it has no checkpoint; `attempt` notes its end
        path = run.folder / "complete"
        return path.exists() and int(path.read_text()) >= run.flags["steps"]
    return progress(run.folder)[0] >= run.flags["total_timesteps"]


def command(run):
    """What a person would type to begin the run, or to go on with it."""
    folder = ROOT / "benchmark" if run.script == "model_study" else ROOT
    program = [str(folder / f"{run.script}.py")]
    if run.intervention:
        program = [str(ROOT / "benchmark/interventions.py"), run.intervention, run.script]
    words = run.words
    if run.needs:
        transitions = progress(run.needs.folder)[1] or run.needs.folder / "RUN"  # which is not there yet
        words = [*words, "--buffer", str(transitions)]
    run_dir = progress(run.folder)[1]
    where = ["--resume", str(run_dir)] if run_dir else ["--run-dir", str(run.folder)]
    return [sys.executable, *program, *words, *where]


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


def attempt(run, environment=None, is_stopped=lambda: False):
    """Bring a run to its end, and before it the one that it needs. Returns the last exit code."""
    if run.needs and (code := attempt(run.needs, environment, is_stopped)):
        return code
    if not run.run_dir.is_dir():  # the sweep has made it; one of this node's own would be seen by nobody
        raise FileNotFoundError(f"there is no {run.run_dir}")
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / "lock", "a") as lock, open(run.folder / "log.txt", "a") as log:
        while is_locked(lock):  # by a script whose node was lost, or whose sweep was killed, until it ends
            if is_stopped():
                return STOPPED
            time.sleep(1)
        for _ in range(1 + RETRIES):
            if is_complete(run):
                return 0
            if is_stopped():
                return STOPPED
            if not progress(run.folder)[1]:  # a beginning without a checkpoint would be a second run in plots
                for path in run.folder.glob("*/"):
                    shutil.rmtree(path)
            code = run_script(run, lock, log, environment, is_stopped)
            if code == 0 and run.script == "model_study":
                (run.folder / "complete").write_text(str(run.flags["steps"]))
            if code in (0, 2):  # 2: a mistake in the flags, which another attempt would find, too
                break
    return code


def run_script(run, lock, log, environment, is_stopped):
    """Run its command to the end, or to the end that a stopped sweep wants. Returns the exit code."""
    words = command(run)
    print("\n$", shlex.join(words), file=log, flush=True)  # a killed script's last line has no end
    start = [sys.executable, "-c", START, str(os.getpid()), *words]
    process = subprocess.Popen(
        start,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[lock.fileno()],
        env=os.environ | {"TQDM_MININTERVAL": "5"} | (environment or {}),  # a short log
        start_new_session=True,  # Ctrl-C is for the sweep, which then stops its runs
    )
    try:
        while (code := process.poll()) is None:
            if is_stopped():
                process.terminate()
                return process.wait()
            time.sleep(0.5)
    except KeyboardInterrupt:  # from ray.cancel
        process.terminate()
        process.wait()
        raise
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
    """Of a run that is not complete, from its progress bar. In a run the model's trainings have one, too."""
    is_study = run.script == "model_study"
    bar = "model" if is_study else run.script
    steps = re.findall(rf"{bar}[^\n:]*: [^\n]* (\d+)/\d+ \[", end_of_log(run, 20_000))
    return min(int(steps[-1]) / run.flags["steps" if is_study else "total_timesteps"], 1) if steps else 0


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


class Machine:
    """This machine: a thread per run that waits for its script."""

    def __init__(self, args):
        jobs = int(cores_here() / args.cpus)
        if not jobs:
            ftfl.fail(f"--cpus {args.cpus:g}: this machine has {cores_here()}")
        self.gpus = queue.SimpleQueue()  # a GPU's number, as often as there is room for a run on it
        self.on_gpus = args.gpus > 0
        if self.on_gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            numbers = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
            places = [number for number in numbers for _ in range(int(1 / args.gpus))]
            if not torch.cuda.is_available() or not places:
                ftfl.fail(f"--gpus {args.gpus:g}: this machine has none")
            for place in places:
                self.gpus.put(place)
            jobs = len(places)
        self.pool = ThreadPoolExecutor(args.jobs or jobs)
        self.stopping = threading.Event()
        self.runs = {}  # future: Run

    def start(self, run):
        self.runs[self.pool.submit(self.work, run)] = run

    def work(self, run):
        if not self.on_gpus:
            return attempt(run, {}, self.stopping.is_set)
        number = self.gpus.get()
        try:
            return attempt(run, {"CUDA_VISIBLE_DEVICES": number}, self.stopping.is_set)
        finally:
            self.gpus.put(number)

    def finished(self):
        """[(run, exit code or what was wrong)] of those that have ended, after a second or less."""
        ended = []
        for future in wait(self.runs, timeout=1, return_when=FIRST_COMPLETED).done:
            error = future.exception()
            code = f"{type(error).__name__}: {error}" if error else future.result()
            ended.append((self.runs.pop(future), code))
        return ended

    def stop(self):
        """Have what is running leave a checkpoint, and wait for it."""
        self.stopping.set()
        self.pool.shutdown(cancel_futures=True)


def on_a_node(run):
    """What Ray does: an attempt. Returns its exit code, or what keeps this node from it, and the node."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    try:
        return attempt(run), node
    except OSError as error:
        return f"{socket.gethostname()} can't work in --run-dir, which all nodes must share: {error}", node


class Cluster:
    """A Ray cluster. Ray decides what runs where and when."""

    def __init__(self, args):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            ftfl.fail("--address: Ray is missing: pip install -r benchmark/requirements-sweep.txt")
        try:
            host, _, port = args.address.partition(":")
            if port.isdigit():  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(args.address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            ftfl.fail(f"--address {args.address}: {str(error)[:200]}")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(n.get("CPU", 0) >= args.cpus and n.get("GPU", 0) >= args.gpus for n in nodes):
            what = f"--cpus {args.cpus:g} --gpus {args.gpus:g}: no node has as many; waiting for one"
            print(what, flush=True)
        self.ray = ray
        # A run whose node is lost begins again elsewhere, however often that happens
        self.task = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_retries=-1)(on_a_node)
        self.runs = {}  # Ray's reference: Run
        self.useless = set()  # nodes that can't work in the folder

    def start(self, run):
        self.runs[self.task.remote(run)] = run

    def finished(self):
        ended = []
        for ref in self.ray.wait(list(self.runs), timeout=1)[0]:
            run = self.runs.pop(ref)
            try:
                code, node = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                code, node = str(error).strip().splitlines()[-1], ""
            if node and isinstance(code, str) and self.started_elsewhere(run, code, node):
                continue
            if code == 0 and not is_seen_complete(run):
                code = "its node's --run-dir is another folder than this machine's"
            ended.append((run, code))
        return ended

    def started_elsewhere(self, run, why, node):
        """Give a run that this node can't begin to another one, if there is any."""
        if node not in self.useless:
            print(f"{why}. What it can't begin goes to other nodes", flush=True)
        self.useless.add(node)
        others = [x for x in self.ray.nodes() if x["Alive"] and x["NodeID"] not in self.useless]
        if others:
            elsewhere = {"ray.io/node-id": f"!in({','.join(self.useless)})"}
            self.runs[self.task.options(label_selector=elsewhere).remote(run)] = run
        return bool(others)

    def stop(self):
        for ref in self.runs:
            self.ray.cancel(ref)
        self.ray.wait(list(self.runs), num_returns=len(self.runs))
        while any(map(is_running, self.runs.values())):
            time.sleep(0.5)


def write_csv(run, out):
    """Write a complete run's CSV. Returns what kept it from that, or nothing."""
    from export import export  # here, because it takes seconds to load

    (row,) = (row for row in ROWS if row.full_name == run.row)
    seeds = [(json.loads(path.read_text())["seed"], path.parent) for path in run.folder.glob("*/args.json")]
    try:
        export(row, [run_dir for _, run_dir in sorted(seeds)], out)
    except (Exception, SystemExit) as error:  # must stop no other run
        return f"its CSV can't be written: {type(error).__name__}: {error}"


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
    for run in runs:
        if run.flags["device"] != "cpu" and not args.gpus:
            ftfl.fail(f"--rows {run.row} was run on a GPU: say --gpus 1")
    folders = {"--run-dir": run_dir_of(args)}
    if args.export:
        folders["--out"] = Path(args.out).resolve()
    for flag, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                is_locked(file)
        except OSError as error:
            ftfl.fail(f"{flag} {folder} can't be written to, or files in it can't be locked: {error}")
    machine = Cluster(args) if args.address else Machine(args)
    done, failed, signals = set(), {}, []
    for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends the sweep at once
        signal.signal(number, lambda n, _: os._exit(128 + n) if signals else signals.append(n))

    def settle(run, code):
        """Note that a run has ended, well or not."""
        if code == 0 and args.export:
            code = write_csv(run, args.out) or 0
        if code == 0:
            done.add(run.name)
            return
        what = f"exit code {code}" if isinstance(code, int) else str(code)
        end = "\n    ".join([f"{run.folder}/log.txt ends:", *end_of_log(run).splitlines()[-10:]])
        failed[run.name] = f"{run.name} failed ({what}). {end}"
        print(f"{run.name} failed", flush=True)

    for run in runs:
        if is_complete(run):
            settle(run, 0)
    before, began, due = work_done(runs, done), time.time(), 0
    for run in runs:
        if run.name not in done and run.name not in failed:
            machine.start(run)
    print(*(f"{x:>9}" for x in ("time", "running", "waiting", "done", "failed")), f"{'time left':>19}")
    while machine.runs and not signals:
        finished = machine.finished()
        for run, code in finished:
            settle(run, code)
        if finished or time.time() > due:
            show(runs, done, failed, time.time() - began, before)
            due = time.time() + 60
    if machine.runs:
        print("stopped by a signal: waiting for the checkpoints of what is running", flush=True)
        machine.stop()
        ftfl.fail("stopped by a signal; the same command goes on", 128 + signals[0])
    print(f"{len(done)} runs complete, {len(failed)} failed")
    for text in failed.values():
        print(text, file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    main(tyro.cli(Args, args=sys.argv[1:at], description=__doc__), sys.argv[at + 1 :])
