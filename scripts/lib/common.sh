# shellcheck shell=bash
# Shared by every script: the project's directory, messages, timed steps, clean-up.
# Messages go to stderr; stdout is for results (`scripts/quickstart --json | jq` works).

# Every other file of this directory sources this one; the second time it does nothing.
[[ -z ${tools_dir:-} ]] || return 0

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # for the scripts that source this
readonly project

# Tools that distros do not package in a usable version are compiled or unpacked here, never into the system.
tools_dir=${OBGP_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/obgp-build/tools}
# shellcheck disable=SC2034
readonly tools_dir

# Debian's directory for tools like update-binfmts is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' red=$'\e[31m' yellow=$'\e[33m' plain=$'\e[0m'
else
  bold='' red='' yellow='' plain=''
fi

say() { printf '%s\n' "$*" >&2; }
warn() { say "${yellow}warning:${plain} $*"; }

# die WHAT-WENT-WRONG [WHAT-TO-TRY...]
die() {
  say "${red}error:${plain} $1"
  shift
  local hint
  for hint; do say "  $hint"; done
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "root is needed for: $*" "Run it as root, or install sudo."
  fi
}

duration() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# Steps: `step TITLE` ends the previous one; `step_times` prints a table of all.
step_titles=()
step_seconds=()
current_step=''
step_began=0

step() {
  end_step
  current_step=$1
  step_began=$SECONDS
  say "${bold}==> [$(duration "$SECONDS")] $current_step${plain}"
}

end_step() {
  [[ -n $current_step ]] || return 0
  step_titles+=("$current_step")
  step_seconds+=($((SECONDS - step_began)))
  current_step=''
}

step_times() {
  local i
  for i in "${!step_titles[@]}"; do
    printf '%8s  %s\n' "$(duration "${step_seconds[i]}")" "${step_titles[i]}"
  done
}

# Slow commands run beside the steps: `aside NAME COMMAND...` starts one with the lowest priority, so that it takes the time
# that the steps leave idle; `await NAME` waits for it, prints what it wrote, and ends the script if it failed.
declare -A aside_processes=()

aside() {
  local name=$1
  shift
  make_scratch
  ((${#aside_processes[@]})) || at_exit stop_asides
  # A process group of its own, so that it can be stopped with everything that it started.
  set -m
  (
    set +m
    trap - EXIT INT TERM
    began=$SECONDS
    renice --priority 19 --pid "$BASHPID" >/dev/null
    "$@"
    printf '    took %s, beside other steps\n' "$(duration $((SECONDS - began)))"
  ) >"$scratch/aside-$name.log" 2>&1 &
  set +m
  aside_processes[$name]=$!
}

await() {
  local status=0
  wait "${aside_processes[$1]}" || status=$?
  unset "aside_processes[$1]"
  cat "$scratch/aside-$1.log" >&2
  ((status == 0)) || die "$1 failed with exit code $status; its output is above"
}

stop_asides() {
  local process
  for process in "${aside_processes[@]}"; do
    kill -- "-$process" 2>/dev/null || true
  done
}

# at_exit FUNCTION: calls it once when the script ends, also by Ctrl-C; the last registered function runs first.
exit_functions=()
at_exit() { exit_functions+=("$1"); }

finish() {
  local status=$? i
  trap - EXIT
  # A second Ctrl-C must not interrupt the clean-up.
  trap '' INT TERM
  if ((status != 0)) && [[ -n $current_step ]]; then
    say "${red}failed${plain} (exit code $status) in: $current_step, after $(duration $((SECONDS - step_began)))"
  fi
  for ((i = ${#exit_functions[@]} - 1; i >= 0; i--)); do
    "${exit_functions[i]}" || warn "cleaning up failed: ${exit_functions[i]}"
  done
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets `scratch` to a directory that is removed at exit. Not for `$(...)`: a subshell cannot register the removal.
scratch=''
make_scratch() {
  [[ -z $scratch ]] || return 0
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/obgp.XXXXXX")
  at_exit remove_scratch
}
remove_scratch() { rm -rf "$scratch"; }
