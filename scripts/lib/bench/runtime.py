"""`obgp-runtime frr-init` in a network namespace with br-ex and a default route, against a shell script that does the same."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import Figure, run, seconds

SCRIPT = Path(__file__).with_name("frr-init.sh")
SERVER, LEAF = f"obgp-bench-{os.getpid()}", f"obgp-bench-{os.getpid()}-leaf"
TIME_LIMIT = 0.050
MEMORY_LIMIT = 10_000_000


def measure(bench, image):
    """Rows for `obgp-runtime frr-init`, taken from the built image for this machine's platform."""
    need("ip", "iproute2")
    need("nsenter", "util-linux")
    need("time", "time")
    for tool, package in ("jq", "jq"), ("ping", "iputils-ping"):
        need(tool, package)
    binary = from_image(bench, image)
    work = bench.work / "runtime"
    ours, theirs = work / "ours", work / "theirs"
    for directory in ours, theirs:
        directory.mkdir(parents=True)
    mapping = work / "mapping.json"
    mapping.write_text(json.dumps({"10.0.0.0/8": "65000", "10.0.192.0/24": "65001"}))
    contenders = {
        "obgp-runtime": [binary, "frr-init", "--output-dir", ours, "--shared-dir", ours, "--asn-mapping", mapping],
        "shell, ip, jq": [SCRIPT, theirs, theirs, mapping],
    }
    environment = {"NODE_NAME": "worker1", "INTERFACE": "br-ex"}
    with site():
        inside = {name: ["nsenter", f"--net=/run/netns/{SERVER}", *command] for name, command in contenders.items()}
        reports = [run(command, environment)[2] for command in inside.values()]
        environments = [(directory / "bgp-config.env").read_text() for directory in (ours, theirs)]
        if len(set(reports)) > 1 or len(set(environments)) > 1 or "Reachable:    yes" not in reports[0]:
            sys.exit("bench: frr-init and the script give different results:\n" + "\n".join(reports + environments))
        samples = bench.compare(
            "frr-init with a default route", {name: (None, command, environment) for name, command in inside.items()}, runs=max(bench.runs, 15)
        )
        peaks = [peak(command, environment) for command in inside.values()]
    median, script = (samples[name].median for name in contenders)
    return [
        Figure(
            "frr-init with a default route (peer: the same in sh with ip and jq)", seconds(median), seconds(script),
            f"{median / script:.2f} x", f"< {seconds(TIME_LIMIT)}", median < TIME_LIMIT,
        ),
        Figure(
            "frr-init: peak memory (peer: the largest of its processes)", megabytes(peaks[0]), megabytes(peaks[1]),
            f"{peaks[0] / peaks[1]:.2f} x", f"< {megabytes(MEMORY_LIMIT)}", peaks[0] < MEMORY_LIMIT,
        ),
    ]  # fmt: skip


def need(tool, package):
    if not shutil.which(tool):
        sys.exit(f"bench: this needs {tool} (Debian package {package})")


def from_image(bench, image):
    native = json.loads(run(["docker", "version", "--format", "{{json .Server}}"])[2])["Arch"]
    name = next(p["engine_image"] for p in image["platforms"] if p["platform"] == f"linux/{native}")
    container = run(["docker", "create", name])[2].strip()
    try:
        binary = bench.work / "obgp-runtime"
        run(["docker", "cp", f"{container}:/usr/local/bin/obgp-runtime", binary])
    finally:
        run(["docker", "rm", container])
    return binary


def peak(command, environment):
    """Peak memory in bytes, by GNU time: a process started by Python would be charged with Python's memory."""
    report = subprocess.run(["time", "--format", "%M", *map(str, command)], env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return int(report.stderr.split()[-1]) * 1024


@contextlib.contextmanager
def site():
    """Network namespaces of a server with br-ex and of a leaf switch, connected by a veth pair."""
    def ip(*arguments):
        run(["ip", *arguments])

    try:
        for space in SERVER, LEAF:
            ip("netns", "add", space)
        ip("-n", SERVER, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", LEAF)
        ip("-n", SERVER, "link", "add", "br-ex", "type", "bridge", "forward_delay", "0")
        ip("-n", SERVER, "link", "set", "up0", "master", "br-ex", "up")
        ip("-n", SERVER, "link", "set", "br-ex", "up")
        ip("-n", LEAF, "link", "set", "down0", "up")
        ip("-n", LEAF, "address", "add", "10.0.192.1/24", "dev", "down0")
        ip("-n", SERVER, "address", "add", "10.0.192.111/24", "dev", "br-ex")
        ip("-n", SERVER, "route", "add", "default", "via", "10.0.192.1", "dev", "br-ex")
        yield
    finally:
        for space in SERVER, LEAF:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)


def megabytes(value):
    return f"{value / 1e6:.1f} MB"
