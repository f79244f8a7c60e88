"""How fast the scripts are, beside what else one could run, and beside the bare matrix multiplications.

    python benchmark/throughput.py                                   # ours and the floor
    python benchmark/throughput.py --peers .venv-peers/bin/python --mbrl .venv-mbrl/bin/python
    python benchmark/throughput.py --before ../at-an-older-commit    # and ours as they were there
    python benchmark/throughput.py --gpu cuda                        # six seeds of ftfl.py side by side

Every implementation runs in a process of its own, pinned to one core or to two, and waits while another one
is measured. One round measures each once, then the next begins; the table has the medians over the rounds.
The floor is the fastest of three libraries in that round: torch by MKL, torch by oneDNN, numpy by OpenBLAS.
benchmark/README.md says how to install the peers (Stable-Baselines3 and SBX in one virtual environment, mbrl
in another).
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

SHAPES = {"walker": (24, 6), "humanoid": (67, 21)}
UPDATES, BATCH, HIDDEN, NETWORKS, WIDTH, ROLLOUTS = 20, 256, 256, 7, 200, 400
ROWS = 20_000  # transitions in the buffers
TASKS = {  # name: what one number is
    "sac": f"ms for one SAC update (batch {BATCH}; all {UPDATES} of an environment step, sampling included)",
    "ensemble": f"ms for one ensemble update ({NETWORKS} networks x batch {BATCH}, sampling included)",
    "imagine": f"ms for {ROLLOUTS} imagined transitions",
}
ROOT = Path(__file__).parent.parent


# ---------------------------------------- Workers: ours
def ours(compile):
    """{task: function (obs_dim, act_dim) -> function to be timed, units in it}."""
    import torch

    sys.path.insert(0, str(ROOT))
    import ftfl

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ftfl.fast_matmul()
    torch.manual_seed(0)
    args = ftfl.Args(device="cpu", model_train_steps=UPDATES, rollouts_per_step=ROLLOUTS)

    def compiled(part):
        """The agent or the model, with its update as main() compiles it."""
        if compile:
            ftfl.compile_updates({"part": part}, torch.device("cpu"))
        return part

    def filled(obs_dim, act_dim):
        buffer = ftfl.ReplayBuffer(1, ROWS, obs_dim, act_dim)
        buffer.add(ftfl.Batch(*(torch.randn(1, ROWS, *x.shape[2:]) for x in buffer.data)))
        buffer.data.terminations.zero_()
        return buffer

    def sac(obs_dim, act_dim):
        buffer, agent = filled(obs_dim, act_dim), compiled(ftfl.SAC(obs_dim, act_dim, args))
        num_real = round(args.real_ratio * BATCH)
        num_synthetic = BATCH - num_real

        def updates():
            """Those of an environment step, as main() does them, each on real and synthetic rows."""
            for _ in range(UPDATES):
                batch = buffer.take(torch.randint(ROWS, (1, num_real)))
                synthetic_batch = buffer.take(torch.randint(ROWS, (1, num_synthetic)))
                batch = ftfl.Batch(*[torch.cat(pair, dim=1) for pair in zip(batch, synthetic_batch)])
                next_noise = torch.randn(1, BATCH, act_dim)
                noise = torch.randn(1, BATCH, act_dim)
                agent.update(batch, next_noise, noise)

        return updates, UPDATES

    def ensemble(obs_dim, act_dim):
        buffer, model = filled(obs_dim, act_dim), compiled(ftfl.Ensemble(obs_dim, act_dim, args))
        bootstraps = torch.randint(ROWS, (1, NETWORKS, ROWS))

        def updates():
            """As train_model() does them, once the rows of each network are drawn."""
            for _ in range(UPDATES):
                drawn = torch.randint(ROWS, (1, NETWORKS, BATCH))
                model.update(buffer.take(torch.take_along_dim(bootstraps, drawn, dim=2)))

        return updates, UPDATES

    def imagine(obs_dim, act_dim):
        buffer, agent = filled(obs_dim, act_dim), ftfl.SAC(obs_dim, act_dim, args)
        model, synthetic = ftfl.Ensemble(obs_dim, act_dim, args), filled(obs_dim, act_dim)
        never = ftfl.termination_rule("dm_control/walker-walk-v0")
        return lambda: ftfl.imagine(agent, model, buffer, synthetic, never, 1, args), 1

    return {"sac": sac, "ensemble": ensemble, "imagine": imagine}


def floor(library):
    """The multiplications alone: of each layer its forward, and what backward needs of its two, batched."""
    import numpy as np
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if library == "oneDNN":
        sys.path.insert(0, str(ROOT))
        import ftfl

        ftfl.fast_matmul()

    def layer(stack, rows, a, b, weights=True, inputs=True):
        """Products of a linear layer of `stack` networks: forward, gradient of weights, of inputs."""
        x, w, y = torch.randn(stack, rows, a), torch.randn(stack, a, b), torch.randn(stack, rows, b)
        products = [(x, w)] + [(x.transpose(1, 2), y)] * weights + [(y, w.transpose(1, 2))] * inputs
        out = [torch.empty(*p.shape[:2], q.shape[2]) for p, q in products]
        return [(p, q, o) for (p, q), o in zip(products, out)]

    def network(stack, dims, rows, weights=True, inputs=True, first_input=False):
        pairs = list(zip(dims, dims[1:]))
        return [
            p
            for i, (a, b) in enumerate(pairs)
            for p in layer(stack, rows, a, b, weights, inputs and (i > 0 or first_input))
        ]

    def run(products, times=1):
        multiply = torch.bmm
        if library == "numpy":
            multiply, products = np.matmul, [[x.numpy() for x in product] for product in products]

        def all_products():
            for _ in range(times):
                for a, b, out in products:
                    multiply(a, b, out=out)

        return all_products

    def sac(obs_dim, act_dim):
        actor, critic = [obs_dim, HIDDEN, HIDDEN, 2 * act_dim], [obs_dim + act_dim, HIDDEN, HIDDEN, 1]
        products = network(1, actor, BATCH, False, False) + network(
            2, critic, BATCH, False, False
        )  # the target
        products += network(2, critic, BATCH)  # the critics' loss
        products += network(1, actor, BATCH) + network(
            2, critic, BATCH, False, True, True
        )  # the actor's, through the critics
        return run(products, UPDATES), UPDATES

    def ensemble(obs_dim, act_dim):
        return run(
            network(NETWORKS, [obs_dim + act_dim] + 4 * [WIDTH] + [2 * obs_dim + 2], BATCH), UPDATES
        ), UPDATES

    def imagine(obs_dim, act_dim):
        actor = network(1, [obs_dim, HIDDEN, HIDDEN, 2 * act_dim], ROLLOUTS, False, False)
        # each row by one of the networks would do: a seventh of what all networks on all rows take
        model = network(
            NETWORKS,
            [obs_dim + act_dim] + 4 * [WIDTH] + [2 * obs_dim + 2],
            -(-ROLLOUTS // NETWORKS),
            False,
            False,
        )
        return run(actor + model), 1

    return {"sac": sac, "ensemble": ensemble, "imagine": imagine}


# ---------------------------------------- Workers: peers
def random_env(obs_dim, act_dim):
    """An environment of these sizes, for peers that can't be made without one."""
    import gymnasium as gym
    import numpy as np

    class Random(gym.Env):
        observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (act_dim,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(obs_dim, np.float32), {}

        def step(self, action):
            return np.random.randn(obs_dim).astype(np.float32), 0.1, False, False, {}

    return Random()


def stable_baselines(library):
    """SAC of Stable-Baselines3 ("sb3") or of SBX, with the sizes of ours."""

    def sac(obs_dim, act_dim):
        import numpy as np
        from stable_baselines3.common.logger import configure

        if library == "sb3":
            import torch
            from stable_baselines3 import SAC

            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
            kwargs = {"policy_kwargs": {"net_arch": [HIDDEN, HIDDEN]}, "device": "cpu"}
        else:
            from sbx import SAC

            kwargs = {"policy_kwargs": {"net_arch": [HIDDEN, HIDDEN]}}
        env = random_env(obs_dim, act_dim)
        model = SAC(
            "MlpPolicy", env, buffer_size=ROWS, batch_size=BATCH, gradient_steps=UPDATES, seed=1, **kwargs
        )
        model.set_logger(configure(None, []))
        for _ in range(ROWS):
            a, b = np.random.randn(2, 1, obs_dim).astype(np.float32)
            action = np.random.uniform(-1, 1, (1, act_dim)).astype(np.float32)
            model.replay_buffer.add(a, b, action, np.random.randn(1).astype(np.float32), np.zeros(1), [{}])
        if library == "sb3":
            return lambda: model.train(gradient_steps=UPDATES, batch_size=BATCH), UPDATES
        return lambda: model.train(batch_size=BATCH, gradient_steps=UPDATES), UPDATES

    return {"sac": sac}


def mbrl():
    """The SAC that mbrl ships (pranz24's), and its GaussianMLP ensemble."""
    from types import SimpleNamespace

    import numpy as np
    import torch
    from mbrl.models import GaussianMLP, OneDTransitionRewardModel
    from mbrl.third_party.pytorch_sac_pranz24.sac import SAC
    from mbrl.util import ReplayBuffer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    silu = {"_target_": "torch.nn.SiLU"}

    def filled(obs_dim, act_dim):
        buffer = ReplayBuffer(ROWS, (obs_dim,), (act_dim,), rng=np.random.default_rng(0))
        for _ in range(ROWS):
            buffer.add(
                np.random.randn(obs_dim),
                np.random.randn(act_dim),
                np.random.randn(obs_dim),
                0.1,
                False,
                False,
            )
        return buffer

    def sac(obs_dim, act_dim):
        space = SimpleNamespace(shape=(act_dim,), high=np.ones(act_dim), low=-np.ones(act_dim))
        args = dict(gamma=0.99, tau=0.005, alpha=0.2, lr=3e-4, policy="Gaussian", hidden_size=HIDDEN)
        args |= dict(automatic_entropy_tuning=True, target_entropy=-act_dim / 2, target_update_interval=1)
        args = SimpleNamespace(device="cpu", **args)
        agent, memory = SAC(obs_dim, space, args), filled(obs_dim, act_dim)
        return lambda: [
            agent.update_parameters(memory, BATCH, u, reverse_mask=True) for u in range(UPDATES)
        ], UPDATES

    def parts(obs_dim, act_dim):
        net = GaussianMLP(
            obs_dim + act_dim,
            obs_dim + 1,
            "cpu",
            4,
            NETWORKS,
            WIDTH,
            activation_fn_cfg=silu,
            propagation_method="random_model",
        )
        model = OneDTransitionRewardModel(net, normalize=True, num_elites=5)
        model.set_elite(range(5))
        return model, filled(obs_dim, act_dim)

    def ensemble(obs_dim, act_dim):
        from mbrl.util.replay_buffer import BootstrapIterator

        model, buffer = parts(obs_dim, act_dim)
        model.update_normalizer(buffer.get_all())
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=5e-5)
        batches = BootstrapIterator(buffer.get_all(), BATCH, NETWORKS, rng=np.random.default_rng(0))

        def updates():
            done = 0
            while done < UPDATES:
                for batch in batches:
                    model.update(batch, optimizer)
                    done += 1
                    if done == UPDATES:
                        break

        return updates, UPDATES

    def imagine(obs_dim, act_dim):
        model, buffer = parts(obs_dim, act_dim)
        model.update_normalizer(buffer.get_all())
        rng = torch.Generator().manual_seed(0)
        agent_act = np.random.randn(ROLLOUTS, act_dim).astype(
            np.float32
        )  # without the policy, which ours includes

        def step():
            obs = buffer.sample(ROLLOUTS).obs.astype(np.float32)
            state = model.reset(torch.from_numpy(obs), rng)
            with torch.no_grad():
                model.sample(torch.from_numpy(agent_act), state, deterministic=False, rng=rng)

        return step, 1

    return {"sac": sac, "ensemble": ensemble, "imagine": imagine}


