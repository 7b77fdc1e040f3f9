# shellcheck shell=bash
# Packages of the distro: a script lists its requirements with reasons, then installs everything that is missing at once.
# Debian and Ubuntu use the same package names.
# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

wanted_packages=()

# want_command COMMAND PACKAGE[,PACKAGE...] REASON: satisfied by any COMMAND on the PATH, packaged or not.
want_command() { have "$1" || want "$2" "$3"; }

# want_file PATH PACKAGE[,PACKAGE...] REASON
want_file() { [[ -e $1 ]] || want "$2" "$3"; }

want() {
  wanted_packages+=("${1//,/ }")
  say "  missing: ${1//,/ } ($2)"
}

# Installs the missing packages; prints nothing if there are none.
install_wanted() {
  ((${#wanted_packages[@]})) || return 0
  local packages
  read -ra packages <<<"${wanted_packages[*]}"
  wanted_packages=()
  have apt-get || die "packages are missing, and this is not Debian or Ubuntu: ${packages[*]}" \
    "Install your distro's equivalents, then run this again."
  say "  installing with apt-get: ${packages[*]}"
  # A fresh machine's lists are empty or old. For apt, a third-party repository that does not answer is only a warning.
  apt_get update || warn "apt-get update failed; continuing with the existing lists"
  apt_get install --no-install-recommends "${packages[@]}" ||
    die "apt-get could not install: ${packages[*]}" "On Ubuntu, mmdebstrap and qemu-user-static are in universe: sudo add-apt-repository universe"
}

# Downloads apt's package lists if there are none, as on a fresh machine.
ensure_package_lists() {
  [[ -n $(apt-cache --quiet=2 search --names-only '^busybox-static$' 2>/dev/null) ]] || apt_get update
}

apt_get() {
  # Without NEEDRESTART_SUSPEND, needrestart asks about services on Ubuntu.
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get --yes --quiet=2 --option DPkg::Lock::Timeout=300 --option Dpkg::Options::=--force-confold --option Dpkg::Use-Pty=0 "$@" </dev/null >&2
}
