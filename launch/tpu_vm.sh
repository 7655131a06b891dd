#!/usr/bin/env bash
# A training job on the workers of a Cloud TPU slice, from a machine that has gcloud.
#
#   launch/tpu_vm.sh train --name my-run --zone us-west4-a --topology v5e:16x16 --spot \
#       --nfs 10.0.0.2:/runs -- --config configs/clap/tiny.py --workdir /mnt/runs/x
#
# train does all of the following in turn, and again from the start when the slice was preempted,
# where the same command goes on from the newest checkpoint. Keep it in tmux or screen.
#   create   asks for the slice as a queued resource and waits for it
#   setup    copies the clone to all workers, installs it there and mounts --nfs at /mnt/runs
#   run      runs what follows -- on all workers: arguments of alm_jax.train, or a command
#   delete   gives the slice back
# Options:
#   --name NAME --zone ZONE [--project PROJECT]
#   --topology KIND:SHAPE  as in alm_jax.compile: v4:4x4x4, v5e:16x16, v5p:4x4x8, v6e:16x16
#   --nfs HOST:/PATH       a file share (Filestore, say) of the slice's network: a worker's own disk
#                          goes with the slice, and a bucket lacks the renames checkpoints rely on
#   --spot                 cheaper, may be preempted
#   --dry_run              prints the commands and runs none
# Several slices: launch/jobset.py.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }
say() { echo "tpu_vm.sh: $(date '+%F %T') $*" >&2; }

action=${1:-} name='' zone='' project='' topology='' nfs='' spot='' dry_run=''
case $action in
  train | create | setup | run | delete) shift ;;
  *) fail "the first argument is '$action'; give train, create, setup, run or delete." ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --name | --zone | --project | --topology | --nfs)
      [[ -n ${2:-} && $2 != --* ]] || fail "$1 needs a value."
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --spot | --dry_run)
      printf -v "${1#--}" yes
      shift
      ;;
    --) shift; break ;;
    *) fail "'$1' is not an option; what the workers run comes after --." ;;
  esac
done

need() { for option; do [ "${!option}" ] || fail "$action needs --$option; see the head of $0."; done; }
need name zone
case $action in train | create) need topology ;; esac
case $action in train | setup) need nfs ;; esac
case $action in
  train | run)
    [ $# -gt 0 ] || fail "$action needs what to run after --, such as --config FILE --workdir DIR."
    [[ $1 != -* ]] || set -- python -m alm_jax.train "$@"
    ;;
  *) [ $# = 0 ] || fail "$action runs nothing; only train and run take arguments after --." ;;
esac
[[ -z $nfs || $nfs == ?*:/* ]] || fail "--nfs is '$nfs'; write HOST:/PATH."
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "--name is '$name'; Google Cloud takes lower-case letters, digits and inner hyphens."

# What Google calls a slice of this kind, and the system image that it documents for it.
kind=${topology%%:*} shape=${topology#*:}
if [ "$topology" ]; then
  [[ $shape != *'*'* ]] || fail "--topology is '$topology'; this runs one slice. Several: launch/jobset.py."
  case $kind in v4 | v5p) sizes='^[0-9]+x[0-9]+x[0-9]+$' ;; *) sizes='^[0-9]+x[0-9]+$' ;; esac
  [[ $topology == *:* && $shape =~ $sizes ]] ||
    fail "--topology is '$topology'; write one such as v4:4x4x4, v5e:16x16, v5p:4x4x8, v6e:16x16."
  case $kind in
    v4) slice=("--type=v4" "--topology=$shape") image=tpu-ubuntu2204-base ;;
    v5e) slice=("--accelerator-type=v5litepod-$((${shape//x/*}))") image=v2-alpha-tpuv5-lite ;;
    # Counted in cores, of which a chip has two; the shape is Google's choice for the count.
    v5p) slice=("--accelerator-type=v5p-$((${shape//x/*} * 2))") image=v2-alpha-tpuv5 ;;
    v6e) slice=("--accelerator-type=v6e-$((${shape//x/*}))") image=v2-alpha-tpuv6e ;;
    *) fail "--topology is of kind '$kind'; give v4, v5e, v5p or v6e." ;;
  esac
fi
where=("--zone=$zone" ${project:+"--project=$project"})
[ "$dry_run" ] || command -v gcloud >/dev/null ||
  fail 'gcloud is not installed: https://cloud.google.com/sdk/docs/install (or give --dry_run).'

do_it() {
  if [ "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_workers() { do_it gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

# The state of the queued resource, or of the slice itself; NONE when there is none.
state() {
  local what=("$@") told
  if told=$(gcloud compute tpus "${what[@]}" "${where[@]}" 2>&1); then
    echo "$told"
  elif [[ $told == *NOT_FOUND* ]]; then
    echo NONE
  else
    printf '%s\n' "$told" >&2
    return 1
  fi
}
queued() { state queued-resources describe "$name" '--format=value(state.state)'; }
slice_state() { state tpu-vm describe "$name" '--format=value(state)'; }

create() {
  do_it gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
    "${slice[@]}" --runtime-version="$image" ${spot:+--spot}
  [ "$dry_run" ] || await_slice
}

await_slice() {
  local now last=''
  while now=$(queued); do
    [ "$now" = "$last" ] || say "queued resource $name: $now"
    last=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDED | NONE)
        say "error: the slice was not given; see: gcloud compute tpus queued-resources describe $name"
        return 1
        ;;
    esac
    sleep "${POLL:-30}"
  done
  return 1
}

setup() {
  local archive
  archive=${TMPDIR:-/tmp}/alm_jax-$name.tgz
  do_it sh -c "git ls-files -z | tar --null --files-from=- -czf $archive"
  do_it gcloud compute tpus tpu-vm scp "$archive" "$name:alm_jax.tgz" "${where[@]}" --worker=all
  # The images bring Python 3.10; uv brings one that the package takes.
  on_workers "set -e
sudo apt-get install -y -q nfs-common
sudo mkdir -p /mnt/runs
mountpoint -q /mnt/runs || sudo mount -t nfs $nfs /mnt/runs
mkdir -p alm_jax
tar -xzf alm_jax.tgz -C alm_jax
cd alm_jax
python3 -m pip install -q --user uv
~/.local/bin/uv venv -q --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install -q -e '.[tpu]'"
}

run() {
  local command
  printf -v command '%q ' "$@"
  on_workers "cd alm_jax && . .venv/bin/activate && $command"
}

delete() { do_it gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

train() {
  local now status
  if [ "$dry_run" ]; then
    create
    setup
    run "$@"
    echo '# when the slice is preempted, and then all of the above again:'
    delete
    return
  fi
  while true; do
    now=$(queued)
    if [ "$now" != ACTIVE ] || [ "$(slice_state)" != READY ]; then
      [ "$now" = NONE ] || delete
      create
      setup
    fi
    status=0
    run "$@" || status=$?
    [ $status != 0 ] || break
    now=$(slice_state)
    if [ "$now" = READY ]; then
      say "the program failed with exit code $status; the slice stands. Mend it, then the same command goes on."
      return $status
    fi
    say "the slice is $now; it is asked for again"
  done
  say "done; the slice stands until: launch/tpu_vm.sh delete --name $name --zone $zone"
}

"$action" "$@"
