//! `obgp-build promote SRC DST…`: find the digest, judge what it stands for, copy it.

use super::image::{self};
use super::push::{destinations, print};
use super::{Context, Failure};
use crate::cli::PromoteArgs;
use crate::oci::ImageReference;
use crate::publish;
use crate::registry::RemoteImage;
use crate::sign::PublicKey;
use crate::sign::authenticate::{Depth, authenticate};

pub async fn run(context: &Context, args: &PromoteArgs) -> Result<(), Failure> {
    let source: ImageReference = args.source.parse()?;
    let destinations = destinations(&args.destinations, source.tag.as_deref())?;
    let judge = image::judge(context, args.judge.distro.as_deref(), args.judge.contract.as_deref())?.checked()?;
    let registries = context.registries(&judge.file);
    let root = image::find_remote_root(context, &registries, &source).await?;
    if let Some(key) = &args.key {
        authenticate(&root, &PublicKey::load(key)?, Depth::Signatures).await?;
    }
    let image = context.unless_cancelled(RemoteImage::open(root)).await??;
    let verdicts = image::verdicts_of(&judge, &image::open_remote(context, &image, &[], false).await?)?;
    let image = image::admit(context, &args.source, image, verdicts)?;
    let progress = context.terminal.line(&args.source);
    let published = publish::promote(&image, &destinations, &registries, progress.as_ref(), &context.cancel).await?;
    print(context, &args.source, &published)
}
