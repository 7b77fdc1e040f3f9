"""What is left of a release after `helm uninstall`."""

import pathlib
import subprocess

from ..fabric import FIRST, LEARNT, NODE, flush_routes, kernel_nexthops, kernel_routes
from ..release import NAMESPACE, kubectl
from ..shell import attempt, run, until

KINDS = "daemonsets,pods,configmaps,secrets,services,endpoints,serviceaccounts,roles,rolebindings,jobs,networkpolicies"


def in_namespace():
    """Objects of the namespace, without those that every namespace has."""
    names = kubectl("get", KINDS, "--output", "name").split()
    return sorted(name for name in names if not name.endswith(("/kube-root-ca.crt", "serviceaccount/default")) and "secret/default-token-" not in name)


def on_node():
    """What the pods could leave in the node's network and files."""
    listeners = run("ss", "--no-header", "--listening", "--tcp", "--udp", "--numeric")
    return {
        "interfaces": sorted(line.split()[1].rstrip(":").split("@")[0] for line in run("ip", "-o", "link").splitlines() if "veth" not in line),
        "rules": sorted(run("ip", "rule").splitlines() + run("ip", "-6", "rule").splitlines()),
        "listeners": sorted({port for port in ("179", "3784", "3785", "4784", "9342", "2601", "2605") if f":{port} " in listeners}),
        "sysctls": run("sysctl", "-n", "net.ipv4.conf.br-ex.proxy_arp", "net.ipv4.conf.br-ex.rp_filter", "net.ipv4.ip_forward",
                       "net.ipv6.conf.br-ex.forwarding").split(),
        "files": sorted(place for place in ("/run/ovn-bgp-agent", "/run/frr", "/etc/frr", "/var/lib/frr", "/var/tmp/frr") if pathlib.Path(place).exists()),
        "rt_tables": subprocess.run(["sha256sum", "/etc/iproute2/rt_tables"], capture_output=True, text=True, check=False).stdout,
    }


def uninstall(world):
    if world.release.installed():
        world.release.uninstall()
    until("no object is left of cases before", lambda: not in_namespace(), 60)
    flush_routes()
    before = on_node()
    pod = world.pod()
    until("the node has the leaf's route", lambda: any(LEARNT in line for line in kernel_routes()), 60)
    world.check("with the release, the node has the leaf's route", [line for line in kernel_routes() if LEARNT in line], True)
    processes = run("docker", "top", pod.container_id("frr"), "-o", "pid,comm").splitlines()[1:]
    world.release.uninstall()
    until("the pods have gone", lambda: not kubectl("get", "pods", "--output", "name").strip(), 90)
    # The controller of endpoints and the garbage collector follow a moment later.
    attempt("sleep", "3")
    left = in_namespace()
    world.check(f"nothing is left in the namespace {NAMESPACE}", left or "nothing", not left)
    running = [line for line in processes if pathlib.Path(f"/proc/{line.split()[0]}").exists()]
    world.check("no process of FRR is left", running or "nothing", not running)
    containers = run("docker", "ps", "--all", "--filter", f"label=io.kubernetes.pod.uid={pod.uid}", "--format", "{{.Names}}").split()
    until("kubelet has removed the containers", lambda: not run("docker", "ps", "--quiet", "--filter", f"label=io.kubernetes.pod.uid={pod.uid}").strip(), 60)
    world.check("no container of the pod runs", f"{len(containers)} ended ones, which kubelet removes later", True)
    until("kubelet has unmounted the volumes", lambda: pod.uid not in pathlib.Path("/proc/mounts").read_text(), 150)
    world.check("no volume of the pod is mounted", "none", pod.uid not in pathlib.Path("/proc/mounts").read_text())
    after = on_node()
    for name, value in before.items():
        changed = after[name]
        world.check(f"the node's {name} are as before", changed if changed != value else "equal", changed == value)
    # FRR ends without removing its routes, so that traffic goes on while it restarts; it cannot know that it will not.
    left = kernel_routes()
    world.check("of FRR's routes those through the leaf are left, as documented", left or "nothing",
                all(f"via {FIRST} " in line and "proto bgp" in line for line in left))
    flush_routes()
    left = kernel_routes() + kernel_nexthops()
    world.check("the documented commands remove them", left or "nothing", not left)
    until("the leaf has no session", lambda: world.leaf.peers().get(NODE) != "Established", 60)
    world.check("the leaf's session has ended", world.leaf.peers(), True)
