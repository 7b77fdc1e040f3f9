"""From the engine to a verified layout, and repeated builds. Peers: skopeo, container-structure-test, docker build."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from harness import MIB, Figure, bytes_under, fresh, progress, run, seconds

CONTRACT_FOR_PEER = Path(__file__).with_name("structure-test.yaml")


def engine_to_layout(bench, image, which="", engine=None, skopeo=("skopeo",)):
    """An engine's image to an OCI layout; obgp-build also verifies it. `engine` is a DOCKER_HOST, `which` its name in the table."""
    environment = {"DOCKER_HOST": engine} if engine else None
    host = ["--src-daemon-host", engine] if engine else []
    root = Path(run(["docker", "info", "--format", "{{.DockerRootDir}}"], environment)[2].strip())
    # Hides the engine's storage, as if it were on another machine or unreadable: then the engine has to export.
    out_of_reach = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs none "$0"; exec "$@"', root]
    for platform in image["platforms"]:
        name = platform["engine_image"]
        ours, theirs = bench.work / "ingested", bench.work / "copied"
        what = f"engine image to layout, {platform['platform']}{which}"
        ingest = bench.obgp_build("ingest", f"docker:{name}", "--output", ours, "--tag", "bench", "--distro", bench.options.distro)
        contenders = {
            "obgp-build": (fresh(ours), ingest, environment),
            "skopeo": (fresh(theirs), [*skopeo, "copy", "--quiet", *host, f"docker-daemon:{name}", f"oci:{theirs}:bench"], None),
            # Every tool that has the engine export waits for this.
            "docker save": (None, ["sh", "-ec", f"docker save '{name}' >/dev/null"], environment),
        }
        if root.is_dir():
            contenders["obgp-build, exported"] = (fresh(ours), [*out_of_reach, *ingest], environment)
        samples = bench.compare(what, contenders)
        peer = samples["skopeo"].median
        bench.at_most(f"{what}: time (ours with verification)", samples["obgp-build"].median, peer, 0.7)
        if exported := samples.get("obgp-build, exported"):
            bench.at_most(f"{what}: time where the engine's storage is out of reach", exported.median, peer, 0.7)
        bench.beside(f"{what}: the engine's export alone (docker save)", samples["docker save"].median, peer)
        bench.at_most(f"{what}: size", bytes_under(ours / "oci"), bytes_under(theirs), 1.05, lambda b: f"{b / 1e6:.1f} MB")
        bench.below(f"{what}: peak memory", samples["obgp-build"].peak, samples["skopeo"].peak, 128 * MIB, lambda b: f"{b / MIB:.0f} MiB")


def engine_to_layout_elsewhere(bench):
    """The same on the other engine, which has another kind of image store."""
    engine = bench.options.second_engine
    progress("building the image on the other engine")
    _, image = bench.build(bench.work / "elsewhere", environment={"DOCKER_HOST": engine})
    version = run(["docker", "version", "--format", "{{.Server.Version}}"], {"DOCKER_HOST": engine})[2].strip()
    # This machine's policy file may have a format that this skopeo does not know.
    engine_to_layout(bench, image, f", engine {version}", engine, (bench.options.second_skopeo, "--insecure-policy"))


def both_to_layout(bench, image, output):
    """All platforms in one build that changes only a label, so every image is exported, written and verified again."""
    ours = shlex.join(map(str, bench.obgp_build("--distro", bench.options.distro, "--tag", "labelled", "--output", output)))
    copied = bench.work / "copied"
    theirs = [["skopeo", "copy", "--quiet", f"docker-daemon:{p['engine_image']}", f"oci:{copied}:{p['platform'].replace('/', '-')}"] for p in image["platforms"]]
    what = "engine images of all platforms to one layout"
    samples = bench.compare(
        what,
        {
            "obgp-build": (None, ["sh", "-ec", f'{ours} --label "org.example.run=$(date +%s%N)"'], None),
            "skopeo": (fresh(copied), ["sh", "-ec", "\n".join(map(shlex.join, theirs))], None),
        },
    )
    bench.at_most(f"{what} (ours: built, only a label being new, and verified)", samples["obgp-build"].median, samples["skopeo"].median, 0.7)
    remove_images(image, "labelled")


def remove_images(image, tag):
    """Removes the engine's tags of one measurement."""
    for platform in image["platforms"]:
        repository, architecture = platform["engine_image"].rsplit(":", 1)[0], platform["platform"].split("/")[1]
        run(["docker", "image", "rm", f"{repository}:{tag}-{architecture}"])


