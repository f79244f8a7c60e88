#!/usr/bin/env bash
# make demo: what FTFL's two changes and beta-NLL do to the model of MBPO, and SAC, MBPO and FTFL as agents; 8 minutes on
# two idle cores. Run from the repository's root. Settings, as environment variables or `make demo NAME=VALUE`:
#   SEED=1         the first seed
#   STUDY_SEEDS=1  seeds of the model studies, fitted side by side
#   STEPS=1500     gradient steps of the model studies
set -euo pipefail
export OMP_NUM_THREADS=1  # two processes with one thread each do more than one with two
out=runs/demo-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"

run() {  # COMMAND...: when this lane is told to stop, the command is, too
  "$@" & child=$!
  wait $child
}

study() {  # TASK SCRIPT FLAGS...: its model, on 10,000 transitions of a random policy, the same ones for all
  local task=$1 script=$2; shift 2
  run python benchmark/model_study.py --script "$script" --env-id "dm_control/$task-v0" --collect 10000 \
    --steps "${STEPS:-1500}" --seed "${SEED:-1}" --num-seeds "${STUDY_SEEDS:-1}" --run-dir "$out/$task" "$@"
}

# A small budget: small networks and batches, one update per step, a quick temperature and target (else the entropy that
# SAC starts with fills the critics for most of the run), and a synthetic buffer of 2,500 steps' rollouts.
agent() {  # SCRIPT FLAGS...: three seeds side by side
  local script=$1; shift
  run python "$script.py" --env-id InvertedPendulum-v5 --seed "${SEED:-1}" --num-seeds 3 --total-timesteps 9000 \
    --learning-starts 1000 --hidden-dim 64 --batch-size 128 --utd-ratio 1 --tau 0.02 --actor-lr 1e-3 --critic-lr 1e-3 \
    --alpha-lr 3e-3 --eval-interval 1000 --eval-episodes 3 --run-dir "$out/InvertedPendulum" "$@"
}
model="--model-hidden-dim 64 --model-batch-size 128 --model-lr 1e-3 --model-train-steps 250 --rollouts-per-step 50
  --synthetic-buffer-size 125000"

# shellcheck disable=SC2086  (the flags are words)
first_lane() {  # on one core
  trap 'kill $child; exit 1' TERM
  study humanoid-stand mbpo
  study humanoid-stand ftfl
  study humanoid-stand ftfl --nll-beta 0.5
  study quadruped-walk ftfl --nll-beta 0.5
  echo "$((SECONDS - began)) s: models of humanoid-stand done, and one of quadruped-walk"
  agent ftfl $model
  echo "$((SECONDS - began)) s: FTFL's agents done"
}

# shellcheck disable=SC2086
second_lane() {  # on the other one
  trap 'kill $child; exit 1' TERM
  study quadruped-walk mbpo
  study quadruped-walk ftfl
  echo "$((SECONDS - began)) s: models of quadruped-walk done"
  agent mbpo $model
  agent sac
  echo "$((SECONDS - began)) s: MBPO's and SAC's agents done"
}

echo "Progress of the first of two lanes here, of the other in $out/other.log"
began=$SECONDS
second_lane > "$out/other.log" 2>&1 & other=$!
first_lane & here=$!
trap 'kill $other $here 2> /dev/null || true' EXIT
trap 'exit 130' INT TERM
wait $here
wait $other || { tail -n 5 "$out/other.log" >&2; exit 1; }
trap - EXIT
grep ' s: ' "$out/other.log"

python plots.py demo --runs "$out" --out "$out/demo.png"
