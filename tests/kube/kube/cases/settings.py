"""Settings that an operator changes by `helm upgrade --reuse-values --set …`."""

import re
import urllib.request

from ..fabric import FIRST, LAST, LEAF_ASN, NODE, SPINE, SPINE_ASN
from ..release import kubectl, objects
from ..shell import run, until


def peer_ip(world):
    world.pod()
    for value, peer, how in (("last", LAST, "last"), ("first", FIRST, "first"), (LAST, LAST, "fixed"), ("", FIRST, "detection:first")):
        pod = world.upgraded("--set", f"bgp.peer_ip={value}", peer=peer)
        log = pod.log("init-frr-config")
        world.check(f'bgp.peer_ip="{value}" leads to a session with {peer}', f"{pod.peers()}; {how in log and how}", pod.peers() == {peer: "Established"} and how in log)


def evpn(world):
    world.pod()
    pod = world.upgraded("--set", "bgp.evpn.enabled=true", "--set", f"bgp.evpn.rr_ip={SPINE}", "--set", f"bgp.evpn.rr_asn={SPINE_ASN}",
                         peer=SPINE, family="l2vpn evpn")
    world.check("the pod has an EVPN session with the spine", pod.peers("l2vpn evpn"), pod.peers("l2vpn evpn") == {SPINE: "Established"})
    world.check("and its session with the leaf", pod.peers(), pod.peers() == {FIRST: "Established"})
    until("the spine has the session", lambda: world.fabric.spine.peers("l2vpn evpn").get(NODE) == "Established", 60)
    world.check("the spine has it too", world.fabric.spine.peers("l2vpn evpn"), True)


def unnumbered(world):
    world.pod()
    pod = world.upgraded("--set", "bgp.peer_interface=br-ex", "--set", "bgp.peer_asn=external", peer="br-ex")
    log = pod.log("init-frr-config")
    lines = [line.strip() for line in pod.configuration().splitlines() if "neighbor br-ex" in line]
    world.check("the pod's only session is that of the interface", pod.peers(), pod.peers() == {"br-ex": "Established"})
    world.check("frr.conf names the interface, and no ASN of the leaf", lines[:2], any(re.match(r"neighbor br-ex interface.*remote-as external$", line) for line in lines)
                and str(LEAF_ASN) not in pod.configuration())
    world.check("FRR learnt the leaf's ASN", pod.remote_as("br-ex"), pod.remote_as("br-ex") == LEAF_ASN)
    world.check("the report says so", log[-400:], "external" in log and "br-ex" in log)
    until("the leaf has the session of its interface", lambda: world.leaf.peers().get("node0") == "Established", 60)
    world.check("the leaf has it too", world.leaf.peers(), True)


def listening():
    """Whether a program on the node listens on port 179."""
    return run("ss", "--no-header", "--listening", "--tcp", "--numeric", "sport = 179").strip()


def listen(world):
    pod = world.pod()
    world.check("nothing listens on port 179", listening() or "closed", not listening())
    pod = world.upgraded("--set", "bgp.listen=true")
    world.check("with bgp.listen=true bgpd does", listening(), ":179" in listening())
    world.check("the session is established", pod.peers(), pod.peers() == {FIRST: "Established"})


def exporter(world):
    world.pod()
    pod = world.upgraded("--set", "monitoring.prometheus.enabled=true")
    until("the exporter is ready", lambda: pod.status("frr-exporter")["ready"], 60)
    # The pod is not ready where the agent does not work, so its address may be in either list.
    subsets = [subset for item in objects("endpoints") for subset in item.get("subsets", []) if any(port["port"] == 9342 for port in subset["ports"])]
    addresses = [address["ip"] for subset in subsets for address in subset.get("addresses", []) + subset.get("notReadyAddresses", [])]
    world.check("the Service has the pod's address", addresses, addresses == [pod.item()["status"]["hostIP"]])
    url = f"http://{pod.item()['status']['hostIP']}:9342/metrics"

    def scraped():
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    text = scraped()
    (world.output / "metrics.txt").write_text(text)
    state = re.search(rf'^frr_bgp_peer_state\{{[^}}]*peer="{FIRST}"[^}}]*\}} (\S+)$', text, re.MULTILINE)
    world.check(f"{url} (the stand-in for frr_exporter) has the session", state[0] if state else text[:200], state and float(state[1]) == 1)
    world.leaf.ip("link", "set", "node0", "down")
    try:
        until("the metric shows the end of the session", lambda: re.search(rf'^frr_bgp_peer_state\{{[^}}]*peer="{FIRST}"[^}}]*\}} 0', scraped(), re.MULTILINE), 60)
        world.check("it shows the end of the session", "frr_bgp_peer_state 0", True)
    finally:
        world.leaf.ip("link", "set", "node0", "up")
    metadata = [item["metadata"] for item in objects("services") if "metrics" in item["metadata"]["name"]]
    world.check("the Service has Prometheus' annotations", metadata and metadata[0].get("annotations"),
                metadata and metadata[0].get("annotations", {}).get("prometheus.io/port") == "9342")
    world.session(pod)
    world.pod()
    world.check("without the setting there is no exporter", kubectl("get", "pods", "--output", "jsonpath={.items[*].spec.containers[*].name}"),
                "frr-exporter" not in kubectl("get", "pods", "--output", "jsonpath={.items[0].spec.containers[*].name}"))