def verify(bench, image):
    """A layout of all platforms: one run of obgp-build, one run of container-structure-test per platform."""
    what = "verify a layout of two platforms"
    ours = bench.compare(what, {"obgp-build": (None, bench.obgp_build("verify", image["layout"]), None)})["obgp-build"].median
    # The docker driver, because the tar driver reads the whole archive for each check and takes many minutes.
    commands = [
        f"container-structure-test test --driver docker --platform {platform['platform']} --image '{platform['engine_image']}' --config '{CONTRACT_FOR_PEER}'"
        for platform in image["platforms"]
    ]
    # One run, because it takes minutes.
    theirs, _, _ = run(["sh", "-ec", "\n".join(commands)])
    progress(f"  container-structure-test: {seconds(theirs)} (one run)")
    bench.samples[what]["container-structure-test"] = theirs
    ratio = theirs / ours
    bench.figures.append(
        Figure(f"{what} (peer: container-structure-test)", seconds(ours), seconds(theirs), f"{ratio:.0f} x faster", "≥ 10 x faster", ratio >= 10)
    )


def docker_build(bench, target, tag):
    """The `docker build` command for the same Dockerfile and arguments."""
    command = [
        *docker_with_buildkit(), "build", "--quiet", "--file", f"dockerfiles/Dockerfile.{bench.options.distro}", "--platform", target["platform"],
        "--build-arg", f"BASE={target['base']['engine_tag']}", "--build-arg", f"BUILD_BASE={target['build_base']['engine_tag']}",
        "--build-arg", f"RUNTIME_BASE={target['runtime']['base']['engine_tag']}", "--tag", tag,
    ]  # fmt: skip
    if ca := os.environ.get("SSL_CERT_FILE"):
        command += ["--secret", f"id=ca,src={ca}"]
    return [*command, "."]


def plan_of(bench):
    _, _, plan = run(bench.obgp_build("plan", "--distro", bench.options.distro, "--json"))
    return json.loads(plan)["images"][0]


def nothing_changed(bench, image, output):
    """A build without changes, against `docker build`."""
    plan = plan_of(bench)
    for platform, target in zip(image["platforms"], plan["targets"], strict=True):
        assert platform["platform"] == target["platform"], "plan and report list the platforms in one order"
        tag = f"obgp-bench:{target['platform'].replace('/', '-')}"
        ours = bench.obgp_build("--distro", bench.options.distro, "--platform", target["platform"], "--tag", "one-platform", "--output", output)
        what = f"nothing changed, {target['platform']}"
        theirs = docker_build(bench, target, tag)
        samples = bench.compare(what, {"obgp-build": (None, ours, None), "docker build": (None, theirs, {"DOCKER_BUILDKIT": "1"})})
        bench.at_most(what, samples["obgp-build"].median, samples["docker build"].median, 1.3)
        run(["docker", "image", "rm", tag])
    remove_images(image, "one-platform")


def same_digest(bench):
    """Builds without cache, twice on this machine's engine and once on the other, have to give the same bytes."""
    other = {"DOCKER_HOST": bench.options.second_engine}
    engines = [("first build", None), ("again", None), ("another engine", other)]
    # An engine may have bases from an older state of the archive; without them, every build uses this machine's cache.
    for environment in (None, other):
        bases = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "obgp-build/base"], environment)[2].split()
        if bases:
            run(["docker", "image", "rm", *bases], environment)
    digests = []
    for name, environment in engines:
        output = bench.work / "again"
        fresh(output)()
        taken, image = bench.build(output, "--no-cache", environment=environment)
        digests.append({"index": image["digest"], **{p["platform"]: p["digest"] for p in image["platforms"]}})
        progress(f"  --no-cache, {name}: {taken:.0f} s, {image['digest']}")
    bench.samples["--no-cache"] = digests
    for what, one, other in ("two --no-cache builds", 0, 1), ("this engine and the other", 0, 2):
        for subject, digest in digests[one].items():
            same = digest == digests[other][subject]
            bench.figures.append(Figure(f"{what}: {subject}", digest[7:19], digests[other][subject][7:19], "same" if same else "differ", "same", same))


def docker_with_buildkit():
    """A docker command that can build with BuildKit; newer ones need the buildx plugin for it."""
    for candidate in shutil.which("docker"), "/usr/bin/docker":
        if candidate and subprocess.run([candidate, "build", "--help"], capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "1"}).returncode == 0:
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            major = int(re.search(r"version (\d+)", version)[1])
            if major < 23 or subprocess.run([candidate, "buildx", "version"], capture_output=True).returncode == 0:
                return [candidate]
    sys.exit("bench: no docker command here can use BuildKit; install docker-buildx (or docker-buildx-plugin of docker.com)")