FLOORS = ("MKL", "oneDNN", "numpy")
WORKERS = {
    **{name: partial(floor, name) for name in FLOORS},
    "ours": lambda: ours(False),
    "ours --compile": lambda: ours(True),
    "SB3": lambda: stable_baselines("sb3"),
    "SBX": lambda: stable_baselines("sbx"),
    "mbrl": mbrl,
}


def work(name):
    """A worker: reads "task obs act" lines, answers each with the milliseconds per unit, or with "none"."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    tasks, ready = WORKERS[name](), {}
    for line in sys.stdin:
        task, obs_dim, act_dim = line.split()
        if task not in tasks:
            print("none", file=answers, flush=True)
            continue
        if line not in ready:
            ready = {line: tasks[task](int(obs_dim), int(act_dim))}
            for _ in range(3):
                ready[line][0]()  # warm up, and compile
        function, units = ready[line]
        calls = 1 if units > 1 else 20
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        print(1000 * (time.perf_counter() - begin) / (calls * units), file=answers, flush=True)


# ---------------------------------------- Whole steps
def steps_per_second(script, utd, env_id, threads, compile, device="cpu", num_seeds=1, env_workers=False):
    """Environment steps per second of a whole run after its random steps, all seeds together: the median over
    stretches of ten steps; and the share of that time in updates, model training, imagination. The model is
    trained by its default of 20 batches per step. A compiled update can't be timed from within, and nothing
    can on a GPU: there, the share is None."""
    program = """
