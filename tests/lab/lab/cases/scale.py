"""Many floating IPs on one node: seconds until all are at the leaf and gone from it, a full resync, memory and CPU."""

import json
import os
import pathlib
import time

from ..ovsdb import add_to
from ..shell import until

COUNTS = (1, 100)


def scale(world):
    wanted = world.arguments["scale"]
    for count in [*[one for one in COUNTS if one < wanted], wanted]:
        _count(world, count)


def _count(world, count):
    pod = world.base_pod()
    node = pod.node
    ports = [(f"scale-{count}-{number}", f"192.168.{100 + number // 250}.{number % 250 + 1}", f"100.64.{number // 250 + 10 * (count % 7)}.{number % 250 + 1}",
              f"fa:16:3e:10:{number // 256:02x}:{number % 256:02x}") for number in range(count)]
    rows, references = [], []
    for name, inside, _, mac in ports:
        row, reference = world.neutron.port_row(name, "private", mac, [f"{inside}/16"], node.name)
        rows.append(row)
        references.append(reference)
    world.neutron.nb.transact([*rows, add_to("Logical_Switch", "ports", references, name="neutron-private")])
    words = []
    for number, (name, *_) in enumerate(ports):
        words += ["--", "add-port", "br-int", f"s{count}-{number}", "--", "set", "Interface", f"s{count}-{number}", "type=internal", f"external_ids:iface-id={name}"]
    # The switch makes 1,000 ports in more time than ovs-vsctl waits for; the ports are up later.
    node.vsctl("--no-wait", *words)

    def up():
        return sum(row["name"].startswith(f"scale-{count}-") for row in world.neutron.nb.rows("Logical_Switch_Port", ["name"], up=True))
    until(f"{count} ports are up", lambda: up() == count, 1200, interval=2)
    addresses = {address for _, _, address, _ in ports}

    def at_leaf():
        routes = world.leaf1.routes()
        return {line.split()[0] for line in routes.splitlines() if line[:1].isdigit()} & addresses
    operations = []
    for name, inside, address, mac in ports:
        operations += world.neutron.floating_ip_rows("r1", "public", address, name, inside, mac.replace("fa:16:3e:10", "fa:16:3e:20"))
    cpu, began = _cpu(pod), time.monotonic()
    world.neutron.nb.transact(operations)
    until(f"{count} floating IPs are at the leaf", lambda: len(at_leaf()) == count, 2400, interval=0.1 if count < 1000 else 1)
    seconds = time.monotonic() - began
    world.check(f"{count} floating IPs are at the leaf", f"{seconds:.1f} s", True, seconds)
    world.figure(f"{count} floating IPs added", round(seconds, 1), "s")
    world.figure(f"CPU of the agent for {count}", round(_cpu(pod) - cpu, 1), "s")
    world.figure(f"memory of the agent's container with {count}", _memory(pod), "MB")
    if count > 1:
        _restart(world, pod, count)
    began = time.monotonic()
    world.neutron.remove_floating_ips("r1", addresses)
    until(f"{count} floating IPs are gone from the leaf", lambda: not at_leaf(), 2400, interval=0.1 if count < 1000 else 1)
    seconds = time.monotonic() - began
    world.check(f"{count} floating IPs are gone from the leaf", f"{seconds:.1f} s", True, seconds)
    world.figure(f"{count} floating IPs removed", round(seconds, 1), "s")
    world.wait_ready(pod, 900)
    node.vsctl("--no-wait", *[word for number in range(count) for word in ("--", "del-port", f"s{count}-{number}")])


def _restart(world, pod, count):
    """A new agent's first sync is the full one: nothing is at hand, everything is compared."""
    pod.kill("ovn-bgp-agent")
    began = time.monotonic()
    pod.start_container("ovn-bgp-agent")
    world.wait_ready(pod, 1800)
    world.figure(f"restart with {count}: start to ready", round(time.monotonic() - began, 1), "s")
    state = json.loads(pod.exec("ovn-bgp-agent", "cat", "/run/ovn-bgp-agent/state.json").output)["reconciliations"]["sync"]
    world.figure(f"full resync of {count}", round(state["succeeded"] - state["began"], 1), "s")


def _cgroup(pod):
    return pathlib.Path("/sys/fs/cgroup") / pathlib.Path(f"/proc/{pod.pid('ovn-bgp-agent')}/cgroup").read_text().strip().rpartition(":")[2].lstrip("/")


def _memory(pod):
    page = os.sysconf("SC_PAGE_SIZE")
    pids = (_cgroup(pod) / "cgroup.procs").read_text().split()
    return round(sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * page / 1e6)


def _cpu(pod):
    ticks = 0
    for pid in (_cgroup(pod) / "cgroup.procs").read_text().split():
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
