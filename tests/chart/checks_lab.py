"""scripts/lab can run the rendered pod: its own reader of manifests turns it into containers."""

import json
import os
import pathlib
import sys
import types

import lab_pod
from chart import CASES, PROJECT
from runner import Skip, check

sys.path.insert(0, str(PROJECT / "tests/lab"))
from lab import pod as lab  # noqa: E402

NODE = types.SimpleNamespace(name="n1", address="10.1.0.11", home=pathlib.Path("/nodes/n1"))


@check("the lab makes the rendered pod's containers: users, capabilities, mounts, commands, variables")
def lab_containers(context):
    if os.geteuid():
        raise Skip("the lab gives its volumes to groups, which needs root")
    rendering = context.chart.render(files=[CASES / "lab.yaml"])
    lab.MANIFEST = context.scratch / "pod.yaml"
    lab.MANIFEST.write_text(lab_pod.manifest(rendering))
    pod = lab.Pod(NODE, mapping={"10.1.0.0/16": 65001})
    pod.home = context.scratch / "pods"
    pod.volumes = {volume["name"]: pod._volume(volume) for volume in pod.spec["volumes"]}
    assert json.loads((pod.volumes["asn-mapping"] / "mapping.json").read_text()) == {"10.1.0.0/16": 65001}
    assert "tcp:10.9.0.1:6641" in (pod.volumes["config"] / "ovn-bgp-agent.conf").read_text()
    containers = pod.spec["initContainers"] + pod.spec["containers"]
    for container in containers:
        name = next((theirs for theirs, ours in lab_pod.CONTAINERS.items() if ours == container["name"]), container["name"])
        rendered = rendering.container(name)
        made = pod._oci(container, {"Env": []})
        process, context_ = made["process"], rendered["securityContext"]
        assert process["args"] == rendered["command"], name
        assert process["user"]["uid"] == context_["runAsUser"] and set(process["user"]["additionalGids"]) == {42424, 102, 996}, name
        assert process["capabilities"]["bounding"] == [f"CAP_{one}" for one in context_["capabilities"].get("add", [])], name
        assert process["noNewPrivileges"] is not context_["allowPrivilegeEscalation"] and made["root"]["readonly"] is True, name
        mounts = {mount["destination"]: mount for mount in made["mounts"]}
        for mount in rendered["volumeMounts"]:
            assert ("ro" in mounts[mount["mountPath"]]["options"]) is mount.get("readOnly", False), f"{name}: {mount}"
        variables = dict(variable.split("=", 1) for variable in process["env"])
        assert all(variables[variable["name"]] == variable["value"] for variable in rendered.get("env", []) if "value" in variable), name
    assert mounts["/run/obgp/sysctl"]["source"] == "/proc/sys/net" and mounts["/run/openvswitch"]["source"] == "/nodes/n1/run/openvswitch"
    return f"{len(containers)} containers"
