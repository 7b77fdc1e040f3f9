//! `obgp-build verify IMAGE`.

use anyhow::anyhow;
use serde_json::json;

use super::{Context, Failure};
use crate::cli::VerifyArgs;
use crate::image::{Image, ImageName};
use crate::layout::OtherManifest;
use crate::plan::settings::find_distro;
use crate::registry::RemoteImage;
use crate::report::text;
use crate::sign::PublicKey;
use crate::sign::authenticate::{Authentic, Depth, authenticate};
use crate::verify::Verdict;

pub async fn run(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    let name: ImageName = args.image.parse()?;
    // Before time goes into reading an image.
    let file = context.build_file()?;
    if let Some(distro) = &args.expect.distro {
        find_distro(&file, distro)?;
    }
    let Some(key) = &args.key else {
        let (images, others) = context.read(&name, &args.expect.platform, false).await?;
        return judge(context, args, &images, others, None);
    };
    let ImageName::Registry(reference) = &name else {
        return Err(Failure::Usage(anyhow!(
            "--key verifies what lies beside an image in a registry; {} is not in one",
            args.image
        )));
    };
    let key = PublicKey::load(key)?;
    let registries = context.registries(&context.build_file()?);
    let root = context.find(&registries, reference).await?;
    let depth = match args.signatures_only {
        true => Depth::Signatures,
        false => Depth::Attestations,
    };
    // First: nothing that is not signed needs to be read.
    let authentic = context.unless_cancelled(authenticate(&root, &key, depth)).await??;
    if args.signatures_only {
        let result = json!({ "image": args.image, "passed": true, "authentic": authentic });
        return context.print(&result, || signed(&authentic));
    }
    let remote = context.unless_cancelled(RemoteImage::open(root)).await??;
    let images = context.read_remote(&remote, &args.expect.platform, false).await?;
    judge(
        context,
        args,
        &images,
        remote.others_than(&args.expect.platform),
        Some(&authentic),
    )
}

fn judge(
    context: &Context,
    args: &VerifyArgs,
    images: &[Image],
    others: Vec<OtherManifest>,
    authentic: Option<&[Authentic]>,
) -> Result<(), Failure> {
    let judge = context
        .judge(args.expect.distro.as_deref(), args.expect.contract.as_deref())?
        .checked()?;
    let verdicts = judge.verdicts(images)?;
    let passed = verdicts.iter().all(Verdict::passed) && others.iter().all(|other| other.left_out);
    let mut result = json!({ "image": args.image, "passed": passed, "platforms": verdicts, "not_judged": others });
    if let Some(authentic) = authentic {
        result["authentic"] = json!(authentic);
    }
    let read_from = images.iter().find_map(Image::read_from);
    if let Some(from) = read_from {
        result["read_from"] = json!(from);
    }
    context.print(&result, || {
        let from = read_from
            .map(|from| format!("{}: {from}\n", args.image))
            .unwrap_or_default();
        text::verdicts(&verdicts) + &not_judged(&others) + &authentic.map(signed).unwrap_or_default() + &from
    })?;
    if passed { Ok(()) } else { Err(Failure::Contract) }
}

/// The manifests of the image that have no verdict. Nothing vouches for those that a runtime could start.
fn not_judged(others: &[OtherManifest]) -> String {
    let line = |other: &OtherManifest| format!("not judged: {}: {}\n", other.digest, other.what);
    others.iter().map(line).collect()
}

fn signed(authentic: &[Authentic]) -> String {
    let line = |a: &Authentic| {
        let mut line = format!("{} signed: {}", a.digest, a.signatures.join(", "));
        if !a.attestations.is_empty() {
            line += &format!("; attested: {}", a.attestations.join(", "));
        }
        line + "\n"
    };
    authentic.iter().map(line).collect()
}
