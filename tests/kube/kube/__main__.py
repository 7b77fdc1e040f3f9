"""Plays the cases and prints a table: case, expected, seen, seconds. scripts/test-kube made the cluster and the images."""

import argparse
import importlib
import json
import pathlib
import signal
import sys
import time
import traceback

from . import fabric, release
from .catalogue import CASES
from .shell import Failed, attempt
from .world import World


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/test-kube")
    parser.add_argument("--remove", action="store_true")
    parser.add_argument("--chart", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=json.loads, default={"frr": ""})
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def play(world, case):
    module, _, function = case.function.partition(".")
    world.case, world.began = case.name, time.monotonic()
    try:
        getattr(importlib.import_module(f".cases.{module}", __package__), function)(world)
    except Exception as error:
        (world.output / f"case-{case.name}.log").write_text(traceback.format_exc())
        world.check("the case can be played", f"{type(error).__name__}: {error}", False)
    if any(not result.get("passed", True) for result in world.results if result["case"] == case.name):
        keep_logs(world, case.name)


def keep_logs(world, name):
    """The state of the pod and the leaf after a failed case."""
    directory = world.output / f"failed-{name}"
    directory.mkdir(parents=True, exist_ok=True)
    kubectl = ["kubectl", "--namespace", release.NAMESPACE]
    commands = {"pods.yaml": [*kubectl, "get", "pods", "--output", "yaml"], "describe.log": [*kubectl, "describe", "pods"],
                "events.log": [*kubectl, "get", "events", "--sort-by", ".lastTimestamp"], "helm.log": ["helm", "history", release.NAME, "--namespace", release.NAMESPACE],
                "leaf.log": ["docker", "exec", "kube-leaf", "vtysh", "-c", "show bgp summary", "-c", "show bgp ipv4 unicast", "-c", "show running-config"],
                "databases.log": ["docker", "logs", "kube-databases"]}
    for container in ("init-frr-config", "frr", "ovn-bgp-agent"):
        commands[f"{container}.log"] = [*kubectl, "logs", "--selector", "application=ovn-bgp-agent", "--container", container, "--tail", "400"]
        commands[f"{container}-before.log"] = [*commands[f"{container}.log"], "--previous"]
    for file, command in commands.items():
        done = attempt(*command)
        (directory / file).write_text(done.output + done.errors)


def table(results):
    rows = [("case", "expected", "seen", "seconds", "")]
    for result in results:
        if result["kind"] == "check":
            rows.append((result["case"], result["expected"], result["seen"][:70], f"{result['seconds']:.1f}", "ok" if result["passed"] else "FAILED"))
        elif result["kind"] == "figure":
            rows.append((result["case"], result["name"], f"{result['value']} {result['unit']}", "", ""))
        else:
            rows.append((result["case"], result["text"], "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def main():
    options = arguments()
    if options.remove:
        fabric.Fabric(options.images, options.output).remove()
        return 0
    unknown = set(options.case) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"no case is called {', '.join(sorted(unknown))}\nhelp: scripts/test-kube --list")
    world = World(fabric.Fabric(options.images, options.output), release.Release(options.chart, options.images, options.output), options.output, say)
    done = False
    # SIGTERM ends the process without `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        world.fabric.create()
        if not release.has_vrf():
            world.note("NOT TESTED HERE: the agent at work, because this kernel has no VRF devices (module vrf)")
        for case in CASES:
            if not options.case or case.name in options.case:
                say(f"==> {case.name}: {case.about}")
                play(world, case)
        done = True
    except Failed as error:
        say(f"error: {error}")
    finally:
        if not options.keep:
            if world.release.installed():
                attempt("helm", "uninstall", release.NAME, "--namespace", release.NAMESPACE, "--wait", "--timeout", "60s")
            world.fabric.remove()
    (options.output / "results.json").write_text(json.dumps(world.results, indent=1))
    print(table(world.results))
    failed = sorted({result["case"] for result in world.results if not result.get("passed", True)})
    say(f"==> {'FAILED: ' + ', '.join(failed) if failed else 'all passed' if done else 'FAILED'}; logs in {options.output}")
    return 0 if done and not failed else 1


sys.exit(main())
