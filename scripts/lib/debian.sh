# shellcheck shell=bash
# Programs from packages of a chosen Debian suite, on any Debian or Ubuntu: apt checks the archive's signatures and
# downloads, dpkg-deb unpacks into the tools directory, nothing is installed.
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

want_debian_packages() {
  want_command apt-get apt 'downloads programs of other Debian releases'
  want_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring "the keys of Debian's archive"
}

# private_apt TYPE SUITE DIRECTORY: sets `apt_options` for an apt that knows only Debian's SUITE (TYPE: deb or deb-src) and
# keeps everything in DIRECTORY.
private_apt() {
  local type=$1 suite=$2 home=$3
  mkdir -p "$home"/{lists/partial,cache/archives/partial,sources}
  cat >"$home/sources/debian.sources" <<END
Types: $type
URIs: ${OBGP_DEBIAN_MIRROR:-http://deb.debian.org/debian}
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
  apt_options=(--quiet=2 --option Dir::Etc::SourceList=/dev/null --option Dir::Etc::SourceParts="$home/sources"
    --option Dir::State::Lists="$home/lists" --option Dir::Cache="$home/cache" --option Acquire::Languages=none
    --option Acquire::Retries=3 --option APT::Sandbox::User=root)
}

# ensure_debian_package SUITE PACKAGE: sets `debian_root` to the unpacked tree; the file `version` in it has the version.
ensure_debian_package() {
  local suite=$1 package=$2 home=$tools_dir/debian/$1
  debian_root=$home/$package
  [[ ! -d $debian_root ]] || return 0
  say "  fetching $package of Debian $suite"
  private_apt deb "$suite" "$home"
  # Remove the remains of an interrupted run.
  rm -rf "$home/new"
  mkdir "$home/new"
  {
    apt-get "${apt_options[@]}" update && cd "$home/new" && apt-get "${apt_options[@]}" download "$package" &&
      dpkg-deb -x "$package"_*.deb root && dpkg-deb -f "$package"_*.deb Version >root/version && cd "$OLDPWD" && mv "$home/new/root" "$debian_root"
  } >&2 </dev/null || die "$package of Debian $suite cannot be fetched" 'Is deb.debian.org reachable?'
}

# ensure_debian_program SUITE PACKAGE [PROGRAM]: sets `debian_program` to a command that runs the package's PROGRAM (default:
# PACKAGE) with the libraries of that suite, which may be newer than this machine's. Needs mmdebstrap.
ensure_debian_program() {
  local suite=$1 package=$2 program=${3:-$2}
  local home=$tools_dir/debian/$suite/$package-with-libraries
  debian_program=$home/$program
  [[ ! -x $debian_program ]] || return 0
  say "  fetching $package of Debian $suite, with its libraries"
  rm -rf "$home"
  mkdir -p "$home"
  mmdebstrap --quiet --variant=extract --include="$package" --aptopt='Acquire::Languages "none"' \
    "$suite" "$home/root" "${OBGP_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >&2 </dev/null ||
    die "$package of Debian $suite cannot be fetched" 'Is deb.debian.org reachable?'
  local loaders=("$home"/root/usr/lib/*/ld-linux*.so.*)
  cat >"$home/new" <<END
#!/bin/sh
exec '${loaders[0]}' --library-path '${loaders[0]%/*}' '$home/root/usr/bin/$program' "\$@"
END
  chmod 0755 "$home/new"
  mv "$home/new" "$debian_program"
}
