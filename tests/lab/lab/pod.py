"""Runs the documented pod (pod.yaml) on a node: what kubelet and containerd do, as far as that manifest asks for it.

Each container is crun's, with the masked and read-only paths, the capabilities and the device rules that containerd gives an
unprivileged one. A host path below /run, /var or /etc is the node's own (/nodes/NAME).
"""

import copy
import json
import os
import pathlib
import shutil
import signal
import time

import yaml

from .shell import LOGS, daemon, run

MANIFEST = pathlib.Path("/run/lab/pod.yaml")
AGENT, FRR = pathlib.Path("/run/image"), pathlib.Path("/run/frr")
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
          "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# containerd's default capabilities.
DEFAULT_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
                        "SYS_CHROOT", "KILL", "AUDIT_WRITE"]


def documents():
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def environment(**values):
    """A change of the manifest: these variables for frr-init and the agent."""
    def change(spec):
        for container in [*spec["initContainers"], *(one for one in spec["containers"] if one["name"] == "ovn-bgp-agent")]:
            container["env"] = [entry for entry in container.get("env", []) if entry["name"] not in values]
            container["env"] += [{"name": name, "value": value} for name, value in values.items()]
    return change


class Pod:
    """One pod on one node. `change` may edit the manifest's spec before anything starts, `settings` the agent's configuration."""

    def __init__(self, node, settings=None, mapping=None, change=None, image_change=None):
        self.node, self.settings, self.image_change = node, settings or {}, image_change
        everything = documents()
        self.config_maps = {document["metadata"]["name"]: document["data"] for document in everything if document["kind"] == "ConfigMap"}
        self.spec = copy.deepcopy(next(document["spec"] for document in everything if document["kind"] == "Pod"))
        self._configure(mapping)
        if change:
            change(self.spec)
        self.home = pathlib.Path("/run/pods") / node.name
        self.volumes, self.running = {}, {}

    def _configure(self, mapping):
        lines = []
        for line in self.config_maps["ovn-bgp-agent"]["ovn-bgp-agent.conf"].splitlines():
            line = line.replace("192.0.2.10", "10.9.0.1")
            key = line.partition("=")[0].strip()
            if "=" in line and key in self.settings:
                continue
            lines.append(line)
            if line == "[DEFAULT]":
                lines += [f"{key} = {value}" for key, value in self.settings.items() if "." not in key]
                lines += ["default_log_levels = oslo.privsep.daemon=DEBUG", "debug = True"]
        for key, value in self.settings.items():
            if "." in key:
                section, _, name = key.partition(".")
                lines += [f"[{section}]", f"{name} = {value}"]
        self.config_maps["ovn-bgp-agent"]["ovn-bgp-agent.conf"] = "\n".join(lines) + "\n"
        if mapping:
            self.config_maps["asn-mapping"]["mapping.json"] = json.dumps(mapping)

    # --- start and end --------------------------------------------------------------------------------------------------

    def start(self):
        """Runs the init containers, then starts the others. Returns the first failed init container's result, or None."""
        shutil.rmtree(self.home, ignore_errors=True)
        for name in [container["name"] for container in [*self.spec.get("initContainers", []), *self.spec["containers"]]]:
            # What an earlier pod said is kept under another name: it is not this one's.
            log = LOGS / f"{self.node.name}-{name}.log"
            if log.exists():
                log.rename(log.with_suffix(f".until-{int(time.monotonic())}.log"))
        for volume in self.spec["volumes"]:
            self.volumes[volume["name"]] = self._volume(volume)
        for container in self.spec.get("initContainers", []):
            result = self._run_to_end(container)
            if result.code:
                return result
        for container in self.spec["containers"]:
            self.start_container(container["name"])
        return None

    def start_container(self, name):
        container = next(one for one in self.spec["containers"] if one["name"] == name)
        bundle = self._bundle(container)
        identifier = f"{self.node.name}-{name}"
        run(["crun", "delete", "--force", identifier], check=False)
        self.running[name] = daemon(identifier, ["crun", "run", "--bundle", bundle, "--pid-file", bundle / "pid", identifier])

    def exec(self, name, *command, timeout=60):
        """A command in a container, with the container's user and capabilities, as kubelet's exec probes."""
        return run(["crun", "exec", f"{self.node.name}-{name}", *command], check=False, timeout=timeout)

    def health(self, what):
        return self.exec("ovn-bgp-agent", "obgp-runtime", "health", what)

    def pid(self, name):
        return int((self.home / name / "pid").read_text())

    def kill(self, name, signal_number=signal.SIGTERM, timeout=30):
        """Sends the signal to the container's first process and waits. The exit code, or None when it goes on."""
        run(["crun", "kill", f"{self.node.name}-{name}", str(int(signal_number))], check=False)
        try:
            return self.running[name].wait(timeout)
        except Exception:
            return None

    def stop(self):
        for name in reversed(list(self.running)):
            if self.kill(name, timeout=self.spec["terminationGracePeriodSeconds"]) is None:
                self.kill(name, signal.SIGKILL)
            run(["crun", "delete", "--force", f"{self.node.name}-{name}"], check=False)
            self._unmount(name)
        self.running = {}

    def log(self, name):
        path = LOGS / f"{self.node.name}-{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self, name, pattern):
        """PIDs, in the machine, of the container's processes whose command line has the pattern."""
        cgroup = pathlib.Path(f"/proc/{self.pid(name)}/cgroup").read_text().strip().rpartition(":")[2]
        found = []
        for pid in (pathlib.Path("/sys/fs/cgroup") / cgroup.lstrip("/") / "cgroup.procs").read_text().split():
            command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if pattern in command:
                found.append(int(pid))
        return found

    # --- the container --------------------------------------------------------------------------------------------------

    def _run_to_end(self, container):
        bundle = self._bundle(container)
        identifier = f"{self.node.name}-{container['name']}"
        run(["crun", "delete", "--force", identifier], check=False)
        result = run(["crun", "run", "--bundle", bundle, identifier], check=False, timeout=180)
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"{identifier}.log").write_text(result.output)
        self._unmount(container["name"])
        return result

    def _unmount(self, name):
        run(["umount", "-l", self.home / name / "rootfs"], check=False)

    def _bundle(self, container):
        bundle = self.home / container["name"]
        self._unmount(container["name"])
        for directory in ("upper", "work", "rootfs"):
            shutil.rmtree(bundle / directory, ignore_errors=True)
            (bundle / directory).mkdir(parents=True)
        agent = "ovn-bgp-agent" in container["image"]
        lower = AGENT / "rootfs" if agent else FRR
        run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={bundle}/upper,workdir={bundle}/work", bundle / "rootfs"])
        if agent and self.image_change:
            self.image_change(bundle / "rootfs")
        image = json.loads((AGENT / "config.json").read_text()) if agent else {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        (bundle / "config.json").write_text(json.dumps(self._oci(container, image), indent=1))
        return bundle

    def _oci(self, container, image):
        security = container.get("securityContext", {})
        wanted = security.get("capabilities", {})
        capabilities = [] if "ALL" in wanted.get("drop", []) else [one for one in DEFAULT_CAPABILITIES if one not in wanted.get("drop", [])]
        capabilities = [f"CAP_{one}" for one in dict.fromkeys(capabilities + wanted.get("add", []))]
        user = int(security.get("runAsUser", (image.get("User") or "0").partition(":")[0]))
        pod = self.spec.get("securityContext", {})
        groups = [*pod.get("supplementalGroups", []), *([pod["fsGroup"]] if "fsGroup" in pod else [])]
        # A process that is not root starts without effective capabilities: the added ones bound what its children may get.
        effective = capabilities if user == 0 else []
        env = [*image.get("Env", []), *(f"{entry['name']}={self._value(entry)}" for entry in container.get("env", []))]
        return {
            "ociVersion": "1.0.2", "hostname": self.node.name,
            "process": {
                "user": {"uid": user, "gid": user, "additionalGids": groups}, "cwd": "/", "env": env,
                "args": container.get("command") or [*image["Entrypoint"], *container.get("args", [])],
                "capabilities": {"bounding": capabilities, "effective": effective, "permitted": effective, "inheritable": []},
                "noNewPrivileges": not security.get("allowPrivilegeEscalation", True), "oomScoreAdj": 0,
            },
            "root": {"path": "rootfs", "readonly": bool(security.get("readOnlyRootFilesystem"))},
            "mounts": self._mounts(container),
            "linux": {
                "namespaces": [*([] if self.spec.get("hostPID") else [{"type": "pid"}]), {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
                               {"type": "network", "path": f"/var/run/netns/{self.node.name}"}],
                "maskedPaths": MASKED, "readonlyPaths": READ_ONLY, "cgroupsPath": f"/{self.node.name}-{container['name']}",
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }

    def _value(self, entry):
        field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        return {"spec.nodeName": self.node.name, "status.hostIP": self.node.address}[field] if field else entry["value"]

    def _mounts(self, container):
        options = ["nosuid", "noexec", "nodev"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": options},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*options, "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", *options, "ro"]},
        ]
        for mount in container.get("volumeMounts", []):
            mounts.append({"destination": mount["mountPath"], "type": "bind", "source": str(self.volumes[mount["name"]]),
                           "options": ["rbind", "rprivate", "ro" if mount.get("readOnly") else "rw"]})
        return sorted(mounts, key=lambda mount: mount["destination"].count("/"))

    def _volume(self, volume):
        directory = self.home / "volumes" / volume["name"]
        if "hostPath" in volume:
            path = volume["hostPath"]["path"]
            return pathlib.Path(path) if path.startswith(("/proc/", "/lib/")) else self.node.home / path.removeprefix("/var").lstrip("/")
        directory.mkdir(parents=True)
        if "configMap" in volume:
            for name, text in self.config_maps[volume["configMap"]["name"]].items():
                (directory / name).write_text(text)
            (directory / "asn-mapping").mkdir(exist_ok=True)
        else:
            # kubelet gives an emptyDir to the pod's fsGroup, with the set-group-ID bit.
            os.chown(directory, 0, self.spec.get("securityContext", {}).get("fsGroup", 0))
            directory.chmod(0o2777)
        return directory

