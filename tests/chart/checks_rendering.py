"""The rendered documents are accepted by helm, Kubernetes' schemas and upstream's linters."""

import json
import subprocess

import kubernetes_validate
import yaml
from chart import OVERRIDES, PROJECT, SOURCE, cases
from runner import Skip, check

# Kubernetes' oldest release that the field runs, one in the middle, and the newest that has schemas.
KUBERNETES = ("1.29", "1.33", kubernetes_validate.latest_version())
# The operators' own types have no schema there.
CUSTOM = ("monitoring.coreos.com",)

# Checks of checkov that the chart does not pass, with the reason.
SKIPPED = {
    "CKV2_K8S_6": "NetworkPolicy: it does not apply to pods in the node's network",
    "CKV_K8S_10": "CPU requests: pod.resources.enabled is the site's choice; the container `init` and the job are helm-toolkit's",
    "CKV_K8S_11": "CPU limits: like CKV_K8S_10, and FRR has none, because throttling lets its hold timer expire",
    "CKV_K8S_12": "memory requests: like CKV_K8S_10",
    "CKV_K8S_13": "memory limits: like CKV_K8S_10",
    "CKV_K8S_15": "pull policy: images.pull_policy is IfNotPresent in all charts of OpenStack-Helm",
    "CKV_K8S_19": "the node's network: the agent and FRR configure it",
    "CKV_K8S_20": "privilege escalation: sudo starts the agent's root helpers",
    "CKV_K8S_21": "namespace: Helm sets it at the installation",
    "CKV_K8S_23": "root: FRR's watchfrr is root with eight capabilities; the job is helm-toolkit's",
    "CKV_K8S_25": "added capabilities: FRR and the agent's root helpers need them, see README.md",
    "CKV_K8S_28": "NET_RAW: FRR's zebra and bfdd need it; the job is helm-toolkit's",
    "CKV_K8S_37": "capabilities: like CKV_K8S_25",
    "CKV_K8S_39": "SYS_ADMIN: FRR and the agent's root helpers enter network namespaces and VRFs",
    "CKV_K8S_40": "high user ID: FRR's images have users 0 and 100",
    "CKV_K8S_43": "digest: a site can set digests in images.tags",
}
# helm-toolkit's template of the image sync job has no values for these.
SKIPPED_IN_JOB = {
    "CKV_K8S_22": "writable root",
    "CKV_K8S_27": "the engine's socket",
    "CKV_K8S_29": "no security context",
    "CKV_K8S_30": "no security context",
    "CKV_K8S_31": "no seccomp profile",
    "CKV_K8S_38": "service account token",
}


@check("helm lint accepts the chart with the defaults and with each override")
def lint(context):
    for files in cases().values():
        options = [option for file in files for option in ("--values", str(file))]
        context.chart.run("lint", "--strict", str(context.chart.path), *options)
    return f"{len(cases())} sets of values"


@check("helm template renders the defaults and each override")
def template(context):
    renderings = context.renderings()
    for name, rendering in renderings.items():
        assert rendering.all("DaemonSet"), f"{name}: no DaemonSet"
    return f"{len(renderings)} sets of values, {sum(len(rendering.documents) for rendering in renderings.values())} documents"


@check("the real helm-toolkit renders the same documents as the stand-in")
def toolkits(context):
    if not context.stand_in:
        raise Skip("HELM_TOOLKIT is not set")
    differences = []
    for name, files in cases().items():
        real, stand_in = ({key(document): document for document in chart.render(files=files).documents} for chart in (context.chart, context.stand_in))
        differences += [f"{name}: only one has {key}" for key in sorted(real.keys() ^ stand_in.keys())]
        differences += [f"{name}: {key} differs" for key in sorted(real.keys() & stand_in.keys()) if real[key] != stand_in[key]]
    assert not differences, "\n".join(differences)
    return f"{len(cases())} sets of values"


def key(document):
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '')}/{metadata['name']} {metadata.get('annotations', {}).get('helm.sh/hook', '')}"


@check("yamllint accepts the chart's files and the renderings with upstream's two configurations")
def yaml_style(context):
    sources = [SOURCE / "Chart.yaml", SOURCE / "values.yaml", *sorted(OVERRIDES.parent.rglob("*.yaml"))]
    yamllint(context, "yamllint.conf", sources)
    rendered = []
    for name, rendering in context.renderings().items():
        rendered.append(context.scratch / f"rendered-{name}.yaml")
        rendered[-1].write_text(rendering.text)
    yamllint(context, "yamllint-templates.conf", rendered)
    return f"{len(sources)} files, {len(rendered)} renderings"


def yamllint(context, configuration, files):
    path = PROJECT / "tests/chart" / configuration
    upstream = context.toolkit and context.toolkit.parent / configuration
    if upstream and upstream.is_file():
        assert yaml.safe_load(upstream.read_text()) == yaml.safe_load(path.read_text()), f"{configuration} is not upstream's"
    command = [context.tools["yamllint"], "--strict", "--config-file", path, *files]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@check(f"the schemas of Kubernetes {', '.join(KUBERNETES)} accept every document")
def kubernetes(context):
    count = 0
    for name, rendering in context.renderings().items():
        for document in rendering.documents:
            if document["apiVersion"].startswith(CUSTOM):
                continue
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                    raise AssertionError(f"{name}: {key(document)} on {version}: {error}") from error
                count += 1
    return f"{count} validations"


@check("checkov finds nothing but the explained")
def security(context):
    file = context.scratch / "security.yaml"
    seen = set()
    for name, rendering in context.renderings().items():
        # The overrides differ in values that checkov does not look at.
        if name not in ("defaults", "everything"):
            continue
        file.write_text(rendering.text)
        command = [context.tools["checkov"], "--file", file, "--framework", "kubernetes", "--output", "json", "--skip-download", "--soft-fail"]
        result = subprocess.run(command, capture_output=True, text=True)
        report = json.loads(result.stdout)
        assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 50, result.stdout[:2000]
        for failed in report["results"]["failed_checks"]:
            seen.add(failed["check_id"])
            explained = failed["check_id"] in SKIPPED or (failed["resource"].startswith("Job.") and failed["check_id"] in SKIPPED_IN_JOB)
            assert explained, f"{name}: {failed['check_id']} {failed['check_name']}: {failed['resource']}"
    superfluous = (SKIPPED.keys() | SKIPPED_IN_JOB.keys()) - seen
    assert not superfluous, f"explained, but not found: {', '.join(sorted(superfluous))}"
    return f"{len(seen)} checks explained"
