"""Sessions with the leaf switches: several of them, EVPN, and how the leaf is found."""

import pathlib

from ..pod import environment
from ..shell import run, until


def ecmp(world):
    world.leaf2.start()
    pod, _ = world.ready_pod(change=environment(BGP_PEER_IP="10.1.1.1,10.2.1.1"), mapping={"10.1.0.0/16": 65001, "10.2.0.0/16": 65002})
    until("both sessions are established", lambda: world.leaf1.established("10.1.1.2") and world.leaf2.established("10.2.1.2"), 120)
    inside, _ = world.private_server("ecmp-server")
    world.at_leaf("203.0.113.140", world.floating_ip("ecmp-server", inside, "203.0.113.140"), "the floating IP is at the first leaf")
    until("the second leaf has it", lambda: world.leaf2.has("203.0.113.140"), 60)
    world.check("the floating IP is at the second leaf", world.leaf2.next_hops("203.0.113.140"), world.leaf2.next_hops("203.0.113.140") == {"10.2.1.2"})
    world.check("the server answers both leaves", "203.0.113.140", world.ping("203.0.113.140") and world.ping("203.0.113.140", netns="leaf2"))
    world.stop_pod(pod.node)


def spine(world):
    if not hasattr(world.spine, "daemons"):
        world.spine.start()
    # A link that went down took the leaf's way to the spine with it.
    run("ip route replace 10.1.0.0/16 via 10.3.1.2", netns="spine")
    run("ip route replace 10.100.0.1/32 via 10.3.1.1", netns="leaf1")
    return {"EVPN_RR_IP": "10.100.0.1", "EVPN_RR_AS": "65100"}


def evpn(world):
    pod, _ = world.ready_pod(change=environment(**spine(world)))
    until("the spine has the session", lambda: world.spine.established(pod.node.address), 120)
    peer = world.spine.json("show bgp neighbors json").get(pod.node.address, {})
    families = list(peer.get("addressFamilyInfo", {}))
    world.check("the session with the spine is EVPN", families, families == ["l2VpnEvpn"])
    world.stop_pod(pod.node)


def discovery(world):
    def found(how):
        pod = world.pod()
        failed = pod.start()
        said = pod.log("frr-init")
        world.check(f"the leaf is found by {how}", said[-200:], not failed and how in said and "10.1.1.1" in said)
        until("the session is established", lambda: world.leaf1.established("10.1.1.2"), 120)
        world.stop_pod(pod.node)
        # The next one is not to see this session.
        until("the session has ended", lambda: not world.leaf1.established("10.1.1.2"), 60)
    found("route")
    run("ip route del default", netns="n1")
    run("ip neigh flush dev eth0", netns="n1")
    found("detection:first")
    filtered = pathlib.Path("/proc/sys/net/ipv4/conf/n1/arp_ignore")
    run(["sh", "-c", f"echo 8 >{filtered}"], netns="leaf1")
    run("ip neigh flush dev eth0", netns="n1")
    try:
        pod = world.pod()
        failed = pod.start()
        said = pod.log("frr-init")
        world.check("without an answer the fallback is named", said[-250:], not failed and "fallback" in said)
        world.stop_pod(pod.node)
    finally:
        run(["sh", "-c", f"echo 0 >{filtered}"], netns="leaf1")
        world.nodes[0].addresses()
