"""Exposing methods other than underlay, and the driver that reads the southbound database."""

from .. import local_ovn
from ..pod import environment
from ..shell import until
from .sessions import spine


def vrf(world):
    """The provider network's VNI is announced to the spine as an EVPN route of type 5."""
    world.neutron.network("vpn", physical="physnet1", vlan=103, vni=1003)
    world.ready_pod(settings={"exposing_method": "vrf", "evpn_local_ip": world.nodes[0].address}, change=environment(**spine(world)))
    world.server("vpn-server", "vpn", ["198.51.100.150/24"], "198.51.100.1")

    def announced():
        return "[5]:[0]:[32]:[198.51.100.150]" in world.spine.vtysh("show bgp l2vpn evpn route")
    try:
        until("the spine has the route", announced, 120)
    finally:
        world.check("the spine has the server's address as a route of type 5", announced(), announced())
    world.stop_pod(world.nodes[0])
    world.neutron.remove_network("vpn")


def ovn(world):
    """On node 2, which keeps that layout: the packets go through the node's own OVN, not through the kernel's routing."""
    node = world.nodes[1]
    settings = local_ovn.start(node)

    def change(spec):
        # The agent asks ovs-appctl, which looks for the switch's PID in its own namespace.
        spec["hostPID"] = True
        environment(INTERFACE="br-ext")(spec)
    world.ready_pod(node, settings=settings, change=change)
    inside, _ = world.private_server("ovn-server", node)
    world.at_leaf("203.0.113.170", world.floating_ip("ovn-server", inside, "203.0.113.170"), "the floating IP is at the leaf")
    world.check("the server answers the leaf's ping", "203.0.113.170", world.ping("203.0.113.170"))
    world.stop_pod(node)


def sb_driver(world):
    world.ready_pod(settings={"driver": "ovn_bgp_driver"})
    inside, _ = world.private_server("sb-server")
    world.at_leaf("203.0.113.160", world.floating_ip("sb-server", inside, "203.0.113.160"), "the floating IP is at the leaf")
    world.check("the server answers the leaf's ping", "203.0.113.160", world.ping("203.0.113.160"))
    mark = world.watch.mark()
    world.server("sb-provider", "public", ["203.0.113.61/24"], "203.0.113.1")
    world.at_leaf("203.0.113.61", mark, "the address of a server on a provider network is at the leaf")
    mark = world.watch.mark()
    world.neutron.remove_floating_ips("r1", ["203.0.113.160"])
    world.gone_from_leaf("203.0.113.160", mark, "the floating IP is gone from the leaf")
    world.stop_pod(world.nodes[0])
