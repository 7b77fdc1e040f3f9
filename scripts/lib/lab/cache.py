"""Makes the root file systems of the machine and of the FRR container, once for each content.

Input: a suite, an architecture, the packages. Output: a directory, or an ext4 image of it, in the cache; its name holds the
hash of everything that it is made from. What is there is reused; a new one appears under its name when it is complete.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

CACHE = pathlib.Path(os.environ["LAB_CACHE"])
MIRROR = os.environ.get("OBGP_DEBIAN_MIRROR", "http://deb.debian.org/debian")

MACHINE_PACKAGES = [
    "kmod", "iproute2", "iputils-ping", "iputils-arping", "procps", "python3-minimal", "python3-yaml", "crun",
    "openvswitch-switch", "ovn-central", "ovn-host", "frr", "iptables", "ca-certificates",
]
# The suite whose package is that release of FRR.
FRR_SUITES = {"8.4": "bookworm", "10.3": "trixie"}
# FRR's own container images start so.
FRR_START = """#!/bin/sh
. /usr/lib/frr/frrcommon.sh
exec /usr/lib/frr/watchfrr $(daemon_list)
"""


def machine(architecture):
    """The machine's disk (ext4, read-only use) and its kernel."""
    packages = [*MACHINE_PACKAGES, f"linux-image-cloud-{architecture}"]
    # `init` mounts the disk with the lab's programs, which changes more often than the machine.
    init = pathlib.Path(__file__).with_name("init").read_text()
    home = _made(["trixie", architecture, *packages, init], f"machine-{architecture}", lambda new: _machine(new, architecture, packages, init))
    return home / "root.img", home / "vmlinuz"


def frr(release, architecture):
    """The disk of an FRR container (ext4), started as FRR's own images are."""
    suite = FRR_SUITES[release]

    def make(new):
        _mmdebstrap(suite, architecture, ["frr"], new / "root")
        start = new / "root/usr/lib/frr/docker-start"
        start.write_text(FRR_START)
        start.chmod(0o755)
        # The number that pod.yaml names, as it is in FRR's own images.
        subprocess.run(["chroot", str(new / "root"), "groupmod", "--gid", "102", "frrvty"], check=True)
        ext4(new / "root", new / "root.img", "768M")
        shutil.rmtree(new / "root")
    return _made([suite, architecture, FRR_START, "ext4"], f"frr-{release}-{architecture}", make) / "root.img"


def _made(content, name, make):
    home = CACHE / f"{name}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"
    if home.is_dir():
        return home
    print(f"  making {name}", file=sys.stderr, flush=True)
    new = home.with_name(home.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    make(new)
    new.rename(home)
    for older in CACHE.glob(f"{name}-*"):
        if older != home and not older.name.endswith(".new"):
            shutil.rmtree(older, ignore_errors=True)
    return home


def _machine(new, architecture, packages, init):
    root = new / "root"
    _mmdebstrap("trixie", architecture, packages, root)
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    for kernel in (root / "boot").glob("vmlinuz-*"):
        shutil.move(kernel, new / "vmlinuz")
    ext4(root, new / "root.img", "2560M")
    shutil.rmtree(root)


def _mmdebstrap(suite, architecture, packages, directory):
    log = directory.with_name("mmdebstrap.log")
    # Neither manuals nor an initramfs: the root's driver is in the kernel.
    command = [
        "mmdebstrap", "--variant=minbase", f"--architectures={architecture}", "--include=" + ",".join(packages),
        "--aptopt=Acquire::Languages \"none\"", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*", suite, str(directory), MIRROR,
    ]
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, "INITRD": "No"}, check=False)
    if done.returncode:
        raise SystemExit(f"making Debian {suite} for {architecture}: mmdebstrap failed\n{log.read_text()[-2000:]}")


def ext4(directory, image, size):
    """An ext4 image with what is in the directory, owners and modes kept."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(directory), str(image), size], check=True, stdout=subprocess.DEVNULL)
