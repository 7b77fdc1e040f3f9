"""Pods that cannot work: never ready, never silent, and the pod's own message names the cause."""

import os
import signal
import time

from ..shell import run, until


def _container(spec, name="ovn-bgp-agent"):
    return next(one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name)


def _refused(world, words, what, timeout=120, **options):
    """The pod does not become ready, and one of its messages has each of the words."""
    pod = world.pod(**options)
    failed = pod.start()
    began = time.monotonic()

    def said():
        return "\n".join([str(failed or ""), pod.log("ovn-bgp-agent"), pod.health("ready").output if not failed else ""])
    try:
        until("the cause is named", lambda: all(word.lower() in said().lower() for word in words), timeout, interval=1)
    except Exception:
        pass
    text = said()
    lines = [line for line in text.splitlines() if words[0].lower() in line.lower()]
    named = all(word.lower() in text.lower() for word in words)
    world.check(f"{what}: the cause is named", lines[0] if lines else text[-280:], named, time.monotonic() - began)
    result = None if failed else pod.health("ready")
    world.check(f"{what}: never ready", result or "the init container failed", bool(failed) or result.code != 0)
    world.stop_pod(world.nodes[0])


def no_capabilities(world):
    for capability in ("NET_ADMIN", "SYS_ADMIN", "DAC_READ_SEARCH", "DAC_OVERRIDE", "SETUID", "SETGID"):
        def change(spec, capability=capability):
            _container(spec)["securityContext"]["capabilities"]["add"].remove(capability)
        _refused(world, [capability], capability, change=change)


def no_vtysh(world):
    _refused(world, ["/usr/bin/vtysh", "cannot work here"], "no vtysh", image_change=lambda root: (root / "usr/bin/vtysh").unlink())


def no_sysctl(world):
    def change(spec):
        for container in [*spec["initContainers"], *spec["containers"]]:
            container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "sysctl"]
    _refused(world, ["sysctl"], "no writable sysctl", change=change)


def no_sudoers_grant(world):
    def change(root):
        sudoers = root / "etc/sudoers"
        text = "".join(line for line in sudoers.read_text().splitlines(keepends=True) if "NOPASSWD" not in line)
        sudoers.write_text(text)
    _refused(world, ["sudo", "cannot work here"], "no sudoers grant", image_change=change)


def guard(world):
    """What a process of the agent's user may start as root: the guard, and the guard's own three contexts."""
    pod = world.base_pod()
    for command in ("/usr/local/bin/privsep-helper --help", "/usr/bin/python3 -c 0", "/bin/sh -c id", "obgp-runtime health live"):
        result = pod.exec("ovn-bgp-agent", "sudo", "-n", *command.split())
        world.check(f"sudo {command}", result, result.code != 0)
    grants = [line.strip() for line in pod.exec("ovn-bgp-agent", "sudo", "-n", "-l").output.splitlines() if "(root)" in line]
    world.check("sudo -l lists one grant", grants, grants == ["(root) NOPASSWD: /usr/local/bin/obgp-runtime privsep *"])
    for context in ("os.system", "neutron.privileged.default"):
        arguments = ["--privsep_context", context, "--privsep_sock_path", "/tmp/tmpaaaaaaaa/privsep.sock"]
        result = pod.exec("ovn-bgp-agent", "sudo", "-n", "obgp-runtime", "privsep", *arguments)
        world.check(f"the guard refuses the context {context}", result, result.code != 0 and "is not one of the agent's" in result.output)


def no_new_privs(world):
    def change(spec):
        _container(spec)["securityContext"]["allowPrivilegeEscalation"] = False
    _refused(world, ["no_new_privs"], "no_new_privs", change=change)


def wrong_as(world):
    _refused(world, ["configured is AS 65009"], "wrong AS", mapping={"10.1.0.0/16": 65009})


def wrong_groups(world):
    def openvswitch(spec):
        spec["securityContext"]["supplementalGroups"].remove(42424)

    def frr(spec):
        spec["securityContext"]["supplementalGroups"].remove(102)
    _refused(world, ["42424"], "Open vSwitch's group", change=openvswitch)
    _refused(world, ["102"], "FRR's group", change=frr)


def table_taken(world):
    world.stop_pod(world.nodes[0])
    run("ip link del bgp-vrf", netns="n1", check=False)
    run("ip link add other-vrf type vrf table 10", netns="n1")
    run("ip link set other-vrf up", netns="n1")
    try:
        _refused(world, ["routing table 10", "belongs to the VRF other-vrf"], "table 10 taken", settings={"bgp_vrf_table_id": "10"})
    finally:
        run("ip link del other-vrf", netns="n1")


def stopped(world):
    pod = world.base_pod()
    agents = pod.processes("ovn-bgp-agent", "/usr/local/bin/ovn-bgp-agent --config")
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    live = pod.health("live")
    world.check("live is false and says so", live, bool(agents) and live.code != 0 and "stop" in live.output.lower())
    ready = pod.health("ready")
    world.check("ready is false", ready, ready.code != 0)
    for pid in agents:
        os.kill(pid, signal.SIGCONT)
    until("live is true again", lambda: pod.health("live").code == 0, 120)
