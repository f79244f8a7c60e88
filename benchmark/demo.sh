#!/usr/bin/env bash
# make demo: what FTFL's two changes and beta-NLL do to the model of MBPO, and SAC, MBPO and FTFL as agents; DURATION on
# two idle cores. Run from the repository's root. Settings, as environment variables or `make demo NAME=VALUE`:
#   SEED=1         the first seed
#   STUDY_SEEDS=1  seeds of the model studies, fitted side by side
#   STEPS=2000     gradient steps of the model studies
set -euo pipefail
export OMP_NUM_THREADS=1  # two processes with one thread each do more than one with two
out=runs/demo-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"

run() {  # COMMAND...: when this lane is told to stop, the command is, too
  "$@" & child=$!
  wait $child
}

study() {  # SCRIPT TASK FLAGS...: its model, on 10,000 transitions of a random policy, the same ones for all
  local script=$1 task=$2; shift 2
  run python benchmark/model_study.py --script "$script" --env-id "dm_control/$task-v0" --collect 10000 \
    --steps "${STEPS:-2000}" --seed "${SEED:-1}" --num-seeds "${STUDY_SEEDS:-1}" --run-dir "$out/$task" "$@"
}

# A small budget: small networks and batches, one update per step, a quick temperature and target (else the entropy that
# SAC starts with fills the critics for most of the run), and a synthetic buffer of 2,500 steps' rollouts.
agent() {  # SCRIPT FLAGS...: three seeds side by side
  local script=$1; shift
  run python "$script.py" --env-id InvertedPendulum-v5 --seed "${SEED:-1}" --num-seeds 3 --total-timesteps 10000 \
    --learning-starts 1000 --hidden-dim 64 --batch-size 128 --utd-ratio 1 --tau 0.02 --actor-lr 1e-3 --critic-lr 1e-3 \
    --alpha-lr 3e-3 --eval-interval 1000 --eval-episodes 3 --run-dir "$out/InvertedPendulum" "$@"
}
model="--model-hidden-dim 64 --model-batch-size 128 --model-lr 1e-3 --model-train-steps 400 --rollouts-per-step 50
  --synthetic-buffer-size 125000"

lane() {  # SCRIPT [SCRIPT]: all of MBPO or of FTFL, one after the other; the second script trains an agent only
  trap 'kill $child; exit 1' TERM
  for task in humanoid-stand quadruped-walk; do
    study "$1" $task
    [[ $1 == mbpo ]] || study "$1" $task --nll-beta 0.5
    echo "$((SECONDS - began)) s: $1.py's model on $task done"
  done
  # shellcheck disable=SC2086  (the flags are words)
  agent "$1" $model
  [[ -z ${2:-} ]] || agent "$2"
  echo "$((SECONDS - began)) s: agents of $* on InvertedPendulum done"
}

echo "FTFL's progress here, MBPO's and SAC's in $out/mbpo.log"
began=$SECONDS
(lane mbpo sac) > "$out/mbpo.log" 2>&1 & mbpo=$!
(lane ftfl) & ftfl=$!
trap 'kill $mbpo $ftfl 2> /dev/null || true' EXIT
trap 'exit 130' INT TERM
wait $ftfl
wait $mbpo || { tail -n 5 "$out/mbpo.log" >&2; exit 1; }
trap - EXIT
grep ' s: ' "$out/mbpo.log"

python plots.py demo --runs "$out" --out "$out/demo.png"