import statistics, sys, time, tempfile
sys.path.insert(0, sys.argv.pop(1))
script, utd, env_id, threads, steps, compile, device, num_seeds, env_workers = sys.argv[1:]
module, steps = __import__(script), int(steps)
times, spent_at, spent = [], [], [0.0]
class Clock(module.tqdm):
    def __iter__(self):
        for x in super().__iter__():
            yield x
            if self.unit == "step":  # not a training of the model
                times.append(time.perf_counter())
                spent_at.append(spent[0])
module.tqdm = Clock
def timed(function):
    def call(*a, **k):
        begin = time.perf_counter()
        try:
            return function(*a, **k)
        finally:
            spent[0] += time.perf_counter() - begin
    return call
if compile == "no":
    module.SAC.update = timed(module.SAC.update)
flags = dict(env_id=env_id, utd_ratio=int(utd), learning_starts=1000, total_timesteps=1000 + steps)
flags |= dict(num_threads=int(threads), eval_interval=10**9, eval_episodes=1, checkpoint_interval=10**9)
flags |= dict(device=device, compile=compile == "yes", num_seeds=int(num_seeds))
flags["env_workers"] = env_workers == "yes"
if script != "sac":
    module.train_model, module.imagine = timed(module.train_model), timed(module.imagine)
    flags |= dict(model_train_interval=10, model_train_steps=200)
