"""From the installation to a pod that works: preflight, scheduling, init, FRR, contexts, probes, agent."""

import re
import socket
import time

from ..fabric import FIRST, LEAF_ASN, NODE
from ..release import LABEL, NO_VRF, daemonset, has_vrf, new_pod, pods
from ..shell import attempt, run, until

LACK = re.compile(r"(?:the agent|FRR) cannot work here: (.*)")
# CapEff of each container's first process, by the numbers of linux/capability.h.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10, "NET_ADMIN": 12,
                "NET_RAW": 13, "SYS_ADMIN": 21}


def lacks(text):
    """What the preflight says of the node, in a log: the text of each line."""
    return LACK.findall(text)


def ended(pod, container):
    """How a container ended the last time: exit code and log."""
    def probe():
        status = pod.status(container)
        state = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
        return state and (state["exitCode"], attempt("docker", "logs", state["containerID"].removeprefix("docker://")))
    code, log = until(f"the container {container} has ended", probe, 120)
    return code, log.output + log.errors


def preflight(world):
    if world.release.installed():
        world.release.uninstall()
    world.release.label()
    world.release.install(preflight="fail")
    pod = new_pod()
    code, log = ended(pod, "init-frr-config")
    world.check("on this node nothing stops the init container", f"exit {code} {lacks(log)}", code == 0 and not lacks(log))
    notes = [text for text in re.findall(r"^obgp-runtime: note: (.*)\n(?:help: .*)$", log, re.MULTILINE) if "VRF" in text or "vrf" in text]
    world.check("a line names the VRFs that the kernel lacks, the next one the fix" if not has_vrf() else "no line names VRFs", notes or log[:200],
                bool(notes) != has_vrf())
    before = pod
    world.release.upgrade("--set", "bgp.interface=kube-missing")
    pod = new_pod(before)
    code, log = ended(pod, "init-frr-config")
    world.check("a missing interface ends the init container", f"exit {code}: {log}", code == 1 and "kube-missing" in log)
    world.check("FRR and the agent do not start", pod.status("frr")["state"], "waiting" in pod.status("frr")["state"])
    before = pod
    with socket.create_server(("0.0.0.0", 179)):
        world.release.upgrade("--set", "bgp.interface=br-ex", "--set", "bgp.listen=true")
        pod = new_pod(before)
        code, log = ended(pod, "init-frr-config")
    found = lacks(log)
    world.check("a port in use ends it, in one line", f"exit {code}: {found or log[:200]}", code == 1 and len(found) == 1 and "179" in found[0])
    world.check("the next line has the fix", [line for line in log.splitlines() if line.startswith("help: ")][-1:], "help: stop the other FRR" in log)
    world.release.uninstall()


def schedule(world):
    world.release.label(False)
    if not world.release.installed():
        world.release.install()
    until("the DaemonSet is known to its controller", lambda: daemonset()["status"].get("observedGeneration") == daemonset()["metadata"]["generation"])
    until("no pod is left", lambda: not pods(), 60)
    status = daemonset()["status"]
    world.check(f"no pod without the label {LABEL}", f"desired {status['desiredNumberScheduled']}", status["desiredNumberScheduled"] == 0)
    world.release.label()
    new_pod()
    until("the DaemonSet counts the node", lambda: daemonset()["status"]["desiredNumberScheduled"] == 1)
    world.check(f"one pod with {LABEL}", [item["spec"]["nodeName"] for item in pods()], len(pods()) == 1)
    world.release.label(False)
    until("the pod has gone", lambda: not pods(), 90)
    world.check("no pod after the label's removal", f"{len(pods())} pods", not pods())
    world.release.label()


def init(world):
    pod = world.pod()
    log = pod.log("init-frr-config")
    world.check("the report names the leaf, how it was found, and both ASNs", log[-600:],
                all(re.search(rf"\b{re.escape(str(word))}\b", log) for word in (FIRST, "detection:first", LEAF_ASN, 4200000000 + 213 * 65536 + 7 * 256 + 10)))
    world.check("frr.conf has the session", [line for line in pod.configuration().splitlines() if "remote-as" in line],
                re.search(rf"neighbor {FIRST} remote-as {LEAF_ASN}$", pod.configuration(), re.MULTILINE))
    entry = pod.log("init")
    world.check("the stand-in for kubernetes-entrypoint got the pods that the chart waits for", entry, "DEPENDENCY_POD_JSON" in entry and "ovn-controller" in entry)


