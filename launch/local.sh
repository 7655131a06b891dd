#!/usr/bin/env bash
# Several processes on this machine, connected as the hosts of a cluster would be, on CPU devices.
#
#   launch/local.sh --processes 2 --devices 4 -- --config configs/clap/tiny.py:smoke --workdir runs/x
#   launch/local.sh --processes 2 -- python launch/preflight.py --config FILE --workdir DIR
#
# What follows -- are the arguments of alm_jax.train, or a command, which must take the flags
# --coordinator_address, --num_processes and --process_id. Every line of output begins with the
# number of its process. The first process that fails ends all, and its exit code is that of this
# script. Ctrl-C and SIGTERM go to every process, so that it saves and ends, and a second time so that
# it ends at once; one that does not end within GRACE=60 seconds is killed.
#   --processes N   default 2         --devices M   CPU devices of each, default 1
#   --dry_run       prints the commands and starts nothing
set -euo pipefail

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }
positive() { [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 is '$2'; give a number of at least 1."; }

processes=2 devices=1 dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --processes | --devices)
      positive "$1" "${2:-}"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --processes=* | --devices=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --dry_run) dry_run=yes; shift ;;
    --) shift; break ;;
    *) fail "'$1' is not an option; give --processes, --devices, --dry_run, then -- and arguments." ;;
  esac
done
[ $# -gt 0 ] || fail 'nothing to run; give -- and the arguments of alm_jax.train.'
[[ $1 != -* ]] || set -- python -m alm_jax.train "$@"

# Bound by nobody for an instant, the port is free but for a race that a second try wins.
port=$(python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
connection() { echo "--coordinator_address=localhost:$port --num_processes=$processes --process_id=$1"; }

if [ "$dry_run" ]; then
  for ((rank = 0; rank < processes; rank++)); do
    printf "JAX_PLATFORMS=%s XLA_FLAGS='%s'" "$JAX_PLATFORMS" "${XLA_FLAGS# }"
    printf ' %q' "$@"
    printf ' %s\n' "$(connection "$rank")"
  done
  exit 0
fi

set -m  # every process has a group of its own, so that a signal reaches all that it started
groups=()
signal_all() { for group in "${groups[@]}"; do kill -s "$1" -- "-$group" 2>/dev/null || true; done; }
end_all() {
  trap 'signal_all INT' INT
  trap 'signal_all TERM' TERM
  signal_all "$1"
  for ((tenth = 0; tenth < ${GRACE:-60} * 10; tenth++)); do
    [ "$(jobs -rp)" ] || return 0
    sleep 0.1
  done
  signal_all KILL
}
trap 'end_all INT; exit 130' INT
trap 'end_all TERM; exit 143' TERM

for ((rank = 0; rank < processes; rank++)); do
  (
    # This shell and sed outlive the process, whose last words are often the reason.
    trap : INT TERM
    read -ra flags <<<"$(connection "$rank")"
    "$@" "${flags[@]}" 2>&1 </dev/null | (trap '' INT TERM && exec sed -u "s/^/[$rank] /")
  ) &
  groups+=($!)
done

for ((left = processes; left > 0; left--)); do
  status=0
  wait -n || status=$?
  if [ $status != 0 ]; then
    echo "A process failed with exit code $status; the others are ended." >&2
    end_all TERM
    exit $status
  fi
done
