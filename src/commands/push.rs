//! `obgp-build push oci:DIR[:TAG] REF…`: judge the image, publish it.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use serde_json::json;

use super::image::{self, ImageName};
use super::publishing::{PendingKey, subjects, tell_zuul};
use super::{Context, Failure};
use crate::attest::{self, ImageForSbom};
use crate::cli::PushArgs;
use crate::config::file::ConfigError;
use crate::layout::{LayoutImage, LayoutReference};
use crate::oci::ImageReference;
use crate::publish::{self, Destination, Published};
use crate::report::text;
use crate::sign::{self, Attestation};

pub async fn run(context: &Context, args: &PushArgs) -> Result<(), Failure> {
    let ImageName::Layout(reference) = args.image.parse()? else {
        let text = "push takes an image of a layout: oci:DIR[:TAG]; from one registry to another, promote does it";
        return Err(ConfigError::Invalid(text.into()).into());
    };
    let destinations = destinations(&args.destinations, reference.tag.as_deref())?;
    let key = PendingKey::load(args.publish.sign.as_ref());
    let judge = image::judge(context, args.judge.distro.as_deref(), args.judge.contract.as_deref())?;
    let image = LayoutImage::open(&reference)?;
    let verdicts = image::judge_to_push(context, &reference, &judge).await?;
    let index = image::admit(context, &args.image, image.descriptor.clone(), verdicts)?;
    let registries = context.registries(&judge.file);
    let progress = context.terminal.line(&args.image);
    let artifacts = match key.ready().await? {
        Some(key) => {
            let repository = &destinations[0].repository;
            let attestations = sboms_of(context, &reference, &repository.to_string()).await?;
            sign::artifacts(Some(key), repository, subjects(image.layout(), &index)?, attestations).await?
        }
        None => Vec::new(),
    };
    let published = publish::publish(
        image.layout(),
        &index,
        &destinations,
        &artifacts,
        &registries,
        progress.as_ref(),
        &context.cancel,
    )
    .await?;
    tell_zuul(&args.publish, std::slice::from_ref(&published))?;
    print(context, &args.image, &published)
}

/// Each platform's SBOMs: from what the build remembers, else from the layers.
async fn sboms_of(
    context: &Context,
    reference: &LayoutReference,
    repository: &str,
) -> anyhow::Result<Vec<Attestation>> {
    let image = LayoutImage::open(reference)?;
    let mut attestations = Vec::new();
    for (platform, manifest) in &image.platforms {
        let opened = image::recall_or_read(context, reference, *platform).await?;
        let about = ImageForSbom {
            platform: *platform,
            tree: &opened.tree,
            config: &opened.config,
            digest: opened.digest.as_deref(),
        };
        attestations.extend(attest::sboms(repository, manifest, &about)?);
    }
    Ok(attestations)
}

/// Destinations as the person wrote them; without a tag, they get this one.
pub fn destinations(references: &[String], tag: Option<&str>) -> anyhow::Result<Vec<Destination>> {
    let parsed = references.iter().map(|text| {
        let reference: ImageReference = text.parse()?;
        Ok(Destination::new(&reference, tag)?)
    });
    parsed.collect()
}

pub fn print(context: &Context, image: &str, published: &Published) -> Result<(), Failure> {
    let result = json!({
        "image": image,
        "digest": published.digest,
        "destinations": published.destinations,
        "bytes_sent": published.bytes_sent,
    });
    context.print(&result, || summary(published))
}

fn summary(published: &Published) -> String {
    let mut text = format!("{}\n", published.digest);
    for delivered in &published.destinations {
        let _ = writeln!(text, "  {} {}", delivered.reference, text::delivered(delivered));
    }
    let _ = writeln!(text, "{} sent", HumanBytes(published.bytes_sent));
    text
}
