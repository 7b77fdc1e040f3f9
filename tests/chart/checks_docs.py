"""README.md, STRUCTURE.md, the overrides and the chart's files agree."""

import json
import re
import shlex
import subprocess

import generated
import yaml
from chart import NAMESPACE, OVERRIDES, PROJECT, RELEASE, SOURCE
from runner import check

README = SOURCE / "README.md"
STRUCTURE = SOURCE / "STRUCTURE.md"
CONFIGMAP_EXAMPLE = SOURCE / "examples/configmap-asn-example.yaml"
# Overrides by what they must differ in.
SCALES = ("small", "medium", "large", "xlarge")
UNITS = {"Mi": 2**20, "Gi": 2**30}


def blocks(path, language):
    """The fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@check("README.md's table and the overrides for prometheus and grafana are those of their sources")
def generated_files(context):
    for path, text in generated.texts().items():
        assert path.is_file() and path.read_text() == text, f"{path.relative_to(PROJECT)} is not current; tests/chart/generated.py writes it"
    return f"{len(generated.texts())} files"


@check("each key of values.yaml is described")
def described(context):
    found = generated.rows((SOURCE / "values.yaml").read_text())
    missing = [path for path, value, description in found if value is not None and not description]
    assert not missing, f"without a comment `# -- …`: {', '.join(missing)}"
    assert all("|" not in description for _, _, description in found), "a vertical bar breaks the table"
    return f"{len(found)} keys"


@check("the overrides for grafana and prometheus have what the charts of that name mount")
def overrides_of_others(context):
    rules = yaml.safe_load(generated.OVERRIDE_OF_PROMETHEUS.read_text())["conf"]["prometheus"]["rules"]
    assert rules == {"ovn_bgp_agent": yaml.safe_load((SOURCE / "files/alerts.yaml").read_text())}
    dashboards = yaml.safe_load(generated.OVERRIDE_OF_GRAFANA.read_text())["conf"]["dashboards"]
    (group,) = dashboards
    # The group is a part of the name of a ConfigMap.
    assert re.fullmatch("[a-z0-9-]+", group), f"grafana-dashboards-{group} is not a name in Kubernetes"
    assert json.loads(dashboards[group]["ovn_bgp_agent"]) == json.loads((SOURCE / "files/dashboard.json").read_text())


@check("README.md's commands of helm render, its values pass the schema, and its tables name files and alerts that exist")
def readme_commands(context):
    text = README.read_text()
    values = yaml.safe_load(blocks(README, "yaml")[0])
    assert context.chart.render_values(values).mapping(), "the example of my-values.yaml"
    options = []
    for line in re.sub(r" \\\n\s*", " ", "\n".join(blocks(README, "console"))).splitlines():
        words = shlex.split(line.removeprefix("$ "))
        if words[:2] == ["helm", "upgrade"]:
            assert words[2] == RELEASE and words[words.index("-n") + 1] == NAMESPACE, line
            options.append(words[words.index("--reuse-values") + 1 :])
    options += [shlex.split(inline) for inline in re.findall(r"^`(--set[^`]*)`", text, re.MULTILINE)]
    assert len(options) == 6, f"4 scenarios and 2 further forms, but there are {len(options)}"
    for words in options:
        assert context.chart.render(*words, files=[OVERRIDES / "example.yaml"]).pod(), words
    named = set(re.findall(r"^\| `(ovn_bgp_agent_\w+)`", text, re.MULTILINE))
    rules = yaml.safe_load((SOURCE / "files/alerts.yaml").read_text())
    severities = {rule["alert"]: rule["labels"]["severity"] for group in rules["groups"] for rule in group["rules"]}
    assert named == set(severities), f"the table of alerts: {named ^ set(severities)}"
    for name, severity in severities.items():
        assert f"| `{name}` | {severity} |" in text, f"{name} is not {severity} in the table"
    mentioned = set(re.findall(r"`([\w.-]+\.yaml)`", text.split("## Test scenarios")[0])) - {"my-values.yaml"}
    assert mentioned == {file.name for file in OVERRIDES.glob("*.yaml")}, "the table of overrides"
    return f"{len(options)} commands"


@check("README.md explains each line of the security contexts")
def security_explained(context):
    text = README.read_text().split("## Security contexts")[1].split("\n## ")[0]
    rendering = context.chart.render("--set", "monitoring.prometheus.enabled=true")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    documented = {(name, word) for where, line in rows for name in re.findall(r"`([\w-]+)`", where) for word in re.findall(r"\w+", line)}
    for container in ("frr", "ovn-bgp-agent"):
        for capability in rendering.container(container)["securityContext"]["capabilities"]["add"]:
            assert (container, capability) in documented, f"{container}: {capability}"
        in_table = {word for name, word in documented if name == container and re.fullmatch(r"[A-Z]+(_[A-Z]+)+|CHOWN|KILL|SETUID|SETGID", word)}
        added = set(rendering.container(container)["securityContext"]["capabilities"]["add"])
        assert in_table == added, f"{container}: README.md has {in_table ^ added}"
    pod = rendering.pod()
    for group in [pod["securityContext"]["fsGroup"], *pod["securityContext"]["supplementalGroups"]]:
        assert str(group) in "".join(line for where, line in rows if where.strip() == "pod"), f"group {group}"
    for container in pod["initContainers"] + pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, container["name"]
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], container["name"]
        assert not container["securityContext"].get("privileged"), container["name"]
    for path in {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}:
        assert f"`{path}`" in text, f"hostPath {path}"


@check("STRUCTURE.md names each file of the chart and nothing else")
def structure(context):
    named = set(re.findall(r"^\| `([^`]+)` \|", STRUCTURE.read_text(), re.MULTILINE))
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "."], cwd=SOURCE, capture_output=True, text=True, check=True)
    files = {line for line in listed.stdout.split() if (SOURCE / line).is_file()}
    assert named == files, f"STRUCTURE.md: {', '.join(sorted(named ^ files))}"
    return f"{len(files)} files"


@check("the overrides do what their names say")
def override_contents(context):
    renderings = context.renderings()
    missing = {"example", "evpn", "production", "distributed", "centralised", "hybrid", "netpol", "7.0.0-ubuntu_noble", *SCALES} - renderings.keys()
    assert not missing, f"no override {', '.join(missing)}"
    memory = [limits(renderings[name], "ovn-bgp-agent") for name in SCALES]
    assert memory == sorted(set(memory)), f"each scale has more memory than the one before: {memory}"
    for name in SCALES:
        for container in renderings[name].pod()["containers"]:
            assert quantity(container["resources"]["requests"]["memory"]) <= limits(renderings[name], container["name"]), name
        assert "cpu" not in renderings[name].container("frr")["resources"]["limits"], "a CPU limit lets FRR's hold timer expire"
    assert renderings["evpn"].environment("init-frr-config")["EVPN_RR_AS"] == "65000"
    assert {document["kind"] for document in renderings["production"].documents} >= {"PriorityClass", "PrometheusRule", "ServiceMonitor", "Service"}
    assert renderings["netpol"].all("NetworkPolicy")
    assert renderings["distributed"].pod()["nodeSelector"] == {"openvswitch": "enabled"}
    assert renderings["centralised"].pod()["nodeSelector"] == {"l3-agent": "enabled"}
    assert renderings["example"].mapping() != renderings["defaults"].mapping()
    images = {container["image"] for container in renderings["7.0.0-ubuntu_noble"].pod()["containers"]}
    assert any(image.endswith("ovn-bgp-agent:7.0.0-ubuntu_noble") for image in images)
    return disjoint(renderings["hybrid"])


def disjoint(rendering):
    """hybrid: two DaemonSets that no node satisfies both of."""
    sets = rendering.all("DaemonSet")
    assert len(sets) == 2, f"{len(sets)} DaemonSets"
    wanted = set()
    for daemonset in sets:
        affinity = daemonset["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for term in affinity["nodeSelectorTerms"]:
            wanted |= {item["operator"] for item in term["matchExpressions"] if item["key"] == "l3-agent"}
    assert wanted == {"In", "NotIn"}, f"the nodes with l3-agent: {wanted}"
    return "hybrid: one DaemonSet wants l3-agent, the other excludes it"


def limits(rendering, container):
    return quantity(rendering.container(container)["resources"]["limits"]["memory"])


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)(\w\w)", text).groups()
    return int(number) * UNITS[unit]


@check("the example of a ConfigMap fits bgp.asn_mapping_existing")
def configmap_example(context):
    example = yaml.safe_load(CONFIGMAP_EXAMPLE.read_text())
    name = example["metadata"]["name"]
    assert name in README.read_text() or f"asn_mapping_existing={name}" in CONFIGMAP_EXAMPLE.read_text()
    rendering = context.chart.render("--set", f"bgp.asn_mapping_existing={name}")
    volume = next(volume for volume in rendering.pod()["volumes"] if volume["name"] == "asn-mapping")
    assert volume["configMap"]["name"] == name
    assert not any("asn" in document["metadata"]["name"] for document in rendering.all("ConfigMap")), "the chart's own is not created"
    mapping = json.loads(example["data"]["mapping.json"])
    # The values of this mapping are also values of bgp.asn_mapping.
    assert json.loads(context.chart.render_values({"bgp": {"asn_mapping": mapping}}).mapping()).keys() == mapping.keys()


@check("docs/chart.md's release note, job and script are valid for upstream, and the paths in it exist")
def submission(context):
    page = PROJECT / "docs/chart.md"
    for number, block in enumerate(blocks(page, "yaml")):
        file = context.scratch / f"submission-{number}.yaml"
        file.write_text(block)
        assert yaml.safe_load(block), block
        command = [context.tools["yamllint"], "--strict", "--config-file", PROJECT / "tests/chart/yamllint.conf", file]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
    script = blocks(page, "bash")[0]
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    variables = re.findall(r"--set ([\w.]+)=", script)
    context.chart.render("--set", f"{variables[0]}=external", "--set", f"{variables[1]}=10.0.0.1")
    for path in re.findall(r"^\$ cp -r (\S+)", page.read_text(), re.MULTILINE):
        assert (PROJECT / path).is_dir(), path
    return f"{len(blocks(page, 'yaml'))} YAML blocks, 1 script"


@check("NOTES.txt names the objects that are rendered")
def notes(context):
    for options in ([], ["--set", "bgp.peer_asn=external"], ["--values", str(OVERRIDES / "hybrid.yaml")]):
        rendering = context.chart.render(*options)
        output = context.chart.run("install", RELEASE, str(context.chart.path), "--namespace", NAMESPACE, "--dry-run=client", *options)
        text = output.split("\nNOTES:\n")[1]
        labels = rendering.all("DaemonSet")[0]["spec"]["template"]["metadata"]["labels"]
        for selector in re.findall(r"-l (application=\S+)", text):
            assert dict(pair.split("=") for pair in selector.split(",")).items() <= labels.items(), selector
        for name in re.findall(r"daemonset/(\S+)", text):
            assert rendering.find("DaemonSet", name)
        containers = {container["name"] for container in rendering.all("DaemonSet")[0]["spec"]["template"]["spec"]["containers"]} | {"init-frr-config"}
        assert set(re.findall(r" -c ([\w-]+)", text)) <= containers
        assert ("bgp.asn_mapping is empty" in text) == (not options or "hybrid" in options[1]), text
    return f"{len(text.splitlines())} lines"
