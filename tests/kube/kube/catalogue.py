"""The cases in the order in which they are played: name, function, what each shows."""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    function: str
    about: str


CASES = [
    Case("preflight", "start.preflight", "the init container names what the node lacks, a line and a fix each, and stops the pod where that is fatal"),
    Case("schedule", "start.schedule", "no pod without the node's label, one with it, none after its removal"),
    Case("init", "start.init", "the init container's report in the log, and the files that it wrote"),
    Case("session", "start.session", "FRR starts, the session with the leaf is established at both ends"),
    Case("contexts", "start.contexts", "users, capabilities, read-only roots and groups of the processes"),
    Case("probes", "start.probes", "what each probe answers at each stage"),
    Case("agent", "start.agent", "the agent works, or stops because this kernel has no VRF devices and for no other reason"),
    Case("leaf-down", "faults.leaf_down", "the link to the leaf down and back: session and probes"),
    Case("agent-killed", "faults.agent_killed", "the agent killed: FRR, session and routes stay"),
    Case("frr-killed", "faults.frr_killed", "FRR killed: the leaf misses the address for at most 1.5 s"),
    Case("pod-deleted", "faults.pod_deleted", "the pod deleted: the leaf keeps the address until the new pod announces it"),
    Case("peer-ip", "settings.peer_ip", "peer_ip first, last, an address and detection, by helm upgrade"),
    Case("evpn", "settings.evpn", "EVPN with a spine, by helm upgrade"),
    Case("unnumbered", "settings.unnumbered", "BGP unnumbered: a session over link-local addresses, without an ASN of the leaf"),
    Case("listen", "settings.listen", "port 179 is closed by default and open with bgp.listen"),
    Case("exporter", "settings.exporter", "the exporter's port scraped, by the Service's endpoints"),
    Case("asn-server-side", "mapping.server_side", "the ASN ConfigMap through edit, upgrade, rollback, uninstall: server-side apply"),
    Case("asn-client-side", "mapping.client_side", "the same with client-side apply"),
    Case("uninstall", "removal.uninstall", "helm uninstall leaves nothing in the namespace and nothing on the node"),
]
