"""Measures obgp-build and its peers doing the same work; scripts/bench prepares the machine and calls it.

Every comparison runs its contenders by turns, so that what else the machine does hits them alike, and takes medians.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CONTRACT_FOR_PEER = Path(__file__).with_name("structure-test.yaml")
MIB = 1 << 20


@dataclass
class Samples:
    """What running one command several times took."""

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
    """One row of the table: ours against theirs, and what the project promises."""

    what: str
    ours: str
    theirs: str
    ratio: str
    target: str
    met: bool


def run(command, environment=None):
    """Runs it to its end; returns seconds, peak resident bytes, standard output. Leaves with its output if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=PROJECT, env={**os.environ, **(environment or {})}
        )
        # wait4 and not the process's own reckoning: the kernel's figure, children included.
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
    """Runs each of {name: (prepare, command, environment)} once to warm up and then `runs` times, by turns."""
    samples = {name: Samples([str(c) for c in command]) for name, (_, command, _) in contenders.items()}
    for turn in range(runs + 1):
        for name, (prepare, command, environment) in contenders.items():
            if prepare:
                prepare()
            seconds, peak, _ = run(command, environment)
            if turn:
                samples[name].seconds.append(seconds)
                samples[name].peak_bytes.append(peak)
    for name, taken in samples.items():
        progress(f"  {name}: {taken.median:.2f} s (median of {runs}), {taken.peak / MIB:.0f} MiB at most")
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
    return f"{value:.2f} s"


