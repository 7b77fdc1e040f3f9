"""The network around the nodes: leaf switches and a spine (FRR in namespaces of their own), links, and a watch on a leaf's routes.

A node's eth0 leads to leaf1, eth1 to leaf2. Node N shares 10.1.N.0/24 with leaf1 and 10.2.N.0/24 with leaf2; the leaf has .1.
Everything that is not the subject (databases, tunnels) goes over a management bridge, 10.9.0.0/24.
"""

import json
import pathlib
import re
import subprocess
import threading
import time

from .shell import daemon, run, until

LEAF_ASN = {"leaf1": 65001, "leaf2": 65002, "spine": 65100}


def namespace(name):
    run(f"ip netns add {name}")
    run("ip link set lo up", netns=name)
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        run(f"sysctl -qw {key}=1", netns=name)
    run("sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.conf.default.accept_dad=0", netns=name)


def link(left, left_device, right, right_device):
    run(f"ip link add {left_device} netns {left} type veth peer name {right_device} netns {right}")
    run(f"ip link set {left_device} up", netns=left)
    run(f"ip link set {right_device} up", netns=right)


def management(name, number):
    if not pathlib.Path("/sys/class/net/br-mgmt").exists():
        run("ip link add br-mgmt type bridge")
        run("ip link set br-mgmt up")
        run("ip addr add 10.9.0.254/24 dev br-mgmt")
    run(f"ip link add mgmt-{name} type veth peer name mgmt0 netns {name}")
    run(f"ip link set mgmt-{name} master br-mgmt up")
    run(f"ip addr add 10.9.0.{number}/24 dev mgmt0", netns=name)
    run("ip link set mgmt0 up", netns=name)


class Switch:
    """FRR as a leaf or spine; its vty sockets are in a directory of its own."""

    def __init__(self, name, subnets, evpn=False):
        self.name, self.asn, self.evpn = name, LEAF_ASN[name], evpn
        self.subnets = subnets
        self.etc, self.run_dir = pathlib.Path(f"/etc/frr/{name}"), pathlib.Path(f"/var/run/frr/{name}")
        namespace(name)

    def start(self):
        for directory in (self.etc, self.run_dir):
            directory.mkdir(parents=True, exist_ok=True)
            run(f"chown frr:frr {directory}")
        (self.etc / "frr.conf").write_text(self._configuration())
        run(f"chown -R frr:frr {self.etc}")
        options = ["-N", self.name, "-A", "127.0.0.1", "-P", "0"]
        self.daemons = [daemon(self.name, [f"/usr/lib/frr/{program}", *options], netns=self.name) for program in ("mgmtd", "zebra", "bgpd")]
        until(f"{self.name} answers", lambda: (self.run_dir / "bgpd.vty").exists(), 60)
        run(["vtysh", "-N", self.name, "-b"], netns=self.name)

    def _configuration(self):
        lines = ["frr defaults datacenter", "log syslog", f"router bgp {self.asn}", " no bgp ebgp-requires-policy", " no bgp default ipv4-unicast",
                 " bgp router-id 10.255.0." + str(self.asn % 250), " bgp graceful-restart stalepath-time 120",
                 " neighbor NODES peer-group", " neighbor NODES remote-as external", " neighbor NODES timers 3 10"]
        lines += [" neighbor NODES ebgp-multihop"] if self.evpn else []
        lines += [f" bgp listen range {subnet} peer-group NODES" for subnet in self.subnets]
        families = ["l2vpn evpn"] if self.evpn else ["ipv4 unicast", "ipv6 unicast"]
        for family in families:
            lines += [f" address-family {family}", "  neighbor NODES activate", " exit-address-family"]
        return "\n".join([*lines, "exit", ""])

    def vtysh(self, *commands):
        words = ["vtysh", "-N", self.name]
        for command in commands:
            words += ["-c", command]
        return run(words, netns=self.name)

    def json(self, command):
        # Warnings may follow the answer.
        return json.JSONDecoder().raw_decode(self.vtysh(command).lstrip() or "{}")[0]

    def established(self, address):
        peers = self.json("show bgp neighbors json")
        return peers.get(address, {}).get("bgpState") == "Established"

    def routes(self, table="main"):
        return run(["ip", "route", "show", "proto", "bgp", "table", table], netns=self.name) + run(["ip", "-6", "route", "show", "proto", "bgp"], netns=self.name)

    def has(self, address):
        return re.search(rf"^{re.escape(address)}(/\S+)? ", self.routes(), re.MULTILINE) is not None

    def next_hops(self, address):
        """The addresses that the leaf sends packets for this prefix to."""
        return set(re.findall(r"via (?:inet6 )?(\S+)", run(["ip", "-6" if ":" in address else "-4", "route", "show", address], netns=self.name)))


class Watch:
    """Each change of a leaf's routing table with its time, read from one `ip monitor`."""

    def __init__(self, switch):
        self.events, self.lock = [], threading.Lock()
        self.process = subprocess.Popen(["ip", "netns", "exec", switch.name, "stdbuf", "-oL", "ip", "monitor", "route"],
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            deleted, words = line.startswith("Deleted "), line.removeprefix("Deleted ").split()
            if words and "bgp" in words:
                with self.lock:
                    self.events.append((time.monotonic(), not deleted, words[0]))

    def mark(self):
        return time.monotonic()

    def when(self, address, present, since, timeout):
        """Seconds from `since` until the leaf has the address (or no longer has it); None after the timeout."""
        deadline = since + timeout
        while True:
            with self.lock:
                for at, there, prefix in self.events:
                    if at >= since and there == present and prefix == address:
                        return at - since
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)

    def gap(self, address, since, until_time):
        """Seconds for which the leaf was without the address between the two times; a replaced route is no gap."""
        missing, began = 0.0, None
        with self.lock:
            changes = [(at, there) for at, there, prefix in self.events if prefix == address and since <= at <= until_time]
        for at, there in changes:
            if not there and began is None:
                began = at
            elif there and began is not None:
                missing, began = missing + at - began, None
        return missing if began is None else missing + until_time - began
