# shellcheck shell=bash
# Requirements for building the tool and the images.
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"
# shellcheck source=engine.sh
source "${BASH_SOURCE[0]%/*}/engine.sh"

want_build_requirements() {
  want_command cc gcc,libc6-dev "compiles the C parts of obgp-build's dependencies, and links it"
  want_command git git 'resolves branches and commits of the agent'
  want_command curl curl,ca-certificates 'checks for the engine, downloads rustup if needed'
  want_file /etc/ssl/certs/ca-certificates.crt ca-certificates 'certificates for HTTPS'
}

# Where no registry can be reached, bases are bootstrapped from the distro's archive.
want_bootstrap_requirements() {
  want_command mmdebstrap mmdebstrap "makes base images from the distro's signed archive where no registry can be reached"
  want_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring "the keys of Debian's archive"
  # Root can make device nodes and chroot; other users need user namespaces with more than one ID.
  ((EUID == 0)) || want_command newuidmap uidmap 'lets mmdebstrap work without root'
}

want_emulation_requirements() {
  local foreign
  foreign=$(foreign_architecture)
  emulation_works "$foreign" && return
  have "qemu-$foreign-static" || [[ -e /usr/lib/binfmt.d/qemu-$foreign.conf ]] ||
    want qemu-user-static "runs the few steps of the build that need a $foreign processor"
  want_command update-binfmts binfmt-support 'registers QEMU with the kernel'
}

# Only tests and benchmarks need a docker command; obgp-build does not.
want_docker_command() {
  # Newer releases package it separately; in older ones it is in docker.io. The engine exists already, so this installs no other.
  local package=docker-cli
  [[ -n $(apt-cache --quiet=2 search --names-only '^docker-cli$' 2>/dev/null) ]] || package=docker.io
  want_command docker $package 'reads reference values from the engine'
}
