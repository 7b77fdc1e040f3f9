"""The DaemonSet's pod: contexts, mounts, probes, hooks, names; and the ConfigMap with the ASNs."""

import json

from chart import RELEASE
from runner import check

# The smallest contexts that work: user, privilege escalation, added capabilities. The image's README.rst has the reasons.
CONTEXTS = {
    "init": (65534, False, set()),
    "init-frr-config": (42494, False, set()),
    "frr": (0, False, {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "KILL"}),
    "ovn-bgp-agent": (42494, True, {"NET_ADMIN", "SYS_ADMIN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "SETUID", "SETGID"}),
    "frr-exporter": (100, False, set()),
}
MONITORED = ("--set", "monitoring.prometheus.enabled=true")
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


@check("each container has the smallest context that works, and none is privileged")
def contexts(context):
    rendering = context.chart.render(*MONITORED)
    pod = rendering.pod()
    containers = {container["name"]: container["securityContext"] for container in pod["initContainers"] + pod["containers"]}
    assert containers.keys() == CONTEXTS.keys(), containers.keys()
    for name, (user, escalation, capabilities) in CONTEXTS.items():
        seen = containers[name]
        assert seen["runAsUser"] == user, f"{name}: user {seen['runAsUser']}"
        assert seen["allowPrivilegeEscalation"] is escalation, f"{name}: allowPrivilegeEscalation"
        assert seen["readOnlyRootFilesystem"] is True, f"{name}: the root file system is writable"
        assert seen["capabilities"]["drop"] == ["ALL"] and set(seen["capabilities"].get("add", [])) == capabilities, f"{name}: {seen['capabilities']}"
        assert not seen.get("privileged"), f"{name} is privileged"
        assert user == 0 or seen["runAsNonRoot"] is True, f"{name}: runAsNonRoot"
    assert set(pod["securityContext"]["supplementalGroups"]) == {42424, 102} and pod["securityContext"]["fsGroup"] == 101
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["hostNetwork"] is True and not {"hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    return f"{len(containers)} containers"


@check("only the container that asks the API server has the ServiceAccount's token")
def token(context):
    pod = context.chart.render(*MONITORED).pod()
    assert pod["automountServiceAccountToken"] is False
    holders = [c["name"] for c in pod["initContainers"] + pod["containers"] if any(m["mountPath"] == TOKEN for m in c.get("volumeMounts", []))]
    assert holders == ["init"], holders


@check("every mount has a volume, every volume a mount, and the writable host paths are the known ones")
def volumes(context):
    writable = {}
    for name, rendering in context.renderings().items():
        for daemonset in rendering.all("DaemonSet"):
            pod = daemonset["spec"]["template"]["spec"]
            defined = {volume["name"]: volume for volume in pod["volumes"]}
            assert len(defined) == len(pod["volumes"]), f"{name}: a volume occurs twice"
            mounts = [(c["name"], mount) for c in pod["initContainers"] + pod["containers"] for mount in c.get("volumeMounts", [])]
            used = {mount["name"] for _, mount in mounts}
            assert used <= defined.keys(), f"{name}: no volume for {used - defined.keys()}"
            # A site's extraVolumes are for its extraContainers.
            assert defined.keys() - used <= {"more"}, f"{name}: nothing mounts {defined.keys() - used}"
            for container, mount in mounts:
                assert "subPath" not in mount, f"{name}: {mount} does not follow changes"
                host = defined[mount["name"]].get("hostPath")
                if host and not mount.get("readOnly"):
                    writable.setdefault(host["path"], set()).add(container)
    both = {"init-frr-config", "ovn-bgp-agent"}
    expected = {"/proc/sys/net": both, "/run/openvswitch": {"ovn-bgp-agent"}, "/run/ovn": {"ovn-bgp-agent"}, "/run/frr": {"ovn-bgp-agent"}}
    assert writable == expected, writable
    return f"writable host paths: {', '.join(sorted(writable))}"


@check("liveness never depends on sessions, and every probe can be changed and switched off")
def probes(context):
    rendering = context.chart.render(*MONITORED)
    agent, frr = rendering.container("ovn-bgp-agent"), rendering.container("frr")
    for kind, argument in (("startup", "startup"), ("liveness", "live"), ("readiness", "ready")):
        assert agent[f"{kind}Probe"]["exec"]["command"] == ["obgp-runtime", "health", argument]
    for kind in ("startup", "liveness", "readiness"):
        shown = " ".join(frr[f"{kind}Probe"]["exec"]["command"])
        assert "show version" in shown and "-d bgpd" in shown, shown
    assert "-d zebra" in " ".join(frr["livenessProbe"]["exec"]["command"])
    names = {"frr": "frr", "ovn_bgp_agent": "ovn-bgp-agent", "frr_exporter": "frr-exporter"}
    for key, name in names.items():
        for kind in ("startup", "liveness", "readiness"):
            path = f"pod.probes.ovn_bgp_agent.{key}.{kind}"
            changed = context.chart.render(*MONITORED, "--set", f"{path}.enabled=true,{path}.params.periodSeconds=77").container(name)
            assert changed[f"{kind}Probe"]["periodSeconds"] == 77, f"{path}.params has no effect"
            assert f"{kind}Probe" not in context.chart.render(*MONITORED, "--set", f"{path}.enabled=false").container(name), f"{path}.enabled has no effect"


@check("the ASNs' ConfigMap is a hook before the installation and one after the removal, and nothing else")
def asn_hooks(context):
    rendering = context.chart.render("--set", "bgp.asn_mapping.10\\.0\\.0\\.0/24=65001")
    hooks = {document["metadata"]["annotations"]["helm.sh/hook"]: document for document in rendering.all("ConfigMap") if "asn" in document["metadata"]["name"]}
    assert hooks.keys() == {"pre-install,pre-upgrade", "post-delete"}, hooks.keys()
    created, removed = hooks["pre-install,pre-upgrade"], hooks["post-delete"]
    assert created["metadata"]["name"] == removed["metadata"]["name"]
    # before-hook-creation or hook-succeeded would delete the site's ASNs at the next upgrade.
    assert created["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "hook-failed"
    assert removed["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert removed["data"] == {} and json.loads(created["data"]["mapping.json"]) == {"10.0.0.0/24": "65001"}
    mounted = next(volume for volume in rendering.pod()["volumes"] if volume["name"] == "asn-mapping")
    assert mounted["configMap"]["name"] == created["metadata"]["name"]
    existing = context.chart.render("--set", "bgp.asn_mapping_existing=site-asns")
    assert [volume["configMap"]["name"] for volume in existing.pod()["volumes"] if volume["name"] == "asn-mapping"] == ["site-asns"]
    assert not [document for document in existing.all("ConfigMap") if "asn" in document["metadata"]["name"]]


@check("the DaemonSet is called ovn-bgp-agent, and with overrides there is one for each label, on disjoint nodes")
def names(context):
    assert context.chart.render().find("DaemonSet")["metadata"]["name"] == "ovn-bgp-agent"
    selectors = {}
    for daemonset in context.renderings()["labels"].all("DaemonSet"):
        affinity = daemonset["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = affinity["nodeSelectorTerms"]
        selectors[daemonset["metadata"]["name"]] = {(e["key"], e["operator"]) for e in term["matchExpressions"]}
        volumes = {volume["name"]: volume for volume in daemonset["spec"]["template"]["spec"]["volumes"]}
        assert volumes["ovn-bgp-agent-etc"]["secret"]["secretName"] == f"{daemonset['metadata']['name']}-etc"
    assert len(selectors) == 3 and "ovn-bgp-agent-agent-default" in selectors, selectors
    for name, selector in selectors.items():
        for other, theirs in selectors.items():
            flipped = {(key, {"In": "NotIn", "NotIn": "In"}.get(operator)) for key, operator in theirs}
            assert name == other or selector & flipped, f"{name} and {other} can select the same node"
    return ", ".join(sorted(selectors))


@check("a change of the configuration changes the pods, and a change of the ASNs does not")
def rollout(context):
    def template(*arguments):
        return context.chart.render(*arguments).find("DaemonSet")["spec"]["template"]

    default = template()
    assert template("--set", "conf.ovn_bgp_agent.DEFAULT.debug=true") != default
    assert template("--set", "bgp.extra_config=x")["metadata"] != default["metadata"]
    assert template("--set", "conf.scripts.a=x")["metadata"]["annotations"] != default["metadata"]["annotations"]
    assert template("--set", "bgp.asn_mapping.10\\.0\\.0\\.0/24=65001") == default


@check("the drain ends before FRR does, and the pod has the time for it")
def drain(context):
    assert not any("lifecycle" in container for container in context.chart.render().pod()["containers"])
    rendering = context.chart.render("--set", "bgp.drain.enabled=true,bgp.drain.wait_seconds=30")
    agent = rendering.container("ovn-bgp-agent")["lifecycle"]["preStop"]["exec"]["command"]
    frr = rendering.container("frr")["lifecycle"]["preStop"]["exec"]["command"]
    assert agent == ["obgp-runtime", "drain", "--wait", "30"] and frr[0] == "sleep"
    # The sessions are shut down within 5 s after the wait.
    assert int(frr[1]) >= 35 and rendering.pod()["terminationGracePeriodSeconds"] > int(frr[1])
    longer = context.chart.render("--set", "bgp.drain.enabled=true,pod.lifecycle.termination_grace_period.ovn_bgp_agent.timeout=90")
    assert longer.pod()["terminationGracePeriodSeconds"] == 90


@check("the ServiceAccount's name and the commands can be changed, and FRR can be the node's")
def choices(context):
    named = context.chart.render("--set", "service_account.name=bgp")
    assert named.find("ServiceAccount")["metadata"]["name"] == named.pod()["serviceAccountName"] == "bgp"
    assert named.find("RoleBinding")["subjects"][0]["name"] == "bgp"
    custom = context.chart.render("--set", "pod.command.init_frr_config={sh,/scripts/init.sh},conf.scripts.init\\.sh=exit")
    container = custom.container("init-frr-config")
    assert container["command"] == ["sh", "/scripts/init.sh"] and any(mount["mountPath"] == "/scripts" for mount in container["volumeMounts"])
    outside = context.chart.render("--set", "bgp.enabled=false", *MONITORED).pod()
    assert [container["name"] for container in outside["containers"]] == ["ovn-bgp-agent"]
    assert {"name": "run-frr", "hostPath": {"path": "/run/frr", "type": "Directory"}} in outside["volumes"]
    privileged = "pod.security_context.ovn_bgp_agent.container.ovn_bgp_agent.privileged=true"
    assert context.chart.render("--set", privileged).container("ovn-bgp-agent")["securityContext"]["privileged"] is True


@check("every optional manifest can be switched on and off")
def manifests(context):
    switches = {
        "configmap_asn": "ConfigMap/ovn-bgp-agent-asn-mapping",
        "configmap_bin": "ConfigMap/ovn-bgp-agent-bin",
        "daemonset_ovn_bgp_agent": "DaemonSet/ovn-bgp-agent",
        "job_image_repo_sync": "Job/ovn-bgp-agent-image-repo-sync",
        "network_policy": "NetworkPolicy/ovn-bgp-agent-netpol",
        "pdb": "PodDisruptionBudget/ovn-bgp-agent",
        "priorityclass": "PriorityClass/ovn-bgp-agent",
        "secret_etc": "Secret/ovn-bgp-agent-etc",
        "secret_registry": "Secret/ovn-bgp-agent-oci-image-registry-key",
        "serviceaccount": "ServiceAccount/ovn-bgp-agent",
    }
    needed = ("--set", "images.local_registry.active=true,endpoints.oci_image_registry.auth.enabled=true")
    for switch, document in switches.items():
        for wanted in (True, False):
            rendering = context.chart.render(*needed, "--set", f"manifests.{switch}={str(wanted).lower()}")
            found = {f"{d['kind']}/{d['metadata']['name']}" for d in rendering.documents}
            assert (document in found) is wanted, f"manifests.{switch}={wanted}: {sorted(found)}"
    pod = context.chart.render("--set", "manifests.priorityclass=true").pod()
    assert pod["priorityClassName"] == "ovn-bgp-agent"
    assert RELEASE in context.chart.render("--set", "manifests.pdb=true").find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].values()
    return f"{len(switches)} manifests"
