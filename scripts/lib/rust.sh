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

# Uses an installed toolchain that is new enough. Otherwise rustup installs one into this user's home, without root.
ensure_rust() {
  # rustup's installer puts cargo here; only login shells have it on the PATH.
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
  # First on the PATH, before a cargo that is too old.
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  rust_is_new_enough || die "Rust $(minimum_rust) or newer is needed, but rustup installed $(cargo --version)"
}

# ensure_rust_component clippy|rustfmt: rustup's minimal profile does not include them.
ensure_rust_component() {
  (cd "$project" && cargo "${1/rustfmt/fmt}" --version >/dev/null 2>&1) || rustup component add "$1" >&2 </dev/null ||
    die "this Rust toolchain has no $1, and rustup cannot add it" "For a toolchain from Debian packages: install rust-clippy and rustfmt."
}

# Runs rustup's own installer, for releases that do not package it. Its checksum comes from the same host: it detects a
# damaged download, while HTTPS authenticates the host.
install_rustup() {
  local url
  url=https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init
  say "  installing rustup from $url"
  make_scratch
  curl --fail --silent --show-error --location --retry 3 --remote-name-all --output-dir "$scratch" "$url" "$url.sha256" ||
    die "downloading rustup from $url failed" "Install Rust $(minimum_rust) or newer in another way, and run this again."
  [[ $(sha256sum <"$scratch/rustup-init" | cut -d ' ' -f 1) == "$(cut -d ' ' -f 1 "$scratch/rustup-init.sha256")" ]] ||
    die "the download of rustup is damaged (wrong SHA-256)" "Run this again."
  chmod +x "$scratch/rustup-init"
  "$scratch/rustup-init" -y --quiet --no-modify-path --profile minimal --default-toolchain none >"$scratch/rustup.log" 2>&1 </dev/null ||
    die "installing rustup failed" "$(cat "$scratch/rustup.log")"
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}

# Prints cargo's target directory; respects CARGO_TARGET_DIR and .cargo/config.toml.
target_dir() {
  (cd "$project" && cargo metadata --no-deps --format-version 1 --offline) | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# ensure_cargo_tool NAME VERSION [CARGO-INSTALL-OPTION...]: puts this version of NAME on the PATH; compiles it the first time.
ensure_cargo_tool() {
  local name=$1 version=$2 root=$tools_dir/cargo/$1-$2
  shift 2
  PATH=$root/bin:$PATH
  [[ -x $root/bin/$name ]] && return
  say "  compiling $name $version from crates.io (once; it stays in $root)"
  # These tools run for seconds, so compiling them without optimisation saves minutes. Shared dependencies are compiled once.
  CARGO_TARGET_DIR=$tools_dir/cargo/build CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
    cargo install --quiet --locked --root "$root" "$@" "$name@$version" >&2 </dev/null ||
    die "compiling $name $version failed" "cargo's log is above. crates.io has to be reachable."
}

# Removes the objects of compiling the tools: hundreds of megabytes that are not needed again.
remove_tool_objects() { rm -rf "$tools_dir/cargo/build"; }
