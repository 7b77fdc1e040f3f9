//! `obgp-build sbom IMAGE`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::print::write_stdout;
use super::{Context, Failure};
use crate::attest::{Sbom, cyclonedx, spdx};
use crate::cli::{SbomArgs, SbomFormat};
use crate::image::ImageName;
use crate::oci::Platform;
use crate::report::files;

pub async fn run(context: &Context, args: &SbomArgs) -> Result<(), Failure> {
    let name: ImageName = args.image.parse()?;
    let (images, _) = context.read(&name, &args.platform, false).await?;
    let directory = args.output.as_deref().filter(|path| path.is_dir());
    if images.len() > 1 && directory.is_none() {
        let has: Vec<String> = images.iter().map(|i| i.platform().to_string()).collect();
        return Err(Failure::Usage(anyhow!(
            "there is one SBOM per platform, and the image has {}; choose one with --platform, or give a directory to --output",
            has.join(" and ")
        )));
    }
    for image in &images {
        if let Some(from) = image.read_from() {
            context.terminal.tell(&format!("{}: {from}", args.image));
        }
        let platform = image.platform();
        let sbom = Sbom::of(image).with_context(|| format!("the SBOM of {} {platform}", args.image))?;
        for gap in &sbom.gaps {
            context
                .terminal
                .say(&format!("warning: the SBOM of {platform} is not complete: {gap}"));
        }
        let document = document(&sbom, args.format)?;
        match (&args.output, directory) {
            (_, Some(directory)) => files::write(&directory.join(file_name(platform, &sbom, args.format)), &document)?,
            (Some(path), None) if path != Path::new("-") => files::write(path, &document)?,
            _ => write_stdout(|out| out.write_all(&document))?,
        }
    }
    Ok(())
}

fn document(sbom: &Sbom, format: SbomFormat) -> anyhow::Result<Vec<u8>> {
    let json = match format {
        SbomFormat::SpdxJson => serde_json::to_vec_pretty(&spdx::document(sbom)?),
        SbomFormat::CyclonedxJson => serde_json::to_vec_pretty(&cyclonedx::document(sbom)?),
    };
    let mut json = json.context("writing the SBOM as JSON")?;
    json.push(b'\n');
    Ok(json)
}

/// `ovn-bgp-agent-7.0.0-linux-amd64.spdx.json`
fn file_name(platform: Platform, sbom: &Sbom, format: SbomFormat) -> PathBuf {
    let ending = match format {
        SbomFormat::SpdxJson => "spdx",
        SbomFormat::CyclonedxJson => "cdx",
    };
    // A label is somebody else's text; a file name it may not break out of.
    let name = match sbom.document_name() {
        name if name.contains(['/', '\0']) => platform.slug(),
        name => name,
    };
    format!("{name}.{ending}.json").into()
}
