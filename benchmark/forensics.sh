#!/usr/bin/env bash
# make forensics: the paper's Figures 2a, 3a and 3b without training an agent, on two cores within 10 minutes.
# Run from the repository's root. Settings, as environment variables or `make forensics NAME=VALUE`:
#   HUMANOID=FILE WALKER2D=FILE  buffers (written by --save-buffer) in place of 10,000 transitions of a random policy
#   STEPS=2000                   gradient steps of each fit
#   SEEDS=1                      fits per setting, side by side, each with its own holdout and networks
set -euo pipefail
export OMP_NUM_THREADS=1  # two runs with one thread each do more than one run with two
out=runs/forensics-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"
for file in "${HUMANOID:-}" "${WALKER2D:-}"; do
  [[ -z $file || -f $file ]] || { echo "error: there is no buffer $file (HUMANOID= and WALKER2D= name files)" >&2; exit 2; }
done

study() {  # ENV_ID BUFFER: the four switch settings on one task's transitions, which are collected first if BUFFER is empty
  local env_id=$1 buffer=$2 name
  name=$(echo "$env_id" | tr / -)
  if [[ -z $buffer ]]; then
    echo "$env_id: 10,000 transitions of a random policy"
    python sac.py --env-id "$env_id" --total-timesteps 10000 --learning-starts 10000 --eval-episodes 1 --save-buffer \
      --run-dir "$out/buffers" > "$out/$name.log" 2>&1 || return 1
    buffer=$(ls "$out"/buffers/"$name"__*/buffer.npz)
  fi
  for switches in "--no-target-normalization --next-state-prediction residual" "--next-state-prediction residual" \
    "--no-target-normalization" ""; do
    echo "$env_id: ftfl.py --fit-buffer $switches"
    # shellcheck disable=SC2086  (the switches are words)
    python ftfl.py --fit-buffer "$buffer" --model-train-steps "${STEPS:-2000}" --num-seeds "${SEEDS:-1}" $switches \
      --run-dir "$out/models" >> "$out/$name.log" 2>&1 || return 1
  done
}

study dm_control/humanoid-stand-v0 "${HUMANOID:-}" & humanoid=$!
study Walker2d-v5 "${WALKER2D:-}" & walker2d=$!
trap 'pkill -P $humanoid; pkill -P $walker2d; kill $humanoid $walker2d' INT TERM
failed=0
wait $humanoid || failed=1
wait $walker2d || failed=1
((failed == 0)) || { tail -n 5 "$out"/*.log >&2; exit 1; }

python plots.py forensics --runs "$out/models" --out "$out/forensics"
