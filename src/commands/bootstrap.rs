//! `obgp-build bootstrap DISTRO`.

use std::fmt::Write as _;

use serde_json::json;

use super::{Context, Failure};
use crate::base::bootstrap::{self, BootstrapRequest};
use crate::base::cache::BaseArchive;
use crate::base::{self, resolve};
use crate::cli::BootstrapArgs;
use crate::engine::Engine;
use crate::plan::settings::{find_distro, pick_platforms};

pub async fn run(context: &Context, args: &BootstrapArgs) -> Result<(), Failure> {
    let file = context.build_file()?;
    let distro = find_distro(&file, &args.distro)?;
    let engine = context.unless_cancelled(Engine::from_env()).await?;
    let cache = base::cache_directory();
    let mut bases = Vec::new();
    let making = async {
        for platform in pick_platforms(&file, &args.platform) {
            let progress = context.terminal.line(&format!("{} {platform} base", args.distro));
            let request = BootstrapRequest {
                distro_name: &args.distro,
                distro,
                platform,
                cache: &cache,
                refresh: args.refresh,
            };
            let base = bootstrap::bootstrap(&request, progress.as_ref(), &context.cancel).await?;
            match &engine {
                Ok(engine) => {
                    resolve::load(engine, distro, &base, progress.as_ref()).await?;
                }
                // A bootstrap for another machine needs no engine here.
                Err(error) => progress.note(&format!("not loaded into an engine: {error}")),
            }
            bases.push(base);
        }
        Ok(())
    };
    let made: Result<(), Failure> = making.await;
    if bases.is_empty() {
        return made;
    }
    // Bases that are complete before a failure are reported too.
    let result: Vec<_> = bases
        .iter()
        .map(|base| json!({ "path": base.path, "base": base }))
        .collect();
    context.print(&result, || bases.iter().map(text).collect())?;
    made
}

fn text(base: &BaseArchive) -> String {
    let mut text = format!("{}\n", base.image_name);
    let _ = writeln!(text, "  archive   {}", base.path.display());
    let _ = writeln!(text, "  digest    {}", base.digest);
    let _ = writeln!(
        text,
        "  from      {} {} as of {}",
        base.mirror, base.suite, base.snapshot
    );
    let _ = writeln!(text, "  packages  {}", base.packages);
    text
}
