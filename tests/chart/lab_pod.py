"""The rendered DaemonSet -> a manifest for `scripts/lab run --manifest`, in the form of images/ovn-bgp-agent/pod.yaml.

The contexts, commands, variables, mounts and probes stay the chart's. Names become pod.yaml's, because the lab's cases use them; the
Secret becomes a ConfigMap; and the container that waits for other pods goes, with its token: the lab has no API server.
"""

import copy

import yaml

CONTAINERS = {"init-frr-config": "frr-init"}
VOLUMES = {
    "frr-etc": "frr-config",
    "iproute2-etc": "iproute2",
    "node-sysctl": "sysctl",
    "ovn-bgp-agent-etc": "config",
    "pod-shared": "shared",
    "pod-tmp": "tmp",
    "run-frr": "frr-sockets",
    "run-openvswitch": "openvswitch",
}
NEEDS_API = "init"
TOKEN = "api-access"


def manifest(rendering):
    spec = copy.deepcopy(rendering.pod())
    spec["initContainers"] = [container for container in spec["initContainers"] if container["name"] != NEEDS_API]
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != TOKEN]
    for container in spec["initContainers"] + spec["containers"]:
        container["name"] = CONTAINERS.get(container["name"], container["name"])
        for mount in container["volumeMounts"]:
            mount["name"] = VOLUMES.get(mount["name"], mount["name"])
    for volume in spec["volumes"]:
        volume["name"] = VOLUMES.get(volume["name"], volume["name"])
        if volume.pop("secret", None):
            volume["configMap"] = {"name": "ovn-bgp-agent"}
        elif volume["name"] == "asn-mapping":
            volume["configMap"] = {"name": "asn-mapping"}
    documents = [
        config_map("ovn-bgp-agent", {"ovn-bgp-agent.conf": rendering.agent_conf()}),
        config_map("asn-mapping", {"mapping.json": rendering.mapping()}),
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ovn-bgp-agent"}, "spec": spec},
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)


def config_map(name, data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
