//! `obgp-build push oci:DIR[:TAG] REF…`: judge the image, publish it.

use std::path::Path;

use serde_json::json;

use super::{Context, Failure};
use crate::attest;
use crate::cli::PushArgs;
use crate::config::file::ConfigError;
use crate::image::state::State;
use crate::image::{Image, ImageName, open};
use crate::layout::LayoutImage;
use crate::plan::output;
use crate::publish::{self, Destination, Published};
use crate::report::{files, text};
use crate::sign::{self, KeySource, PendingKey};
use crate::verify::judge::Judge;
use crate::verify::memory::{Known, Memory};
use crate::verify::{Verdict, read_options};

pub async fn run(context: &Context, args: &PushArgs) -> Result<(), Failure> {
    let ImageName::Layout(reference) = args.image.parse()? else {
        let text = "push takes an image of a layout: oci:DIR[:TAG]; from one registry to another, promote does it";
        return Err(ConfigError::Invalid(text.into()).into());
    };
    let destinations = Destination::parse_all(&args.destinations, reference.image_tag().as_deref())?;
    let key = PendingKey::load(args.publish.key.as_ref())?;
    if let Some(path) = &args.publish.zuul_artifacts {
        output::check_file("--zuul-artifacts", path)?;
    }
    let judge = context.judge(args.judge.distro.as_deref(), args.judge.contract.as_deref())?;
    let image = LayoutImage::open_with(&reference, &context.wait())?;
    let output = reference.dir.parent().unwrap_or(&reference.dir);
    let images = open::in_layout(&image, &[], read_options(false))?;
    let (verdicts, images) = verdicts(context, &reference.to_string(), images, output, &judge).await?;
    let index = context.admit(&args.image, image.descriptor.clone(), verdicts)?;
    let registries = context.registries(&judge.file);
    let progress = context.terminal.line(&args.image);
    let artifacts = match key.ready().await? {
        Some(key) => {
            let repository = &destinations[0].repository;
            let name = repository.to_string();
            let attestations = attest::sboms_of_all(&name, images, &State::new(output), &context.cancel).await?;
            sign::artifacts(Some(key), repository, image.subjects()?, attestations).await?
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
    // First: the tag is set, whatever becomes of the list.
    print(context, &args.image, &published, args.publish.key.as_ref())?;
    files::write_zuul_artifacts(args.publish.zuul_artifacts.as_deref(), std::slice::from_ref(&published))?;
    Ok(())
}

/// The verdicts on all platforms of a layout's image: remembered verdicts, or verdicts on remembered files, or on the layers.
/// All of them go by the digests of the manifests, which are the digests that are pushed; the registry checks that the blobs
/// match.
async fn verdicts(
    context: &Context,
    name: &str,
    mut images: Vec<Image>,
    output: &Path,
    judge: &Judge,
) -> anyhow::Result<(Vec<Verdict>, Vec<Image>)> {
    let memory = Memory::new(output);
    let known = Known::new(&memory, judge.terms(&images));
    if let Some(verdicts) = known.recall_all(&images) {
        return Ok((verdicts, images));
    }
    judge.contract.check_form()?;
    let verdicts = match judge.verdicts_from(&State::new(output), &mut images)? {
        Some(verdicts) => verdicts,
        None => {
            let progress = context.terminal.line(name);
            progress.step("reading the layers");
            images = open::read(images, &context.cancel).await?;
            judge.verdicts(&images)?
        }
    };
    known.remember(&verdicts);
    Ok((verdicts, images))
}

/// `key` signed it.
pub fn print(context: &Context, image: &str, published: &Published, key: Option<&KeySource>) -> Result<(), Failure> {
    let verify = context.cosign_commands(key, &published.images_by_digest());
    let mut result = json!({
        "image": image,
        "digest": published.digest,
        "destinations": published.destinations,
        "bytes_sent": published.bytes_sent,
    });
    if !verify.is_empty() {
        result["verify"] = json!(verify);
    }
    context.print(&result, || {
        text::published(published) + &text::verify_with_cosign(&verify)
    })
}
