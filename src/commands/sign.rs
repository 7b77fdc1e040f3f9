//! `obgp-build sign REF --key KEY`: signatures for an image that a registry has.

use serde_json::json;

use super::{Context, Failure};
use crate::cli::{SignArgs, SigningArgs};
use crate::oci::ImageReference;
use crate::publish;
use crate::report::text;
use crate::sign::Signer;

pub async fn run(context: &Context, args: &SignArgs) -> Result<(), Failure> {
    let signer = signer(&args.signing)?;
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = context.open(&registries, &reference).await?;
    let subjects = image.manifests();
    let digests: Vec<String> = subjects.iter().map(|s| s.digest().to_string()).collect();
    let artifacts = signer.artifacts(&reference.repository, subjects, Vec::new()).await?;
    let progress = context.terminal.line(&args.reference);
    publish::attach(&image, &artifacts, &registries, progress.as_ref(), &context.cancel).await?;
    let signed = format!("{}@{}", reference.repository, digests[0]);
    let verify = context.cosign_commands(args.signing.key.as_ref(), &[signed]);
    context.print(
        &json!({ "image": args.reference, "digest": digests[0], "signed": digests, "verify": verify }),
        || {
            let lines = digests.iter().map(|digest| format!("signed {digest}\n"));
            lines.collect::<String>() + &text::verify_with_cosign(&verify)
        },
    )
}

/// The key of `--key`, or the identity of `--keyless`.
pub fn signer(args: &SigningArgs) -> anyhow::Result<Signer> {
    #[cfg(feature = "keyless")]
    if args.keyless.keyless {
        use crate::sign::Keyless;
        let args = &args.keyless;
        let keyless = Keyless::with_token_of(args.identity_token.as_deref(), &args.fulcio_url, &args.rekor_url)?;
        return Ok(Signer::Keyless(Box::new(keyless)));
    }
    Ok(Signer::key(args.key.as_ref())?)
}
