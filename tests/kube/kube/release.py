"""The chart's release in the cluster, by helm and kubectl as an operator uses them, and its pod on the node."""

import json
import re
import subprocess

from . import fabric
from .shell import Failed, attempt, run, until

NAMESPACE, NAME, MAPPING = "openstack", "ovn-bgp-agent", "ovn-bgp-agent-asn-mapping"
LABEL = "openvswitch=enabled"
# Where a kernel has no VRF devices, the agent ends with this.
NO_VRF = re.compile(r"Operation not supported on interface bgp-vrf|Error starting thread")


def values(images, preflight):
    """The operator's file: the site's images and connections. All else are the chart's defaults."""
    tags = {"ovn_bgp_agent": images["agent"], "image_repo_sync": images["agent"], "frr": images["frr"],
            "frr_exporter": images["frr-exporter-stand-in"], "dep_check": images["kubernetes-entrypoint-stand-in"]}
    # One connection is a name, which the pod resolves; the other is an address.
    databases = {"ovn_ovsdb_nb": ("localhost", fabric.NB_PORT), "ovn_ovsdb_sb": ("127.0.0.1", fabric.SB_PORT)}
    return {
        "images": {"tags": tags},
        "bgp": {"asn_mapping": {fabric.SUBNET: fabric.LEAF_ASN}, "preflight": preflight},
        "endpoints": {name: {"host_fqdn_override": {"default": host}, "port": {"ovsdb": {"default": port}}} for name, (host, port) in databases.items()},
    }


class Release:
    def __init__(self, chart, images, output):
        self.chart, self.images, self.output = chart, images, output
        self.files = 0
        # What differs from the operator's file: "" is nothing.
        self.change = ""

    def _values(self, preflight):
        self.files += 1
        path = self.output / f"values-{self.files}.json"
        path.write_text(json.dumps(values(self.images, preflight), indent=1))
        return path

    def installed(self):
        return attempt("helm", "status", NAME, "--namespace", NAMESPACE).code == 0

    def install(self, *options, preflight="warn"):
        run("helm", "install", NAME, self.chart, "--namespace", NAMESPACE, "--create-namespace", "--values", self._values(preflight), *options)
        self.change = ""

    def upgrade(self, *options):
        """As an operator changes one setting: `helm upgrade --reuse-values --set …`."""
        run("helm", "upgrade", NAME, self.chart, "--namespace", NAMESPACE, "--reuse-values", *options)
        self.change = "options"

    def reset(self):
        """Back to the operator's file."""
        run("helm", "upgrade", NAME, self.chart, "--namespace", NAMESPACE, "--reset-values", "--values", self._values("warn"))
        self.change = ""

    def rollback(self, *options):
        run("helm", "rollback", NAME, "--namespace", NAMESPACE, *options)

    def revision(self):
        return json.loads(run("helm", "status", NAME, "--namespace", NAMESPACE, "--output", "json"))["version"]

    def status(self):
        return json.loads(run("helm", "status", NAME, "--namespace", NAMESPACE, "--output", "json"))["info"]["status"]

    def uninstall(self):
        run("helm", "uninstall", NAME, "--namespace", NAMESPACE, "--wait", "--timeout", "90s")

    def label(self, on=True):
        run("kubectl", "label", "node", "node", "--overwrite", LABEL if on else LABEL.split("=")[0] + "-")


def kubectl(*words, stdin=None):
    return run("kubectl", "--namespace", NAMESPACE, *words, stdin=stdin)


def objects(kind, *words):
    return json.loads(kubectl("get", kind, "--output", "json", *words))["items"]


def daemonset():
    return json.loads(kubectl("get", "daemonset", NAME, "--output", "json"))


def pods():
    return objects("pods", "--selector", "application=ovn-bgp-agent,component=agent")


class Pod:
    """One pod of the DaemonSet."""

    def __init__(self, item):
        self.name, self.uid = item["metadata"]["name"], item["metadata"]["uid"]

    def item(self):
        return json.loads(kubectl("get", "pod", self.name, "--output", "json"))

    def status(self, container):
        status = self.item()["status"]
        for entry in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
            if entry["name"] == container:
                return entry
        raise Failed(f"{self.name} has no container {container}")

    def log(self, container, previous=False):
        done = attempt("kubectl", "--namespace", NAMESPACE, "logs", self.name, "--container", container, *(["--previous"] if previous else []))
        return done.output + done.errors

    def exec(self, container, *words):
        return attempt("kubectl", "--namespace", NAMESPACE, "exec", self.name, "--container", container, "--", *words)

    def container_id(self, container):
        return self.status(container)["containerID"].removeprefix("docker://")

    def process(self, container):
        return run("docker", "inspect", "--format", "{{.State.Pid}}", self.container_id(container)).strip()

    def vtysh(self, *commands):
        done = self.exec("frr", "vtysh", *[word for command in commands for word in ("-c", command)])
        if done.code:
            raise Failed(f"vtysh in the pod: {done}")
        return done.output

    def peers(self, family="ipv4 unicast"):
        text = self.vtysh(f"show bgp {family} summary json")
        found = json.JSONDecoder().raw_decode(text.lstrip() or "{}")[0]
        return {name: peer["state"] for name, peer in found.get("peers", {}).items()}

    def remote_as(self, peer):
        neighbor = json.JSONDecoder().raw_decode(self.vtysh(f"show bgp neighbors {peer} json").lstrip())[0]
        return next(iter(neighbor.values()))["remoteAs"]

    def configuration(self):
        done = self.exec("frr", "cat", "/etc/frr/frr.conf")
        if done.code:
            raise Failed(f"frr.conf in the pod: {done}")
        return done.output

    def events(self):
        found = [event for event in objects("events") if event["involvedObject"].get("uid") == self.uid]
        return [f"{event['reason']}: {event.get('message', '')} {event['involvedObject'].get('fieldPath', '')}" for event in found]


def new_pod(other=None, timeout=90):
    """The DaemonSet's only pod, when it is not `other`."""
    def probe():
        found = pods()
        return len(found) == 1 and found[0]["metadata"]["uid"] != (other.uid if other else "") and "deletionTimestamp" not in found[0]["metadata"] and Pod(found[0])
    return until("there is one new pod", probe, timeout)


def has_vrf():
    """Whether this kernel makes VRF devices: found by making one in a network namespace of its own."""
    return subprocess.run(["unshare", "--net", "ip", "link", "add", "probe", "type", "vrf", "table", "1000"], capture_output=True, check=False).returncode == 0
