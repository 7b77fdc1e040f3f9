"""Values -> documents: what the schema rejects, and where each option ends up."""

import json

import yaml
from chart import SOURCE, HelmError
from runner import check

# The same ASN of ten digits as a YAML number, as a string, and by --set, where the shell removes the quotes.
BIG = 4200049263

# Values -> a part of helm's message. One for each kind of rule in values.schema.json.
REJECTED = (
    ("bgp: {peer_ips: first}", "additional properties 'peer_ips' not allowed"),
    ("bgp: {asn: 0}", "minimum"),
    ("bgp: {asn: 4294967295}", "maximum"),
    ("bgp: {asn: '4294967295'}", "does not match pattern"),
    ("bgp: {asn: 64512.1}", "/bgp/asn"),
    ("bgp: {asn: AS65001}", "does not match pattern"),
    ("bgp: {asn: 23456}", "'not' failed"),
    ("bgp: {peer_asn: extern}", "/bgp/peer_asn"),
    ("bgp: {peer_asn: ''}", "/bgp/peer_asn"),
    ("bgp: {peer_ip: second}", "/bgp/peer_ip"),
    ("bgp: {peer_ip: '10.0.0.1, 10.0.0.2'}", "/bgp/peer_ip"),
    ("bgp: {peer_ip: [10.0.0.256]}", "/bgp/peer_ip"),
    ("bgp: {peer_interface: [a-name-of-16-char]}", "/bgp/peer_interface"),
    ("bgp: {asn_mapping: {10.0.0.0: 65001}}", "10.0.0.0"),
    ("bgp: {asn_mapping: {10.0.0.0/33: 65001}}", "10.0.0.0/33"),
    ("bgp: {asn_mapping: {10.0.0.0/24: external}}", "/bgp/asn_mapping"),
    ("bgp: {asn_mapping: {10.0.0.0/24: null}, asn_mapping_existing: Upper}", "/bgp/asn_mapping_existing"),
    ("bgp: {evpn: {rr_ip: spine1}}", "/bgp/evpn/rr_ip"),
    ("bgp: {bfd: {detect_multiplier: 1}}", "/bgp/bfd/detect_multiplier"),
    ("bgp: {bfd: {receive_interval: 60001}}", "/bgp/bfd/receive_interval"),
    ("bgp: {graceful_restart: {restart_seconds: 0}}", "/bgp/graceful_restart/restart_seconds"),
    ("bgp: {graceful_restart: {stale_seconds: 4096}}", "/bgp/graceful_restart/stale_seconds"),
    ("bgp: {listen: 'yes'}", "/bgp/listen"),
    ("bgp: {preflight: ignore}", "/bgp/preflight"),
    ("bgp: {password: {secret: x}}", "additional properties 'secret' not allowed"),
    ("bgp: {drain: {wait_seconds: -1}}", "/bgp/drain/wait_seconds"),
    ("conf: {frr: {owner: frr}}", "/conf/frr/owner"),
    ("conf: {frr: {zebra_keep_seconds: 3601}}", "/conf/frr/zebra_keep_seconds"),
    ("conf: {ovn_bgp_agent: {DEFAULT: {driver: {name: x}}}}", "/conf/ovn_bgp_agent/DEFAULT/driver"),
    ("conf: {scripts: {a/b.sh: x}}", "a/b.sh"),
    ("images: {tags: {ovn_bgp_agnet: x}}", "additional properties 'ovn_bgp_agnet' not allowed"),
    ("images: {pull_policy: Sometimes}", "/images/pull_policy"),
    ("labels: {agent: {node_selector_key: ''}}", "/labels/agent/node_selector_key"),
    ("service_account: {name: Upper}", "/service_account/name"),
    ("manifests: {pbd: true}", "additional properties 'pbd' not allowed"),
    ("manifests: {pdb: 'true'}", "/manifests/pdb"),
    ("monitoring: {prometheus: {ovn_bgp_agent: {port: 70000}}}", "/monitoring/prometheus/ovn_bgp_agent/port"),
    ("pod: {probes: {ovn_bgp_agent: {frr: {live: {}}}}}", "additional properties 'live' not allowed"),
    ("pod: {resources: {ovn-bgp-agent: {}}}", "additional properties 'ovn-bgp-agent' not allowed"),
    ("pod: {security_context: {ovn_bgp_agent: {container: {agent: {}}}}}", "additional properties 'agent' not allowed"),
    ("pod: {lifecycle: {upgrades: {daemonsets: {pod_replacement_strategy: Recreate}}}}", "/pod_replacement_strategy"),
    ("pod: {lifecycle: {upgrades: {daemonsets: {ovn_bgp_agent: {max_unavailable: 0}}}}}", "/max_unavailable"),
    ("endpoints: {ovn_ovsdb_nb: {scheme: http}}", "/endpoints/ovn_ovsdb_nb/scheme"),
    ("endpoints: {ovn_ovsdb_sb: {statefulset: {name: sb}}}", "missing property 'replicas'"),
    ("overrides: {ovn_bgp_agent_agent: {}}", "additional properties 'ovn_bgp_agent_agent' not allowed"),
    ("overrides: {ovn-bgp-agent_agent: {labels: {gateway: {values: {}}}}}", "gateway"),
    # Rules between values, which templates check.
    ("bgp: {evpn: {enabled: true, rr_asn: 65000}}", "bgp.evpn.rr_ip is required"),
    ("bgp: {evpn: {enabled: true, rr_ip: 10.0.0.9}}", "bgp.evpn.rr_asn is required"),
    ("bgp: {peer_ip: first, peer_interface: eth1}", "exclude each other"),
)