with tempfile.TemporaryDirectory() as folder:
    module.main(module.Args(run_dir=folder, **flags))
# Without the last step, in which a run evaluates and leaves a checkpoint
chunks = [10 * int(num_seeds) / (b - a) for a, b in zip(times[1009:-1:10], times[1019:-1:10])]
print(statistics.median(chunks), (spent_at[-2] - spent_at[999]) / (times[-2] - times[999]))
"""
    steps = 400 if utd == 1 and script == "sac" or device != "cpu" else 50
    words = [ROOT, script, utd, env_id, threads, steps, "yes" if compile else "no", device, num_seeds]
    words.append("yes" if env_workers else "no")
    command = [*pinned(threads) * (device == "cpu"), sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    speed, share = (float(x) for x in done.stdout.split()[-2:])
    return speed, None if compile or device != "cpu" else share


# ---------------------------------------- Coordinator
def fail(message):
    """Report a user's mistake in one line and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def check_args(peers, mbrl, before, rounds, threads, gpu, out):
    """Stop at the first flag that makes no sense, before the half hour of measuring."""
    if rounds < 1:
        fail(f"--rounds must be at least 1, not {rounds}")
    cores = len(os.sched_getaffinity(0))
    if not threads or not all(1 <= count <= cores for count in threads):
        given = " ".join(map(str, threads)) or "none"
        fail(f"--threads are pinned to a core each: between 1 and {cores} here, not {given}")
    if before and not Path(before, "benchmark/throughput.py").exists():
        fail(
            f"--before must be a checkout of this repository: there is no benchmark/throughput.py in {before}"
        )
    for flag, python, modules in (
        ("--peers", peers, "stable_baselines3, sbx"),
        ("--mbrl", mbrl, "mbrl.models"),
    ):
        try:
            if python and subprocess.run([python, "-c", f"import {modules}"], capture_output=True).returncode:
                fail(f"{flag} {python} can't import {modules}: benchmark/README.md says what it needs")
        except OSError as error:
            fail(f"{flag} must be the python of a virtual environment, not {python} ({error.strerror})")
    if gpu:
        import torch

        try:
            torch.empty(0, device=gpu)
        except (RuntimeError, AssertionError) as error:
            fail(f"--gpu {gpu} can't be used here: {str(error).splitlines()[0]}")
    try:
        open(out, "a").close()
    except OSError as error:
        fail(f"--out {out} can't be written: {error.strerror}")


