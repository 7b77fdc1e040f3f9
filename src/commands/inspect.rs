//! `obgp-build inspect REF`: what a registry has under a name, without fetching layers.

use super::{Context, Failure};
use crate::cli::InspectArgs;
use crate::oci::ImageReference;
use crate::registry::inspect::inspect;
use crate::report;

pub async fn run(context: &Context, args: &InspectArgs) -> Result<(), Failure> {
    let reference: ImageReference = args.reference.parse()?;
    let registries = context.registries(&context.build_file()?);
    let image = context.open(&registries, &reference).await?;
    let inspected = context.unless_cancelled(inspect(&reference, &image)).await??;
    context.print(&inspected, || report::inspect::text(&inspected))
}
