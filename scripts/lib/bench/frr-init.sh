#!/bin/sh
# Does the work of `obgp-runtime frr-init` for an interface with a default route, with ip, jq and awk as in a chart's script.
# scripts/bench measures frr-init against it.
#
# Usage: frr-init.sh OUTPUT_DIR SHARED_DIR MAPPING.JSON, with NODE_NAME and INTERFACE in the environment.
set -eu

output=$1 shared=$2 mapping=$3
interface=${INTERFACE:-br-ex}
node=${NODE_NAME:-$(hostname)}

die() {
    echo "frr-init.sh: $*" >&2
    exit 1
}

rm -f "$shared/bgp-config.env"

cidr=$(ip -json -4 address show dev "$interface" scope global |
    jq -r '[.[].addr_info[] | select(.family == "inet")][0] | "\(.local)/\(.prefixlen)"')
[ "$cidr" != null/null ] || die "$interface has no IPv4 address"
address=${cidr%/*} length=${cidr#*/}

asn=$(echo "$address" | awk -F. '{ printf "%.0f\n", 4200000000 + $2 * 65536 + $3 * 256 + $4 }')

peer=$(ip -json -4 route show default dev "$interface" |
    jq -r '[.[] | select(.gateway)] | sort_by(.metric // 0) | .[0].gateway // empty')
[ -n "$peer" ] || die "$interface has no default route with a gateway"

# The subnet, and the longest prefix in the mapping that contains the gateway.
found=$(jq -r 'to_entries[] | "\(.key) \(.value)"' "$mapping" | awk -v address="$address/$length" -v peer="$peer" '
    function number(text, octets) {
        split(text, octets, ".")
        return ((octets[1] * 256 + octets[2]) * 256 + octets[3]) * 256 + octets[4]
    }
    function network(value, bits) { return value - value % 2 ^ (32 - bits) }
    function dotted(value) {
        return int(value / 16777216) "." int(value / 65536) % 256 "." int(value / 256) % 256 "." value % 256
    }
    BEGIN {
        split(address, own, "/")
        subnet = dotted(network(number(own[1]), own[2])) "/" own[2]
        longest = -1
    }
    {
        split($1, net, "/")
        if (net[2] > longest && network(number(peer), net[2]) == number(net[1])) {
            longest = net[2]
            asn = $2
        }
    }
    END { print subnet, asn }')
subnet=${found%% *} peer_asn=${found#* }
[ -n "$peer_asn" ] || die "No Leaf ASN mapping found for $subnet in $mapping; add \"$subnet\": \"<ASN>\""
case $peer_asn in
*[!0-9]*) die "$mapping: $peer_asn is no ASN" ;;
esac

reachable=no
if ping -c 1 -W 1 "$peer" > /dev/null 2>&1; then
    reachable=yes
fi

cat > "$output/.daemons" <<EOF
bgpd=yes
bfdd=no
vtysh_enable=yes
zebra_options="-A 127.0.0.1 -P 0 -s 90000000"
bgpd_options="-A 127.0.0.1 -P 0"
staticd_options="-A 127.0.0.1 -P 0"
EOF
echo 'service integrated-vtysh-config' > "$output/.vtysh.conf"
cat > "$output/.frr.conf" <<EOF
frr defaults traditional
!
router bgp $asn
 bgp router-id $address
 bgp log-neighbor-changes
 bgp graceful-restart
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor $peer remote-as $peer_asn
 neighbor $peer description Leaf-Switch
 neighbor $peer timers 3 10
 neighbor $peer timers connect 10
 !
 address-family ipv4 unicast
  neighbor $peer activate
  neighbor $peer soft-reconfiguration inbound
  neighbor $peer prefix-list HOSTS-V4 out
 exit-address-family
exit
!
ip prefix-list HOSTS-V4 seq 10 permit 0.0.0.0/0 ge 32
!
end
EOF
chmod 640 "$output/.daemons" "$output/.vtysh.conf" "$output/.frr.conf"
for file in daemons vtysh.conf frr.conf; do
    mv "$output/.$file" "$output/$file"
done

cat <<EOF
=== BGP Configuration ===
Node:           $node
Interface:      $interface ($cidr)
Subnet:         $subnet

Local (Server):
  IPv4:         $address
  ASN:          $asn (auto-generated)
  Router ID:    $address

Peer (Leaf Switch):
  IPv4:         $peer
  ASN:          $peer_asn (from ConfigMap)
  Discovery:    route
  Reachable:    $reachable

==================================
EOF

cat > "$shared/.bgp-config.env" <<EOF
NODE_NAME='$node'
NODE_IP='$address'
INTERFACE='$interface'
SUBNET='$subnet'
BGP_AS='$asn'
BGP_ROUTER_ID='$address'
BGP_PEER_IP='$peer'
BGP_PEER_AS='$peer_asn'
BGP_PEER_DISCOVERY='route'
EOF
chmod 644 "$shared/.bgp-config.env"
mv "$shared/.bgp-config.env" "$shared/bgp-config.env"
