# shellcheck shell=bash
# The Docker engine, and the kernel's emulation of the other processor architecture.
# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

# Whether the engine is on this machine, so that its socket, its kernel and its services are this machine's.
engine_is_local() {
  case ${DOCKER_HOST:-} in
    '' | unix://*) [[ -z ${DOCKER_CONTEXT:-} || ${DOCKER_CONTEXT} == default ]] ;;
    *) false ;;
  esac
}

engine_socket() {
  local host=${DOCKER_HOST:-unix:///var/run/docker.sock}
  printf '%s' "${host#unix://}"
}

engine_answers() { curl --silent --fail --max-time 5 --output /dev/null --unix-socket "$(engine_socket)" http://localhost/_ping; }

# Leaves with an error that says how to get an engine. Asks no docker command: the engine's API is all obgp-build needs.
ensure_engine() {
  if ! engine_is_local; then
    say "  the engine is elsewhere (${DOCKER_HOST:-context $DOCKER_CONTEXT}); obgp-build will say whether it answers"
    return
  fi
  engine_answers && return
  local socket
  socket=$(engine_socket)
  if [[ -S $socket && ! -w $socket ]]; then
    die "this user may not use the Docker engine at $socket" \
      "sudo usermod --append --groups docker $(id -un), then log in again; or run this as root."
  fi
  if [[ -z ${DOCKER_HOST:-} ]] && have dockerd; then
    say "  the Docker engine is installed but not running: starting it"
    if [[ -d /run/systemd/system ]]; then
      as_root systemctl start docker >&2 || true
    else
      as_root service docker start >&2 || true
    fi
    local try
    for ((try = 0; try < 30; try++)); do
      engine_answers && return
      sleep 1
    done
    die "the Docker engine does not start" "Look at: sudo journalctl --unit docker, or /var/log/docker.log"
  fi
  die "no Docker engine answers at $socket" \
    "Install one: sudo apt-get install docker.io (Debian's and Ubuntu's), or docker-ce from https://docs.docker.com/engine/install/" \
    "An engine elsewhere is named by DOCKER_HOST (unix://, tcp:// or ssh://)."
}

readonly binfmt=/proc/sys/fs/binfmt_misc

# The architecture of the two that this machine is not, in QEMU's name.
foreign_architecture() {
  case $(uname -m) in
    x86_64) echo aarch64 ;;
    aarch64) echo x86_64 ;;
    *) die "this machine is $(uname -m); the images are made on x86_64 and aarch64" ;;
  esac
}

# Flag F: the kernel opened the interpreter when it was registered, so it works inside containers, which have no such file.
emulation_works() {
  local entry=$binfmt/qemu-$1
  [[ -r $entry ]] && grep -qx enabled "$entry" && grep -q '^flags:.*F' "$entry"
}

# ensure_emulation: the packages are there (requirements.sh); registers them with the kernel, systemd or not.
ensure_emulation() {
  local foreign
  foreign=$(foreign_architecture)
  emulation_works "$foreign" && return
  say "  registering the emulation of $foreign with the kernel (binfmt_misc)"
  if [[ ! -e $binfmt/register ]]; then
    [[ -d $binfmt ]] || as_root modprobe binfmt_misc || true
    as_root mount --types binfmt_misc binfmt_misc "$binfmt" >&2 ||
      die "this kernel has no binfmt_misc, so $foreign cannot be emulated" \
        "Build for this machine's platform only: --platform linux/$([[ $foreign == aarch64 ]] && echo amd64 || echo arm64)"
  fi
  # An entry of another origin, without flag F, would stand in the way.
  [[ ! -e $binfmt/qemu-$foreign ]] || echo -1 | as_root tee "$binfmt/qemu-$foreign" >/dev/null
  # Debian and Ubuntu describe the interpreter to update-binfmts, to systemd-binfmt, or to both, depending on the release.
  local rule=/usr/lib/binfmt.d/qemu-$foreign.conf
  [[ -e $rule ]] || rule=/usr/lib/binfmt.d/qemu-$foreign-static.conf
  if have update-binfmts && update-binfmts --display "qemu-$foreign" >/dev/null 2>&1; then
    as_root update-binfmts --enable "qemu-$foreign" >&2
  elif [[ -e $rule ]]; then
    grep '^:' "$rule" | as_root tee "$binfmt/register" >/dev/null
  fi
  emulation_works "$foreign" ||
    die "the emulation of $foreign could not be registered" "Look at: update-binfmts --display qemu-$foreign; cat $binfmt/qemu-$foreign"
}