# Values -> variables of the init container.
VARIABLES = (
    ("{}", {"BGP_PEER_IP": "detection", "BGP_PEER_AS": "mapping", "BGP_LISTEN": "false", "FRR_ZEBRA_KEEP": "120", "PREFLIGHT": "fail"}),
    ("{}", {"FRR_GRACEFUL_RESTART": "120", "FRR_GRACEFUL_RESTART_STALE_TIME": "360", "FRR_BFD": "false", "FRR_IPV6": "false"}),
    ("{}", {"BGP_AS": None, "EVPN_RR_IP": None, "BFD_DETECT_MULTIPLIER": None, "BGP_PASSWORD_FILE": None, "FRR_EXTRA_CONFIG": None}),
    ("{}", {"INTERFACE": "br-ex", "ASN_MAPPING": "/etc/asn-mapping", "FRR_OWNER": "100:101", "FRR_VTY_GROUP": "102"}),
    ("bgp: {interface: bond0}", {"INTERFACE": "bond0"}),
    ("bgp: {peer_ip: last}", {"BGP_PEER_IP": "last"}),
    ("bgp: {peer_ip: '10.0.0.1,10.0.0.2'}", {"BGP_PEER_IP": "10.0.0.1,10.0.0.2"}),
    ("bgp: {peer_ip: [10.0.0.1, '2001:db8::1']}", {"BGP_PEER_IP": "10.0.0.1,2001:db8::1"}),
    ("bgp: {peer_interface: [eth1, eth2]}", {"BGP_PEER_INTERFACE": "eth1,eth2", "BGP_PEER_IP": None}),
    ("bgp: {peer_asn: external}", {"BGP_PEER_AS": "external"}),
    (f"bgp: {{peer_asn: {BIG}}}", {"BGP_PEER_AS": str(BIG)}),
    (f"bgp: {{asn: {BIG}}}", {"BGP_AS": str(BIG)}),
    (f"bgp: {{evpn: {{enabled: true, rr_ip: 10.0.0.9, rr_asn: {BIG}}}}}", {"EVPN_RR_IP": "10.0.0.9", "EVPN_RR_AS": str(BIG)}),
    ("bgp: {evpn: {rr_ip: 10.0.0.9, rr_asn: 65000}}", {"EVPN_RR_IP": None, "EVPN_RR_AS": None}),
    ("bgp: {ipv6: true}", {"FRR_IPV6": "true"}),
    ("bgp: {bfd: {enabled: true}}", {"FRR_BFD": "true", "BFD_DETECT_MULTIPLIER": "3", "BFD_RECEIVE_INTERVAL": "300"}),
    ("bgp: {bfd: {enabled: true, transmit_interval: 60000}}", {"BFD_TRANSMIT_INTERVAL": "60000"}),
    ("bgp: {graceful_restart: {enabled: false}}", {"FRR_GRACEFUL_RESTART": "0", "FRR_GRACEFUL_RESTART_STALE_TIME": None}),
    ("bgp: {graceful_restart: {restart_seconds: 4095}}", {"FRR_GRACEFUL_RESTART": "4095"}),
    ("bgp: {outbound_filter: false}", {"FRR_NO_OUTBOUND_FILTER": "true"}),
    ("bgp: {listen: true}", {"BGP_LISTEN": "true"}),
    ("bgp: {password: {secret_name: s}}", {"BGP_PASSWORD_FILE": "/etc/bgp-password/password"}),
    ("bgp: {extra_config: x}", {"FRR_EXTRA_CONFIG": "/etc/ovn-bgp-agent/frr-extra.conf"}),
    ("bgp: {preflight: warn}", {"PREFLIGHT": "warn"}),
    ("conf: {frr: {owner: '92:92', vty_group: 99, zebra_keep_seconds: 0}}", {"FRR_OWNER": "92:92", "FRR_VTY_GROUP": "99", "FRR_ZEBRA_KEEP": "0"}),
)

