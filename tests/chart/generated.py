"""The files that are made from other files of the chart: `tests/chart/generated.py` writes them, and a check compares.

- The table of values in README.md, from the comments `# -- TEXT` in values.yaml (the form of helm-docs).
- The alert rules and the dashboard as values of OpenStack-Helm's charts prometheus and grafana, from files/.
"""

import json

import yaml
from chart import OVERRIDES, SOURCE

README = SOURCE / "README.md"
BEGIN = "<!-- Begin of the table that tests/chart/generated.py writes from values.yaml. -->"
END = "<!-- End of the table. -->"
# A longer default is not in the table.
LONGEST_DEFAULT = 60

OVERRIDE_OF_PROMETHEUS = OVERRIDES.parent / "prometheus/ovn-bgp-agent.yaml"
OVERRIDE_OF_GRAFANA = OVERRIDES.parent / "grafana/ovn-bgp-agent.yaml"


def rows(text):
    """values.yaml -> (path of the key, default or None, description). A key without a description has those of its parts."""
    lines = text.splitlines()
    found = []

    def walk(node, path):
        for key, value in node.value:
            here = f"{path}{quoted(key.value)}"
            description = comment_above(lines, key.start_mark.line)
            parts = isinstance(value, yaml.MappingNode) and documented(value)
            if description or not parts:
                found.append((here, None if parts else default(value), description))
            if parts:
                walk(value, f"{here}.")

    def documented(node):
        return any(comment_above(lines, key.start_mark.line) or (isinstance(value, yaml.MappingNode) and documented(value)) for key, value in node.value)

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found


def quoted(key):
    return f'"{key}"' if "." in key else key


def comment_above(lines, line):
    """The text of the comment `# -- …` that ends above this line; "" if there is none."""
    block = []
    for above in reversed(lines[:line]):
        stripped = above.strip()
        if not stripped.startswith("#"):
            break
        block.insert(0, stripped.removeprefix("#").strip())
        if stripped.startswith("# -- "):
            return " ".join(block).removeprefix("-- ")
    return ""


def default(node):
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    return json.dumps(value, ensure_ascii=False)


def table(text):
    out = ["| key | default | description |", "|---|---|---|"]
    for path, value, description in rows(text):
        if value is None:
            cell = ""
        elif len(value) > LONGEST_DEFAULT:
            cell = "see values.yaml"
        else:
            cell = f"`{value}`"
        out.append(f"| `{path}` | {cell} | {description} |".replace("  ", " "))
    return "\n".join(out)


def readme(text):
    """README.md with the table of today's values.yaml."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{table((SOURCE / 'values.yaml').read_text())}\n\n{END}{tail}"


def licence():
    lines = (SOURCE / "values.yaml").read_text().splitlines()
    return "\n".join(lines[: lines.index("")])


def override_of_prometheus():
    rules = (SOURCE / "files/alerts.yaml").read_text().split("\n---\n")[1].removesuffix("...\n")
    head = f"{licence()}\n\n# Alert rules of the chart ovn-bgp-agent for the chart prometheus. Made from ovn-bgp-agent/files/alerts.yaml.\n\n---\n"
    return f"{head}conf:\n  prometheus:\n    rules:\n      ovn_bgp_agent:\n{indented(rules, 8)}...\n"


def override_of_grafana():
    dashboard = (SOURCE / "files/dashboard.json").read_text()
    head = f"{licence()}\n\n# Dashboard of the chart ovn-bgp-agent for the chart grafana. Made from ovn-bgp-agent/files/dashboard.json.\n\n---\n"
    return f"{head}conf:\n  dashboards:\n    ovn-bgp-agent:\n      ovn_bgp_agent: |-\n{indented(dashboard, 8)}...\n"


def indented(text, spaces):
    return "".join(f"{' ' * spaces}{line}\n" if line else "\n" for line in text.splitlines())


def texts():
    """Path -> text as it must be."""
    return {
        README: readme(README.read_text()),
        OVERRIDE_OF_PROMETHEUS: override_of_prometheus(),
        OVERRIDE_OF_GRAFANA: override_of_grafana(),
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
