//! The labels that obgp-build sets itself: neither build.toml nor `--label` may set them.

/// Prefix of OCI's annotations: <https://specs.opencontainers.org/image-spec/annotations/>.
const OCI: &str = "org.opencontainers.image.";

/// After [`OCI`], and where the value comes from.
const SET: &[(&str, &str)] = &[
    ("version", "the project ref (--project-ref)"),
    ("revision", "the commit or version of the project ref (--project-ref)"),
    ("ref.name", "the project ref and the distro"),
    ("created", "SOURCE_DATE_EPOCH or the date of the lock"),
    ("base.name", "the base image (--base)"),
    ("base.digest", "the base image (--base)"),
];

/// Prefix of this program's own labels.
const OWN: &str = "org.openstack.obgp-build.";

/// Rejects a label whose value would be replaced.
pub fn check(key: &str) -> Result<(), String> {
    if key.starts_with(OWN) {
        return Err(format!("obgp-build sets every label {OWN}*"));
    }
    let name = key.strip_prefix(OCI);
    match SET.iter().find(|(set, _)| name == Some(*set)) {
        Some((_, from)) => Err(format!("obgp-build sets this label from {from}")),
        None => Ok(()),
    }
}

/// Parses `KEY=VALUE` of `--label`.
pub fn parse(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => check(key).map(|()| (key.to_string(), value.to_string())),
        _ => Err("a label is KEY=VALUE".to_string()),
    }
}
