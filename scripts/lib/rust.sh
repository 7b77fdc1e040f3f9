# shellcheck shell=bash
# The Rust toolchain, and tools from crates.io in pinned versions.
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

minimum_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$project/Cargo.toml"; }

rust_is_new_enough() {
  local minimum found
  minimum=$(minimum_rust)
  found=$(cd "$project" && cargo --version 2>/dev/null | cut -d ' ' -f 2) || return 1
  [[ -n $found && $(printf '%s\n' "$minimum" "$found" | sort --version-sort | head -n 1) == "$minimum" ]]
}

# A toolchain that is there and new enough is used as it is. Otherwise rustup gets one, into this user's home and without root.
ensure_rust() {
  # Where rustup's own installer puts cargo; a login shell has it on the PATH, a script started by cron or CI often not.
  have cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  rust_is_new_enough && return
  if have cargo; then
    say "  $(cargo --version 2>/dev/null || echo 'the installed cargo') is older than the $(minimum_rust) this project needs"
  else
    say "  there is no Rust toolchain"
  fi
  if ! have rustup; then
    if [[ -n $(apt-cache --quiet=2 search --names-only '^rustup$' 2>/dev/null) ]] && ! have cargo; then
      want rustup 'installs the Rust compiler'
      install_wanted
    else
      install_rustup
    fi
  fi
  say "  rustup installs the stable toolchain (in $HOME, minimal profile)"
  rustup toolchain install stable --profile minimal --no-self-update >&2 </dev/null
  export RUSTUP_TOOLCHAIN=stable
  # Before Debian's cargo, which was too old, not after it.
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  rust_is_new_enough || die "Rust $(minimum_rust) or newer is needed, and rustup brought $(cargo --version)"
}

# ensure_rust_component clippy|rustfmt: rustup's minimal profile comes without.
ensure_rust_component() {
  (cd "$project" && cargo "${1/rustfmt/fmt}" --version >/dev/null 2>&1) || rustup component add "$1" >&2 </dev/null ||
    die "this Rust toolchain has no $1, and rustup cannot add it" "With a toolchain from packages: install rust-clippy and rustfmt."
}

# rustup's own installer, for releases that do not package it. It comes with its checksum from the same host: that guards
# against a damaged download; its authenticity is that of HTTPS.
install_rustup() {
  local url
  url=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init
  say "  installing rustup from $url"
  make_scratch
  curl --fail --silent --show-error --location --retry 3 --remote-name-all --output-dir "$scratch" "$url" "$url.sha256" ||
    die "rustup could not be downloaded from $url" "Install Rust $(minimum_rust) or newer by other means, and run this again."
  [[ $(sha256sum <"$scratch/rustup-init" | cut -d ' ' -f 1) == "$(cut -d ' ' -f 1 "$scratch/rustup-init.sha256")" ]] ||
    die "the download of rustup is damaged (wrong SHA-256)" "Run this again."
  chmod +x "$scratch/rustup-init"
  "$scratch/rustup-init" -y --quiet --no-modify-path --profile minimal --default-toolchain none >"$scratch/rustup.log" 2>&1 </dev/null ||
    die "rustup could not be installed" "$(cat "$scratch/rustup.log")"
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

# Where cargo puts what it builds: CARGO_TARGET_DIR and .cargo/config.toml are honoured.
target_dir() {
  (cd "$project" && cargo metadata --no-deps --format-version 1 --offline) | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# ensure_cargo_tool NAME VERSION [CARGO-INSTALL-OPTION...]: puts this version of NAME on the PATH, compiling it the first time.
ensure_cargo_tool() {
  local name=$1 version=$2 root=$tools_dir/cargo/$1-$2
  shift 2
  PATH=$root/bin:$PATH
  [[ -x $root/bin/$name ]] && return
  say "  compiling $name $version from crates.io (once; it stays in $root)"
  # These tools run for seconds: compiling them without optimisation saves minutes. Dependencies they share are compiled once.
  CARGO_TARGET_DIR=$tools_dir/cargo/build CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install --quiet --locked --root "$root" "$@" "$name@$version" >&2 </dev/null ||
    die "$name $version could not be compiled" "Its log is above; crates.io has to be reachable for this."
}

# The objects left by compiling the tools above are hundreds of megabytes that nobody needs again.
remove_tool_objects() { rm -rf "$tools_dir/cargo/build"; }
