#!/usr/bin/env bash
# The runs behind the README's small curves, summary, ablation and table: 10,000 steps, seeds 1 to 3, two at a time.
# Run from the repository's root with the virtual environment's python first in PATH.
set -euo pipefail
export OMP_NUM_THREADS=1
agent="--total-timesteps 10000 --learning-starts 1000 --hidden-dim 128 --batch-size 128 --utd-ratio 4 --actor-lr 1e-3
  --critic-lr 1e-3 --alpha-lr 3e-3 --tau 0.03 --eval-interval 1000 --eval-episodes 5 --seed 1 --num-seeds 3 --run-dir runs/small"
model="--model-hidden-dim 100 --model-batch-size 64 --model-lr 1e-3 --model-train-steps 400 --rollouts-per-step 50"
walker="--env-id dm_control/walker-walk-v0"
hopper="--env-id Hopper-v5"

both() {  # RUN RUN: side by side
  # shellcheck disable=SC2086  (a run is a script and its flags, in words)
  python $1 & local first=$!
  # shellcheck disable=SC2086
  python $2 || { kill $first; exit 1; }
  wait $first
}

both "mbpo.py $walker $agent $model" "ftfl.py $walker $agent $model"
both "mbpo.py $hopper $agent $model" "ftfl.py $hopper $agent $model"
both "sac.py $walker $agent" "sac.py $hopper $agent"
both "ftfl.py $walker $agent $model --next-state-prediction residual" "ftfl.py $walker $agent $model --no-target-normalization"
