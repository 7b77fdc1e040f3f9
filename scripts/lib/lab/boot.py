"""Boots the machine under QEMU and follows what it reports.

Input: the disks, the arguments for the programs in the machine. Output: the machine's reports, JSON objects one a line on its
second serial line, as they arrive. The first line is the kernel's console; the third is a shell.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import cache

PROJECT = pathlib.Path(__file__).resolve().parents[3]
MACHINES = {
    "amd64": (["-machine", "q35", "-cpu", "max"], "ttyS0", "ttyS1", "ttyS2"),
    "arm64": (["-machine", "virt", "-cpu", "cortex-a72"], "ttyAMA0", "hvc0", "hvc1"),
}


def modules():
    """QEMU's loadable parts, its TCG among them."""
    return next((pathlib.Path(os.environ["LAB_QEMU"]).parent / "root/usr/lib").glob("*/qemu"))


class Machine:
    def __init__(self, architecture, disks, arguments, memory, directory, manifest):
        self.architecture = architecture
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.reports, self.console = directory / "reports", directory / "console.log"
        self.reports.write_bytes(b"")
        self.process = subprocess.Popen(self._command({**disks, "lab": self._lab_disk(arguments, manifest)}, memory), stdin=subprocess.DEVNULL,
                                        env={**os.environ, "QEMU_MODULE_DIR": str(modules())})

    def _lab_disk(self, arguments, manifest):
        with tempfile.TemporaryDirectory(prefix="obgp-lab-") as scratch:
            root = pathlib.Path(scratch) / "root"
            shutil.copytree(PROJECT / "tests/lab", root, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(manifest, root / "pod.yaml")
            _, _, reports, shell = MACHINES[self.architecture]
            (root / "arguments.json").write_text(json.dumps({**arguments, "reports": f"/dev/{reports}", "shell": f"/dev/{shell}", "now": time.time()}))
            disk = self.directory / "lab.img"
            disk.unlink(missing_ok=True)
            cache.ext4(root, disk, "16M")
        return disk

    def _command(self, disks, memory):
        machine, console, *_ = MACHINES[self.architecture]
        # Its packages are unpacked, not installed, so it needs their place.
        shared = pathlib.Path(os.environ["LAB_QEMU"]).parent / "root/usr/share"
        firmware = [word for directory in ("qemu", "seabios", "qemu-efi-aarch64") for word in ("-L", str(shared / directory))]
        lines = [f"file,path={self.console}", f"file,path={self.reports}", f"socket,path={self.directory}/shell.sock,server=on,wait=off"]
        command = [
            os.environ["LAB_QEMU"], *firmware, *machine,
            "-accel", "tcg,thread=multi,tb-size=512", "-smp", "2", "-m", str(memory), "-display", "none", "-no-reboot", "-nic", "none",
            "-kernel", str(disks["kernel"]), "-append", f"console={console} root=/dev/nvme0n1 rw quiet panic=-1 init=/init mitigations=off",
        ]
        for number, line in enumerate(lines):
            command += ["-chardev", f"{line},id=line{number}"]
        if self.architecture == "arm64":
            command += ["-serial", "chardev:line0", "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=line1", "-device", "virtconsole,chardev=line2"]
        else:
            command += ["-serial", "chardev:line0", "-serial", "chardev:line1", "-serial", "chardev:line2"]
        for name, path in disks.items():
            if name != "kernel":
                # The kernel has NVMe built in, and numbers several of them in any order; virtio is a module.
                device = "nvme" if name == "root" else "virtio-blk-pci"
                command += ["-drive", f"file={path},if=none,id={name},format=raw,snapshot=on,cache=unsafe", "-device", f"{device},drive={name},serial={name}"]
        return command

    def follow(self, limit):
        """Yields each report. Raises where the machine ends without saying that it is done, or takes longer than the limit."""
        deadline = time.monotonic() + limit
        with self.reports.open("rb") as file:
            pending = b""
            while True:
                ended = self.process.poll() is not None
                pending += file.read()
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    yield json.loads(line)
                if ended:
                    return
                if time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit(f"the machine did not finish within {limit} s; its console is in {self.console}")
                time.sleep(0.1)

    def stop(self):
        self.process.kill()
        self.process.wait()
