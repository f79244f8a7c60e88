#!/usr/bin/env bash
# make demo: MBPO fails and FTFL does not, on two cores in about 15 minutes. Run from the repository's root.
# Settings, as environment variables or `make demo NAME=VALUE`: SEED=1 (the first seed), SEEDS=3 (how many)
set -euo pipefail
export OMP_NUM_THREADS=1  # two runs with one thread each do more than one run with two
out=runs/demo-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"

side_by_side() {  # LABEL FLAGS...: mbpo.py and ftfl.py with the same flags; FTFL's progress on the screen, MBPO's in a file
  local label=$1; shift
  echo "$label: FTFL's progress here, MBPO's in $out/$label-mbpo.log"
  python mbpo.py "$@" --run-dir "$out/$label" > "$out/$label-mbpo.log" 2>&1 & local mbpo=$!
  python ftfl.py "$@" --run-dir "$out/$label" || { kill $mbpo; exit 1; }
  wait $mbpo || { tail -n 20 "$out/$label-mbpo.log"; exit 1; }
}

echo "1. 10,000 transitions of a random policy on humanoid-stand"
python sac.py --env-id dm_control/humanoid-stand-v0 --total-timesteps 10000 --learning-starts 10000 \
  --eval-episodes 1 --save-buffer --run-dir "$out/buffer"

echo "2. Fit the model of MBPO and that of FTFL to them"
side_by_side models --fit-buffer "$out"/buffer/*/buffer.npz --model-train-steps 1000

# A small budget: small networks and batches, a quick temperature and target (else the entropy that SAC starts with, in
# units far above these rewards, fills the critics for most of the run), and 4 instead of 20 updates per step.
# Three seeds, because one proves nothing here: runs of this size scatter widely.
echo "3. Train MBPO and FTFL on walker-walk"
side_by_side agents --env-id dm_control/walker-walk-v0 --seed "${SEED:-1}" --num-seeds "${SEEDS:-3}" --total-timesteps 10000 --learning-starts 1000 \
  --hidden-dim 128 --batch-size 128 --utd-ratio 4 --actor-lr 1e-3 --critic-lr 1e-3 --alpha-lr 3e-3 --tau 0.03 \
  --model-hidden-dim 100 --model-batch-size 64 --model-lr 1e-3 --model-train-steps 400 --rollouts-per-step 50 \
  --eval-interval 1000 --eval-episodes 5

python plots.py demo --runs "$out" --out "$out/demo.png"
