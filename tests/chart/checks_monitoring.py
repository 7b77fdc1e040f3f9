"""Alerts, dashboard, Service and monitors fit each other, the exporter's metrics and the pods."""

import json
import re
import shutil
import subprocess

import yaml
from chart import PROJECT, SOURCE, HelmError
from runner import check

MONITORING = PROJECT / "tests/chart/monitoring"
ALERTS = SOURCE / "files/alerts.yaml"
DASHBOARD = SOURCE / "files/dashboard.json"
# The exporter runs in the pods only with this.
EXPORTER = ("--set", "monitoring.prometheus.enabled=true")
# Metrics that are not the exporter's: Prometheus's own, and those of kube-state-metrics.
OTHER_METRICS = {"up", "kube_pod_container_status_ready", "kube_pod_container_status_restarts_total"}
LABELS_OF_PROMETHEUS = {"application", "instance", "container"}
# Grafana's variables, as Prometheus can parse them.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}


def alerts():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def promtool(context, *arguments):
    result = subprocess.run([context.tools["promtool"], *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@check("promtool accepts the alert rules, as a file and as the PrometheusRule that is rendered")
def alert_rules(context):
    promtool(context, "check", "rules", ALERTS)
    rule = context.chart.render("--set", "manifests.prometheusrule=true").find("PrometheusRule")
    assert rule["spec"] == yaml.safe_load(ALERTS.read_text()), "the PrometheusRule has other groups than files/alerts.yaml"
    file = context.scratch / "rendered-rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    promtool(context, "check", "rules", file)
    return f"{len(alerts())} alerts"


@check("each alert fires when it must, and only then")
def alerts_fire(context):
    directory = context.scratch / "alerts"
    directory.mkdir()
    shutil.copy(ALERTS, directory)
    tests = shutil.copy(MONITORING / "alerts_test.yaml", directory)
    promtool(context, "test", "rules", tests)
    cases = [case for test in yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"] for case in test["alert_rule_test"]]
    for name in (rule["alert"] for rule in alerts()):
        assert any(case["alertname"] == name and case["exp_alerts"] for case in cases), f"no test lets {name} fire"
        assert any(case["alertname"] == name and not case["exp_alerts"] for case in cases), f"no test has {name} silent"
    return f"{len(cases)} cases"


def expressions():
    """Where -> expression, of alerts and dashboard."""
    found = {rule["alert"]: rule["expr"] for rule in alerts()}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def recorded():
    """Metric -> names of its labels, in the recording of the exporter."""
    found = {}
    for line in (MONITORING / "frr_exporter-1.8.1.prom").read_text().splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


@check("alerts and dashboard use metrics and labels that frr_exporter v1.8.1 has")
def metrics(context):
    known, used = recorded(), set()
    assert len(known) > 20, "the recording is empty"
    for where, expression in expressions().items():
        # Without what is between quotes, the only identifiers with a brace or bracket behind them are metrics.
        for metric, selector in re.findall(r"\b([a-z_0-9]+)\{([^}]*)\}", expression):
            assert metric in known or metric in OTHER_METRICS, f"{where}: the exporter has no metric {metric}"
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector)))
            assert labels <= known.get(metric, set()) | LABELS_OF_PROMETHEUS, f"{where}: {metric} has no label {labels - known.get(metric, set())}"
            assert metric in OTHER_METRICS - {"up"} or 'application="ovn-bgp-agent"' in selector, f"{where}: {metric} of every exporter"
            used.add(metric)
        assert not re.findall(r"\bfrr_\w+\b(?!\{)", expression), f"{where}: a metric without a selector"
    return f"{len(used)} metrics in {len(expressions())} expressions"


@check("Prometheus can parse every expression of the dashboard, and its panels do not overlap")
def dashboard(context):
    dashboard = json.loads(DASHBOARD.read_text())
    rules = []
    for number, expression in enumerate(expressions().values()):
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, f"unknown variable: {expression}"
        rules.append({"record": f"test:{number}", "expr": expression})
    file = context.scratch / "expressions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool(context, "check", "rules", file)
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in cells) < 24 and not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        assert panel["type"] == "row" or panel["description"], f"{panel['title']} has no description"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), "two panels have one id"
    return f"{len(dashboard['panels'])} panels"


