# shellcheck shell=bash
# The Docker engine, and the kernel's emulation of the other processor architecture.
# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

# Returns whether the engine is on this machine.
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

# Ends the script with instructions if no engine answers. Uses the engine's API: obgp-build needs no docker command.
ensure_engine() {
  if ! engine_is_local; then
    say "  the engine is on another machine (${DOCKER_HOST:-context $DOCKER_CONTEXT}); obgp-build will report whether it answers"
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
    "Install one: sudo apt-get install docker.io (Debian, Ubuntu), or docker-ce from https://docs.docker.com/engine/install/" \
    "For an engine on another machine, set DOCKER_HOST (unix://, tcp:// or ssh://)."
}

readonly binfmt=/proc/sys/fs/binfmt_misc

# Prints the image architecture that this machine does not have, by QEMU's name.
foreign_architecture() {
  case $(uname -m) in
    x86_64) echo aarch64 ;;
    aarch64) echo x86_64 ;;
    *) die "this machine is $(uname -m); images are built on x86_64 and aarch64" ;;
  esac
}

# With flag F the kernel opens the interpreter at registration, so it works in containers that do not have the file.
emulation_works() {
  local entry=$binfmt/qemu-$1
  [[ -r $entry ]] && grep -qx enabled "$entry" && grep -q '^flags:.*F' "$entry"
}

# ensure_emulation: registers QEMU with the kernel, with or without systemd. requirements.sh installs the packages.
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
  # Remove an entry without flag F, which would block the registration.
  [[ ! -e $binfmt/qemu-$foreign ]] || echo -1 | as_root tee "$binfmt/qemu-$foreign" >/dev/null
  # Depending on the release, packages describe the interpreter to update-binfmts, to systemd-binfmt, or to both.
  local rule=/usr/lib/binfmt.d/qemu-$foreign.conf
  [[ -e $rule ]] || rule=/usr/lib/binfmt.d/qemu-$foreign-static.conf
  if have update-binfmts && update-binfmts --display "qemu-$foreign" >/dev/null 2>&1; then
    as_root update-binfmts --enable "qemu-$foreign" >&2
  elif [[ -e $rule ]]; then
    grep '^:' "$rule" | as_root tee "$binfmt/register" >/dev/null
  fi
  emulation_works "$foreign" ||
    die "registering the emulation of $foreign failed" "Look at: update-binfmts --display qemu-$foreign; cat $binfmt/qemu-$foreign"
}
