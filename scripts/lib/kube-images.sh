# shellcheck shell=bash
# Images for pods in the test cluster, made from Debian's signed archive where registries cannot be reached:
#   kube/frr                             FRR of Debian trixie, with IDs and start of quay.io/frrouting/frr
#   kube/ovn                             Open vSwitch's database server and OVN's schemas: the node's and the site's databases
#   kube/frr-exporter-stand-in           answers /metrics from FRR's sockets with some of frr_exporter's metrics
#   kube/kubernetes-entrypoint-stand-in  a program `kubernetes-entrypoint` that waits for nothing
#   kube/pause                           the process that holds a pod's namespaces
# The tag is the hash of an image's content. An image that the engine has is not made again.
# shellcheck source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

want_kube_image_requirements() {
  want_command mmdebstrap mmdebstrap "makes images from Debian's signed archive"
  want_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring "the keys of Debian's archive"
  want_command cc gcc,libc6-dev 'compiles the pause program of the pods'
}

readonly kube_files=$project/tests/kube/images

# ensure_kube_images: sets `kube_image[NAME]` for each image.
declare -A kube_image
ensure_kube_images() {
  kube_tag frr kube_make_frr docker-start frr-ids
  kube_tag ovn kube_make_ovn databases
  kube_tag frr-exporter-stand-in kube_make_ovn databases frr_exporter
  kube_tag kubernetes-entrypoint-stand-in kube_make_ovn databases kubernetes-entrypoint
  kube_tag pause kube_make_pause pause.c
  kube_has frr || kube_make_frr
  kube_has ovn || kube_make_ovn
  kube_has frr-exporter-stand-in ||
    kube_add frr-exporter-stand-in "$kube_files/frr_exporter" /app/frr_exporter 'ENTRYPOINT ["./frr_exporter"]' 'WORKDIR /app'
  kube_has kubernetes-entrypoint-stand-in ||
    kube_add kubernetes-entrypoint-stand-in "$kube_files/kubernetes-entrypoint" /usr/local/bin/kubernetes-entrypoint 'USER 65534' 'CMD ["kubernetes-entrypoint"]'
  kube_has pause || kube_make_pause
}

# kube_tag NAME FUNCTION FILE...: an image's content is its function's and its files'.
kube_tag() {
  local name=$1 function=$2 files=("${@:3}")
  kube_image[$name]=kube/$name:$({ declare -f kube_debian kube_add "$function" && cat "${files[@]/#/$kube_files/}"; } | sha256sum | cut -c 1-12)
}

kube_has() { docker image inspect "${kube_image[$1]}" >/dev/null 2>&1; }

# kube_debian PACKAGES [MMDEBSTRAP-OPTION...]: prints the file system as a tar archive.
kube_debian() {
  local packages=$1
  shift
  nice -n 19 mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$@" trixie - "${OBGP_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
}

kube_make_frr() {
  say "  making ${kube_image[frr]}"
  # shellcheck disable=SC2016 # mmdebstrap's shell expands it
  # /run/frr is a part of the image.
  kube_debian frr,tini,procps,iproute2 --skip=cleanup/run --customize-hook="install -m 0755 '$kube_files/docker-start' \"\$1/usr/lib/frr/docker-start\"" \
    --customize-hook="install -m 0755 '$kube_files/frr-ids' \"\$1/frr-ids\"" --customize-hook='chroot "$1" /frr-ids' --customize-hook='rm "$1/frr-ids"' |
    docker import --change 'ENV TINI_SUBREAPER=true' --change 'ENTRYPOINT ["/sbin/tini", "--"]' --change 'CMD ["/usr/lib/frr/docker-start"]' \
      - "${kube_image[frr]}" >/dev/null || die "making ${kube_image[frr]} failed"
}

kube_make_ovn() {
  say "  making ${kube_image[ovn]}"
  kube_debian openvswitch-switch,ovn-central,python3 --customize-hook="install -m 0755 '$kube_files/databases' \"\$1/usr/local/bin/databases\"" |
    docker import --change 'ENTRYPOINT ["/usr/local/bin/databases"]' - "${kube_image[ovn]}" >/dev/null || die "making ${kube_image[ovn]} failed"
}

# kube_add NAME FILE PATH CHANGE...: kube/ovn with a program added, which needs its Python.
kube_add() {
  local name=$1 file=$2 path=$3 change options=() container
  shift 3
  for change; do options+=(--change "$change"); done
  say "  making ${kube_image[$name]}"
  make_scratch
  mkdir -p "$scratch/$name${path%/*}"
  install -m 0755 "$file" "$scratch/$name$path"
  container=$(docker create "${kube_image[ovn]}")
  tar --create --directory "$scratch/$name" --owner 0 --group 0 . | docker cp - "$container:/" >/dev/null
  docker commit --change 'ENTRYPOINT []' "${options[@]}" "$container" "${kube_image[$name]}" >/dev/null
  docker rm "$container" >/dev/null
}

kube_make_pause() {
  make_scratch
  cc -static -O2 -o "$scratch/pause" "$kube_files/pause.c" || die 'compiling the pause program failed'
  tar --create --directory "$scratch" --owner 0 --group 0 pause |
    docker import --change 'ENTRYPOINT ["/pause"]' - "${kube_image[pause]}" >/dev/null
}
