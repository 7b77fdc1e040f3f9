"""The cases by name: what each shows, and where its function is. Read by the host too, so nothing of the machine is imported."""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    function: str
    about: str
    core: bool = False


CASES = [
    Case("start", "announce.start", "init, FRR and agent become ready; the session is established", core=True),
    Case("floating-ip", "announce.floating_ip", "a floating IP is announced, answers a ping, and is withdrawn", core=True),
    Case("frr-restart", "faults.frr_restart", "FRR restarted: the address is gone from the leaf for at most 1.5 s", core=True),
    Case("bgpd-killed", "faults.bgpd_killed", "bgpd killed: the address is gone from the leaf for at most 1.5 s"),
    Case("guard", "negative.guard", "sudo starts the privsep guard and nothing else; the guard refuses other contexts", core=True),
    Case("agent-killed", "faults.agent_killed", "the agent killed, an address added meanwhile: announced after the restart", core=True),
    Case("agent-terminated", "faults.agent_terminated", "SIGTERM: the end within 5 s, routes kept; changes meanwhile are made up for"),
    Case("provider-vm", "announce.provider_vm", "a server on a provider network"),
    Case("provider-vlan", "announce.provider_vlan", "a server on a provider network with a VLAN"),
    Case("dual-stack", "announce.dual_stack", "a server with an IPv4 and an IPv6 address on a provider network"),
    Case("tenant-hosts", "tenant.hosts", "a tenant network through a gateway port, as host routes"),
    Case("tenant-subnet", "tenant.subnet", "a tenant network through a gateway port, as a subnet"),
    Case("moved", "announce.moved", "a floating IP that moves to another chassis"),
    Case("ecmp", "sessions.ecmp", "two leaf switches, a session with each"),
    Case("evpn", "sessions.evpn", "an EVPN session with a spine"),
    Case("discovery", "sessions.discovery", "the leaf switch found by route, by ARP, and by fallback"),
    Case("vrf", "methods.vrf", "exposing method vrf"),
    Case("sb-driver", "methods.sb_driver", "the driver that reads the southbound database"),
    Case("ovsdb-restart", "faults.ovsdb_restart", "the node's OVS database restarted"),
    Case("north-restart", "faults.north_restart", "the northbound database restarted"),
    Case("leaf-down", "faults.leaf_down", "the link to the leaf switch down and back"),
    Case("drain", "faults.drain", "obgp-runtime drain: the community first, then withdrawal"),
    Case("reboot", "faults.reboot", "the node rebooted: /run empty, devices gone"),
    Case("ovn", "methods.ovn", "exposing method ovn: a cluster of the node's own"),
    Case("scale", "scale.scale", "many floating IPs: added, resynced, removed; memory"),
    Case("no-capability", "negative.no_capabilities", "each capability missing in turn"),
    Case("no-vtysh", "negative.no_vtysh", "the vtysh link gone", core=True),
    Case("no-sysctl", "negative.no_sysctl", "no way to write a sysctl", core=True),
    Case("no-sudoers-grant", "negative.no_sudoers_grant", "sudo grants nothing"),
    Case("no-new-privs", "negative.no_new_privs", "allowPrivilegeEscalation: false", core=True),
    Case("wrong-as", "negative.wrong_as", "the mapping has another ASN than the leaf"),
    Case("wrong-groups", "negative.wrong_groups", "neither Open vSwitch's nor FRR's group"),
    Case("table-taken", "negative.table_taken", "the VRF's table number belongs to another VRF"),
    Case("stopped", "negative.stopped", "the agent stopped by SIGSTOP: not alive"),
]
