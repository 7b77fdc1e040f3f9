# shellcheck shell=bash
# Tools from PyPI, in virtual environments: the system's Python does not change.
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

want_python() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || want python3,python3-venv "$1"
}

want_pip() {
  python3 -c 'import pip' 2>/dev/null || want python3-pip "$1"
}

# ensure_python_tools NAME REQUIREMENT...: makes an environment NAME with exactly these requirements, and sets `python_tools` to
# its bin directory. That is not added to the PATH, because its python3 would hide the machine's.
ensure_python_tools() {
  local venv=$tools_dir/python/$1
  shift
  # shellcheck disable=SC2034 # for the scripts that source this
  python_tools=$venv/bin
  # The list of requirements is written last, so an interrupted run is repeated.
  [[ $(cat "$venv/requirements.txt" 2>/dev/null) == "$(printf '%s\n' "$@")" ]] && return
  say "  installing from PyPI into $venv: $*"
  rm -rf "$venv"
  python3 -m venv "$venv"
  # Wheels only: source packages of such tools download files at install time, which a firewall may block.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$@" >&2 </dev/null ||
    die "installing from PyPI failed: $*"
  printf '%s\n' "$@" >"$venv/requirements.txt"
}
