"""Every published run as a row of data, and the presets of benchmark/sweep.py. Nothing is run here.

    python benchmark/sweep.py --rows critics-ftfl --export       # one row: its runs, then its CSV
    python benchmark/sweep.py --rows studies --dry-run           # all rows whose names begin so, as commands
    python benchmark/sweep.py --rows all --dry-run

A row's numbers are in benchmark/results/FOLDER: NAME.csv, or NAME__seedK.csv (studies: NAME__K.csv) where
each seed has a file; of the pilots, all in pilots.csv. --rows calls it FOLDER-NAME.
"""

from dataclasses import dataclass

TUN = "--next-state-prediction residual"
DNP = "--no-target-normalization"
NORM = "--critic-layer-norm"
BOUNDS = "--learned-logvar-bounds"

HOPPER = "Hopper-v5"
QUADRUPED = "dm_control/quadruped-walk-v0"
HUMANOID = "dm_control/humanoid-stand-v0"
CHEETAH = "dm_control/cheetah-run-v0"
FINGER = "dm_control/finger-spin-v0"

ALGOS = {  # name: the script, and the flags that make it this algorithm
    "sac": ("sac", ""),
    "mbpo": ("mbpo", ""),
    "tun": ("ftfl", TUN),
    "dnp": ("ftfl", DNP),
    "ftfl": ("ftfl", ""),
    "tuned": ("ftfl", "--model-hidden-dim 400"),
    "mbpo-bounds": ("mbpo", BOUNDS),
    "ftfl-beta": ("ftfl", "--nll-beta 0.5"),
}

# ---------------------------------------- Presets: algorithms x tasks x seeds
DMC = ["hopper-hop", "hopper-stand", "quadruped-walk", "quadruped-run"]
DMC += ["humanoid-stand", "humanoid-walk", "humanoid-run"]
DMC = [f"dm_control/{task}-v0" for task in DMC]
GYM = ["InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"]

