# shellcheck shell=bash
# A Kubernetes to test with: compiles API server, controller manager, scheduler and kubelet from Debian bookworm's source
# package `kubernetes` (1.20.2, the last one with all of them), with bookworm's Go. Nothing is installed: apt checks the
# archive's signatures and downloads, everything is unpacked and compiled in the tools directory.
# shellcheck source=debian.sh
source "${BASH_SOURCE[0]%/*}/debian.sh"

readonly kube_suite=bookworm kube_version=1.20.2
readonly kube_programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet)

want_kubernetes_requirements() {
  want_debian_packages
  want_command dpkg-source dpkg-dev "unpacks Debian's source package of Kubernetes"
  want_command patch patch "applies Debian's patches to it"
  want_command cc gcc,libc6-dev "compiles the pause program of the pods"
}

# ensure_kubernetes: sets `kube_bin` to a directory with the programs and etcd. The first time it compiles them, in about
# five minutes on two cores. The directory's name has the hash of the recipe: the functions below.
ensure_kubernetes() {
  local recipe
  recipe=$({ echo "$kube_suite" "${kube_programs[@]}" && declare -f kube_go kube_source kube_goenv kube_generate kube_compile; } | sha256sum | cut -c 1-12)
  kube_bin=$tools_dir/kubernetes/$kube_version-$recipe
  [[ ! -d $kube_bin ]] || return 0
  say "  compiling Kubernetes $kube_version (once; it stays in $kube_bin)"
  local work=$tools_dir/kubernetes/work
  mkdir -p "$work"
  # A second run waits for the first one.
  exec {kube_lock}>"$work/lock"
  flock "$kube_lock"
  if [[ ! -d $kube_bin ]]; then
    rm -rf "${work:?}/bin"
    mkdir "$work/bin"
    kube_go
    kube_source
    kube_generate
    kube_compile
    ensure_debian_package "$kube_suite" etcd-server
    cp "$debian_root/usr/bin/etcd" "$work/bin/etcd"
    mv "$work/bin" "$kube_bin"
    rm -rf "$work/source" "$work/go" "$work/gopath" "$work/cache"
    find "$tools_dir/kubernetes" -mindepth 1 -maxdepth 1 -name "$kube_version-*" ! -path "$kube_bin" -exec rm -rf {} +
  fi
  exec {kube_lock}>&-
}

# Runs a command of the build: quiet, with its output in a log that is printed on failure.
kube_run() {
  local log=$work/build.log
  nice -n 19 "$@" >"$log" 2>&1 </dev/null || die "compiling Kubernetes failed: $*" "$(tail -n 30 "$log")"
}

# Go's tools and its sources are two packages, whose links expect them in one tree.
kube_go() {
  local package
  rm -rf "$work/go"
  mkdir "$work/go"
  for package in golang-1.19-go golang-1.19-src; do
    ensure_debian_package "$kube_suite" "$package"
    cp -a "$debian_root/." "$work/go/"
  done
}

# Unpacks the source package with Debian's patches.
kube_source() {
  local home=$work/source
  rm -rf "$home"
  private_apt deb-src "$kube_suite" "$home"
  {
    apt-get "${apt_options[@]}" update && cd "$home" && apt-get "${apt_options[@]}" source --download-only kubernetes &&
      dpkg-source --no-check --extract kubernetes_*.dsc tree && cd "$OLDPWD"
  } >"$work/source.log" 2>&1 </dev/null || die "the source package of Kubernetes cannot be fetched" "$(tail -n 20 "$work/source.log")"
  # Containers and small virtual machines may not lower the OOM score; 1.20 has no option for the pod's sandbox.
  local sandbox=$home/tree/pkg/kubelet/dockershim/docker_sandbox.go
  sed -i 's/defaultSandboxOOMAdj int = -998/defaultSandboxOOMAdj int = 0/' "$sandbox"
  grep -q 'defaultSandboxOOMAdj int = 0$' "$sandbox" || die "$sandbox is not as expected: defaultSandboxOOMAdj"
  # Kubernetes 1.20 is compiled in a GOPATH.
  rm -rf "$work/gopath"
  mkdir -p "$work/gopath/src/k8s.io"
  ln -s "$home/tree" "$work/gopath/src/k8s.io/kubernetes"
}

kube_goenv() {
  (
    cd "$work/gopath/src/k8s.io/kubernetes" || exit
    kube_run env GOROOT="$work/go/usr/lib/go-1.19" GOPATH="$work/gopath" GOCACHE="$work/cache" HOME="$work" GO111MODULE=off CGO_ENABLED=0 \
      GOFLAGS='-buildvcs=false -tags=providerless' PATH="$work/go/usr/lib/go-1.19/bin:$PATH" "$@"
  )
}

# The source package has all generated files but one: the API's OpenAPI definitions, of the packages with this comment.
kube_generate() {
  local tree=$work/gopath/src/k8s.io/kubernetes packages
  packages=$(cd "$tree" && grep --recursive --files-with-matches --include='*.go' '^// +k8s:openapi-gen=' pkg staging/src vendor/k8s.io/kube-openapi 2>/dev/null |
    grep --invert-match '_test\.go$' | xargs --max-args=1 dirname | sort --unique |
    sed 's|^staging/src/|k8s.io/kubernetes/vendor/|; s|^pkg/|k8s.io/kubernetes/pkg/|; s|^vendor/|k8s.io/kubernetes/vendor/|' | paste --serial --delimiters=,)
  kube_goenv go build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  kube_goenv "$work/openapi-gen" --logtostderr --output-file-base zz_generated.openapi --output-base "$work/gopath/src" \
    --output-package k8s.io/kubernetes/pkg/generated/openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
    --report-filename "$work/api-violations" --input-dirs "$packages"
}

kube_compile() {
  local program flags='-s -w' package
  for package in component-base/version client-go/pkg/version; do
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitVersion=v$kube_version"
    flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMajor=1 -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMinor=20"
  done
  for program in "${kube_programs[@]}"; do
    say "  compiling $program"
    kube_goenv go build -trimpath -ldflags "$flags" -o "$work/bin/$program" "k8s.io/kubernetes/cmd/$program"
  done
}
