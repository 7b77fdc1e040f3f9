//! `obgp-build sign REF --key KEY`: signatures for an image that a registry has.

use serde_json::json;

use super::image::{find_remote, manifests};
use super::signing::PendingSigner;
use super::{Context, Failure};
use crate::cli::SignArgs;
use crate::oci::ImageReference;
use crate::publish;

pub async fn run(context: &Context, args: &SignArgs) -> Result<(), Failure> {
    let signer = PendingSigner::load(&args.signing)?;
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = find_remote(context, &registries, &reference).await?;
    let subjects = manifests(&image);
    let digests: Vec<String> = subjects.iter().map(|s| s.digest().to_string()).collect();
    let artifacts = signer.artifacts(&reference.repository, subjects, Vec::new()).await?;
    let progress = context.terminal.line(&args.reference);
    publish::attach(&image, &artifacts, &registries, progress.as_ref(), &context.cancel).await?;
    context.print(
        &json!({ "image": args.reference, "digest": digests[0], "signed": digests }),
        || digests.iter().map(|digest| format!("signed {digest}\n")).collect(),
    )
}
