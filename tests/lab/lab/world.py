"""The machine's world: central databases, two nodes, leaf switches, a spine; and how long things take in it."""

import pathlib
import time

from . import neutron
from .central import Central
from .fabric import Switch, Watch, link, management, namespace
from .node import Node
from .pod import Pod
from .shell import Failed, run, until

# A wait that ends far above what the slow machine takes.
LONG = 480
EXTERNAL_GATEWAY = "203.0.113.1"


class World:
    def __init__(self, reporter, arguments):
        self.reporter, self.arguments = reporter, arguments
        self.case, self.began = "machine", time.monotonic()
        self.pods, self.counter = {}, 0

    def create(self):
        run("mount -t tmpfs tmpfs /etc/frr")
        pathlib.Path("/var/run/frr").mkdir(exist_ok=True)
        namespace("control")
        management("control", 1)
        self.central = Central()
        self.central.start()
        self.leaf1 = Switch("leaf1", ["10.1.0.0/16", "fd00:1::/32"])
        self.leaf2 = Switch("leaf2", ["10.2.0.0/16"])
        self.spine = Switch("spine", ["10.0.0.0/8"], evpn=True)
        self.nodes = [Node(1), Node(2)]
        for node in self.nodes:
            node.create()
        for leaf, subnet in (("leaf1", "10.3.1"), ("leaf2", "10.3.2")):
            link(leaf, "spine", "spine", leaf)
            run(f"ip addr add {subnet}.2/24 dev spine", netns=leaf)
            run(f"ip addr add {subnet}.1/24 dev {leaf}", netns="spine")
        run("ip route add 10.1.0.0/16 via 10.3.1.2", netns="spine")
        run("ip link add lo0 type dummy", netns="spine")
        run("ip link set lo0 up", netns="spine")
        run("ip addr add 10.100.0.1/32 dev lo0", netns="spine")
        run("ip route add 10.100.0.1/32 via 10.3.1.1", netns="leaf1")
        self.leaf1.start()
        self.watch = Watch(self.leaf1)
        for node in self.nodes:
            node.start()
        self.neutron = neutron.Neutron(self.central)
        self.neutron.distributed(True)
        self._networks()

    def _networks(self):
        """A provider network `public`, two tenants' networks, and a router between, its gateway port on node 1."""
        n = self.neutron
        n.network("public", physical="physnet1")
        n.network("private")
        n.router("r1")
        n.attach("r1", "private", "fa:16:3e:00:01:01", ["192.168.10.1/16"])
        n.gateway("r1", "public", "fa:16:3e:00:01:02", ["203.0.113.10/24"], [(self.nodes[0].chassis, 20), (self.nodes[1].chassis, 10)], [EXTERNAL_GATEWAY])

    # --- servers and floating IPs ---------------------------------------------------------------------------------------

    def server(self, name, network, addresses, gateway, node=None, gateway6=None):
        """A server with one port, up. Returns the port's MAC."""
        node = node or self.nodes[0]
        self.counter += 1
        mac = f"fa:16:3e:01:{self.counter // 256:02x}:{self.counter % 256:02x}"
        self.neutron.port(name, network, mac, addresses, node.name)
        node.vm(f"vm{self.counter}", name, mac, addresses, gateway, gateway6)
        until(f"the port {name} is up", lambda: self.neutron.is_up(name), LONG)
        return f"vm{self.counter}"

    def private_server(self, name, node=None):
        """A server of the tenant's network; its address, and its namespace."""
        address = f"192.168.11.{self.counter + 10}"
        return address, self.server(name, "private", [f"{address}/16"], "192.168.10.1", node)

    def floating_ip(self, port, inside, address):
        mac = "fa:16:3e:02:" + ":".join(f"{int(octet):02x}" for octet in address.split(".")[2:])
        mark = self.watch.mark()
        self.neutron.floating_ip("r1", "public", address, port, inside, mac)
        return mark

    def ping(self, address, netns="leaf1", count=3):
        """Whether the leaf's ping is answered: the first packets may be lost to ARP."""
        result = run(["ping", "-c", str(count), "-W", "3", "-i", "0.5", address], netns=netns, check=False, timeout=60)
        return result.code == 0 or run(["ping", "-c", "5", "-W", "5", address], netns=netns, check=False, timeout=60).code == 0

    # --- pods -----------------------------------------------------------------------------------------------------------

    def pod(self, node=None, **options):
        """A new pod on the node, in place of the one that is there."""
        node = node or self.nodes[0]
        self.stop_pod(node)
        pod = self.pods[node.name] = Pod(node, **options)
        return pod

    def stop_pod(self, node):
        pod = self.pods.pop(node.name, None)
        if pod:
            self.collect(pod)
            pod.stop()

    def ready_pod(self, node=None, timeout=LONG, **options):
        """A pod that has become ready; the seconds that it took."""
        pod = self.pod(node, **options)
        began = time.monotonic()
        failed = pod.start()
        if failed:
            raise Failed(f"the init container failed: {failed}")
        self.wait_ready(pod, timeout)
        return pod, time.monotonic() - began

    def wait_ready(self, pod, timeout=LONG):
        last = ""

        def ready():
            nonlocal last
            result = pod.health("ready")
            last = result.output
            return result.code == 0
        try:
            until("the pod is ready", ready, timeout, interval=0.5)
        except Failed as error:
            raise Failed(f"{error}; health ready says: {last}; the agent's log ends: {pod.log('ovn-bgp-agent')[-400:]}") from error

    def base_pod(self):
        """The ordinary pod on node 1, started once and shared by the cases that leave it as it was."""
        pod = self.pods.get("n1")
        if pod and getattr(pod, "ordinary", False) and pod.health("ready").code == 0:
            return pod
        pod, seconds = self.ready_pod()
        pod.ordinary = True
        self.figure("start to ready", round(seconds, 1), "s")
        return pod

    def collect(self, pod):
        """The requests of a pod's agent, before its log is replaced."""
        self.requests = getattr(self, "requests", [])
        self.requests.append((self.case, pod.log("ovn-bgp-agent")))

    # --- reports --------------------------------------------------------------------------------------------------------

    def check(self, expected, seen, passed, seconds=None):
        self.reporter.check(self.case, expected, seen, passed, time.monotonic() - self.began if seconds is None else seconds)
        return passed

    def figure(self, name, value, unit):
        self.reporter.figure(self.case, name, value, unit)

    def at_leaf(self, address, since, expected, timeout=LONG):
        """A check that the leaf gets the address, and in how many seconds after `since`."""
        seconds = self.watch.when(address, True, since, timeout)
        self.check(expected, "not there" if seconds is None else f"{seconds:.2f} s", seconds is not None, seconds or timeout)
        return seconds

    def gone_from_leaf(self, address, since, expected, timeout=LONG):
        seconds = self.watch.when(address, False, since, timeout)
        self.check(expected, "still there" if seconds is None else f"{seconds:.2f} s", seconds is not None, seconds or timeout)
        return seconds
