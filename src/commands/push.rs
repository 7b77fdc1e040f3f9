//! `obgp-build push oci:DIR[:TAG] REF…`: judge the image, publish it.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use serde_json::json;

use super::image::{self, ImageName, Judge};
use super::{Context, Failure};
use crate::cli::PushArgs;
use crate::config::file::ConfigError;
use crate::layout::LayoutImage;
use crate::publish::{self, Delivered, Destination, Published, TagChange};
use crate::registry::ImageReference;

pub async fn run(context: &Context, args: &PushArgs) -> Result<(), Failure> {
    let ImageName::Layout(reference) = args.image.parse()? else {
        let text = "push takes an image of a layout: oci:DIR[:TAG]; from one registry to another, promote does it";
        return Err(ConfigError::Invalid(text.into()).into());
    };
    let destinations = destinations(&args.destinations, reference.tag.as_deref())?;
    let judge = Judge::for_publishing(context.build_file()?, &args.judge)?;
    let image = LayoutImage::open(&reference)?;
    let verdicts = image::judge_to_push(context, &reference, &judge).await?;
    let index = image::admit(context, &args.image, image.descriptor.clone(), verdicts)?;
    let registries = context.registries(&judge.file);
    let progress = context.terminal.line(&args.image);
    let published = publish::publish(
        image.layout(),
        &index,
        &destinations,
        &[],
        &registries,
        progress.as_ref(),
        &context.cancel,
    )
    .await?;
    print(context, &args.image, &published)
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
    context.print(&result, || text(published))
}

fn text(published: &Published) -> String {
    let mut text = format!("{}\n", published.digest);
    for delivered in &published.destinations {
        let _ = writeln!(text, "  {} {}", delivered.reference, summary(delivered));
    }
    let _ = writeln!(text, "{} sent", HumanBytes(published.bytes_sent));
    text
}

fn summary(delivered: &Delivered) -> String {
    let mut parts = vec![match &delivered.tag {
        TagChange::Created => "created".to_string(),
        TagChange::Moved { from } => format!("moved from {from}"),
        TagChange::Unchanged => "unchanged".to_string(),
    }];
    let blobs = &delivered.blobs;
    for (count, what) in [
        (blobs.uploaded, "blobs uploaded"),
        (blobs.mounted, "mounted"),
        (blobs.present, "already there"),
        (delivered.artifacts, "signatures and attestations"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}
