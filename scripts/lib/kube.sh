# shellcheck shell=bash
# A Kubernetes of one node, `node`, on this machine: etcd, API server, controller manager, scheduler, and a kubelet that runs
# pods on the machine's Docker engine. Pods need hostNetwork: there is no network plugin, no kube-proxy and no cluster DNS.
# Every file of it is below one directory; programs listen on loopback and on the address that leads out.
# shellcheck source=kube-build.sh
source "${BASH_SOURCE[0]%/*}/kube-build.sh"

readonly kube_api_port=16443 kube_etcd_port=16379 kube_etcd_peer_port=16380 kube_services=10.96.0.0/16
# In the order in which they end: the API server waits for an etcd that has gone.
readonly kube_parts=(kubelet kube-scheduler kube-controller-manager kube-apiserver etcd)

want_kube_cluster_requirements() {
  want_kubernetes_requirements
  want_command openssl openssl "makes the cluster's certificates"
  want_command curl curl 'asks the engine'
  want_command ip iproute2 "finds the node's address"
}

# kube_obstacle: prints why the cluster cannot work here, or would disturb another one, in two lines: cause and fix.
kube_obstacle() {
  if [[ ! -d /sys/fs/cgroup/cpu && ! -d /sys/fs/cgroup/cpu,cpuacct ]]; then
    printf '%s\n' 'kubelet 1.20 needs control groups of version 1, and this machine has version 2 only' 'Boot it with systemd.unified_cgroup_hierarchy=0.'
    return
  fi
  local version
  if ! version=$(docker version --format '{{.Server.MinAPIVersion}} {{.Server.Version}}'); then
    printf '%s\n' 'no Docker engine answers' 'Start it.'
  elif [[ $(printf '%s\n' "${version% *}" 1.40 | sort --version-sort | head -n 1) != "${version% *}" ]]; then
    printf '%s\n' "kubelet 1.20 speaks version 1.40 of the engine's API, and the engine ${version#* } starts at ${version% *}" 'Use a Docker engine older than 29.'
  elif [[ -n $(kube_containers) ]]; then
    printf '%s\n' 'containers of another kubelet are on this engine' 'Look at: docker ps --filter label=io.kubernetes.pod.name'
  fi
}

kube_containers() { docker ps --all --quiet --filter label=io.kubernetes.pod.name; }

# kube_up DIRECTORY PAUSE-IMAGE: starts the cluster, where none runs; exports KUBECONFIG. Needs `kube_bin` and kubectl.
kube_up() {
  kube_home=$1
  local pause=$2 api=https://127.0.0.1:$kube_api_port try
  kube_address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
  [[ -n $kube_address ]] || die 'this machine has no IPv4 address that leads out'
  rm -rf "$kube_home"/{pki,etcd,kubelet,pids}
  mkdir -p "$kube_home"/{pki,etcd,kubelet,logs,pids}
  # A path of a socket has at most 107 bytes, and kubelet's are below this directory.
  kube_certificates "$api"
  kube_part etcd etcd --data-dir "$kube_home/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$kube_etcd_port" \
    --advertise-client-urls "http://127.0.0.1:$kube_etcd_port" --listen-peer-urls "http://127.0.0.1:$kube_etcd_peer_port" \
    --initial-advertise-peer-urls "http://127.0.0.1:$kube_etcd_peer_port" --initial-cluster "default=http://127.0.0.1:$kube_etcd_peer_port"
  kube_part kube-apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$kube_etcd_port" --bind-address 127.0.0.1 \
    --advertise-address "$kube_address" --secure-port "$kube_api_port" --service-cluster-ip-range "$kube_services" \
    --authorization-mode Node,RBAC --allow-privileged=true --cert-dir "$kube_home/pki" --client-ca-file "$kube_home/pki/ca.crt" \
    --tls-cert-file "$kube_home/pki/apiserver.crt" --tls-private-key-file "$kube_home/pki/apiserver.key" \
    --service-account-key-file "$kube_home/pki/accounts.pub" --service-account-signing-key-file "$kube_home/pki/accounts.key" \
    --service-account-issuer https://kubernetes.default.svc --api-audiences https://kubernetes.default.svc \
    --kubelet-client-certificate "$kube_home/pki/admin.crt" --kubelet-client-key "$kube_home/pki/admin.key" \
    --kubelet-preferred-address-types InternalIP
  export KUBECONFIG=$kube_home/admin.conf
  kube_wait 120 kube-apiserver kubectl get --raw /readyz
  kube_part kube-controller-manager kube-controller-manager --kubeconfig "$kube_home/controllers.conf" --leader-elect=false \
    --bind-address 127.0.0.1 --port 0 --cert-dir "$kube_home/pki" --use-service-account-credentials \
    --service-account-private-key-file "$kube_home/pki/accounts.key" --root-ca-file "$kube_home/pki/ca.crt"
  kube_part kube-scheduler kube-scheduler --kubeconfig "$kube_home/scheduler.conf" --leader-elect=false --bind-address 127.0.0.1 --port 0 \
    --cert-dir "$kube_home/pki"
  kube_part kubelet kubelet --kubeconfig "$kube_home/node.conf" --hostname-override node --address "$kube_address" --root-dir "$kube_home/kubelet" \
    --cert-dir "$kube_home/pki" --tls-cert-file "$kube_home/pki/node.crt" --tls-private-key-file "$kube_home/pki/node.key" \
    --client-ca-file "$kube_home/pki/ca.crt" --anonymous-auth=false --authorization-mode AlwaysAllow --read-only-port 0 \
    --healthz-bind-address 127.0.0.1 --container-runtime docker --pod-infra-container-image "$pause" --cgroup-driver cgroupfs \
    --cgroups-per-qos=false --enforce-node-allocatable= --fail-swap-on=false --make-iptables-util-chains=false \
    --image-gc-high-threshold 100 --image-gc-low-threshold 99 --eviction-hard= --sync-frequency 5s
  kube_wait 120 kubelet kube_node_ready
  # The account exists a moment after the namespace; pods before it are rejected.
  kube_wait 60 kube-controller-manager kubectl get serviceaccount default
}

