"""From a verified layout to a registry. Peers: skopeo, crane, oras and cosign, and a script of all of them for the whole way."""

import shlex
import socket
import subprocess
import time
import urllib.request

from harness import MIB, fresh, run
from image import CONTRACT_FOR_PEER, docker_build, plan_of

PASSWORD = {"COSIGN_PASSWORD": "bench"}


class Registry:
    """docker-registry on loopback, whose storage can be emptied, saved and restored."""

    def __init__(self, directory):
        self.storage, self.kept = directory / "storage", directory / "kept"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.config = directory / "registry.yml"
        directory.mkdir(parents=True)
        self.config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: '{self.storage}'}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{self.address}'}}\n"
        )
        self.process = None

    def __enter__(self):
        self.emptied()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def emptied(self):
        self.stop()
        fresh(self.storage)()
        self.start()

    def keep(self):
        fresh(self.kept)()
        run(["cp", "--archive", self.storage, self.kept])

    def set_back(self):
        self.stop()
        fresh(self.storage)()
        run(["cp", "--archive", "--link", self.kept, self.storage])
        self.start()

    def start(self):
        self.process = subprocess.Popen(["docker-registry", "serve", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("bench: the registry does not start")


def pushes(bench, built, registry):
    """Pushes a layout of two platforms to an empty registry, and to one that already has the image."""
    directory, tag = built["layout"].removeprefix("oci:").rsplit(":", 1)
    # crane pushes every image in a layout's index, so it gets a layout with this image only.
    alone = bench.work / "alone"
    fresh(alone)()
    run(["skopeo", "copy", "--quiet", "--all", built["layout"], f"oci:{alone}:{tag}"])
    name = f"{registry.address}/bench/agent:{tag}"
    commands = {
        "obgp-build": bench.obgp_build("push", built["layout"], name),
        "skopeo": ["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", built["layout"], f"docker://{name}"],
        "crane": ["crane", "push", "--insecure", "--index", alone, name],
        "oras": ["oras", "cp", "--no-tty", "--from-oci-layout", "--to-plain-http", f"{directory}:{tag}", name],
    }
    cold = bench.compare("push, nothing there", {who: (registry.emptied, command, None) for who, command in commands.items()})
    ours = cold.pop("obgp-build")
    best = min(cold, key=lambda who: cold[who].median)
    bench.at_most(f"push, nothing there (peer: {best})", ours.median, cold[best].median, 1.0)
    bench.below("push, nothing there: peak memory", ours.peak, cold[best].peak, 64 * MIB, lambda b: f"{b / MIB:.0f} MiB")
    present = bench.compare("push, all there", {who: (None, command, None) for who, command in commands.items() if who in ("obgp-build", "crane")})
    bench.at_most("push, all there (peer: crane)", present["obgp-build"].median, present["crane"].median, 2.0)


def signatures(bench, built, registry):
    """Signs index and platforms in the layouts of cosign 2 and cosign 3, and verifies them."""
    tag = built["layout"].rsplit(":", 1)[1]
    name = f"{registry.address}/bench/agent"
    keys = bench.work / "keys"
    fresh(keys)()
    keys.mkdir()
    run(["cosign", "generate-key-pair", "--output-key-prefix", keys / "cosign"], PASSWORD)
    # Without transparency log and timestamps, like obgp-build.
    offline = keys / "signing-config.json"
    run([bench.options.cosign_3, "signing-config", "create", "--out", offline])
    registry.emptied()
    run(bench.obgp_build("push", built["layout"], f"{name}:{tag}"))
    registry.keep()
    subjects = [f"{name}@{digest}" for digest in (built["digest"], *(platform["digest"] for platform in built["platforms"]))]
    key, public = keys / "cosign.key", keys / "cosign.pub"
    cosign_2 = ["cosign", "sign", "--yes", "--recursive", "--tlog-upload=false", "--key", key, subjects[0]]
    cosign_3 = [bench.options.cosign_3, "sign", "--yes", "--recursive", "--signing-config", offline, "--key", key, subjects[0]]
    both = "\n".join(shlex.join(map(str, command)) for command in (cosign_2, cosign_3))
    samples = bench.compare(
        "sign",
        {
            "obgp-build": (registry.set_back, bench.obgp_build("sign", subjects[0], "--key", key), PASSWORD),
            "cosign 2 and 3": (registry.set_back, ["sh", "-ec", both], PASSWORD),
            "cosign 2": (registry.set_back, cosign_2, PASSWORD),
        },
    )
    ours = samples["obgp-build"].median
    bench.at_most("sign index and platforms, in both of cosign's layouts (peers: cosign 2 and 3)", ours, samples["cosign 2 and 3"].median, 0.5)
    bench.beside("the same against cosign 2 alone, which makes one of the two", ours, samples["cosign 2"].median)
    registry.set_back()
    run(cosign_2, PASSWORD)
    samples = bench.compare(
        "verify signatures",
        {
            "obgp-build": (None, bench.obgp_build("verify", subjects[0], "--key", public, "--signatures-only"), None),
            "cosign": (None, ["cosign", "verify", "--key", public, "--insecure-ignore-tlog", *subjects], None),
        },
    )
    bench.at_most("verify the signatures of index and platforms (peer: cosign)", samples["obgp-build"].median, samples["cosign"].median, 0.5)
    return key


def whole_way(bench, registry, key):
    """A run without changes from build to signed tag, against a script of docker build, skopeo, container-structure-test and cosign."""
    plan = plan_of(bench)
    tag = plan["tag"]
    ours = bench.obgp_build(
        "--distro", bench.options.distro, "--output", bench.work / "image", "--registry", registry.address, "--image-prefix", "bench",
        "--push", "--sign", key,
    )  # fmt: skip
    script = []
    for target in plan["targets"]:
        name = f"obgp-bench:{target['platform'].replace('/', '-')}"
        check = [
            "container-structure-test", "test", "--driver", "docker", "--platform", target["platform"],
            "--image", name, "--config", str(CONTRACT_FOR_PEER),
        ]  # fmt: skip
        architecture = target["platform"].split("/")[1]
        push = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-daemon:{name}", f"docker://{registry.address}/scripted/agent:{tag}-{architecture}"]
        script += [docker_build(bench, target, name), check, push]
    name = f"{registry.address}/scripted/agent"
    append = ["crane", "index", "append", "--insecure", "--tag", f"{name}:{tag}"]
    for target in plan["targets"]:
        append += ["--manifest", f"{name}:{tag}-{target['platform'].split('/')[1]}"]
    script += [append, ["cosign", "sign", "--yes", "--recursive", "--tlog-upload=false", "--key", key, f"{name}:{tag}"]]
    registry.emptied()
    text = "\n".join(shlex.join(map(str, command)) for command in script)
    samples = bench.compare(
        "nothing changed, the whole way to a signed tag",
        {"obgp-build": (None, ours, PASSWORD), "scripted": (None, ["sh", "-ec", text], {**PASSWORD, "DOCKER_BUILDKIT": "1"})},
        # The peers take minutes.
        runs=1,
    )
    bench.at_most("nothing changed, to a signed tag (peers: docker build, skopeo, container-structure-test, crane, cosign)",
                  samples["obgp-build"].median, samples["scripted"].median, 0.25)  # fmt: skip
