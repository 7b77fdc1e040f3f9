//! `obgp-build dockerfile DISTRO`.

use serde_json::json;

use super::{Context, Failure};
use crate::cli::DockerfileArgs;
use crate::plan::dockerfile;
use crate::plan::settings::find_distro;

pub fn run(context: &Context, args: &DockerfileArgs) -> Result<(), Failure> {
    let file = context.build_file()?;
    let text = dockerfile::render(&args.distro, find_distro(&file, &args.distro)?, &file)?;
    context.print(&json!({ "distro": args.distro, "dockerfile": text }), || text.clone())
}
