"""The image knows what the chart passes to it: the agent's options, obgp-runtime's commands and variables."""

import base64
import json
import pathlib
import re
import subprocess

from runner import Skip, check

# The exit code for a wrong command line or variable: docs/runtime.md.
WRONG_COMMAND = 2
HERE = pathlib.Path(__file__).parent
# Variables for the programs that obgp-runtime starts, not for itself.
FOREIGN = {"NODE_NAME"}


def in_image(context, *command, environment=None, stdin=""):
    """Runs a command in the image like the pod does, but with nothing around it: no network, no volumes, no capabilities."""
    if not context.image:
        raise Skip("--no-image")
    variables = [part for name, value in (environment or {}).items() for part in ("--env", f"{name}={value}")]
    isolation = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp"]
    docker = ["docker", "run", "--rm", "--interactive", *isolation, *variables, "--entrypoint", command[0], context.image, *command[1:]]
    return subprocess.run(docker, input=stdin, capture_output=True, text=True, timeout=120)


@check("the agent's oslo.config knows every rendered option and parses every value")
def agent_options(context):
    configurations = {
        f"{name}: {secret['metadata']['name']}": base64.b64decode(secret["data"]["ovn-bgp-agent.conf"]).decode()
        for name, rendering in context.renderings().items()
        for secret in rendering.all("Secret")
        if "ovn-bgp-agent.conf" in secret["data"]
    }
    # The check itself must find an unknown option, an unknown section and a wrong value.
    wrong = "[DEFAULT]\nbgp_vrf_table_id = ten\nbgp_nick = x\n[nowhere]\nx = 1\n"
    script = (HERE / "agent_options.py").read_text()
    result = in_image(context, "python3", "-W", "ignore", "-c", script, stdin=json.dumps(configurations | {"wrong": wrong}))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(listed := found.pop("wrong")) == 3, f"the check does not find three wrong options: {listed}"
    assert set(found) == set(configurations)
    problems = [f"{name}: {problem}" for name, listed in found.items() for problem in listed]
    assert not problems, "\n".join(problems)
    count = sum(line.count(" = ") for text in configurations.values() for line in text.splitlines())
    return f"{count} options in {len(configurations)} configurations"


@check("obgp-runtime parses every rendered command with its container's variables")
def commands(context):
    invocations = sorted({invocation for rendering in context.renderings().values() for invocation in runtime_commands(rendering)})
    assert len({command[1] for command, _ in invocations}) >= 4, invocations
    for command, variables in invocations:
        result = in_image(context, *command, environment=dict(variables))
        # Without a node the command fails after its arguments are parsed.
        assert result.returncode != WRONG_COMMAND, f"{' '.join(command)} with {dict(variables)}: {result.stderr}"
        assert result.returncode == 1, f"{' '.join(command)}: exit code {result.returncode}: {result.stderr}"
    wrong = in_image(context, "obgp-runtime", "frr-init", environment={"BGP_PEER_IP": "nowhere"})
    assert wrong.returncode == WRONG_COMMAND, "the check does not find a wrong variable"
    return f"{len(invocations)} commands"


@check("obgp-runtime reads every variable that the chart sets for it")
def variables_known(context):
    known = {}
    unknown = set()
    for name, rendering in context.renderings().items():
        for command, variables in runtime_commands(rendering):
            subcommand = command[1]
            if subcommand not in known:
                text = in_image(context, "obgp-runtime", subcommand, "--help").stdout
                known[subcommand] = set(re.findall(r"\[env: (\w+)=", text))
            # A container's probes share its variables, so only its own command is checked.
            if subcommand in ("frr-init", "agent"):
                unknown |= {f"{name}: {variable} of {subcommand}" for variable, _ in variables if variable not in known[subcommand] | FOREIGN}
    assert known.get("frr-init") and known.get("agent"), "the help names no variables"
    assert not unknown, "\n".join(sorted(unknown))
    return f"{sum(len(names) for names in known.values())} variables known"


@check("the job that fills a local registry starts obgp-runtime in the image with the toolkit's command")
def image_sync(context):
    rendering = context.renderings()["everything"]
    (container,) = rendering.find("Job")["spec"]["template"]["spec"]["containers"]
    *shell, program = container["command"]
    assert program == "/tmp/image-repo-sync.sh", container["command"]
    script = rendering.find("ConfigMap", "ovn-bgp-agent-bin")["data"]["image-repo-sync.sh"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    # The images that are pulled from their own registry leave empty items.
    images = variables["IMAGE_SYNC_LIST"]
    copied = [image for image in images.split(",") if image]
    assert len(copied) == 3, copied
    # The list is parsed in order before the first request, so that a wrong name at its end stops the program without a network.
    result = in_image(context, *shell, script, environment=variables | {"IMAGE_SYNC_LIST": f"{images},Wrong!"})
    assert result.returncode == 1 and "Wrong!" in result.stderr and not any(image in result.stderr for image in copied), f"{result.returncode}: {result.stderr}"
    return f"{len(copied)} images"


def runtime_commands(rendering):
    """(command, variables) of each start of obgp-runtime: containers, probes and hooks of every DaemonSet."""
    for daemonset in rendering.all("DaemonSet"):
        pod = daemonset["spec"]["template"]["spec"]
        for container in pod["initContainers"] + pod["containers"]:
            # The values that the kubelet fills in are addresses and names.
            variables = tuple((variable["name"], variable.get("value", "192.0.2.1")) for variable in container.get("env", []))
            started = [container.get("command", [])]
            started += [container[f"{kind}Probe"].get("exec", {}).get("command", []) for kind in ("startup", "liveness", "readiness") if f"{kind}Probe" in container]
            started.append(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", []))
            yield from ((tuple(command), variables) for command in started if command[:1] == ["obgp-runtime"])
