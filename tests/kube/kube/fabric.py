"""The network around the node: the link br-ex to a leaf switch, behind which is a spine; and the databases that the agent reads.

Leaf and spine are FRR in containers with network namespaces of their own. The node has 10.213.7.10/24 on br-ex; the leaf has the
subnet's first and last address, and a link-local one for BGP unnumbered. The spine, 10.213.8.2, is reached by the leaf's routes.
"""

import json
import pathlib
import re
import subprocess
import threading
import time

from .shell import Failed, attempt, run, until

NODE = "10.213.7.10"
SUBNET = "10.213.7.0/24"
FIRST, LAST, SPINE = "10.213.7.1", "10.213.7.254", "10.213.8.2"
# Announced by the leaf to the node.
LEARNT = "10.213.9.0/24"
LEAF_ASN, SPINE_ASN = 65001, 65100
NB_PORT, SB_PORT = 16641, 16642
OPENVSWITCH_GROUP = 42424
NAMES = ["kube-leaf", "kube-spine", "kube-databases"]
OPENVSWITCH = pathlib.Path("/run/openvswitch")

DAEMONS = """zebra=yes
bgpd=yes
staticd=yes
vtysh_enable=yes
zebra_options="-A 127.0.0.1"
bgpd_options="-A 127.0.0.1"
"""

LEAF = f"""frr defaults datacenter
ip route {LEARNT} blackhole
router bgp {LEAF_ASN}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp router-id 10.213.7.1
 bgp graceful-restart stalepath-time 120
 neighbor NODES peer-group
 neighbor NODES remote-as external
 neighbor NODES timers 3 10
 bgp listen range {SUBNET} peer-group NODES
 neighbor node0 interface peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
  network {LEARNT}
  network 10.213.8.0/30
 exit-address-family
exit
"""

SPINE_CONFIGURATION = f"""frr defaults datacenter
router bgp {SPINE_ASN}
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp router-id 10.213.8.2
 neighbor NODES peer-group
 neighbor NODES remote-as external
 neighbor NODES ebgp-multihop
 neighbor NODES timers 3 10
 bgp listen range {SUBNET} peer-group NODES
 address-family l2vpn evpn
  neighbor NODES activate
 exit-address-family
exit
"""