def pinned(threads):
    return ["taskset", "-c", ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:threads])]


def environment(threads):
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    flags += f" intra_op_parallelism_threads={threads}"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return ours | {
        # glibc keeps what is freed, as in a run by itself, once a large buffer has been freed. If not, an
        # update of the ensemble takes up to 1.4 times as long here
        "MALLOC_MMAP_THRESHOLD_": str(10**9),
        "MALLOC_TRIM_THRESHOLD_": str(10**9),
        "OMP_NUM_THREADS": str(threads),
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "MUJOCO_GL": "disable",
    }


def measure(pythons, threads, rounds, names, before=""):
    """{(shape, task): {worker: [ms, ...]}} at a number of threads. The floors stay apart."""
    results = {}
    for shape, sizes in SHAPES.items():
        # Workers of its own: what torch.compile has seen in two shapes it compiles for all, and slower
        workers, logs = {}, {}
        for name in names:
            file = Path(before, "benchmark/throughput.py") if name.startswith("before") else __file__
            command = [*pinned(threads), pythons.get(name, sys.executable), file, "--worker"]
            command.append(name.replace("before", "ours"))
            logs[name] = open(Path(tempfile.gettempdir(), f"throughput-{name.replace(' ', '')}.log"), "w")
            workers[name] = subprocess.Popen(
                command, env=environment(threads), stdin=-1, stdout=-1, stderr=logs[name], text=True
            )
        for task in TASKS:
            times = results[shape, task] = {name: [] for name in workers}
            for _ in range(rounds):
                for name, worker in workers.items():
                    time.sleep(0.3)  # numpy's threads still spin for a while, and held up whoever came next
                    with contextlib.suppress(BrokenPipeError):  # then there is no answer
                        print(task, *sizes, file=worker.stdin, flush=True)
                    answer = worker.stdout.readline().strip()
                    assert answer, f"{name} died: see {logs[name].name}"
                    if answer != "none":
                        times[name].append(float(answer))
            medians = {name: statistics.median(ms) for name, ms in times.items() if ms}
            print(
                f"{threads} thread{'s' * (threads > 1)}, {shape}, {task}: "
                + ", ".join(f"{n} {t:.2f}" for n, t in medians.items()),
                flush=True,
            )
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    return results


def floor_of(times):
    """The ms of the fastest library in each round, from {library: [ms, ...]}; and which most often is."""
    rounds = list(zip(*(times[name] for name in FLOORS)))
    fastest = Counter(FLOORS[ms.index(min(ms))] for ms in rounds)
    return [min(ms) for ms in rounds], fastest.most_common(1)[0][0]