PRESETS = {
    "paper": {  # the paper's Figures 1, 4 and 5
        "algos": ["sac", "mbpo", "ftfl", "tuned"],
        "tasks": [*DMC, *GYM],
        "seeds": [1, 2, 3, 4, 5, 6],
        "dmc flags": "--total-timesteps 500000",
        "gym flags": "--total-timesteps 300000",
    },
    "decisive": {  # six seeds on a GPU: what would decide most of the claims for the least hours
        "algos": ["ftfl", "mbpo", "mbpo-bounds", "ftfl-beta", "sac"],
        "tasks": [HUMANOID],
        "seeds": [1, 2, 3, 4, 5, 6],
        "num_seeds": 6,
        "flags": "--total-timesteps 150000",
    },
    "laptop": {  # the laptop grid
        "algos": ["sac", "mbpo", "tun", "dnp", "ftfl"],
        # walker-stand, finger-spin and cheetah-run were chosen by the pilots below
        "tasks": ["InvertedPendulum-v5", HOPPER, CHEETAH, "dm_control/walker-stand-v0", FINGER, QUADRUPED],
        "seeds": [1, 2, 3],
        # 20,000 gradient steps of the model within the first 2,500 steps after the random ones
        "flags": "--total-timesteps 12500 --learning-starts 5000 --utd-ratio 4 --critic-layer-norm "
        "--model-hidden-dim 100 --model-batch-size 128 --model-train-steps 2000 --eval-interval 2500 "
        "--compile",
    },
    "hopper": {  # Hopper at the scripts' defaults
        "algos": ["sac", "mbpo", "ftfl"],
        "tasks": [HOPPER],
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


# ---------------------------------------- Rows
@dataclass(frozen=True)
class Row:
    folder: str  # of benchmark/results
    name: str  # how its files begin
    script: str  # sac, mbpo, ftfl or model_study
    task: str  # --env-id
    flags: str  # all others but those of seeds and folders
    seeds: tuple = (1, 2, 3)
    together: bool = False  # whether its seeds are one process
    intervention: str = ""  # of benchmark/interventions.py: what it needs beyond flags
    needs: str = ""  # the row whose run holds the transitions that this one fits a model to
    shown: str = "data"  # the section of REPRODUCTION.md that draws or tables it first; data: none does

    @property
    def full_name(self):
        return f"{self.folder.replace('/', '-')}-{self.name}"

    def file(self, seed):
        """Where in benchmark/results a seed's numbers are."""
        if self.folder == "pilots":
            return "pilots.csv"
        if self.together or self.full_name == "studies-sac":
            return f"{self.folder}/{self.name}.csv"
        if self.folder == "studies":
            return f"{self.folder}/{self.name}__{seed}.csv"
        return f"{self.folder}/{self.name}__seed{seed}.csv"


ROWS = []

# ---------------------------------------- Rows: the critics in the first steps after 10,000 random ones
START = 10_000
# Logged often and never evaluated. Of a flag that stands here and in a row, the row's counts
CRITICS = f"--learning-starts {START} --log-interval 25 --eval-interval 1000000 --eval-episodes 1 "
CRITICS += "--checkpoint-interval 500"
SMALL_MODEL = "--model-hidden-dim 100 --model-batch-size 128 --model-train-steps 2000"
THREE = (1, 2, 3)
SIX = (1, 2, 3, 4, 5, 6)


def critics(
    name, script, flags="", task=QUADRUPED, utd=10, steps=1_500, model=SMALL_MODEL, seeds=THREE, **more
):
    """A row whose seeds are one process, of `steps` after the random ones."""
    shared = f"{CRITICS} --utd-ratio {utd} --total-timesteps {START + steps}"
    if script != "sac":
        shared += f" {model}"
    ROWS.append(Row("critics", name, script, task, f"{shared} {flags}", seeds, together=True, **more))


SHOWN = {"shown": "critics"}
critics("ftfl", "ftfl", **SHOWN)
critics("ftfl-norm", "ftfl", NORM)
critics("sac", "sac")
critics("mbpo", "mbpo", **SHOWN)
critics("ftfl-cut", "ftfl", intervention="cut", **SHOWN)
critics("ftfl-length5", "ftfl", "--rollout-schedule 5:5:0:1")
critics("ftfl-noforce", "ftfl", intervention="noforce", **SHOWN)
critics("mbpo-noforce", "mbpo", intervention="noforce", **SHOWN)
critics("tun-noforce", "ftfl", TUN, intervention="noforce")
critics("mbpo-norm", "mbpo", NORM)
critics("tun", "ftfl", TUN, **SHOWN)
critics("dnp", "ftfl", DNP, **SHOWN)
critics("ftfl-real25", "ftfl", "--real-ratio 0.25")
critics("ftfl-real50", "ftfl", "--real-ratio 0.5")
critics("ftfl-utd1", "ftfl", utd=1, steps=6_000)
critics("ftfl-utd5", "ftfl", utd=5, steps=3_000)
critics("ftfl-utd20", "ftfl", utd=20)
critics("sac-norm", "sac", NORM)
for short in ("humanoid-stand", "hopper-stand", "cartpole-swingup"):
    for script in ("ftfl", "mbpo", "sac"):
        critics(f"{short}-{script}", script, task=f"dm_control/{short}-v0")
    critics(f"{short}-ftfl-norm", "ftfl", NORM, task=f"dm_control/{short}-v0")
# Is it the noise of what is imagined? The mean has none
critics("ftfl-beta", "ftfl", "--compile --nll-beta 0.5", **SHOWN)
critics("ftfl-mean", "ftfl", "--compile", intervention="mean", **SHOWN)
critics("ftfl-beta-mean", "ftfl", "--compile --nll-beta 0.5", intervention="mean", **SHOWN)
critics("mbpo-mean", "mbpo", "--compile", intervention="mean", **SHOWN)
critics("sac-orthogonal", "sac", intervention="orthogonal")
critics("mbpo-orthogonal", "mbpo", intervention="orthogonal", **SHOWN)
critics("ftfl-orthogonal", "ftfl", intervention="orthogonal", **SHOWN)
critics("ftfl-long", "ftfl", steps=20_000, seeds=(1,), **SHOWN)
critics("mbpo-long", "mbpo", steps=15_000, seeds=(1,), **SHOWN)
critics("ftfl-long-seeds23", "ftfl", "--compile", steps=15_000, seeds=(2, 3), **SHOWN)
critics("mbpo-long-seeds23", "mbpo", "--compile", steps=12_000, seeds=(2, 3), **SHOWN)

# At the scripts' defaults
PAPER = {"utd": 20, "model": "", "shown": "critics"}
STAND = {**PAPER, "task": HUMANOID, "steps": 1_900}
critics("ftfl-paper", "ftfl", **PAPER)
critics("ftfl-paper-norm", "ftfl", NORM, **PAPER)
for name in ("mbpo", "sac", "tun", "dnp"):
    script, own = ALGOS[name]
    critics(f"{name}-paper", script, f"--compile {own}", **PAPER)
    critics(f"humanoid-stand-{name}-paper", script, f"--compile {own}", **STAND)
critics("humanoid-stand-ftfl-paper", "ftfl", "--compile", **STAND)
# The third cause: another likelihood, other bounds of the variance
critics("ftfl-paper-beta", "ftfl", "--compile --nll-beta 0.5", **PAPER)
critics("mbpo-paper-bounds", "mbpo", f"--compile {BOUNDS}", **PAPER)
critics("humanoid-stand-ftfl-paper-beta", "ftfl", "--compile --nll-beta 0.5", **STAND)
critics("humanoid-stand-mbpo-paper-bounds", "mbpo", f"--compile {BOUNDS}", **STAND)
critics("mbpo-paper-norm", "mbpo", f"--compile {NORM}", **PAPER)
critics("sac-paper-norm", "sac", f"--compile {NORM}", **PAPER)
# Six seeds on a GPU; for those in benchmark/results the time there ended before the 1,500 steps
GPU = "--device cuda --compile --env-workers --log-interval 50"
critics("ftfl-paper-gpu", "ftfl", GPU, steps=1_200, seeds=SIX, **{**PAPER, "shown": "data"})
critics("humanoid-stand-ftfl-paper-gpu", "ftfl", GPU, seeds=SIX, **{**STAND, "shown": "data"})

# How long does SAC take to learn to walk, once its critics hold?
EVALUATED = "--eval-interval 5000 --eval-episodes 5"
NORMED = f"{NORM} {EVALUATED}"
critics("walk-sac-utd1-norm", "sac", NORMED, utd=1, steps=75_000, seeds=(1,))
critics("walk-sac-utd10-norm", "sac", NORMED, steps=50_000, seeds=(1,))
critics("walk-sac-utd1", "sac", f"{EVALUATED} --compile --log-interval 100", utd=1, steps=90_000, seeds=(1,))
critics("walk-sac-utd10-norm-cool", "sac", NORMED, steps=30_000, seeds=(1,), intervention="cool")
critics("walk-ftfl-utd10-norm", "ftfl", f"{NORMED} --compile", steps=30_000, seeds=(1,))


# ---------------------------------------- Rows: returns
def returns(folder, algos, tasks, flags, **more):
    """A row per algorithm and task."""
    for task in tasks:
        for algo in algos:
            script, own = ALGOS[algo]
            name = f"{algo}__{task.replace('/', '-')}"
            ROWS.append(Row(folder, name, script, task, f"{flags} {own}", **more))


LAPTOP = PRESETS["laptop"]["flags"]
HOPPER_FLAGS = PRESETS["hopper"]["flags"]
LONGER = f"{LAPTOP} --total-timesteps 25000"
returns("grid", PRESETS["laptop"]["algos"], PRESETS["laptop"]["tasks"], LAPTOP, shown="returns")
returns("grid_longer", ["sac", "mbpo", "tun", "ftfl"], [QUADRUPED], LONGER, shown="returns")
returns("grid_longer", ["sac", "mbpo", "tun", "ftfl"], [FINGER], LONGER, shown="finger-spin")
returns("grid_longer", ["sac", "mbpo", "ftfl"], [CHEETAH], LONGER, shown="returns")
# Scores of other processors differ by half, so FTFL is run again beside FTFL with beta 0.5
returns("beta", ["ftfl", "ftfl-beta"], [CHEETAH], LAPTOP, shown="third cause")
returns("beta", ["ftfl", "ftfl-beta"], [FINGER], LONGER, shown="third cause")
returns("beta_longer", ["ftfl", "ftfl-beta"], [CHEETAH], LONGER, shown="third cause")
returns("bounds", ["mbpo", "dnp"], [HOPPER], f"{LAPTOP} {BOUNDS}")
returns("bounds", ["mbpo"], [FINGER], f"{LONGER} {BOUNDS}", shown="third cause")
returns("hopper", PRESETS["hopper"]["algos"], [HOPPER], HOPPER_FLAGS, shown="returns")
returns("hopper_utd1", ["sac"], [HOPPER], f"{HOPPER_FLAGS} --utd-ratio 1")


# ---------------------------------------- Rows: the simulator in the model's place, or in a part of it
# An imagined transition (s, a, r, s') differs from a real one in two ways: the action is the policy's of now,
# and r and s' are the model's. Each row of mbpo.py takes one of them away, or a part. Real actions and the
# simulator's r and s' together are SAC.
def oracle(task, name, script="mbpo", flags="", intervention=""):
    folder = f"oracle/{task.removeprefix('dm_control/').removesuffix('-v0')}"
    length = {CHEETAH: LAPTOP, FINGER: LONGER}[task]
    shown = {CHEETAH: "data", FINGER: "finger-spin"}[task]
    flags = f"{length} --checkpoint-interval 2500 {flags}"
    ROWS.append(Row(folder, name, script, task, flags, intervention=intervention, shown=shown))


oracle(CHEETAH, "sac", "sac")
oracle(CHEETAH, "mbpo")
oracle(CHEETAH, "ftfl", "ftfl")
oracle(CHEETAH, "real-actions", intervention="real-actions")
oracle(CHEETAH, "mean", intervention="mean")
oracle(CHEETAH, "paper-model", flags="--model-hidden-dim 200 --model-batch-size 256 --model-train-steps 5000")
for task in (CHEETAH, FINGER):
    oracle(task, "oracle", intervention="oracle")
    oracle(task, "true-states", intervention="true-states")
    oracle(task, "true-rewards", intervention="true-rewards")
    oracle(task, "real50", flags="--real-ratio 0.5")


# ---------------------------------------- Rows: the model alone
# 50,000 gradient steps are what the paper's models get in the first 2,500 environment steps after the random
# ones
FIT = "--collect 10000 --steps 50000 --log-interval 500 --compile"
SETTINGS = {"ftfl": "", "mbpo": f"{DNP} {TUN}", "tun": TUN, "dnp": DNP}
TASKS = {
    "humanoid-stand": HUMANOID,
    "quadruped-walk": QUADRUPED,
    "Walker2d": "Walker2d-v5",
    "HalfCheetah": "HalfCheetah-v5",
}


def study(name, task, flags, **more):
    ROWS.append(Row("studies", name, "model_study", task, f"{FIT} {flags}", **more))


for short, task in TASKS.items():
    for setting, switches in SETTINGS.items():
        shown = "targets" if setting != "dnp" else "reward" if task == HUMANOID else "data"
        study(f"{short}-{setting}", task, switches, shown=shown)
# Beta-NLL, to 20,000 steps; the published files have every step to 1,000, and every 500th behind it
BETA = "--nll-beta 0.5 --steps 20000 --log-interval 100"
study("humanoid-stand-ftfl-beta0.5", HUMANOID, BETA, shown="third cause")
study("quadruped-walk-ftfl-beta0.5", QUADRUPED, BETA, shown="third cause")
study("humanoid-stand-mbpo-beta0.5", HUMANOID, f"{SETTINGS['mbpo']} {BETA}", shown="third cause")
study("humanoid-stand-ftfl-width400", HUMANOID, "--model-hidden-dim 400", shown="claims")
study("humanoid-stand-mbpo-cap", HUMANOID, SETTINGS["mbpo"], intervention="cap", shown="reward")
for setting in ("ftfl", "tun", "mbpo"):
    flags = f"{SETTINGS[setting]} {BOUNDS}"
    shown = "reward" if setting != "tun" else "data"
    study(f"humanoid-stand-{setting}-bounds", HUMANOID, flags, shown=shown)

# A buffer that has seen reward: sac.py's, after 200,000 steps of one update each
SAC = "--utd-ratio 1 --total-timesteps 200000 --eval-interval 20000 --checkpoint-interval 20000"
ROWS.append(Row("studies", "sac", "sac", HUMANOID, SAC, seeds=(1,)))
SEEN = {"needs": "studies-sac", "shown": "reward"}
for setting, switches in SETTINGS.items():
    study(f"rewarded-{setting}", HUMANOID, switches, **SEEN)
study("rewarded-ftfl-fixed", HUMANOID, "", intervention="fixed", **SEEN)

# The same with beta-NLL, beside the likelihood, on the transitions of this run of sac.py made anew.
# On another processor it is another run: its mean reward is 0.0063 where the first one's is 0.0080.
SHORT = "--steps 5000 --log-interval 100"
study("rewarded2-ftfl", HUMANOID, SHORT, needs="studies-sac", shown="third cause")
study("rewarded2-ftfl-beta0.5", HUMANOID, f"{SHORT} --nll-beta 0.5", needs="studies-sac", shown="third cause")

# ---------------------------------------- Rows: which tasks does SAC learn within minutes?
# The rule by which the pilots chose the laptop grid's tasks is in benchmark/pilots.py of commit decb2e1
PILOT = f"{NORM} --utd-ratio 4 --total-timesteps 30000 --eval-interval 5000 --eval-episodes 5 --compile"
PILOTS = ["fish-upright", "ball_in_cup-catch", "cheetah-run", "acrobot-swingup", "walker-stand"]
PILOTS += ["manipulator-insert_ball", "point_mass-hard", "manipulator-insert_peg", "finger-turn_easy"]
PILOTS += ["swimmer-swimmer6", "finger-turn_hard", "finger-spin"]
for task in PILOTS:
    ROWS.append(Row("pilots", task, "sac", f"dm_control/{task}-v0", PILOT, seeds=(1,)))

# ---------------------------------------- What is no row
# Published files that are no runs but were measured on some, and what made them
MEASURED = {
    "taxonomy.csv": "benchmark/taxonomy.py",
    "taxonomy_width200.csv": "benchmark/taxonomy.py --model-hidden-dim 200",
    "predictions.csv": "written by hand",
    "claims.csv": "written by hand",
    "critics/forces.csv": "benchmark/critics.py --forces, at commit decb2e1",
    "critics/landings.csv": "benchmark/critics.py --landings, at commit decb2e1",
    "oracle/cheetah-run/effects.csv": "benchmark/oracle.py --effects, at commit decb2e1",
    "oracle/finger-spin/effects.csv": "benchmark/oracle.py --effects, at commit decb2e1",
    "oracle/finger-spin/fits.csv": "benchmark/oracle.py --fits, at commit decb2e1",
    "stfl/mbpo_utd10_small_model.csv": "MBPO of the public code CLeARoboticsLab/STFL (244c775), run by us",
    "stfl/ftfl_utd10_small_model.csv": "the same, with normalized and direct targets put in by us",
    "stfl/ftfl_defaults.csv": "the same, at its defaults",
    "sb3_sac/fish-upright.csv": "benchmark/sb3_sac.py (Stable-Baselines3), at commit decb2e1",
}
