#!/usr/bin/env bash
# make demo: MBPO fails and FTFL does not, on two cores within 15 minutes. Run from the repository's root.
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

echo "3. Train MBPO and FTFL on walker-walk"
side_by_side agents --env-id dm_control/walker-walk-v0 --seed "${SEED:-1}" --total-timesteps 7000 --learning-starts 2000

python plots.py demo --runs "$out" --out "$out/demo.png"