@check("Service and monitors select the pods and the exporter's port, also of pods that are not ready")
def scraping(context):
    rendering = context.chart.render(*EXPORTER, "--set", "manifests.servicemonitor=true")
    pod = rendering.find("DaemonSet")["spec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in rendering.container("frr-exporter")["ports"]}
    service = rendering.find("Service")
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"].get("publishNotReadyAddresses") is True, "a pod whose session is down would lose its metrics"
    assert all(port["targetPort"] in ports and port["protocol"] == "TCP" for port in service["spec"]["ports"])
    assert service["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    monitor = rendering.find("ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert set(monitor["spec"]["targetLabels"]) <= set(service["metadata"]["labels"]), "the alerts select by this label"
    rendering = context.chart.render(*EXPORTER, "--set", "manifests.podmonitor=true")
    monitor = rendering.find("PodMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert set(monitor["spec"]["podTargetLabels"]) <= set(pod["metadata"]["labels"])
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports
    container = next(rule["expr"] for rule in alerts() if rule["alert"] == "ovn_bgp_agent_not_ready")
    assert 'container="ovn-bgp-agent"' in container and rendering.container("ovn-bgp-agent")


@check("the exporter's collectors are those of daemons that run")
def collectors(context):
    for bfd in ("true", "false"):
        rendering = context.chart.render(*EXPORTER, "--set", f"bgp.bfd.enabled={bfd}")
        arguments = rendering.container("frr-exporter")["args"]
        # Without bfdd the collector fails at each scrape and logs an error.
        assert ("--no-collector.bfd" in arguments) == (bfd == "false"), f"bgp.bfd.enabled={bfd}: {arguments}"


@check("the exporter sees FRR's sockets and nothing else")
def exporter_mounts(context):
    # frr.conf can contain the sessions' password. Version 1.8.1 does not start vtysh, which would need the directory.
    mounts = {mount["name"] for mount in context.chart.render(*EXPORTER).container("frr-exporter")["volumeMounts"]}
    assert mounts == {"run-frr"}, mounts


@check("without the exporter nothing tells Prometheus to scrape it, and impossible choices are errors")
def monitoring_off(context):
    rendering = context.chart.render("--set", "manifests.servicemonitor=true")
    assert not rendering.all("Service") and not rendering.all("ServiceMonitor")
    for arguments, message in (
        (("--set", "manifests.podmonitor=true,manifests.servicemonitor=true"), "scrape each pod twice"),
        (("--set", "manifests.prometheusrule=true", "--set", "monitoring.prometheus.rules.disabled={typo}"), "there is no alert typo"),
    ):
        try:
            context.chart.render(*EXPORTER, *arguments)
        except HelmError as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"accepted: {' '.join(arguments)}")


@check("alerts can be left out, labelled and added by values")
def rules_by_values(context):
    values = {
        "manifests": {"prometheusrule": True},
        "monitoring": {
            "prometheus": {
                "rules": {
                    "disabled": ["ovn_bgp_agent_drained", "ovn_bgp_agent_not_ready", "ovn_bgp_agent_restarting"],
                    "labels": {"release": "kube-prometheus-stack"},
                    "alert_labels": {"team": "network", "severity": "ticket"},
                    "extra_groups": [{"name": "site", "rules": [{"alert": "site", "expr": "vector(1)"}]}],
                }
            }
        },
    }
    rule = context.chart.render_values(values).find("PrometheusRule")
    groups = {group["name"]: group["rules"] for group in rule["spec"]["groups"]}
    assert list(groups) == ["ovn_bgp_agent.sessions", "ovn_bgp_agent.exporter", "site"], "an empty group is left out"
    names = [rule["alert"] for rules in groups.values() for rule in rules]
    assert len(names) == len(alerts()) - 3 + 1 and "ovn_bgp_agent_drained" not in names
    labels = [rule["labels"] for group, rules in groups.items() for rule in rules if group != "site"]
    assert all(each == {"team": "network", "severity": "ticket"} for each in labels)
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