def main(
    peers: str = "",
    mbrl: str = "",
    before: str = "",
    rounds: int = 15,
    threads: tuple[int, ...] = (1, 2),
    steps: bool = True,
    gpu: str = "",
    out: str = "throughput.json",
):
    """Measure, print a table of ratios and write all numbers as JSON.

    Args:
        peers: python of a virtual environment with stable-baselines3 and sbx-rl
        mbrl: python of a virtual environment with mbrl
        before: another checkout of this repository: what its scripts need is measured beside
        rounds: measurements of each
        threads: numbers of threads, each pinned to as many cores
        steps: measure whole environment steps too
        gpu: a device, such as cuda: measure nothing but six seeds of ftfl.py there
        out: the JSON file
    """
    check_args(peers, mbrl, before, rounds, threads, gpu, out)
    record = {
        "machine": machine(gpu),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "ms": [],
        "steps_per_second": [],
    }
    if gpu:
        for compile, env_workers in (False, False), (False, True), (True, False), (True, True):
            speed, _ = steps_per_second(
                "ftfl", 20, "dm_control/humanoid-stand-v0", 1, compile, gpu, 6, env_workers
            )
            words = f"ftfl.py --num-seeds 6 --device {gpu}{' --env-workers' * env_workers}"
            words += " --compile" * compile
            record["steps_per_second"].append(
                {"command": words, "utd": 20, "env_id": "dm_control/humanoid-stand-v0", "value": speed}
            )
            Path(out).write_text(json.dumps(record, indent=1) + "\n")
            print(
                f"{words}, humanoid-stand, UTD 20: {speed:.1f} environment steps per second over all seeds",
                flush=True,
            )
        print(f"{record['machine']}, {record['date']}")
        return
    names = ["ours", "ours --compile"] + ["before", "before --compile"] * bool(before)
    names += ["SB3", "SBX"] * bool(peers) + ["mbrl"] * bool(mbrl)
    pythons = {"SB3": peers, "SBX": peers, "mbrl": mbrl}
    rows = []
    for count in threads:
        for (shape, task), times in measure(pythons, count, rounds, [*FLOORS, *names], before).items():
            bare, library = floor_of(times)
            medians = {name: statistics.median(values) for name, values in times.items() if values}
            row = {"threads": count, "shape": shape, "task": task, "floor": library}
            record["ms"].append(row | {"medians": medians, "all": times})
            # Round by round: a slow quarter of an hour of the machine is in both numbers, and falls out
            ratios = {n: statistics.median(ms / b for ms, b in zip(times[n], bare)) for n in medians}
            cells = [f"{medians[n]:.2f} ({ratios[n]:.2f})" if n in medians else "-" for n in names]
            rows.append([str(count), shape, task, f"{statistics.median(bare):.2f} {library}", *cells])
        runs = [(script, utd, False) for script in ("sac", "mbpo", "ftfl") for utd in (1, 20)] + [
            ("ftfl", 20, True)
        ]
        for script, utd, compile in runs * steps:
            for env_id in ("dm_control/walker-walk-v0", "dm_control/humanoid-stand-v0"):
                speed, share = steps_per_second(script, utd, env_id, count, compile)
                row = {
                    "threads": count,
                    "script": f"{script}.py{' --compile' * compile}",
                    "utd": utd,
                    "env_id": env_id,
                }
                record["steps_per_second"].append(row | {"value": speed, "share": share})
                print(
                    f"{count} threads, {row['script']}, UTD {utd}, {env_id}: {speed:.2f} steps/s",
                    flush=True,
                )
        Path(out).write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{record['machine']}, {record['date']}; medians of {rounds} rounds: ms (times the floor)\n")
    print(
        "| threads | shape | task | floor | " + " | ".join(names) + " |\n" + "|---" * (4 + len(names)) + "|"
    )
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    print("\n" + "\n".join(f"{name}: {text}" for name, text in TASKS.items()))
    print("\n| threads | script | UTD | task | steps/s | in updates and model |\n|---|---|---|---|---|---|")
    for r in record["steps_per_second"]:
        share = "-" if r["share"] is None else f"{r['share']:.0%}"
        print(f"| {r['threads']} | {r['script']} | {r['utd']} | {r['env_id']} | {r['value']:.2f} | {share} |")


def machine(gpu=""):
    """The processor's name, its family and model, its vector width and cores, and the GPU's name."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        about = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines)}
        name = f"{about['model name']} (family {about['cpu family']}, model {about['model']})"
    except (OSError, KeyError, ValueError):
        about, name = {}, platform.processor() or platform.machine()
    width = torch.backends.cpu.get_cpu_capability() + " and AMX" * ("amx_tile" in about.get("flags", ""))
    words = f"{name}, {width}, {os.cpu_count()} cores"
    if gpu.startswith("cuda"):
        words = f"{torch.cuda.get_device_name(gpu)}; {words}"
    return words


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        import tyro

        tyro.cli(main)
