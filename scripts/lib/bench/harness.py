"""Measures contenders by turns, and collects one row of the table for each goal."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
MIB = 1 << 20


@dataclass
class Samples:
    """Time and memory of several runs of one command."""

    command: list[str]
    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def peak(self):
        return max(self.peak_bytes)


@dataclass
class Figure:
    """One row of the table: obgp-build, its peer, and the goal."""

    what: str
    ours: str
    theirs: str
    ratio: str
    target: str
    # None without a goal.
    met: bool | None

    def verdict(self):
        return {True: "yes", False: "**no**", None: ""}[self.met]


def run(command, environment=None):
    """Runs the command; returns seconds, peak resident bytes and standard output. Exits with its output if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=PROJECT, env={**os.environ, **(environment or {})}
        )
        # wait4 returns the kernel's figure, children included.
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read().decode(errors="replace")
        if process.returncode != 0:
            err.seek(0)
            sys.exit(f"bench: exit code {process.returncode} of: {' '.join(map(str, command))}\n{output[-4000:]}\n{err.read().decode(errors='replace')[-4000:]}")
        return seconds, usage.ru_maxrss * 1024, output


def by_turns(runs, contenders):
    """Runs each of {name: (prepare, command, environment)} once to warm up, then `runs` times, by turns."""
    samples = {name: Samples([str(c) for c in command]) for name, (_, command, _) in contenders.items()}
    for turn in range(runs + 1):
        for name, (prepare, command, environment) in contenders.items():
            if prepare:
                prepare()
            wall, peak, _ = run(command, environment)
            if turn:
                samples[name].seconds.append(wall)
                samples[name].peak_bytes.append(peak)
    for name, taken in samples.items():
        progress(f"  {name}: {seconds(taken.median)} (median of {runs}), {taken.peak / MIB:.0f} MiB at most")
    return samples


def progress(text):
    print(text, file=sys.stderr, flush=True)


def fresh(directory):
    def prepare():
        shutil.rmtree(directory, ignore_errors=True)

    return prepare


def bytes_under(directory):
    return sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())


def seconds(value):
    if value >= 0.1:
        return f"{value:.2f} s"
    return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.1f} ms"


class Bench:
    """Shared by all comparisons: options, working directory, rows of the table."""

    def __init__(self, options):
        self.options = options
        self.runs = 3 if options.quick else 7
        self.work = options.work
        self.figures = []
        self.samples = {}
        fresh(self.work)()
        self.work.mkdir(parents=True)

    def obgp_build(self, *arguments):
        return [self.options.obgp_build, *arguments, "--progress", "quiet"]

    def build(self, output, *arguments, environment=None):
        taken, _, report = run(self.obgp_build("--distro", self.options.distro, "--output", output, "--json", *arguments), environment)
        return taken, json.loads(report)["images"][0]

    def compare(self, name, contenders, runs=None):
        progress(name)
        samples = by_turns(runs or self.runs, contenders)
        self.samples[name] = {n: asdict(s) for n, s in samples.items()}
        return samples

    def at_most(self, what, ours, theirs, limit, show=seconds):
        ratio = ours / theirs
        self.figures.append(Figure(what, show(ours), show(theirs), f"{ratio:.2f} x", f"≤ {limit} x", ratio <= limit))

    def beside(self, what, ours, theirs):
        """A row without a goal: a part of another row."""
        self.figures.append(Figure(what, seconds(ours), seconds(theirs), f"{ours / theirs:.2f} x", "", None))

    def below(self, what, ours, theirs, limit, show):
        """An absolute goal; the peer's figure is for comparison."""
        self.figures.append(Figure(what, show(ours), show(theirs) if theirs else "", "", f"< {show(limit)}", ours < limit))

    def table(self, versions):
        lines = [f"{', '.join(versions)}; {os.cpu_count()} processors; medians of {self.runs}; image {self.options.distro}.", ""]
        lines += ["| | obgp-build | peer | ratio | goal | met |", "|---|--:|--:|--:|--:|:-:|"]
        lines += [f"| {f.what} | {f.ours} | {f.theirs} | {f.ratio} | {f.target} | {f.verdict()} |" for f in self.figures]
        return "\n".join(lines)
