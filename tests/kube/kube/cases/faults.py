"""What fails at work: the link, the agent, FRR, the pod. The leaf's kernel is watched for gaps in its route to an address."""

import re
import time

from ..fabric import FIRST, NODE, Watch
from ..release import Pod, new_pod, pods
from ..shell import run, until

# A route that the node announces without the agent, through the chart's `bgp.extra_config`.
ADDRESS = "203.0.113.77/32"
GAP_S = 1.5


def announcing(world):
    """A pod whose FRR announces ADDRESS."""
    if world.release.change == ADDRESS:
        pod = new_pod()
        world.session(pod)
    else:
        asn = re.search(r"^router bgp (\d+)$", world.pod().configuration(), re.MULTILINE)[1]
        lines = [f"ip route {ADDRESS} Null0", f"router bgp {asn}", " address-family ipv4 unicast", f"  network {ADDRESS}", " exit-address-family", "exit"]
        path = world.output / "frr-extra.conf"
        path.write_text("\n".join([*lines, ""]))
        pod = world.upgraded("--set-file", f"bgp.extra_config={path}")
        world.release.change = ADDRESS
    until(f"the leaf has {ADDRESS}", lambda: world.leaf.has(ADDRESS), 60)
    return pod


def leaf_down(world):
    pod = world.pod()
    restarts = pod.status("frr")["restartCount"]
    world.leaf.ip("link", "set", "node0", "down")
    began = time.monotonic()
    try:
        until("the pod's session has ended", lambda: pod.peers().get(FIRST) != "Established", 60)
        world.figure("link down to the end of the session", round(time.monotonic() - began, 1), "s")
        # Longer than it takes the probes to fail, if they looked at the session.
        time.sleep(15)
        status = pod.status("frr")
        world.check("FRR stays alive and ready without the leaf", f"ready {status['ready']}, restarts {status['restartCount']}",
                    status["ready"] and status["restartCount"] == restarts)
    finally:
        world.leaf.ip("link", "set", "node0", "up")
    began = time.monotonic()
    world.session(pod)
    world.leaf_session()
    world.figure("link up to session Established", round(time.monotonic() - began, 1), "s")
    world.check("the session is back without a restart", pod.peers(), pod.status("frr")["restartCount"] == restarts)


def agent_killed(world):
    pod = announcing(world)
    until("the agent runs", lambda: "running" in pod.status("ovn-bgp-agent")["state"], 330)
    before = pod.status("ovn-bgp-agent")
    watch = Watch(world.leaf, ADDRESS)
    run("docker", "kill", "--signal", "KILL", before["containerID"].removeprefix("docker://"))
    until("kubelet has restarted it", lambda: pod.status("ovn-bgp-agent")["restartCount"] > before["restartCount"], 360)
    gap = watch.end()
    world.check("kubelet restarts the agent's container", f"{pod.status('ovn-bgp-agent')['restartCount']} restarts", True)
    world.check("FRR did not restart, its session stays", pod.peers(), pod.status("frr")["restartCount"] == 0 and pod.peers().get(FIRST) == "Established")
    world.check("the leaf never missed the address", f"{gap:.2f} s", gap == 0 and world.leaf.has(ADDRESS))


def frr_killed(world):
    pod = announcing(world)
    restarts = pod.status("frr")["restartCount"]
    watch = Watch(world.leaf, ADDRESS)
    began = time.monotonic()
    run("docker", "kill", "--signal", "KILL", pod.container_id("frr"))
    until("kubelet has restarted FRR", lambda: pod.status("frr")["restartCount"] > restarts, 90)
    world.leaf_session()
    world.session(pod)
    world.figure("FRR killed to session Established", round(time.monotonic() - began, 1), "s")
    until("the leaf has the restarted FRR's End-of-RIB", lambda: stale(world) == [], 60)
    gap = watch.end()
    world.check(f"the leaf missed the address for at most {GAP_S} s", f"{gap:.2f} s", gap <= GAP_S and world.leaf.has(ADDRESS))
    world.check("the pod is the same", pod.name, Pod(pods()[0]).uid == pod.uid)


def stale(world):
    """The leaf's routes that it keeps of the session before (graceful restart)."""
    routes = world.leaf.json("show bgp ipv4 unicast json").get("routes", {})
    return [prefix for prefix, paths in routes.items() if any(path.get("stale") for path in paths)]


def pod_deleted(world):
    pod = announcing(world)
    watch = Watch(world.leaf, ADDRESS)
    began = time.monotonic()
    run("kubectl", "--namespace", "openstack", "delete", "pod", pod.name, "--wait=false")
    new = new_pod(pod)
    world.session(new)
    world.leaf_session()
    world.figure("pod deleted to session of the new pod", round(time.monotonic() - began, 1), "s")
    until("the leaf has the new FRR's End-of-RIB", lambda: stale(world) == [], 60)
    gap = watch.end()
    world.check(f"the leaf missed the address for at most {GAP_S} s", f"{gap:.2f} s", gap <= GAP_S and world.leaf.has(ADDRESS))
    world.check("the leaf's session is with the same address", world.leaf.peers(), world.leaf.peers().get(NODE) == "Established")
