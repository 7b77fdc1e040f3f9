# shellcheck shell=bash
# Modern engines next to the machine's own, one per image store, while the script runs.

# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

# Exports OBGP_TEST_MODERN_HOST. An engine that already runs is not stopped at exit.
modern_engine_up() {
  "$project/scripts/modern-engine" status >/dev/null 2>&1 || at_exit modern_engine_down
  OBGP_TEST_MODERN_HOST=$("$project/scripts/modern-engine" up)
  export OBGP_TEST_MODERN_HOST
}

modern_engine_down() { "$project/scripts/modern-engine" down >&2; }

# The same with the classic image store; exports OBGP_TEST_MODERN_CLASSIC_HOST.
modern_classic_engine_up() {
  "$project/scripts/modern-engine" status --classic >/dev/null 2>&1 || at_exit modern_classic_engine_down
  OBGP_TEST_MODERN_CLASSIC_HOST=$("$project/scripts/modern-engine" up --classic)
  export OBGP_TEST_MODERN_CLASSIC_HOST
}

modern_classic_engine_down() { "$project/scripts/modern-engine" down --classic >&2; }
