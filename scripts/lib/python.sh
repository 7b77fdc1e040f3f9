# shellcheck shell=bash
# Tools from PyPI, in a virtual environment of their own: the system's Python is left alone.
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

want_python() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || want python3,python3-venv "$1"
}

want_pip() {
  python3 -c 'import pip' 2>/dev/null || want python3-pip "$1"
}

# ensure_python_tools NAME REQUIREMENT...: an environment called NAME with exactly these. Sets `python_tools` to the directory of
# their commands; it is not put on the PATH, where its python3 would take the place of the machine's.
ensure_python_tools() {
  local venv=$tools_dir/python/$1
  shift
  # shellcheck disable=SC2034 # for the scripts that source this
  python_tools=$venv/bin
  # The requirements that are installed are noted last, so a run that was interrupted is not taken for one that was done.
  [[ $(cat "$venv/requirements.txt" 2>/dev/null) == "$(printf '%s\n' "$@")" ]] && return
  say "  installing from PyPI into $venv: $*"
  rm -rf "$venv"
  python3 -m venv "$venv"
  # Binaries only: a source package of a tool like these downloads at install time from where a firewall may forbid it.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$@" >&2 </dev/null ||
    die "these could not be installed from PyPI: $*"
  printf '%s\n' "$@" >"$venv/requirements.txt"
}
