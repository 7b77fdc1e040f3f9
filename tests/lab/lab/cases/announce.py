"""Addresses that are announced, each seen at the leaf."""

import time

from ..pod import environment
from ..shell import run, until


def start(world):
    pod = world.base_pod()
    world.check("health live, ready and startup agree", "yes", all(pod.health(what).code == 0 for what in ("live", "ready", "startup")))
    world.check("the leaf has the session", pod.node.address, world.leaf1.established(pod.node.address))


def floating_ip(world):
    world.base_pod()
    inside, _ = world.private_server("fip-server")
    mark = world.floating_ip("fip-server", inside, "203.0.113.100")
    added = world.at_leaf("203.0.113.100", mark, "the floating IP is at the leaf")
    world.check("the leaf's next hop is the node", world.leaf1.next_hops("203.0.113.100"), world.leaf1.next_hops("203.0.113.100") == {"10.1.1.2"})
    world.check("the server answers the leaf's ping", "203.0.113.100", world.ping("203.0.113.100"))
    mark = world.watch.mark()
    world.neutron.remove_floating_ips("r1", ["203.0.113.100"])
    removed = world.gone_from_leaf("203.0.113.100", mark, "the floating IP is gone from the leaf")
    if added and removed:
        world.figure("floating IP added", round(added, 2), "s")
        world.figure("floating IP removed", round(removed, 2), "s")


def provider_vm(world):
    world.base_pod()
    mark = world.watch.mark()
    world.server("provider-server", "public", ["203.0.113.50/24"], "203.0.113.1")
    world.at_leaf("203.0.113.50", mark, "the server's address is at the leaf")
    world.check("the server answers the leaf's ping", "203.0.113.50", world.ping("203.0.113.50"))


def provider_vlan(world):
    world.neutron.network("vlan", physical="physnet1", vlan=101)
    world.base_pod()
    mark = world.watch.mark()
    world.server("vlan-server", "vlan", ["198.51.100.50/24"], "198.51.100.1")
    world.at_leaf("198.51.100.50", mark, "the server's address is at the leaf")
    world.check("the server answers the leaf's ping", "198.51.100.50", world.ping("198.51.100.50"))


def dual_stack(world):
    world.ready_pod(change=environment(FRR_IPV6="true"))
    # The network's own address is the gateway of IPv6: the agent answers for it on the bridge.
    world.neutron.network("dual", physical="physnet1", vlan=102)
    mark = world.watch.mark()
    world.server("dual-server", "dual", ["198.18.0.50/24", "2001:db8:18::50/64"], "198.18.0.1", gateway6="2001:db8:18::")
    world.at_leaf("198.18.0.50", mark, "the IPv4 address is at the leaf")
    world.at_leaf("2001:db8:18::50", mark, "the IPv6 address is at the leaf")
    world.check("IPv4 answers the leaf's ping", "198.18.0.50", world.ping("198.18.0.50"))
    world.check("IPv6 answers the leaf's ping", "2001:db8:18::50", world.ping("2001:db8:18::50"))
    world.stop_pod(world.nodes[0])


def moved(world):
    """The server's port moves to node 2: its floating IP follows."""
    world.base_pod()
    world.ready_pod(world.nodes[1])
    inside, vm = world.private_server("moving-server")
    world.at_leaf("203.0.113.101", world.floating_ip("moving-server", inside, "203.0.113.101"), "the floating IP is at the leaf by node 1")
    mac = run(["cat", "/sys/class/net/eth0/address"], netns=vm).strip()
    mark = world.watch.mark()
    world.nodes[0].remove_vm(vm)
    world.neutron.rehost("moving-server", "n2")
    world.nodes[1].vm("vmmoved", "moving-server", mac, [f"{inside}/16"], "192.168.10.1")
    until("the leaf's next hop is node 2", lambda: world.leaf1.next_hops("203.0.113.101") == {"10.1.2.2"}, 240)
    world.check("the leaf's next hop is node 2 alone", f"{time.monotonic() - mark:.2f} s", True, time.monotonic() - mark)
    world.check("the server answers the leaf's ping", "203.0.113.101", world.ping("203.0.113.101"))
    world.neutron.remove_floating_ips("r1", ["203.0.113.101"])
    world.stop_pod(world.nodes[1])
