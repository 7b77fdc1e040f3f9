"""Measures obgp-build and its peers doing the same work. scripts/bench prepares the machine and calls it."""

import argparse
import json
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import image
import publish
import runtime
from harness import Bench, progress, run


def everything(bench):
    progress("building the image")
    output = bench.work / "image"
    _, built = bench.build(output)
    image.engine_to_layout(bench, built)
    image.both_to_layout(bench, built, output)
    image.verify(bench, built)
    image.nothing_changed(bench, built, output)
    with publish.Registry(bench.work / "registry") as registry:
        publish.pushes(bench, built, registry)
        key = publish.signatures(bench, built, registry)
        publish.whole_way(bench, registry, key)
    bench.figures += runtime.measure(bench, built)
    if bench.options.second_engine:
        image.same_digest(bench)
        image.engine_to_layout_elsewhere(bench)


def package_version(program):
    """The version noted by scripts/lib/debian.sh: not every program in a Debian package reports its own."""
    path = Path(shutil.which(program))
    return f"{path.name} {(path.parents[2] / 'version').read_text().strip()}"


def versions(bench):
    skopeos = [skopeo for skopeo in ("skopeo", bench.options.second_skopeo) if skopeo]
    return [
        run([bench.options.obgp_build, "--version"])[2].strip(),
        *(run([skopeo, "--version"])[2].strip() for skopeo in skopeos),
        "container-structure-test " + run(["container-structure-test", "version"])[2].strip(),
        *(package_version(peer) for peer in ("docker-registry", "cosign", bench.options.cosign_3, "oras", "crane")),
        "Docker Engine " + run(["docker", "version", "--format", "{{.Server.Version}}"])[2].strip(),
    ]


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--obgp-build", required=True)
    parser.add_argument("--distro", required=True)
    parser.add_argument("--work", type=Path, required=True, help="directory for the layouts; emptied first")
    parser.add_argument("--second-engine", help="DOCKER_HOST of another engine, which has to produce the same digests")
    parser.add_argument("--second-skopeo", help="a skopeo that can use the second engine")
    parser.add_argument("--cosign-3", required=True, help="path of cosign 3; `cosign` on the PATH is cosign 2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options)
    everything(bench)
    print(bench.table(versions(bench)))
    if options.json:
        options.json.write_text(json.dumps({"figures": [asdict(f) for f in bench.figures], "samples": bench.samples}, indent=1) + "\n")
    shutil.rmtree(options.work)
    missed = [f.what for f in bench.figures if f.met is False]
    if options.check and missed:
        sys.exit("bench: goals missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
