//! `obgp-build diff IMAGE IMAGE`.

use std::fmt::Write as _;

use anyhow::anyhow;
use serde_json::json;

use super::image::{self, ImageName};
use super::{Context, Failure};
use crate::cli::DiffArgs;
use crate::image::diff::{self, Difference, ImageForDiff};

pub async fn run(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    let (old, new): (ImageName, ImageName) = (args.old.parse()?, args.new.parse()?);
    let old = image::open(context, &old, &args.platform, true).await?;
    let new = image::open(context, &new, &args.platform, true).await?;
    let mut differences: Vec<Difference> = Vec::new();
    for a in &old {
        for b in new.iter().filter(|b| b.platform == a.platform) {
            let difference = diff::diff(
                &ImageForDiff {
                    tree: &a.tree,
                    config: &a.config,
                },
                &ImageForDiff {
                    tree: &b.tree,
                    config: &b.config,
                },
            );
            differences.push(Difference {
                platform: Some(a.platform),
                ..difference
            });
        }
    }
    if differences.is_empty() {
        return Err(anyhow!("the two images have no platform in common").into());
    }
    context.print(
        &json!({ "old": args.old, "new": args.new, "platforms": differences }),
        || {
            differences.iter().fold(String::new(), |mut text, difference| {
                let _ = writeln!(text, "{difference}");
                text
            })
        },
    )
}
