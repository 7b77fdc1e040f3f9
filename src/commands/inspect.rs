//! `obgp-build inspect REF`: what a registry has under a name, without fetching layers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::Cell;
use futures_util::future::try_join_all;
use indicatif::HumanBytes;
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest};
use serde::Serialize;

use super::image::find_remote;
use super::{Context, Failure};
use crate::cli::InspectArgs;
use crate::oci::{Content, ImageReference, Platform};
use crate::registry::{RegistryError, RemoteImage, fallback_tag};
use crate::report::text::{number, table, trim_lines};

/// The JSON is user interface.
#[derive(Serialize)]
struct Inspected {
    reference: String,
    digest: String,
    media_type: String,
    annotations: BTreeMap<String, String>,
    platforms: Vec<PlatformImage>,
    /// What belongs to the index and to each platform's manifest.
    artifacts: Vec<Beside>,
}

#[derive(Serialize)]
struct PlatformImage {
    platform: Platform,
    digest: String,
    /// Of the layers, as they are pulled.
    size: u64,
    layers: usize,
    created: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Beside {
    /// The manifest that it is about.
    subject: String,
    kind: Kind,
    digest: String,
    /// The artifact's type; for a tag, how many signatures or attestations it holds.
    what: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// cosign 2: the tag `sha256-<hex>.sig`
    Signatures,
    /// cosign 2: the tag `sha256-<hex>.att`
    Attestations,
    /// OCI 1.1
    Referrer,
}

pub async fn run(context: &Context, args: &InspectArgs) -> Result<(), Failure> {
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = find_remote(context, &registries, &reference).await?;
    let inspected = context.unless_cancelled(inspect(&reference, &image)).await??;
    context.print(&inspected, || text(&inspected))
}

async fn inspect(reference: &ImageReference, image: &RemoteImage) -> Result<Inspected, RegistryError> {
    let platforms = try_join_all(image.platforms.iter().map(|(p, content)| platform(image, *p, content))).await?;
    let mut subjects: Vec<&Digest> = vec![image.root.descriptor.digest()];
    subjects.extend(image.platforms.iter().map(|(_, content)| content.descriptor.digest()));
    subjects.dedup();
    let artifacts = try_join_all(subjects.into_iter().map(|subject| beside(image, subject))).await?;
    let root: serde_json::Value = image.parse(&image.root)?;
    Ok(Inspected {
        reference: reference.to_string(),
        digest: image.root.descriptor.digest().to_string(),
        media_type: image.root.descriptor.media_type().to_string(),
        annotations: serde_json::from_value(root["annotations"].clone()).unwrap_or_default(),
        platforms,
        artifacts: artifacts.into_iter().flatten().collect(),
    })
}

async fn platform(image: &RemoteImage, platform: Platform, content: &Content) -> Result<PlatformImage, RegistryError> {
    let manifest: ImageManifest = image.parse(content)?;
    let bytes = image.repository.blob(manifest.config()).await?;
    let config: ImageConfiguration = image.parse(&Content {
        descriptor: manifest.config().clone(),
        bytes,
    })?;
    Ok(PlatformImage {
        platform,
        digest: content.descriptor.digest().to_string(),
        size: manifest.layers().iter().map(|layer| layer.size()).sum(),
        layers: manifest.layers().len(),
        created: config.created().clone(),
        labels: config
            .labels_of_config()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    })
}

async fn beside(image: &RemoteImage, subject: &Digest) -> Result<Vec<Beside>, RegistryError> {
    let repository = &image.repository;
    let mut found = Vec::new();
    for (suffix, kind) in [("sig", Kind::Signatures), ("att", Kind::Attestations)] {
        let tag = format!("{}.{suffix}", fallback_tag(subject));
        if let Some(content) = repository.find_manifest(&tag).await? {
            let manifest: ImageManifest = image.parse(&content)?;
            found.push(Beside {
                subject: subject.to_string(),
                kind,
                digest: content.descriptor.digest().to_string(),
                what: manifest.layers().len().to_string(),
                annotations: BTreeMap::new(),
            });
        }
    }
    for referrer in repository.referrers(subject).await? {
        found.push(Beside {
            subject: subject.to_string(),
            kind: Kind::Referrer,
            digest: referrer.digest().to_string(),
            what: referrer
                .artifact_type()
                .as_ref()
                .map_or("of no type".into(), ToString::to_string),
            annotations: referrer.annotations().clone().unwrap_or_default().into_iter().collect(),
        });
    }
    Ok(found)
}

fn text(inspected: &Inspected) -> String {
    let mut text = format!(
        "{}\n{} {}\n\n",
        inspected.reference, inspected.digest, inspected.media_type
    );
    let mut rows = table(&["  PLATFORM", "DIGEST", "SIZE", "LAYERS", "CREATED"]);
    for platform in &inspected.platforms {
        rows.add_row(vec![
            Cell::new(format!("  {}", platform.platform)),
            Cell::new(&platform.digest),
            number(HumanBytes(platform.size)),
            number(platform.layers),
            Cell::new(platform.created.as_deref().unwrap_or("-")),
        ]);
    }
    let _ = writeln!(text, "{}\n", trim_lines(&rows.to_string()));
    if let Some(platform) = inspected.platforms.first() {
        for (name, value) in &platform.labels {
            let _ = writeln!(text, "  {name} = {value}");
        }
    }
    text += match inspected.artifacts.is_empty() {
        true => "\n  no signature, no attestation, no referrer\n",
        false => "\n",
    };
    for beside in &inspected.artifacts {
        let of = match beside.subject == inspected.digest {
            true => "the image".to_string(),
            false => platform_of(inspected, &beside.subject),
        };
        let what = match beside.kind {
            Kind::Signatures => format!("{} signature(s) under a tag", beside.what),
            Kind::Attestations => format!("{} attestation(s) under a tag", beside.what),
            Kind::Referrer => format!("referrer {}", beside.what),
        };
        let _ = writeln!(text, "  {of}: {what} ({})", beside.digest);
    }
    text
}

fn platform_of(inspected: &Inspected, digest: &str) -> String {
    let found = inspected.platforms.iter().find(|p| p.digest == digest);
    found.map_or(digest.to_string(), |p| p.platform.to_string())
}
