//! `obgp-build promote SRC DST…`: find the digest, judge its image, copy it.

use super::push::print;
use super::{Context, Failure};
use crate::cli::PromoteArgs;
use crate::oci::ImageReference;
use crate::publish::{self, Destination};
use crate::registry::RemoteImage;
use crate::sign::PublicKey;
use crate::sign::authenticate::{Depth, authenticate};

pub async fn run(context: &Context, args: &PromoteArgs) -> Result<(), Failure> {
    let source: ImageReference = args.source.parse()?;
    let destinations = Destination::parse_all(&args.destinations, source.tag.as_deref())?;
    let judge = context
        .judge(args.judge.distro.as_deref(), args.judge.contract.as_deref())?
        .checked()?;
    let registries = context.registries(&judge.file);
    let root = context.find(&registries, &source).await?;
    if let Some(key) = &args.key {
        authenticate(&root, &PublicKey::load(key)?, Depth::Signatures).await?;
    }
    let image = context.unless_cancelled(RemoteImage::open(root)).await??;
    let verdicts = judge.verdicts(&context.read_remote(&image, &[], false).await?)?;
    let image = context.admit(&args.source, image, verdicts)?;
    let progress = context.terminal.line(&args.source);
    let published = publish::promote(&image, &destinations, &registries, progress.as_ref(), &context.cancel).await?;
    print(context, &args.source, &published, None)
}
