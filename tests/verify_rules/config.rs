//! Changes that break the rules of the image configuration.

use serde_json::{Value, json};

use crate::support::image::TestImage;
use crate::{Break, breaks};

const LABEL: &str = "org.opencontainers.image";

pub const BREAKS: &[Break] = &[
    breaks("config-process", |i| i.config["config"]["User"] = json!("root"), "root"),
    breaks(
        "config-process",
        |i| i.config["config"]["User"] = json!("42494:42494"),
        "42494:42494",
    ),
    breaks(
        "config-process",
        |i| i.config["config"]["Entrypoint"] = json!(["/bin/sh", "-c", "ovn-bgp-agent"]),
        "/bin/sh",
    ),
    breaks(
        "config-process",
        |i| i.config["config"]["Cmd"] = json!(["bash"]),
        "bash",
    ),
    breaks(
        "config-process",
        |i| i.config["config"]["WorkingDir"] = json!("/build"),
        "/build",
    ),
    breaks(
        "config-process",
        |i| i.config["config"]["ExposedPorts"] = json!({"179/tcp": {}}),
        "179/tcp",
    ),
    breaks(
        "config-process",
        |i| i.config["config"]["Volumes"] = json!({"/data": {}}),
        "/data",
    ),
    breaks(
        "config-environment",
        |i| env(i, "http_proxy=http://proxy:3128"),
        "config.Env.http_proxy",
    ),
    breaks(
        "config-environment",
        |i| env(i, "PYTHONPATH=/opt"),
        "config.Env.PYTHONPATH",
    ),
    breaks(
        "config-environment",
        |i| env(i, "LANG=https://me:secret@index/"),
        "looks like one",
    ),
    breaks("config-environment", |i| env(i, "LC_ALL=C.UTF-8"), "config.Env.LC_ALL"),
    breaks(
        "config-environment",
        |i| i.config["config"]["Env"][1] = json!("OS_PRIVSEP__HELPER_COMMAND=sudo privsep-helper"),
        "sudo obgp-runtime privsep",
    ),
    breaks(
        "config-environment",
        |i| drop(i.config["config"]["Env"].as_array_mut().unwrap().pop()),
        "config.Env.OS_PRIVSEP_VTYSH__HELPER_COMMAND",
    ),
    breaks("config-environment", |i| env(i, "PATH=/tmp"), "set again"),
    breaks(
        "config-environment",
        |i| i.config["config"]["Env"][0] = json!("PATH=/tmp:/usr/bin:/usr/sbin:/usr/local/bin"),
        "/tmp:",
    ),
    breaks("config-labels", |i| label(i, "created", Value::Null), "no such label"),
    breaks("config-labels", |i| label(i, "created", json!("yesterday")), "RFC 3339"),
    breaks(
        "config-labels",
        |i| label(i, "base.digest", json!("sha256:short")),
        "a digest",
    ),
    breaks(
        "config-labels",
        |i| label(i, "revision", json!("master")),
        "a git commit",
    ),
    breaks(
        "config-labels",
        |i| label(i, "source", json!("opendev.org")),
        "https://",
    ),
    breaks(
        "config-labels",
        |i| label(i, "title", json!("other")),
        "\"ovn-bgp-agent\"",
    ),
    breaks(
        "config-platform",
        |i| i.config["architecture"] = json!("arm64"),
        "arm64",
    ),
    breaks("config-platform", |i| i.config["os"] = json!("windows"), "windows"),
    breaks(
        "config-history",
        |i| i.config["history"][0]["created_by"] = json!("RUN |1 TOKEN=abc make"),
        "looks like one",
    ),
    breaks(
        "config-history",
        |i| i.config["history"][1]["empty_layer"] = json!(false),
        "1 entries with a layer",
    ),
];

fn env(image: &mut TestImage, variable: &str) {
    image.config["config"]["Env"]
        .as_array_mut()
        .unwrap()
        .push(json!(variable));
}

fn label(image: &mut TestImage, name: &str, value: Value) {
    let labels = image.config["config"]["Labels"].as_object_mut().unwrap();
    let name = format!("{LABEL}.{name}");
    match value {
        Value::Null => drop(labels.remove(&name)),
        value => drop(labels.insert(name, value)),
    }
}
