# Sourced by quickstart.sh and test.sh: a virtual environment with the package and the given extras.
# Usage: make_environment FOLDER EXTRAS      (EXTRAS such as "[dev,interop-tests]" or "")

make_environment() {
  local folder=$1 extras=$2 python
  for python in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      break
    fi
    python=''
  done
  if [ -z "$python" ]; then
    echo 'error: no Python of version 3.11 or newer was found. Install it, or name one: PYTHON=/path/to/python3.11' >&2
    return 2
  fi
  if [ ! -x "$folder/bin/pip" ] && ! "$python" -m venv "$folder"; then
    # Debian splits venv from the interpreter; it is the one system package needed here.
    if [ "$(id -u)" != 0 ]; then
      echo 'error: this Python cannot make a virtual environment. As root: apt-get install python3-venv' >&2
      return 2
    fi
    echo "Installing Debian's python3-venv, which $python lacks."
    apt-get update -qq && apt-get install -y -qq python3-venv
    rm -rf "$folder" && "$python" -m venv "$folder"
  fi
  echo "Installing alm_jax$extras into $folder (log: $folder/install.log)"
  if ! "$folder/bin/pip" install --disable-pip-version-check -e ".$extras" >"$folder/install.log" 2>&1; then
    tail -n 15 "$folder/install.log" >&2
    echo "error: the installation failed; the whole log is $folder/install.log" >&2
    return 2
  fi
  # shellcheck disable=SC1091
  . "$folder/bin/activate"
}
