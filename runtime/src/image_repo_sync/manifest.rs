//! A manifest's bytes become what has to be there before it: other manifests, or blobs.

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
    /// Platform, annotations, artifactType, …: kept as they are.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// Layers that may not be given away (Windows' base): they are fetched from elsewhere, and no registry has them.
    fn is_elsewhere(&self) -> bool {
        self.rest.contains_key("urls")
            && (self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable."))
    }
}

/// What has to be in the registry before the manifest is.
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
    let document: Document = serde_json::from_slice(bytes).map_err(|error| format!("no manifest: {error}"))?;
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
                    .filter(|layer| !layer.is_elsewhere()),
            );
            Needs::Blobs(blobs)
        }
        _ => {
            return Err(
                "neither an index nor a manifest with a config; version 1 manifests are too old to copy".to_string(),
            );
        }
    };
    let (Needs::Manifests(named) | Needs::Blobs(named)) = &needs;
    match named.iter().find(|descriptor| !is_digest(&descriptor.digest)) {
        Some(wrong) => Err(format!("it names the digest {:?}", wrong.digest)),
        None => Ok(needs),
    }
}

/// The digest of `bytes` by the algorithm of `like`, SHA-256 where there is none to go by.
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
    fn what_is_needed_is_named_by_digest() {
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
    fn the_algorithm_is_that_of_the_digest_to_compare_with() {
        assert!(digest(b"", None).starts_with("sha256:e3b0c442"));
        assert!(digest(b"", Some("sha512:x")).starts_with("sha512:cf83e135"));
    }
}