def session(world):
    """A pod from its creation to the session, with the images on the node."""
    old = world.pod()
    run("kubectl", "--namespace", "openstack", "delete", "pod", old.name, "--wait=false")
    until("the old pod has gone", lambda: all(item["metadata"]["uid"] != old.uid for item in pods()), 90)
    began = time.monotonic()
    pod = new_pod(old)
    until("the leaf's session is established", lambda: world.leaf.peers().get(NODE) == "Established" and pod.peers().get(FIRST) == "Established", 90)
    world.figure("old pod gone to session Established", round(time.monotonic() - began, 1), "s")
    peers, at_leaf = pod.peers(), world.leaf.peers()
    world.check("the session is established at both ends", f"pod {peers}, leaf {at_leaf}", peers == {FIRST: "Established"} and at_leaf.get(NODE) == "Established")
    until("FRR's container is ready", lambda: pod.status("frr")["ready"])
    world.figure("old pod gone to FRR's container ready", round(time.monotonic() - began, 1), "s")
    world.check("it did not restart", pod.status("frr")["restartCount"], pod.status("frr")["restartCount"] == 0)
    world.figure("memory of FRR's container", memory(pod, "frr"), "MiB")


def memory(pod, container):
    """The resident memory of the container's processes."""
    listing = run("docker", "top", pod.container_id(container), "-o", "pid,rss")
    return round(sum(int(line.split()[1]) for line in listing.splitlines()[1:]) / 1024, 1)


def status_of(pid):
    return dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status", encoding="utf-8").read().splitlines() if ":\t" in line)


def capabilities(mask):
    return {name for name, bit in CAPABILITIES.items() if int(mask, 16) >> bit & 1}, int(mask, 16) & ~sum(1 << bit for bit in CAPABILITIES.values())


def contexts(world):
    pod = world.pod()
    frr = status_of(pod.process("frr"))
    granted, others = capabilities(frr["CapBnd"])
    expected = {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "KILL"}
    world.check("FRR's bounding set is the chart's list", sorted(granted), granted == expected and not others)
    world.check("FRR cannot gain privileges", f"NoNewPrivs {frr['NoNewPrivs']}", frr["NoNewPrivs"].strip() == "1")
    done = pod.exec("frr", "touch", "/usr/lib/frr/probe")
    world.check("FRR's root file system is read-only", done, done.code != 0 and "Read-only file system" in done.errors)
    containers = {item["name"]: item["securityContext"] for item in pod.item()["spec"]["initContainers"] + pod.item()["spec"]["containers"]}
    privileged = [name for name, context in containers.items() if context.get("privileged")]
    world.check("no container is privileged", privileged or sorted(containers), not privileged)
    sockets = pod.exec("frr", "stat", "--format", "%u:%g %a", "/var/run/frr/bgpd.vty")
    world.check("FRR's sockets are the vty group's", sockets.output or sockets, sockets.output.strip() == "100:102 770")
    engine = run("docker", "inspect", "--format", "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.GroupAdd}} {{.HostConfig.CapAdd}}",
                 pod.container_id("ovn-bgp-agent"))
    world.check("the agent's container: user, groups, read-only root", engine,
                engine.startswith("true 42494 ") and {"42424", "102", "101"} <= set(re.findall(r"\d+", engine.split("]")[0])))
    token = attempt("docker", "inspect", "--format", "{{range .Mounts}}{{.Destination}} {{end}}", pod.container_id("ovn-bgp-agent")).output
    world.check("the agent's container has no token of the API", token, "serviceaccount" not in token)


