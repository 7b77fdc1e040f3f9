"""The chart beside a helm-toolkit -> rendered documents, as YAML and as objects."""

import base64
import configparser
import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess

import yaml

PROJECT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "chart/ovn-bgp-agent"
OVERRIDES = PROJECT / "chart/values_overrides/ovn-bgp-agent"
STAND_IN = PROJECT / "tests/chart/helm-toolkit"
# Values of the tests, for templates that the defaults and the overrides do not reach.
CASES = PROJECT / "tests/chart/values"
RELEASE = "ovn-bgp-agent"
NAMESPACE = "openstack"


class HelmError(Exception):
    """helm failed; the text is its message."""


@dataclasses.dataclass(frozen=True)
class Rendering:
    text: str

    @functools.cached_property
    def documents(self):
        return [document for document in yaml.safe_load_all(self.text) if document]

    def find(self, kind, name=None):
        """The only document of this kind (and name)."""
        found = [
            document for document in self.documents if document["kind"] == kind and name in (None, document["metadata"]["name"])
        ]
        assert len(found) == 1, f"{len(found)} documents are {kind} {name or ''}"
        return found[0]

    def all(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def pod(self):
        return self.find("DaemonSet")["spec"]["template"]["spec"]

    def container(self, name):
        pod = self.pod()
        return next(container for container in pod["initContainers"] + pod["containers"] if container["name"] == name)

    def environment(self, container):
        """Name -> value of the variables that have a value in the manifest."""
        return {variable["name"]: variable["value"] for variable in self.container(container)["env"] if "value" in variable}

    def agent_conf(self):
        return base64.b64decode(self.find("Secret", "ovn-bgp-agent-etc")["data"]["ovn-bgp-agent.conf"]).decode()

    def agent_options(self):
        """Section -> option -> text. Repeated options (multistring) keep the last value."""
        parser = configparser.ConfigParser(strict=False, interpolation=None, default_section="")
        parser.optionxform = str
        parser.read_string(self.agent_conf())
        return {section: dict(parser[section]) for section in parser.sections()}

    def mapping(self):
        """mapping.json as the hook before the installation has it."""
        for document in self.all("ConfigMap"):
            if "pre-install" in document["metadata"].get("annotations", {}).get("helm.sh/hook", ""):
                return document["data"]["mapping.json"]
        raise AssertionError("no ConfigMap has the hook pre-install")


class Chart:
    """A copy of the chart in `directory`, with its dependency resolved."""

    def __init__(self, helm, directory, toolkit):
        self.helm = helm
        self.path = directory / "ovn-bgp-agent"
        shutil.copytree(SOURCE, self.path, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
        shutil.copytree(toolkit, directory / "helm-toolkit")
        self.run("dependency", "build", str(self.path))

    def run(self, *arguments):
        # Neither the user's repositories nor a cluster.
        environment = {**os.environ, "HELM_CONFIG_HOME": str(self.path.parent / "config"), "KUBECONFIG": os.devnull}
        result = subprocess.run([self.helm, *arguments], capture_output=True, text=True, env=environment)
        if result.returncode:
            raise HelmError((result.stderr + result.stdout).strip())
        return result.stdout

    def render(self, *arguments, files=()):
        """`helm template` with more arguments and values files, or `values` as text."""
        options = [option for file in files for option in ("--values", str(file))]
        return Rendering(self.run("template", RELEASE, str(self.path), "--namespace", NAMESPACE, *options, *arguments))

    def render_values(self, values, *arguments):
        """Values as an object."""
        file = self.path.parent / "values-of-a-test.yaml"
        file.write_text(yaml.safe_dump(values))
        return self.render(*arguments, files=[file])


def cases():
    """Name -> values files: the defaults, each override, each of the tests' own values."""
    found = {"defaults": ()}
    for directory in (OVERRIDES, CASES):
        found.update({file.stem: (file,) for file in sorted(directory.glob("*.yaml"))})
    return found
