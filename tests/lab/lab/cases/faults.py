"""Parts that end, restart or are cut off while an address is announced: what the leaf sees."""

import os
import signal
import threading
import time

from ..shell import run, until

GAP_S = 1.5


def _announced(world, number):
    """An address of this case's own: the device keeps earlier ones across restarts of the agent."""
    address = f"203.0.113.{number}"
    inside, _ = world.private_server(f"server-{number}")
    world.at_leaf(address, world.floating_ip(f"server-{number}", inside, address), "the floating IP is at the leaf")
    return address


def _gap(world, address, mark, what):
    gap = world.watch.gap(address, mark, time.monotonic())
    world.check(f"the leaf is without the address for at most {GAP_S} s", f"{gap:.2f} s", gap <= GAP_S and world.leaf1.has(address), gap)
    world.figure(f"gap, {what}", round(gap, 2), "s")


def frr_restart(world):
    pod = world.base_pod()
    address = _announced(world, 110)
    mark = world.watch.mark()
    pod.kill("frr", signal.SIGTERM)
    pod.kill("frr", signal.SIGKILL)
    pod.start_container("frr")
    until("the session is back", lambda: world.leaf1.established(pod.node.address) and pod.health("ready").code == 0, 240)
    # End of RIB, the stale routes' end and the agent's next look at FRR are within this.
    time.sleep(20)
    _gap(world, address, mark, "FRR restarted")
    world.check("the server answers the leaf's ping", address, world.ping(address))


def bgpd_killed(world):
    pod = world.base_pod()
    address = _announced(world, 111)
    mark = world.watch.mark()
    for pid in pod.processes("frr", "/usr/lib/frr/bgpd"):
        os.kill(pid, signal.SIGKILL)
    until("the session is back", lambda: world.leaf1.established(pod.node.address) and pod.health("ready").code == 0, 240)
    time.sleep(20)
    _gap(world, address, mark, "bgpd killed")


def _while_down(world, pod, number, signal_number, limit):
    """The agent ends by the signal; one address goes and one comes meanwhile; then it starts again."""
    kept, dropped = _announced(world, number), _announced(world, number + 1)
    mark = world.watch.mark()
    began = time.monotonic()
    code = pod.kill("ovn-bgp-agent", signal_number)
    took = time.monotonic() - began
    world.check(f"the agent ends within {limit} s", f"{took:.1f} s, exit {code}", code is not None and took <= limit, took)
    world.check("the leaf keeps the addresses", "kept", world.leaf1.has(kept) and world.leaf1.has(dropped))
    world.neutron.remove_floating_ips("r1", [dropped])
    inside, _ = world.private_server(f"server-{number + 2}")
    new = f"203.0.113.{number + 2}"
    world.floating_ip(f"server-{number + 2}", inside, new)
    pod.start_container("ovn-bgp-agent")
    began = time.monotonic()
    world.wait_ready(pod)
    world.figure("start to ready, FRR running", round(time.monotonic() - began, 1), "s")
    world.at_leaf(new, mark, "the address that was added meanwhile is at the leaf")
    world.gone_from_leaf(dropped, mark, "the address that was removed meanwhile is gone")
    gap = world.watch.gap(kept, mark, time.monotonic())
    world.check("the other address was never gone", f"{gap:.2f} s", gap == 0, gap)
    return took


def agent_killed(world):
    _while_down(world, world.base_pod(), 120, signal.SIGKILL, 5)


def agent_terminated(world):
    took = _while_down(world, world.base_pod(), 125, signal.SIGTERM, 5)
    world.figure("SIGTERM to the agent's end", round(took, 1), "s")


def ovsdb_restart(world):
    pod = world.base_pod()
    address = _announced(world, 130)
    mark = world.watch.mark()
    pod.node.restart_ovsdb()
    second = _announced(world, 131)
    gap = world.watch.gap(address, mark, time.monotonic())
    world.check("the earlier address was never gone", f"{gap:.2f} s", gap == 0, gap)
    world.wait_ready(pod)
    world.check("the server answers the leaf's ping", second, world.ping(second))


def north_restart(world):
    pod = world.base_pod()
    address = _announced(world, 132)
    mark = world.watch.mark()
    world.central.restart_database("nb")
    _announced(world, 133)
    gap = world.watch.gap(address, mark, time.monotonic())
    world.check("the earlier address was never gone", f"{gap:.2f} s", gap == 0, gap)
    world.wait_ready(pod)


def leaf_down(world):
    pod = world.base_pod()
    address = _announced(world, 134)
    run("ip link set n1 down", netns="leaf1")
    # The kernel reports no route that goes with its device.
    until("the leaf is without the address", lambda: not world.leaf1.has(address), 60)
    world.check("without the link the address is gone", "gone", True)
    until("the pod is not ready", lambda: pod.health("ready").code != 0, 60)
    result = pod.health("ready")
    world.check("ready names the session", result, "10.1.1.1" in result.output)
    world.check("live is true: the agent is not at fault", pod.health("live"), pod.health("live").code == 0)
    mark = world.watch.mark()
    run("ip link set n1 up", netns="leaf1")
    pod.node.addresses()
    world.at_leaf(address, mark, "with the link the address is back")
    world.wait_ready(pod)


def drain(world):
    pod = world.base_pod()
    address = _announced(world, 135)
    mark = world.watch.mark()
    seen = {}

    def communities():
        while "end" not in seen:
            path = (world.leaf1.json(f"show bgp ipv4 unicast {address}/32 json").get("paths") or [{}])[0]
            if "graceful" in str(path.get("community", "")).lower() or "65535:0" in str(path.get("community", "")):
                seen.setdefault("community", time.monotonic())
            time.sleep(0.3)
    watcher = threading.Thread(target=communities)
    watcher.start()
    result = pod.exec("ovn-bgp-agent", "obgp-runtime", "drain", timeout=120)
    world.check("drain ends with 0", result, result.code == 0)
    gone = world.gone_from_leaf(address, mark, "the address is gone from the leaf")
    seen["end"] = True
    watcher.join()
    before = seen.get("community") and gone and seen["community"] < mark + gone
    world.check("the community came first (RFC 8326)", "graceful-shutdown" if before else seen, before)
    # What follows in a pod: it ends. A new one announces again.
    mark = world.watch.mark()
    world.stop_pod(pod.node)
    world.base_pod()
    world.at_leaf(address, mark, "a new pod announces it again")


def reboot(world):
    """Everything in the node's memory is lost; the leaf notices by itself; a new pod announces again."""
    world.base_pod()
    address = _announced(world, 136)
    node = world.nodes[0]
    pod = world.pods.pop(node.name)
    world.collect(pod)
    for name in list(pod.running):
        pod.kill(name, signal.SIGKILL)
    pod.stop()
    vms = dict(node.vms)
    node.power_off()
    mark = time.monotonic()
    run("ip link set eth0 down", netns=node.name)
    # The kernel reports no route that goes with its device.
    until("the leaf drops the address", lambda: not world.leaf1.has(address), 60)
    world.figure("link gone to address gone", round(time.monotonic() - mark, 1), "s")
    node.vms = {}
    run("ip link set eth0 up", netns=node.name)
    node.addresses()
    node.start()
    world.check("the servers of the node were known", len(vms), True)
    inside, _ = world.private_server("server-137")
    mark = world.watch.mark()
    world.floating_ip("server-137", inside, "203.0.113.137")
    world.base_pod()
    world.at_leaf("203.0.113.137", mark, "after the boot a floating IP is at the leaf")
    world.check("the server answers the leaf's ping", "203.0.113.137", world.ping("203.0.113.137"))
