"""A node's own OVN cluster, as exposing method `ovn` wants it: databases, northd and a second ovn-controller on the node.

The uplink becomes a port of the bridge `br-ext`, which takes over its address.
"""

import shutil

from .shell import daemon, run, until

SCHEMAS = {"nb": "/usr/share/ovn/ovn-nb.ovsschema", "sb": "/usr/share/ovn/ovn-sb.ovsschema"}


def start(node):
    home = node.ovs_dir
    for name, schema in SCHEMAS.items():
        database, socket = node.home / f"etc/bgp-{name}.db", home / f"bgp-{name}.sock"
        run(f"ovsdb-tool create {database} {schema}")
        daemon(f"{node.name}-bgp-{name}", f"ovsdb-server {database} --remote=punix:{socket} --unixctl={home}/bgp-{name}.ctl", netns=node.name)
        until(f"the node's own {name} database answers", socket.exists, 60)
        shutil.chown(socket, 0, 42424)
        socket.chmod(0o770)
    run(f"ovn-nbctl --db=unix:{home}/bgp-nb.sock init")
    daemon(f"{node.name}-bgp-northd", f"ovn-northd --ovnnb-db=unix:{home}/bgp-nb.sock --ovnsb-db=unix:{home}/bgp-sb.sock --unixctl={home}/bgp-northd.ctl",
           netns=node.name)
    subnet = f"10.1.{node.number}"
    run("ip addr flush dev eth0", netns=node.name)
    node.vsctl("--may-exist", "add-br", "br-ext", "--", "--may-exist", "add-port", "br-ext", "eth0", "--", "set", "Open_vSwitch", ".",
               "external_ids:ovn-bridge-mappings-bgp=ext:br-ext,openstack:br-ex", f"external_ids:ovn-remote-bgp=unix:{home}/bgp-sb.sock",
               "external_ids:ovn-encap-type-bgp=geneve", f"external_ids:ovn-encap-ip-bgp=10.9.0.{10 + node.number}", "external_ids:ovn-bridge-bgp=br-bgp")
    run("ip link set br-ext up", netns=node.name)
    run(f"ip addr add {subnet}.2/24 dev br-ext", netns=node.name)
    run(f"ip route replace default via {subnet}.1 dev br-ext", netns=node.name)
    environment = {"OVS_RUNDIR": str(home), "OVN_RUNDIR": str(node.home / "run/ovn")}
    daemon(f"{node.name}-bgp-controller", f"ovn-controller -n bgp unix:{home}/db.sock --unixctl={home}/bgp-controller.ctl", netns=node.name, env=environment)
    return {"exposing_method": "ovn", "local_ovn_cluster.ovn_nb_connection": "unix:/run/openvswitch/bgp-nb.sock", "local_ovn_cluster.external_nics": "eth0",
            "local_ovn_cluster.peer_ips": f"{subnet}.1", "local_ovn_cluster.provider_networks_pool_prefixes": "203.0.113.0/24"}
