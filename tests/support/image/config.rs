//! The image configuration of the good test image.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(super) fn config(architecture: &str) -> Value {
    let label = |name: &str| format!("org.opencontainers.image.{name}");
    let labels: BTreeMap<String, String> = [
        ("authors", "openstack-discuss@lists.openstack.org"),
        ("base.digest", &format!("sha256:{}", "a".repeat(64))),
        ("base.name", "docker.io/library/ubuntu:24.04"),
        ("created", "2026-01-01T00:00:00Z"),
        ("description", "An agent"),
        ("documentation", "https://docs.openstack.org/ovn-bgp-agent/latest/"),
        ("licenses", "Apache-2.0"),
        ("ref.name", "7.0.0-ubuntu_noble"),
        ("revision", "7.0.0"),
        ("source", "https://opendev.org/openstack/ovn-bgp-agent"),
        ("title", "ovn-bgp-agent"),
        ("url", "https://opendev.org/openstack/ovn-bgp-agent"),
        ("vendor", "OpenStack-Helm"),
        ("version", "7.0.0"),
    ]
    .into_iter()
    .map(|(name, value)| (label(name), value.to_string()))
    .collect();
    json!({
        "created": "2026-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "42494",
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "OS_PRIVSEP__HELPER_COMMAND=sudo obgp-runtime privsep",
                "OS_PRIVSEP_OVS_VSCTL__HELPER_COMMAND=sudo obgp-runtime privsep",
                "OS_PRIVSEP_VTYSH__HELPER_COMMAND=sudo obgp-runtime privsep",
            ],
            "Entrypoint": ["ovn-bgp-agent"],
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": ["sha256:00"] },
        "history": [
            { "created_by": "base" },
            { "created_by": "RUN --mount=type=secret,id=pip_index packages install", "empty_layer": true },
        ],
    })
}
