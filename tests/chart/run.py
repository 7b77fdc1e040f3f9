"""Checks of the chart: `scripts/test-chart` starts this with its tools. See runner.py."""

import argparse
import importlib
import os
import pathlib
import sys
import tempfile

import lab_pod
import runner
from chart import CASES, STAND_IN, Chart

HERE = pathlib.Path(__file__).parent


def main():
    arguments = parse()
    for module in sorted(HERE.glob("checks_*.py")):
        importlib.import_module(module.stem)
    tools = dict(tool.split("=", 1) for tool in arguments.tool)
    toolkit = os.environ.get("HELM_TOOLKIT")
    with tempfile.TemporaryDirectory(prefix="obgp-chart.") as directory:
        scratch = pathlib.Path(directory)
        beside = {"stand-in": STAND_IN} | ({"toolkit": pathlib.Path(toolkit)} if toolkit else {})
        charts = {name: Chart(tools["helm"], scratch / name, path) for name, path in beside.items()}
        context = runner.Context(
            scratch=scratch,
            chart=charts.get("toolkit", charts["stand-in"]),
            stand_in=charts["stand-in"] if toolkit else None,
            toolkit=pathlib.Path(toolkit) if toolkit else None,
            tools=tools,
            image=arguments.image,
        )
        if arguments.lab_pod:
            arguments.lab_pod.write_text(lab_pod.manifest(context.chart.render(files=[CASES / "lab.yaml"])))
            return 0
        print(f"helm-toolkit: {toolkit or 'the stand-in of the tests'}; image: {arguments.image or 'none'}", flush=True)
        return 0 if runner.run(context, arguments.check) else 1


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--image", help="the agent's image in the engine")
    parser.add_argument("--check", action="append", default=[], metavar="NAME", help="run only this check")
    parser.add_argument("--lab-pod", type=pathlib.Path, metavar="FILE", help="only write the manifest for scripts/lab")
    return parser.parse_args()


sys.exit(main())