class Switch:
    """FRR as a leaf or spine, in a container without a network of its own."""

    def __init__(self, name, configuration, image, output):
        self.name, self.image = name, image
        self.etc = output / name
        self.configuration = configuration

    def start(self):
        self.etc.mkdir(parents=True, exist_ok=True)
        (self.etc / "daemons").write_text(DAEMONS)
        (self.etc / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        (self.etc / "frr.conf").write_text(self.configuration)
        run("chown", "-R", "100:101", self.etc)
        run("docker", "run", "--detach", "--name", self.name, "--hostname", self.name, "--network", "none",
            "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--cap-add", "SYS_ADMIN", "--sysctl", "net.ipv4.ip_forward=1",
            "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.default.disable_ipv6=0",
            "--volume", f"{self.etc.resolve()}:/etc/frr", self.image)
        self.process = run("docker", "inspect", "--format", "{{.State.Pid}}", self.name).strip()

    def take(self, device, name):
        run("ip", "link", "set", device, "netns", self.process, "name", name)

    def ip(self, *words):
        return run("nsenter", "--target", self.process, "--net", "ip", *words)

    def vtysh(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        return run("docker", "exec", self.name, "vtysh", *words)

    def json(self, command):
        # Warnings may follow the answer.
        return json.JSONDecoder().raw_decode(self.vtysh(command).lstrip() or "{}")[0]

    def peers(self, family="ipv4 unicast"):
        """The state of each peer of this family, by its name."""
        return {name: peer["state"] for name, peer in self.json(f"show bgp {family} summary json").get("peers", {}).items()}

    def has(self, prefix):
        return re.search(rf"^{re.escape(prefix.removesuffix('/32'))} ", self.ip("route", "show", "proto", "bgp"), re.MULTILINE) is not None


class Watch:
    """The times at which the leaf's kernel lost or got a prefix, read from one `ip monitor`."""

    def __init__(self, switch, prefix):
        self.events = []
        self.prefix = prefix.removesuffix("/32")
        self.process = subprocess.Popen(["nsenter", "--target", switch.process, "--net", "stdbuf", "-oL", "ip", "monitor", "route"],
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            present = words[:1] != ["Deleted"]
            if self.prefix in words[:2]:
                self.events.append((time.monotonic(), present))

    def end(self):
        """The longest time without the prefix, in seconds; without an end if it did not come back."""
        self.process.kill()
        self.process.wait()
        longest, lost = 0.0, None
        for when, present in self.events:
            if present and lost is not None:
                longest, lost = max(longest, when - lost), None
            elif not present and lost is None:
                lost = when
        return longest if lost is None else float("inf")


def kernel_routes():
    """The node's routes of FRR, in all tables: of bgpd, zebra and staticd (196)."""
    lines = [line for family in ("-4", "-6") for line in run("ip", family, "route", "show", "table", "all").splitlines()]
    return [line for line in lines if re.search(r"proto (bgp|zebra|196)\b", line)]


def kernel_nexthops():
    return [line for line in run("ip", "nexthop").splitlines() if "proto zebra" in line]


def flush_routes():
    """Removes what an FRR that was killed left in the node's kernel: the commands of docs/kubernetes.md."""
    # 11 is zebra. A route ends with its nexthop; `ip route flush` of iproute2 6.1 fails at routes that have one.
    run("ip", "nexthop", "flush", "proto", "11")
    # Those without: staticd's to Null0.
    attempt("ip", "route", "flush", "table", "all", "proto", "196")


class Fabric:
    def __init__(self, images, output):
        self.images = images
        self.leaf = Switch("kube-leaf", LEAF, images["frr"], output)
        self.spine = Switch("kube-spine", SPINE_CONFIGURATION, images["frr"], output)
        self.made = False

    def create(self):
        self.remove()
        if attempt("ip", "link", "show", "br-ex").code == 0:
            raise Failed("this machine has an interface br-ex: the test would change it")
        if OPENVSWITCH.exists():
            raise Failed(f"this machine has {OPENVSWITCH}: the test would change the node's Open vSwitch")
        if kernel_routes():
            raise Failed(f"this machine has routes of another FRR: {kernel_routes()[0]}")
        self.made = True
        self.leaf.start()
        self.spine.start()
        run("ip", "link", "add", "br-ex", "type", "veth", "peer", "name", "kube-node0")
        self.leaf.take("kube-node0", "node0")
        for address in [f"{FIRST}/24", f"{LAST}/24"]:
            self.leaf.ip("address", "add", address, "dev", "node0")
        self.leaf.ip("link", "set", "node0", "up")
        run("ip", "address", "add", f"{NODE}/24", "dev", "br-ex")
        run("ip", "link", "set", "br-ex", "up")
        run("ip", "link", "add", "kube-leaf1", "type", "veth", "peer", "name", "kube-spine1")
        self.leaf.take("kube-leaf1", "spine0")
        self.spine.take("kube-spine1", "leaf0")
        self.leaf.ip("address", "add", "10.213.8.1/30", "dev", "spine0")
        self.leaf.ip("link", "set", "spine0", "up")
        self.spine.ip("address", "add", f"{SPINE}/30", "dev", "leaf0")
        self.spine.ip("link", "set", "leaf0", "up")
        self.spine.ip("route", "add", SUBNET, "via", "10.213.8.1")
        run("docker", "run", "--detach", "--name", "kube-databases", "--network", "host", "--volume", f"{OPENVSWITCH}:/run/openvswitch",
            self.images["ovn"], NB_PORT, SB_PORT, OPENVSWITCH_GROUP)
        until("the databases answer", lambda: attempt("docker", "exec", "kube-databases", "test", "-e", "/tmp/ready").code == 0)
        for switch in (self.leaf, self.spine):
            until(f"{switch.name} answers", lambda switch=switch: switch.vtysh("show version"))

    def remove(self):
        """Ends what this run, or an interrupted earlier one, made."""
        found = [name for name in NAMES if attempt("docker", "container", "inspect", name).code == 0]
        if found:
            attempt("docker", "rm", "--force", "--volumes", *found)
        if self.made or found:
            for device in ("br-ex", "kube-node0", "kube-leaf1"):
                attempt("ip", "link", "del", device)
            flush_routes()
            for entry in [*OPENVSWITCH.glob("*")] if OPENVSWITCH.exists() else []:
                entry.unlink()
            if OPENVSWITCH.exists():
                OPENVSWITCH.rmdir()