kube_node_ready() { kubectl wait --for=condition=Ready --timeout=0 node/node; }

# kube_part NAME PROGRAM ARGUMENT...: starts it in the background, with a log.
kube_part() {
  local name=$1 program=$kube_bin/$2
  shift 2
  # Without the variable, the cloud providers' code asks a metadata address at the start.
  AWS_EC2_METADATA_DISABLED=true setsid "$program" "$@" >"$kube_home/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$kube_home/pids/$name"
}

# kube_wait SECONDS NAME COMMAND...: until the command succeeds; ends the script after SECONDS, or when NAME has ended.
kube_wait() {
  local end=$((SECONDS + $1)) name=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)) || ! kill -0 "$(<"$kube_home/pids/$name")" 2>/dev/null; then
      die "$name does not work: $*" "$(tail -n 20 "$kube_home/logs/$name.log")"
    fi
    sleep 0.25
  done
}

# kube_down DIRECTORY: ends a cluster, also one that an earlier run left; only its own processes, pods and mounts.
kube_down() {
  local home=$1 name pid try mount containers was_running=''
  for name in "${kube_parts[@]}"; do
    [[ -f $home/pids/$name ]] || continue
    pid=$(<"$home/pids/$name")
    # The number may belong to another process after a reboot.
    if [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == */$name ]]; then
      was_running=yes
      kill "$pid" 2>/dev/null || true
      for ((try = 0; try < 60; try++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.25
      done
      kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$home/pids/$name"
  done
  if [[ -n $was_running ]]; then
    mapfile -t containers < <(kube_containers)
    ((${#containers[@]} == 0)) || docker rm --force --volumes "${containers[@]}" >/dev/null
  fi
  while read -r mount; do
    umount --lazy "$mount"
  done < <(awk -v home="$home/" 'index($2, home) == 1 { print $2 }' /proc/mounts | sort --reverse)
}

kube_certificates() {
  local api=$1
  (
    cd "$kube_home/pki" || exit
    openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=test-cluster 2>/dev/null
    openssl genrsa -out accounts.key 2048 2>/dev/null
    openssl rsa -in accounts.key -pubout -out accounts.pub 2>/dev/null
  )
  kube_certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1"
  kube_client "$api" admin /O=system:masters/CN=admin DNS:admin
  kube_client "$api" controllers /CN=system:kube-controller-manager DNS:controllers
  kube_client "$api" scheduler /CN=system:kube-scheduler DNS:scheduler
  kube_client "$api" node /O=system:nodes/CN=system:node:node "DNS:node,IP:$kube_address"
}

# kube_certificate NAME SUBJECT ALTERNATIVE-NAMES
kube_certificate() {
  local file=$kube_home/pki/$1
  openssl req -newkey rsa:2048 -nodes -keyout "$file.key" -out "$file.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$file.csr" -CA "$kube_home/pki/ca.crt" -CAkey "$kube_home/pki/ca.key" -CAcreateserial -days 30 -out "$file.crt" \
    -extfile <(echo "subjectAltName=$3") 2>/dev/null
}

# kube_client API NAME SUBJECT ALTERNATIVE-NAMES: also writes NAME.conf, a kubeconfig.
kube_client() {
  local api=$1 name=$2
  kube_certificate "${@:2}"
  cat >"$kube_home/$name.conf" <<END
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "$api", certificate-authority: "$kube_home/pki/ca.crt"}}]
users: [{name: user, user: {client-certificate: "$kube_home/pki/$name.crt", client-key: "$kube_home/pki/$name.key"}}]
contexts: [{name: test, context: {cluster: test, user: user}}]
END
}
