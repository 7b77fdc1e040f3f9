"""A node: a network namespace with Open vSwitch and ovn-controller of its own, its files below /nodes/NAME."""

import pathlib
import shutil
import signal
import uuid

from . import central
from .fabric import link, management, namespace
from .shell import Failed, daemon, run, until


class Node:
    def __init__(self, number):
        self.number, self.name = number, f"n{number}"
        self.home = pathlib.Path("/nodes") / self.name
        self.chassis = str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))
        self.address = f"10.1.{number}.2"
        self.processes = {}
        self.vms = {}

    def create(self):
        namespace(self.name)
        management(self.name, 10 + self.number)
        run("sysctl -qw net.ipv6.conf.all.accept_ra=0", netns=self.name)
        for index, leaf in ((0, "leaf1"), (1, "leaf2")):
            link(self.name, f"eth{index}", leaf, self.name)
        self.addresses()

    def addresses(self):
        """What the node's own network configuration makes at each boot."""
        for index in (0, 1):
            subnet = f"10.{index + 1}.{self.number}"
            run(f"ip addr replace {subnet}.2/24 dev eth{index}", netns=self.name)
            run(f"ip -6 addr replace fd00:{index + 1}:{self.number}::2/64 dev eth{index} nodad", netns=self.name)
            run(f"ip addr replace {subnet}.1/24 dev {self.name}", netns=f"leaf{index + 1}")
            run(f"ip -6 addr replace fd00:{index + 1}:{self.number}::1/64 dev {self.name} nodad", netns=f"leaf{index + 1}")
        run(f"ip route replace default via 10.1.{self.number}.1 dev eth0", netns=self.name)
        run(f"ip -6 route replace default via fd00:1:{self.number}::1 dev eth0", netns=self.name)

    @property
    def ovs_dir(self):
        return self.home / "run/openvswitch"

    @property
    def _env(self):
        return {"OVS_RUNDIR": str(self.ovs_dir), "OVN_RUNDIR": str(self.home / "run/ovn"), "OVS_DBDIR": str(self.home / "etc")}

    def vsctl(self, *words):
        return run(["ovs-vsctl", f"--db=unix:{self.ovs_dir}/db.sock", "--timeout=60", *words], netns=self.name, env=self._env)

    def start(self):
        for directory in (self.ovs_dir, self.home / "run/ovn", self.home / "etc"):
            directory.mkdir(parents=True, exist_ok=True)
        self.start_ovsdb()
        self.start_vswitch()
        self.vsctl("set", "Open_vSwitch", ".", f"external_ids:system-id={self.chassis}", f"external_ids:hostname={self.name}",
                   f"external_ids:ovn-remote=tcp:{central.ADDRESS}:6642", "external_ids:ovn-encap-type=geneve",
                   f"external_ids:ovn-encap-ip=10.9.0.{10 + self.number}", "external_ids:ovn-bridge-mappings=physnet1:br-ex",
                   "external_ids:ovn-remote-probe-interval=60000", "external_ids:ovn-monitor-all=true",
                   "--", "--may-exist", "add-br", "br-int", "--", "--may-exist", "add-br", "br-ex")
        # After a reboot the database has the bridges already, and ovs-vsctl does not wait for them.
        until(f"{self.name} has br-ex", lambda: run("ip link show br-ex", netns=self.name, check=False).code == 0, 60)
        run("ip link set br-ex up", netns=self.name)
        self.processes["controller"] = daemon(f"{self.name}-controller", f"ovn-controller unix:{self.ovs_dir}/db.sock", netns=self.name, env=self._env)

    def start_ovsdb(self):
        database, socket = self.home / "etc/conf.db", self.ovs_dir / "db.sock"
        if not database.exists():
            run(f"ovsdb-tool create {database} /usr/share/openvswitch/vswitch.ovsschema")
        self.processes["ovsdb"] = daemon(f"{self.name}-ovsdb", f"ovsdb-server {database} --remote=punix:{socket} --unixctl={self.ovs_dir}/ovsdb.ctl",
                                         netns=self.name, env=self._env)
        until(f"the switch's database of {self.name} answers", socket.exists, 60)
        # As the node's Open vSwitch does it: its socket is for the group that the agent is in.
        shutil.chown(socket, 0, 42424)
        socket.chmod(0o770)
        run(["ovs-vsctl", f"--db=unix:{socket}", "--no-wait", "init"], netns=self.name)

    def start_vswitch(self):
        self.processes["vswitchd"] = daemon(f"{self.name}-vswitchd", f"ovs-vswitchd unix:{self.ovs_dir}/db.sock --pidfile",
                                            netns=self.name, env=self._env)

    def restart_ovsdb(self):
        self._end("ovsdb")
        (self.ovs_dir / "db.sock").unlink(missing_ok=True)
        self.start_ovsdb()

    def _end(self, name):
        process = self.processes.pop(name, None)
        if process:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def power_off(self):
        """Everything of the node ends at once, and what is in memory is lost: /run, devices, routes, rules."""
        for name in list(self.processes):
            self._end(name)
        for vm in list(self.vms):
            run(f"ip netns del {vm}", check=False)
        shutil.rmtree(self.home / "run", ignore_errors=True)
        for device in ("ovs-system", "bgp-vrf", "bgp-nic"):
            run(f"ip link del {device}", netns=self.name, check=False)
        run(["ovs-dpctl", "del-dp", "system@ovs-system"], netns=self.name, check=False)
        for family in ("-4", "-6"):
            run(["ip", family, "rule", "flush", "priority", "32000"], netns=self.name, check=False)

    def vm(self, name, lsp, mac, addresses, gateway, gateway6=None):
        """A namespace whose eth0 is that logical port, bound by ovn-controller."""
        run(f"ip netns add {name}")
        run("ip link set lo up", netns=name)
        run(f"ip link add eth0 netns {name} type veth peer name t{name} netns {self.name}")
        run(f"ip link set t{name} up", netns=self.name)
        run(f"ip link set eth0 address {mac} up", netns=name)
        for address in addresses:
            run(["ip", "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else [])], netns=name)
        if gateway:
            run(f"ip route add default via {gateway}", netns=name)
        if gateway6:
            run(f"ip -6 route add default via {gateway6}", netns=name)
        self.vsctl("add-port", "br-int", f"t{name}", "--", "set", "Interface", f"t{name}", f"external_ids:iface-id={lsp}")
        self.vms[name] = lsp

    def remove_vm(self, name):
        self.vsctl("--if-exists", "del-port", f"t{name}")
        run(f"ip netns del {name}", check=False)
        self.vms.pop(name, None)

    def kernel(self):
        """The state that an agent leaves in the kernel, for the logs."""
        text = []
        for command in ("ip -d link", "ip addr", "ip route show table all", "ip rule", "ip -6 rule", "ip neigh show proxy", "ovs-ofctl dump-flows br-ex"):
            try:
                text.append(f"$ {command}\n{run(command, netns=self.name, env=self._env, check=False).output}")
            except Failed as error:
                text.append(str(error))
        return "\n".join(text)
