//! Rewrites the engine's image configuration (image-spec, config.md): keeps what the author set, drops what the engine
//! and the build time added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::oci::Platform;

/// The parts of the engine's configuration that are used.
#[derive(Deserialize)]
pub struct EngineConfig {
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(default)]
    history: Option<Vec<EngineHistory>>,
}

#[derive(Clone, Deserialize)]
struct EngineHistory {
    created: Option<String>,
    author: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    #[serde(default)]
    empty_layer: Option<bool>,
}

#[derive(Serialize)]
struct Config {
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    architecture: &'static str,
    os: &'static str,
    config: Map<String, Value>,
    rootfs: Rootfs,
    history: Vec<History>,
}

#[derive(Serialize)]
struct Rootfs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

#[derive(Serialize)]
struct History {
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_layer: Option<bool>,
}

/// The result for each of the engine's layers, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A base layer, unchanged.
    Base,
    /// A canonical layer.
    Own,
    /// An omitted layer without changes.
    Gone,
}

/// Fields of `config` that are copied unless empty. Docker's `Healthcheck`, `Shell`, `OnBuild` and `StopTimeout` are
/// not in OCI's specification, but some runtimes use them. Not copied: fields of the build container (`Hostname`,
/// `Image`, `AttachStdin`, …) and `ArgsEscaped`, which engines set or omit arbitrarily.
const CARRIED: [&str; 13] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
    "StopTimeout",
];

/// The new configuration, a document for [`super::store::canonical_json`].
pub fn rewrite(
    engine: EngineConfig,
    platform: Platform,
    fates: &[Fate],
    diff_ids: Vec<String>,
    labels: &BTreeMap<String, String>,
    epoch: i64,
) -> Result<impl Serialize + use<>, jiff::Error> {
    let created = jiff::Timestamp::from_second(epoch)?;
    let mut config = Map::new();
    let mut engine_config = engine.config.unwrap_or_default();
    for key in CARRIED {
        if let Some(value) = engine_config.remove(key)
            && says_something(key, &value)
        {
            config.insert(key.into(), value);
        }
    }
    if !labels.is_empty() {
        let mut all = match config.remove("Labels") {
            Some(Value::Object(labels)) => labels,
            _ => Map::new(),
        };
        for (key, value) in labels {
            all.insert(key.clone(), value.clone().into());
        }
        config.insert("Labels".into(), Value::Object(all));
    }
    Ok(Config {
        created: created.to_string(),
        author: engine.author.filter(|author| !author.is_empty()),
        architecture: platform.architecture().name(),
        os: "linux",
        config,
        rootfs: Rootfs {
            r#type: "layers",
            diff_ids,
        },
        history: history(engine.history.unwrap_or_default(), fates, created),
    })
}

/// Engines represent an empty value as null, as empty, or omit it.
fn says_something(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !(text.is_empty() || key == "WorkingDir" && text == "/"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(_) | Value::Bool(_) => true,
    }
}

/// The base's entries with clamped times, then one entry per own layer. Omits entries without a layer (ENV, LABEL, …)
/// above the base: engines word them differently, and the configuration contains the same information.
fn history(engine: Vec<EngineHistory>, fates: &[Fate], epoch: jiff::Timestamp) -> Vec<History> {
    let is_layer = |entry: &EngineHistory| !entry.empty_layer.unwrap_or(false);
    let own = |entry: Option<EngineHistory>| History {
        created: epoch.to_string(),
        author: None,
        created_by: entry.and_then(|entry| entry.created_by).map(|text| clean(&text)),
        comment: None,
        empty_layer: None,
    };
    if engine.iter().filter(|entry| is_layer(entry)).count() != fates.len() {
        // The history does not map entries to layers.
        let layers = fates.iter().filter(|fate| **fate != Fate::Gone);
        return layers.map(|_| own(None)).collect();
    }
    let mut fates = fates.iter().copied().peekable();
    let mut history = Vec::new();
    for entry in engine {
        let in_base = fates.peek() == Some(&Fate::Base);
        match (is_layer(&entry).then(|| fates.next()).flatten(), in_base) {
            (Some(Fate::Own), _) => history.push(own(Some(entry))),
            (Some(Fate::Base), _) | (None, true) => history.push(from_base(entry, epoch)),
            (Some(Fate::Gone), _) | (None, false) => {}
        }
    }
    history
}

fn from_base(entry: EngineHistory, epoch: jiff::Timestamp) -> History {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let created = entry.created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    History {
        created: created.map_or(epoch, |created| created.min(epoch)).to_string(),
        author: some(entry.author),
        created_by: some(entry.created_by),
        comment: some(entry.comment),
        empty_layer: entry.empty_layer.filter(|empty| *empty),
    }
}

/// Removes the builder's additions to an instruction: `RUN |1 REF=7.0.0 /bin/sh -c make # buildkit` becomes `RUN
/// /bin/sh -c make`. Build arguments differ between machines (proxies) and may be private.
fn clean(created_by: &str) -> String {
    let text = created_by.trim().trim_end_matches("# buildkit").trim_end();
    let (instruction, rest) = match text.strip_prefix("RUN ") {
        Some(rest) => ("RUN ", rest),
        None => ("", text),
    };
    let has_arguments = rest
        .strip_prefix('|')
        .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    let Some(at) = has_arguments.then(|| rest.find(" /bin/")).flatten() else {
        return text.to_string();
    };
    format!("{instruction}{}", &rest[at + 1..])
}
