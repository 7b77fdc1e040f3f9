# shellcheck shell=bash
# Packages of the distro: a script says what it wants and what for, then everything missing is installed at once.
# The names are the same in Debian and Ubuntu.
# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

wanted_packages=()

# want_command COMMAND PACKAGE[,PACKAGE...] WHAT-FOR: satisfied by any COMMAND on the PATH, packaged or not.
want_command() { have "$1" || want "$2" "$3"; }

# want_file PATH PACKAGE[,PACKAGE...] WHAT-FOR
want_file() { [[ -e $1 ]] || want "$2" "$3"; }

want() {
  wanted_packages+=("${1//,/ }")
  say "  missing: ${1//,/ } ($2)"
}

# Installs what was wanted and is missing. Quick and silent when nothing is.
install_wanted() {
  ((${#wanted_packages[@]})) || return 0
  local packages
  read -ra packages <<<"${wanted_packages[*]}"
  wanted_packages=()
  have apt-get || die "these are missing, and this is not Debian or Ubuntu: ${packages[*]}" \
    "Install what your distro calls them, then run this again."
  say "  installing with apt-get: ${packages[*]}"
  # The lists of a fresh machine are empty or old; a repository of somebody else that does not answer is only a warning to apt.
  apt_get update || warn "apt-get update failed, trying with the lists that are there"
  apt_get install --no-install-recommends "${packages[@]}" ||
    die "apt-get could not install: ${packages[*]}" "On Ubuntu, mmdebstrap and qemu-user-static are in universe: sudo add-apt-repository universe"
}

# Package lists, for what asks apt itself for a package. A fresh machine has none.
ensure_package_lists() {
  [[ -n $(apt-cache --quiet=2 search --names-only '^busybox-static$' 2>/dev/null) ]] || apt_get update
}

apt_get() {
  # needrestart asks about services on Ubuntu unless told not to.
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get --yes --quiet=2 --option DPkg::Lock::Timeout=300 --option Dpkg::Options::=--force-confold --option Dpkg::Use-Pty=0 "$@" </dev/null >&2
}
