"""Checks as functions, and a table of their results.

A module `checks_*.py` in this directory registers its functions:

    @check("the ASN is the same bytes however it is written")
    def asn(context): ...

A check returns a remark for the table, or raises: AssertionError or HelmError is a failure, Skip needs a reason.
"""

import dataclasses
import pathlib
import time
import traceback

import yaml
from chart import Chart, HelmError, cases

REGISTRY = []


class Skip(Exception):
    """The machine lacks something; the text says what."""


def check(title):
    def register(function):
        REGISTRY.append((title, function))
        return function

    return register


@dataclasses.dataclass
class Context:
    """What checks work on."""

    # A directory for the checks' files.
    scratch: pathlib.Path
    # The chart beside HELM_TOOLKIT, or beside the stand-in.
    chart: Chart
    # The chart beside the stand-in; None if `chart` is that.
    stand_in: Chart | None
    # HELM_TOOLKIT, or None.
    toolkit: pathlib.Path | None
    # Programs by name: helm, yamllint, checkov, promtool...
    tools: dict[str, str]
    # Name of the agent's image in the engine, or None.
    image: str | None
    _renderings: dict = dataclasses.field(default_factory=dict)

    def renderings(self):
        """Name -> rendering, of the defaults, each override and each of the tests' own values."""
        if not self._renderings:
            self._renderings = {name: self.chart.render(files=files) for name, files in cases().items()}
        return self._renderings


def run(context, only=()):
    """Runs the checks, prints the table, and returns whether none failed."""
    rows = []
    for title, function in REGISTRY:
        name = function.__name__.replace("_", "-")
        if only and name not in only:
            continue
        began = time.monotonic()
        try:
            result, remark = "ok", function(context) or ""
        except Skip as skipped:
            result, remark = "SKIPPED", str(skipped)
        except (AssertionError, HelmError, yaml.YAMLError) as failure:
            result, remark = "FAILED", str(failure) or traceback.format_exc()
        rows.append((name, title, result, time.monotonic() - began, remark))
        print(f"{result:8} {name}: {title}" + (f"\n{indented(remark)}" if result != "ok" else ""), flush=True)
    print_table(rows)
    if unknown := set(only) - {row[0] for row in rows}:
        print(f"no such check: {', '.join(sorted(unknown))}")
        return False
    return all(row[2] != "FAILED" for row in rows)


def indented(text):
    return "\n".join(f"    {line}" for line in text.splitlines())


def print_table(rows):
    width = max(len(row[0]) for row in rows) if rows else 0
    print(f"\n{'check':{width}}  result   seconds  remark")
    for name, _, result, seconds, remark in rows:
        print(f"{name:{width}}  {result:8} {seconds:6.1f}  {remark.splitlines()[0] if remark else ''}")
    counts = {result: sum(row[2] == result for row in rows) for result in ("ok", "FAILED", "SKIPPED")}
    print(f"{counts['ok']} checks passed, {counts['FAILED']} failed, {counts['SKIPPED']} skipped")
