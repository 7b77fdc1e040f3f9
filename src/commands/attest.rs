//! `obgp-build attest REF --key KEY`: signed statements about an image that a registry has.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::image::{self, find_remote};
use super::signing::PendingSigner;
use super::{Context, Failure};
use crate::attest::{self, ImageForSbom, Statement, Subject};
use crate::cli::AttestArgs;
use crate::oci::ImageReference;
use crate::publish;
use crate::registry::RemoteImage;
use crate::sign::Attestation;

pub async fn run(context: &Context, args: &AttestArgs) -> Result<(), Failure> {
    let signer = PendingSigner::load(&args.signing)?;
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = find_remote(context, &registries, &reference).await?;
    let repository = reference.repository.to_string();
    let attestations = match (&args.predicate, &args.predicate_type) {
        (Some(path), Some(predicate_type)) => {
            let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let predicate: Value =
                serde_json::from_slice(&text).with_context(|| format!("{} is no JSON document", path.display()))?;
            let subject = Subject::new(&repository, image.root.descriptor.digest());
            let statement = Statement::new(subject, predicate_type, predicate).to_bytes();
            vec![Attestation {
                subject: image.root.descriptor.clone(),
                predicate_type: predicate_type.clone(),
                statement: statement.context("writing the statement")?,
            }]
        }
        _ => read_sboms(context, &image, &repository).await?,
    };
    let told: Vec<Value> = attestations
        .iter()
        .map(|a| json!({ "subject": a.subject.digest(), "predicate_type": a.predicate_type }))
        .collect();
    let artifacts = signer
        .artifacts(&reference.repository, Vec::new(), attestations)
        .await?;
    let progress = context.terminal.line(&args.reference);
    publish::attach(&image, &artifacts, &registries, progress.as_ref(), &context.cancel).await?;
    context.print(&json!({ "image": args.reference, "attested": told }), || {
        let line = |t: &Value| {
            let (what, whom) = (&t["predicate_type"], &t["subject"]);
            format!(
                "attested {} of {}\n",
                what.as_str().unwrap_or_default(),
                whom.as_str().unwrap_or_default()
            )
        };
        told.iter().map(line).collect()
    })
}

/// Each platform's SBOMs, from its layers.
async fn read_sboms(context: &Context, image: &RemoteImage, repository: &str) -> anyhow::Result<Vec<Attestation>> {
    let mut attestations = Vec::new();
    for opened in image::open_remote(context, image, &[], false).await? {
        let manifest = image
            .platforms
            .iter()
            .find(|(platform, _)| *platform == opened.platform);
        let Some((_, manifest)) = manifest else { continue };
        let about = ImageForSbom {
            platform: opened.platform,
            tree: &opened.tree,
            config: &opened.config,
            digest: opened.digest.as_deref(),
        };
        attestations.extend(attest::sboms(repository, &manifest.descriptor, &about)?);
    }
    Ok(attestations)
}
