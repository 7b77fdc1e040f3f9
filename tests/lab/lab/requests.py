"""What the agents asked for through the privsep guard, vtysh and sysctl: listed, and a refused or failed one fails the run.

Read from the agent's log: oslo.privsep writes each reply at level DEBUG, obgp-runtime each refusal.
"""

import collections
import re

# A negative case provokes them.
PROVOKED = {"no-capability", "no-vtysh", "no-sysctl", "no-sudoers-grant", "no-new-privs", "wrong-groups", "wrong-as", "table-taken"}
FAILURE = re.compile(r"obgp-runtime[^\n]*(?:refuse|not allowed)|privsep: Exception during request|FailedToDropPrivileges", re.IGNORECASE)

# The agent adds the address without asking first, and catches this (utils/linux_net.py, IpAddressAlreadyExists).
EXPECTED = re.compile(r"IP address \S+ already configured on ")


def report(world):
    for name in list(world.pods):
        world.collect(world.pods[name])
    counts, failures = collections.Counter(), []
    for case, log in getattr(world, "requests", []):
        for line in log.splitlines():
            for match in re.finditer(r"ovn_bgp_agent\.privileged\.[\w.]+", line):
                counts[match.group()] += 1
            command = re.search(r"Running command(?:: | \(\w+\): )(.*)|CMD \"(.*)\" returned", line)
            if command:
                words = (command.group(1) or command.group(2)).replace("'", "").replace(",", " ").split()
                counts[" ".join(words[:3])] += 1
            if case not in PROVOKED and FAILURE.search(line) and not EXPECTED.search(line):
                failures.append(f"{case}: {line.strip()[-200:]}")
    for what, count in sorted(counts.items()):
        world.reporter.request(f"{count:6} {what}")
    world.check("no request of the agent is refused or fails", failures[0] if failures else f"{sum(counts.values())} requests", not failures)
