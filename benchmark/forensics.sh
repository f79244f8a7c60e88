#!/usr/bin/env bash
# make forensics: the paper's Figures 2a, 3a and 3b without training an agent, on two cores within 10 minutes.
# Run from the repository's root. Settings, as environment variables or `make forensics NAME=VALUE`:
#   HUMANOID=FROM WALKER2D=FROM  run directories or NPZ files, in place of 10,000 transitions of a random policy
#   STEPS=2000                   gradient steps of each fit; s' and s' - s compare from about 20,000 on only
#   SEEDS=1                      seeds per setting, fitted side by side; each takes about as long as the first
set -euo pipefail
export OMP_NUM_THREADS=1  # two processes with one thread each do more than one with two
out=runs/forensics-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"
for from in "${HUMANOID:-}" "${WALKER2D:-}"; do
  [[ -z $from || -e $from ]] || { echo "error: there is no $from (HUMANOID= and WALKER2D= name transitions)" >&2; exit 2; }
done

study() {  # ENV_ID FROM: the four switch settings on one task's transitions, random ones if FROM is empty
  trap 'kill $child; exit 1' TERM
  for switches in "--no-target-normalization --next-state-prediction residual" "--next-state-prediction residual" \
    "--no-target-normalization" ""; do
    echo "$1: model_study.py $switches" >&3
    # shellcheck disable=SC2086  (the switches are words)
    python benchmark/model_study.py --env-id "$1" --buffer "$2" --steps "${STEPS:-2000}" --num-seeds "${SEEDS:-1}" \
      $switches --run-dir "$out/models" & child=$!
    wait $child
  done
}

exec 3>&1
(study dm_control/humanoid-stand-v0 "${HUMANOID:-}") > "$out/humanoid.log" 2>&1 & humanoid=$!
(study Walker2d-v5 "${WALKER2D:-}") > "$out/walker2d.log" 2>&1 & walker2d=$!
trap 'kill $humanoid $walker2d 2> /dev/null || true' EXIT
trap 'exit 130' INT TERM
echo "progress: $out/humanoid.log, $out/walker2d.log"
for lane in humanoid walker2d; do
  wait "${!lane}" || { tail -n 5 "$out/$lane.log" >&2; exit 1; }
done
trap - EXIT

python plots.py forensics --runs "$out/models" --out "$out/forensics"