# Values -> section, option and text in ovn-bgp-agent.conf; None: it is absent.
OPTIONS = (
    ("{}", "ovn", "ovn_nb_connection", "tcp:ovn-ovsdb-nb.openstack.svc.cluster.local:6641"),
    ("{}", "ovn", "ovn_sb_connection", "tcp:ovn-ovsdb-sb.openstack.svc.cluster.local:6642"),
    ("endpoints: {ovn_ovsdb_nb: {hosts: {default: 10.96.0.7}}}", "ovn", "ovn_nb_connection", "tcp:10.96.0.7:6641"),
    ("endpoints: {ovn_ovsdb_nb: {namespace: sdn}}", "ovn", "ovn_nb_connection", "tcp:ovn-ovsdb-nb.sdn.svc.cluster.local:6641"),
    ("endpoints: {ovn_ovsdb_nb: {host_fqdn_override: {default: nb.example.com}}}", "ovn", "ovn_nb_connection", "tcp:nb.example.com:6641"),
    (
        "endpoints: {ovn_ovsdb_nb: {scheme: ssl, host_fqdn_override: {default: nb.example.com}, statefulset: {name: nb, replicas: 2}}}",
        "ovn",
        "ovn_nb_connection",
        "ssl:nb-0.nb.example.com:6641,ssl:nb-1.nb.example.com:6641",
    ),
    ("conf: {ovn_bgp_agent: {ovn: {ovn_nb_connection: 'tcp:10.0.0.1:6641'}}}", "ovn", "ovn_nb_connection", "tcp:10.0.0.1:6641"),
    ("secrets: {tls: {ovn: s}}", "ovn", "ovn_sb_private_key", "/etc/ovn/tls/tls.key"),
    ("{}", "ovn", "ovn_sb_private_key", None),
    ("conf: {ovn_bgp_agent: {DEFAULT: {reconcile_interval: 1000000}}}", "DEFAULT", "reconcile_interval", "1000000"),
    ("conf: {ovn_bgp_agent: {DEFAULT: {bgp_vrf: null}}}", "DEFAULT", "bgp_vrf", None),
    ("conf: {ovn_bgp_agent: {DEFAULT: {address_scopes: [a, b]}}}", "DEFAULT", "address_scopes", "a,b"),
    ("conf: {ovn_bgp_agent: {oslo_concurrency: {lock_path: /tmp}}}", "oslo_concurrency", "lock_path", "/tmp"),
)


