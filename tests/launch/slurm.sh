#!/usr/bin/env bash
# A Slurm of one node, started in FOLDER, on which launch/slurm.sbatch trains as two CPU tasks, is
# signalled once it has a checkpoint, goes back into the queue, and is waited for.
#   tests/launch/slurm.sh FOLDER      needs root, and Debian's packages, which it installs
# Leaves FOLDER/job.log, FOLDER/job.txt (scontrol's words) and FOLDER/run, and no daemon.
# Exit code 77: Slurm cannot be had here, and why.
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")/../.."

unable() { echo "$*"; exit 77; }
[ "$(id -u)" = 0 ] || unable 'not root, so no Slurm can be started'
if ! command -v slurmctld slurmd sbatch munged >/dev/null; then
  command -v apt-get >/dev/null || unable 'no Slurm is installed, and no apt-get'
  # The packages may not start daemons of their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge; } \
    >"$folder/apt.log" 2>&1 || unable "Slurm could not be installed: $(tail -n 1 "$folder/apt.log")"
  rm -f $policy
  trap - EXIT
fi

# Sockets have short names, and munge wants a folder that others can enter.
daemons=$(mktemp -d /tmp/slurm-XXXXXX)
chmod 755 "$daemons"
mkdir "$daemons/state" "$daemons/spool"
head -c 1024 /dev/urandom >"$daemons/munge.key"
chmod 600 "$daemons/munge.key"
read -r port other < <(python -c '
import socket
sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')
export SLURM_CONF=$daemons/slurm.conf
# A job that is requeued waits until its credential has expired.
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort=$port
SlurmdPort=$other
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$daemons/munge.socket,cred_expire=5
StateSaveLocation=$daemons/state
SlurmdSpoolDir=$daemons/spool
SlurmctldPidFile=$daemons/slurmctld.pid
SlurmdPidFile=$daemons/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=localhost CPUs=2 State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF

started=()
stop() {
  scancel --full --signal=KILL --user=root 2>/dev/null || true
  scancel --user=root 2>/dev/null || true
  for ((tenth = 0; tenth < 100; tenth++)); do
    [ "$(squeue --noheader --states=RUNNING,COMPLETING 2>/dev/null)" ] || break
    sleep 0.1
  done
  for ((last = ${#started[@]} - 1; last >= 0; last--)); do  # munge goes last
    kill "${started[last]}" 2>/dev/null || true
    wait "${started[last]}" 2>/dev/null || true
  done
  rm -rf "$daemons"
}
trap stop EXIT
start() {
  "$@" >"$folder/$1.log" 2>&1 &
  started+=($!)
}
# await SECONDS WHAT COMMAND...: until COMMAND succeeds.
await() {
  local what=$2
  for ((tenth = 0; tenth < $1 * 10; tenth++)); do
    if "${@:3}"; then return; fi
    sleep 0.1
  done
  echo "error: not within $1 s: $what"
  tail -n 40 "$folder"/*.log
  exit 1
}

start munged --foreground --force --key-file="$daemons/munge.key" --socket="$daemons/munge.socket" \
  --pid-file="$daemons/munge.pid" --log-file="$daemons/munge.log" --seed-file="$daemons/munge.seed"
await 10 'munge' test -S "$daemons/munge.socket"
start slurmctld -D -f "$SLURM_CONF"
start slurmd -D -f "$SLURM_CONF" -N localhost
node_is_idle() { [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; }
await 30 'an idle node' node_is_idle

export JAX_COMPILATION_CACHE_DIR=$folder/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.2
export GRACE=${GRACE:-60}
job=$(sbatch --parsable --gpus-per-node=0 --nodes=1 --ntasks-per-node=2 --output="$folder/job.log" \
  launch/slurm.sbatch --config tests/launch/small.py:steps=60 --workdir "$folder/run")
state() { scontrol --oneliner show job "$job" | grep -o "JobState=[A-Z]*" | cut -d= -f2; }
checkpoint_or_end() {
  case $(state) in PENDING | RUNNING) [ -e "$folder/run/checkpoints/4/manifest.json" ] ;; esac
}
await 300 'the first checkpoint' checkpoint_or_end
# As Slurm itself does before the time limit.
scancel --batch --signal=USR1 "$job"
ended() { case $(state) in PENDING | RUNNING | COMPLETING | REQUEUED) false ;; esac; }
await 300 'the end of the job' ended
scontrol show job "$job" >"$folder/job.txt"
