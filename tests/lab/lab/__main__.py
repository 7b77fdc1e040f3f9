"""The lab's program in the machine: makes the world, plays the cases, reports."""

import importlib
import json
import pathlib
import time
import timeit
import traceback

from . import requests
from .catalogue import CASES
from .report import ARGUMENTS, Reporter
from .shell import LOGS, run
from .world import World


def chosen(arguments):
    if arguments["cases"]:
        return [case for case in CASES if case.name in arguments["cases"]]
    return CASES if arguments["all"] else [case for case in CASES if case.core]


def play(world, case):
    module, _, function = case.function.partition(".")
    world.case, world.began = case.name, time.monotonic()
    try:
        getattr(importlib.import_module(f".cases.{module}", __package__), function)(world)
    except Exception as error:
        (LOGS / f"case-{case.name}.log").write_text(traceback.format_exc())
        world.check("the case can be played", f"{type(error).__name__}: {error}", False)


def send_logs(reporter, world):
    for node in world.nodes:
        (LOGS / f"kernel-{node.name}.log").write_text(node.kernel())
    (LOGS / "leaf1-state.log").write_text(world.leaf1.vtysh("show bgp summary", "show bgp ipv4 unicast", "show running-config"))
    for log in sorted(LOGS.glob("*.log")):
        # The end says what happened last.
        reporter.file_of(log.name, log.read_bytes()[-2_000_000:])


def main():
    arguments = json.loads(ARGUMENTS.read_text())
    reporter = Reporter(arguments["reports"])
    LOGS.mkdir(parents=True, exist_ok=True)
    run(["date", "-s", f"@{int(arguments['now'])}"])
    world = World(reporter, arguments)
    try:
        here = min(timeit.repeat("sum(i * i for i in range(200000))", number=1, repeat=3))
        reporter.figure("machine", "slower than this computer by a factor of", round(here / arguments["factor_here"], 1), "")
        world.create()
        reporter.figure("machine", "boot to networks", round(float(pathlib.Path("/proc/uptime").read_text().split()[0]), 1), "s")
        for case in chosen(arguments):
            play(world, case)
        world.case, world.began = "requests", time.monotonic()
        requests.report(world)
    except Exception:
        text = traceback.format_exc()
        (LOGS / "machine.log").write_text(text)
        reporter.check("machine", "the machine can be made", text[-280:], False, 0)
    try:
        send_logs(reporter, world)
    except Exception:
        reporter.text(traceback.format_exc()[-300:])
    reporter.done()
    while arguments["keep"]:
        time.sleep(60)


main()