class Bench:
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

    def compare(self, name, contenders):
        progress(name)
        samples = by_turns(self.runs, contenders)
        self.samples[name] = {n: asdict(s) for n, s in samples.items()}
        return samples

    def at_most(self, what, ours, theirs, limit, show=seconds):
        ratio = ours / theirs
        self.figures.append(Figure(what, show(ours), show(theirs), f"{ratio:.2f} x", f"≤ {limit} x", ratio <= limit))

    def everything(self):
        progress("building the image that is measured")
        output = self.work / "image"
        _, image = self.build(output)
        self.engine_to_layout(image)
        self.verify(image)
        self.nothing_changed(image, output)
        if self.options.second_engine:
            self.same_digest()

    def engine_to_layout(self, image):
        """What the engine built, onto the disk as an OCI layout; ours is verified by then."""
        for platform in image["platforms"]:
            name = platform["engine_image"]
            ours, theirs = self.work / "ingested", self.work / "copied"
            samples = self.compare(
                f"engine image to layout, {platform['platform']}",
                {
                    "obgp-build": (
                        fresh(ours),
                        self.obgp_build("ingest", f"docker:{name}", "--output", ours, "--tag", "bench", "--distro", self.options.distro),
                        None,
                    ),
                    "skopeo": (fresh(theirs), ["skopeo", "copy", "--quiet", f"docker-daemon:{name}", f"oci:{theirs}:bench"], None),
                },
            )
            what = f"engine image to layout, {platform['platform']}"
            self.at_most(f"{what}: time (ours with verification)", samples["obgp-build"].median, samples["skopeo"].median, 0.7)
            self.at_most(f"{what}: size", bytes_under(ours / "oci"), bytes_under(theirs), 1.05, lambda b: f"{b / 1e6:.1f} MB")
            peak = samples["obgp-build"].peak
            self.figures.append(
                Figure(f"{what}: peak memory", f"{peak / MIB:.0f} MiB", f"{samples['skopeo'].peak / MIB:.0f} MiB", "", "< 128 MiB", peak < 128 * MIB)
            )

    def verify(self, image):
        """A layout of all platforms: one run of ours against one of container-structure-test for each platform."""
        contenders = {"obgp-build": (None, self.obgp_build("verify", image["layout"]), None)}
        for driver in "docker", "tar":
            commands = []
            for platform in image["platforms"]:
                name = platform["engine_image"]
                if driver == "tar":
                    archive = self.work / f"{platform['platform'].replace('/', '-')}.tar"
                    run(["docker", "save", "--output", archive, name])
                    name = archive
                commands.append(
                    f"container-structure-test test --driver {driver} --platform {platform['platform']} --image '{name}' --config '{CONTRACT_FOR_PEER}'"
                )
            contenders[f"container-structure-test, {driver} driver"] = (None, ["sh", "-ec", "\n".join(commands)], None)
        # The peer needs minutes where ours needs a moment.
        self.runs, runs = min(self.runs, 3), self.runs
        samples = self.compare("verify a layout of two platforms", contenders)
        self.runs = runs
        ours = samples.pop("obgp-build").median
        fastest, theirs = min(((name, s.median) for name, s in samples.items()), key=lambda pair: pair[1])
        ratio = theirs / ours
        self.figures.append(
            Figure(f"verify a layout of two platforms (peer: {fastest})", seconds(ours), seconds(theirs), f"{ratio:.0f} x faster", "≥ 10 x faster", ratio >= 10)
        )

    def nothing_changed(self, image, output):
        """Building what is built already, against `docker build` of the same Dockerfile with the same arguments."""
        _, _, plan = run(self.obgp_build("plan", "--distro", self.options.distro, "--json"))
        plan = json.loads(plan)["images"][0]
        docker = docker_with_buildkit()
        for platform, target in zip(image["platforms"], plan["targets"], strict=True):
            assert platform["platform"] == target["platform"], "plan and report list the platforms in one order"
            theirs = [
                *docker, "build", "--quiet", "--file", f"dockerfiles/Dockerfile.{self.options.distro}", "--platform", target["platform"],
                "--build-arg", f"BASE={target['base']['engine_tag']}", "--build-arg", f"BUILD_BASE={plan['build_base']['engine_tag']}",
                "--tag", f"obgp-bench:{target['platform'].replace('/', '-')}",
            ]  # fmt: skip
            if ca := os.environ.get("SSL_CERT_FILE"):
                theirs += ["--secret", f"id=ca,src={ca}"]
            ours = self.obgp_build("--distro", self.options.distro, "--platform", target["platform"], "--output", output)
            what = f"nothing changed, {target['platform']}"
            samples = self.compare(what, {"obgp-build": (None, ours, None), "docker build": (None, [*theirs, "."], {"DOCKER_BUILDKIT": "1"})})
            self.at_most(what, samples["obgp-build"].median, samples["docker build"].median, 1.3)
            run(["docker", "image", "rm", theirs[-1]])

    def same_digest(self):
        """Every step run again, twice on this machine's engine and once on the other: the bytes have to be the same."""
        engines = [("first build", None), ("again", None), ("another engine", {"DOCKER_HOST": self.options.second_engine})]
        digests = []
        for name, environment in engines:
            output = self.work / "again"
            fresh(output)()
            taken, image = self.build(output, "--no-cache", environment=environment)
            digests.append({"index": image["digest"], **{p["platform"]: p["digest"] for p in image["platforms"]}})
            progress(f"  --no-cache, {name}: {taken:.0f} s, {image['digest']}")
        self.samples["--no-cache"] = digests
        for what, one, other in ("two --no-cache builds", 0, 1), ("this engine and the other", 0, 2):
            for subject, digest in digests[one].items():
                same = digest == digests[other][subject]
                self.figures.append(Figure(f"{what}: {subject}", digest[7:19], digests[other][subject][7:19], "same" if same else "differ", "same", same))

    def table(self):
        versions = [
            run([self.options.obgp_build, "--version"])[2].strip(),
            run(["skopeo", "--version"])[2].strip(),
            "container-structure-test " + run(["container-structure-test", "version"])[2].strip(),
            "Docker Engine " + run(["docker", "version", "--format", "{{.Server.Version}}"])[2].strip(),
        ]
        lines = [f"{', '.join(versions)}; {os.cpu_count()} processors; medians of {self.runs}; image {self.options.distro}.", ""]
        lines += ["| | obgp-build | peer | ratio | target | met |", "|---|--:|--:|--:|--:|:-:|"]
        lines += [f"| {f.what} | {f.ours} | {f.theirs} | {f.ratio} | {f.target} | {'yes' if f.met else '**no**'} |" for f in self.figures]
        return "\n".join(lines)


def docker_with_buildkit():
    """A docker command that can build with BuildKit: newer ones only with the buildx plugin."""
    for candidate in shutil.which("docker"), "/usr/bin/docker":
        if candidate and subprocess.run([candidate, "build", "--help"], capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "1"}).returncode == 0:
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            major = int(re.search(r"version (\d+)", version)[1])
            if major < 23 or subprocess.run([candidate, "buildx", "version"], capture_output=True).returncode == 0:
                return [candidate]
    sys.exit("bench: no docker command here can use BuildKit; install docker-buildx (or docker-buildx-plugin of docker.com)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--obgp-build", required=True)
    parser.add_argument("--distro", required=True)
    parser.add_argument("--work", type=Path, required=True, help="a directory for the layouts; emptied first")
    parser.add_argument("--second-engine", help="DOCKER_HOST of another engine, which has to come to the same digests")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options)
    bench.everything()
    print(bench.table())
    if options.json:
        options.json.write_text(json.dumps({"figures": [asdict(f) for f in bench.figures], "samples": bench.samples}, indent=1) + "\n")
    shutil.rmtree(options.work)
    missed = [f.what for f in bench.figures if not f.met]
    if options.check and missed:
        sys.exit("bench: targets missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
