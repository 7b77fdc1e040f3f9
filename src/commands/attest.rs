//! `obgp-build attest REF --key KEY`: signed statements about an image that a registry has.

use std::path::Path;

use anyhow::Context as _;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

use super::sign::signer;
use super::{Context, Failure};
use crate::attest::{self, Statement, Subject};
use crate::cli::AttestArgs;
use crate::oci::ImageReference;
use crate::publish;
use crate::registry::RemoteImage;
use crate::sign::Attestation;

pub async fn run(context: &Context, args: &AttestArgs) -> Result<(), Failure> {
    let signer = signer(&args.signing)?;
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = context.open(&registries, &reference).await?;
    let repository = reference.repository.to_string();
    let attestations = match (&args.predicate, &args.predicate_type) {
        (Some(path), Some(predicate_type)) => {
            vec![given(&repository, &image.root.descriptor, path, predicate_type)?]
        }
        _ => sboms(context, &repository, &image).await?,
    };
    let attested: Vec<Value> = attestations
        .iter()
        .map(|a| json!({ "subject": a.subject.digest(), "predicate_type": a.predicate_type }))
        .collect();
    let artifacts = signer
        .artifacts(&reference.repository, Vec::new(), attestations)
        .await?;
    let progress = context.terminal.line(&args.reference);
    publish::attach(&image, &artifacts, &registries, progress.as_ref(), &context.cancel).await?;
    context.print(&json!({ "image": args.reference, "attested": attested }), || {
        attested.iter().map(line).collect()
    })
}

/// The SBOMs of every platform, from its layers.
async fn sboms(context: &Context, repository: &str, image: &RemoteImage) -> anyhow::Result<Vec<Attestation>> {
    let mut attestations = Vec::new();
    for image in context.read_remote(image, &[], false).await? {
        attestations.extend(attest::sboms(repository, &image)?);
    }
    Ok(attestations)
}

/// The predicate of a file.
fn given(
    repository: &str,
    subject: &Descriptor,
    predicate: &Path,
    predicate_type: &str,
) -> anyhow::Result<Attestation> {
    let text = std::fs::read(predicate).with_context(|| format!("reading {}", predicate.display()))?;
    let predicate: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON document", predicate.display()))?;
    let about = Subject::new(repository, subject.digest());
    let statement = Statement::new(about, predicate_type, predicate).to_bytes();
    Ok(Attestation {
        subject: subject.clone(),
        predicate_type: predicate_type.to_string(),
        statement: statement.context("writing the statement")?,
    })
}

fn line(attested: &Value) -> String {
    let (what, subject) = (&attested["predicate_type"], &attested["subject"]);
    format!(
        "attested {} of {}\n",
        what.as_str().unwrap_or_default(),
        subject.as_str().unwrap_or_default()
    )
}
