//! `obgp-build diff IMAGE IMAGE`.

use anyhow::anyhow;
use serde_json::json;

use super::{Context, Failure};
use crate::cli::DiffArgs;
use crate::image::diff::diff_images;
use crate::image::{Image, ImageName};

pub async fn run(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    let (old, new): (ImageName, ImageName) = (args.old.parse()?, args.new.parse()?);
    let (old, _) = context.read(&old, &args.platform, true).await?;
    let (new, _) = context.read(&new, &args.platform, true).await?;
    let differences = diff_images(&old, &new)?;
    if differences.is_empty() {
        return Err(anyhow!("the two images have no platform in common").into());
    }
    let mut result = json!({ "old": args.old, "new": args.new, "platforms": differences });
    let mut from_engine = String::new();
    for (side, name, images) in [("old", &args.old, &old), ("new", &args.new, &new)] {
        if let Some(from) = images.iter().find_map(Image::read_from) {
            result["read_from"][side] = json!(from);
            from_engine += &format!("{name}: {from}\n");
        }
    }
    context.print(&result, || {
        let differences: String = differences.iter().map(|difference| format!("{difference}\n")).collect();
        differences + &from_engine
    })?;
    let differs = differences.iter().any(|difference| !difference.is_empty());
    if args.exit_code && differs {
        Err(Failure::Differs)
    } else {
        Ok(())
    }
}
