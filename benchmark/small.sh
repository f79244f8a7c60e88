#!/usr/bin/env bash
# The runs behind the README's small curves, summary, ablation and table: 10,000 steps, seeds 1 to 3, 70 core-minutes.
# Run from the repository's root with the virtual environment's python first in PATH.
set -euo pipefail
export OMP_NUM_THREADS=1
agent="--total-timesteps 10000 --learning-starts 1000 --hidden-dim 128 --batch-size 128 --utd-ratio 4 --actor-lr 1e-3
  --critic-lr 1e-3 --alpha-lr 3e-3 --tau 0.03 --eval-interval 1000 --eval-episodes 5 --seed 1 --num-seeds 3 --run-dir runs/small"
model="--model-hidden-dim 100 --model-batch-size 64 --model-lr 1e-3 --model-train-steps 400 --rollouts-per-step 50"
# shellcheck disable=SC2086  (the flags are words)
for env_id in dm_control/walker-walk-v0 Hopper-v5; do
  python sac.py --env-id $env_id $agent & python mbpo.py --env-id $env_id $agent $model; wait
  python ftfl.py --env-id $env_id $agent $model
done
walker="ftfl.py --env-id dm_control/walker-walk-v0 $agent $model"
python $walker --next-state-prediction residual & python $walker --no-target-normalization; wait
