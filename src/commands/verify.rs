//! `obgp-build verify IMAGE`.

use serde_json::json;

use super::image::{self, ImageName, Judge};
use super::{Context, Failure};
use crate::cli::VerifyArgs;
use crate::report::text;
use crate::verify::Verdict;

pub async fn run(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    let name: ImageName = args.image.parse()?;
    let judge = Judge::new(context.build_file()?, &args.expect)?;
    let opened = image::open(context, &name, &args.expect.platform, false).await?;
    let verdicts = judge.verdicts(&opened)?;
    let passed = verdicts.iter().all(Verdict::passed);
    context.print(
        &json!({ "image": args.image, "passed": passed, "platforms": verdicts }),
        || verdicts.iter().map(text::verdict).collect::<Vec<_>>().join("\n"),
    )?;
    if passed { Ok(()) } else { Err(Failure::Contract) }
}