@check("values.schema.json rejects wrong values, with a message that names the value")
def schema(context):
    for values, expected in REJECTED:
        try:
            context.chart.render_values(yaml.safe_load(values))
        except HelmError as error:
            assert expected in str(error), f"{values}: the message does not contain {expected!r}: {error}"
        else:
            raise AssertionError(f"{values} was accepted")
    return f"{len(REJECTED)} wrong values"


@check("values.schema.json has every key of values.yaml, and its maps below the root are closed")
def schema_keys(_context):
    document = json.loads((SOURCE / "values.schema.json").read_text())
    missing = []

    def resolve(schema):
        while "$ref" in schema:
            schema = document["definitions"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def walk(values, schema, path):
        schema = resolve(schema)
        for part in schema.get("allOf", []):
            walk(values, part, path)
        if not isinstance(values, dict) or "properties" not in schema:
            return
        if path and schema.get("additionalProperties", True) is not False and path.split(".")[0] not in ("endpoints", "dependencies"):
            missing.append(f"{path} is open")
        for name, value in values.items():
            if name in schema["properties"]:
                walk(value, schema["properties"][name], f"{path}.{name}".lstrip("."))
            elif not schema.get("additionalProperties", True) or not path:
                missing.append(f"{path}.{name} is not in the schema")

    values = yaml.safe_load((SOURCE / "values.yaml").read_text())
    walk(values, document, "")
    assert not missing, "\n".join(missing)
    return f"{len(values)} keys at the root"


@check("an ASN gives the same bytes as a YAML number, a YAML string, and by --set and --set-string")
def asns(context):
    written = f"{{asn: {BIG}, peer_asn: {BIG}, asn_mapping: {{10.0.0.0/24: {BIG}, 10.1.0.0/24: 65001}}}}"
    quoted = written.replace(f"{BIG}", f"'{BIG}'").replace("65001", "'65001'")
    escaped = {name.replace(".", "\\."): asn for name, asn in (("10.0.0.0/24", BIG), ("10.1.0.0/24", 65001))}
    pairs = {"bgp.asn": BIG, "bgp.peer_asn": BIG} | {f"bgp.asn_mapping.{name}": asn for name, asn in escaped.items()}
    renderings = [context.chart.render_values({"bgp": yaml.safe_load(text)}).text for text in (written, quoted)]
    for option in ("--set", "--set-string", "--set-json"):
        renderings.append(context.chart.render(*(part for name, asn in pairs.items() for part in (option, f"{name}={asn}"))).text)
    assert all(text == renderings[0] for text in renderings), "the renderings differ"
    assert renderings[0].count(str(BIG)) == 3 and "e+" not in renderings[0], renderings[0]
    return f"{len(renderings)} spellings"


@check("each option of bgp and conf.frr becomes a variable of the init container")
def variables(context):
    for values, expected in VARIABLES:
        seen = context.chart.render_values(yaml.safe_load(values)).environment("init-frr-config")
        wrong = {name: seen.get(name) for name, value in expected.items() if seen.get(name) != value}
        assert not wrong, f"{values}: {wrong} instead of {expected}"
    return f"{len(VARIABLES)} sets of values"


@check("ovn-bgp-agent.conf has the options of conf.ovn_bgp_agent and the endpoints' connections")
def options(context):
    for values, section, option, expected in OPTIONS:
        seen = context.chart.render_values(yaml.safe_load(values)).agent_options().get(section, {}).get(option)
        assert seen == expected, f"{values}: [{section}] {option} is {seen}, not {expected}"
    return f"{len(OPTIONS)} options"
