#!/usr/bin/env bash
# From a fresh clone to a trained and evaluated audio-language model, on the packaged recordings or
# on your own:   ./launch/quickstart.sh [--data my_folder --captions my.csv]
# Needs Python 3.11, the Debian package client (apt-get) and a network. No root.
# WORKDIR=runs/tiny, VENV=.venv and ALM_JAX_DATA=~/.cache/alm_jax may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
. launch/environment.sh
workdir=${WORKDIR:-runs/tiny}
own_data=("$@")

step() { printf '\n== %s\n' "$*"; "$@"; }

make_environment "${VENV:-.venv}" ''
if [ ${#own_data[@]} -eq 0 ]; then
  step python -m alm_jax.prepare packaged_sounds --tier tiny
fi
step python -m alm_jax.prepare weights || echo 'Going on: a tower whose weights are missing starts from scratch.'
step python -m alm_jax.train --config configs/clap/tiny.py --workdir "$workdir" "${own_data[@]}"
if [ ${#own_data[@]} -eq 0 ]; then
  step python -m alm_jax.evals.zero_shot --workdir "$workdir"
fi
step python -m alm_jax.evals.retrieval --workdir "$workdir" || echo 'Retrieval was not scored; the reason is above.'
step python -m alm_jax.evals.report --workdir "$workdir"
printf '\nReport page:  %s/report.html\n' "$workdir"
printf 'Try next:     python -m alm_jax.classify YOUR.wav --labels "dog,siren,rain" --workdir %s   (after: source %s/bin/activate)\n' \
  "$workdir" "${VENV:-.venv}"
