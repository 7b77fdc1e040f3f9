//! The bytes of a manifest -> the manifests or blobs that it names, which must be copied before it.

use serde::Deserialize;

use super::reference::is_digest;

pub const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
pub const INDEX: &str = MEDIA_TYPES[0];

#[derive(Clone, Debug, PartialEq, Deserialize, serde::Serialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    /// Other fields, unchanged: platform, annotations, artifactType, …
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// Layers that must not be redistributed (Windows base layers). Registries do not store them.
    fn is_foreign(&self) -> bool {
        self.rest.contains_key("urls")
            && (self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable."))
    }
}

/// What the registry must have before the manifest.
#[derive(Debug, PartialEq)]
pub enum Needs {
    Manifests(Vec<Descriptor>),
    Blobs(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

pub fn needs(bytes: &[u8]) -> Result<Needs, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| format!("it is not a manifest: {error}"))?;
    let needs = match document {
        Document {
            manifests: Some(manifests),
            ..
        } => Needs::Manifests(manifests),
        Document {
            config: Some(config),
            layers,
            ..
        } => {
            let mut blobs = vec![config];
            blobs.extend(
                layers
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|layer| !layer.is_foreign()),
            );
            Needs::Blobs(blobs)
        }
        _ => {
            return Err(
                "it is not an index or a manifest with a config; schema version 1 is not supported".to_string(),
            );
        }
    };
    let (Needs::Manifests(named) | Needs::Blobs(named)) = &needs;
    match named.iter().find(|descriptor| !is_digest(&descriptor.digest)) {
        Some(wrong) => Err(format!("it contains the invalid digest {:?}", wrong.digest)),
        None => Ok(needs),
    }
}

/// The digest of `bytes`, with the algorithm of `like` or else SHA-256.
pub fn digest(bytes: &[u8], like: Option<&str>) -> String {
    let (name, algorithm) = match like {
        Some(digest) if digest.starts_with("sha512:") => ("sha512", &ring::digest::SHA512),
        _ => ("sha256", &ring::digest::SHA256),
    };
    let value = ring::digest::digest(algorithm, bytes);
    let hex: String = value.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_needs_what_it_names_by_digest() {
        let a = format!("sha256:{}", "a".repeat(64));
        let descriptor =
            |media_type: &str, more: &str| format!(r#"{{"mediaType":"{media_type}","digest":"{a}","size":3{more}}}"#);
        let foreign = descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            r#","urls":["https://x"]"#,
        );
        let text = format!(
            r#"{{"config":{},"layers":[{},{foreign}]}}"#,
            descriptor("c", ""),
            descriptor("l", "")
        );
        let Ok(Needs::Blobs(blobs)) = needs(text.as_bytes()) else {
            panic!("{text}");
        };
        assert_eq!(blobs.len(), 2);
        let text = format!(
            r#"{{"manifests":[{}]}}"#,
            descriptor("m", r#","platform":{"os":"linux"}"#)
        );
        let Ok(Needs::Manifests(manifests)) = needs(text.as_bytes()) else {
            panic!("{text}");
        };
        assert_eq!(manifests[0].rest["platform"]["os"], "linux");
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"fsLayers":[]}"#,
            r#"{"manifests":[{"mediaType":"m","digest":"../../x","size":1}]}"#,
        ] {
            assert!(needs(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_algorithm_is_that_of_the_expected_digest() {
        assert!(digest(b"", None).starts_with("sha256:e3b0c442"));
        assert!(digest(b"", Some("sha512:x")).starts_with("sha512:cf83e135"));
    }
}