def probes(world):
    pod = world.pod()
    spec = {item["name"]: item for item in pod.item()["spec"]["containers"]}
    missing = [f"{name}.{probe}" for name in ("frr", "ovn-bgp-agent") for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe not in spec[name]]
    world.check("each container has its three probes", missing or "startup, liveness, readiness of frr and ovn-bgp-agent", not missing)
    until("FRR is started and ready", lambda: pod.status("frr")["started"] and pod.status("frr")["ready"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        done = pod.exec("frr", *spec["frr"][probe]["exec"]["command"])
        world.check(f"FRR's {probe} succeeds", done, done.code == 0)
    # A pod's probe that never fails proves nothing: the same command with the daemon stopped.
    killed = pod.exec("frr", "sh", "-c", "kill -STOP $(cat /var/run/frr/bgpd.pid)")
    done = attempt("timeout", "8", "kubectl", "--namespace", "openstack", "exec", pod.name, "--container", "frr", "--", *spec["frr"]["livenessProbe"]["exec"]["command"])
    pod.exec("frr", "sh", "-c", "kill -CONT $(cat /var/run/frr/bgpd.pid)")
    world.check("FRR's livenessProbe fails for a stopped bgpd", f"{killed.errors}{done}", killed.code == 0 and done.code != 0)
    world.session(pod)
    if has_vrf():
        until("the agent is ready", lambda: pod.status("ovn-bgp-agent")["ready"], 180)
        world.check("the agent's container is started and ready", pod.status("ovn-bgp-agent")["state"], pod.status("ovn-bgp-agent")["started"])
    else:
        status = pod.status("ovn-bgp-agent")
        world.check("the agent's container is neither started nor ready", f"started {status['started']}, ready {status['ready']}",
                    not status["started"] and not status["ready"])


def exceptions(log):
    """The messages of errors in the agent's log: of records, and of the exceptions in their tracebacks."""
    texts = [match[2] for match in re.finditer(r"^\S+ \S+ \d+ (?:ERROR|CRITICAL) \S+ (\[[^]]*\] )?(.*)$", log, re.MULTILINE) if match[2]]
    return [text for text in texts if re.match(r"[A-Za-z_.]+", text) and not text.startswith("Traceback ")]


def one_run(pod):
    """One run of the agent's container: the largest memory that was seen, and how it ended."""
    seen = {"id": None, "peak": 0.0}

    def probe():
        status = pod.status("ovn-bgp-agent")
        if "running" in status["state"] and seen["id"] in (None, status["containerID"]):
            seen["id"] = status["containerID"]
            seen["peak"] = max(seen["peak"], memory(pod, "ovn-bgp-agent"))
            return None
        states = [status["state"].get("terminated"), status.get("lastState", {}).get("terminated")]
        return next((state for state in states if state and state["containerID"] == seen["id"]), None)
    # kubelet waits up to 300 s before it starts the container again.
    state = until("the agent has run", probe, 360)
    return seen["peak"], state


def agent(world):
    pod = world.pod()
    if has_vrf():
        until("the agent is ready", lambda: pod.status("ovn-bgp-agent")["ready"], 180)
        world.figure("memory of the agent's container", memory(pod, "ovn-bgp-agent"), "MiB")
        log = pod.log("ovn-bgp-agent")
    else:
        peak, state = one_run(pod)
        world.figure("memory of the agent's container, largest seen", peak, "MiB")
        # kubelet may have started the next one, so --previous could mean another container.
        done = attempt("docker", "logs", state["containerID"].removeprefix("docker://"))
        log = done.output + done.errors
        (world.output / "agent.log").write_text(log)
        found = exceptions(log)
        world.check("the agent stops because this kernel has no VRF devices", f"exit {state['exitCode']}: {found[-1:] or log[-300:]}",
                    any("bgp-vrf" in text for text in found))
        others = [text for text in found if not NO_VRF.search(text)]
        world.check("it is the only error", others or f"{len(found)} messages of that error", not others)
        found = [text for text in lacks(log) if "no VRFs" not in text]
        world.check("the preflight finds nothing else", found or lacks(log), not found)
    resolved = [line for line in log.splitlines() if re.search(r"ovn_nb_connection: localhost is (127\.0\.0\.1|::1)", line)]
    world.check("the name in the northbound connection was resolved", resolved or log[:300], resolved)
    world.check("the pod still has its session", pod.peers(), pod.peers().get(FIRST) == "Established")
    world.check("FRR did not restart with the agent", pod.status("frr")["restartCount"], pod.status("frr")["restartCount"] == 0)
