//! Results in files: reports for a CI job's artifacts, and the list that Zuul takes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::html;
use crate::build::result::BuildReport;
use crate::publish::Published;
use crate::util::files::write_atomically;

/// A result in a file, with mode 0644, whole or not at all.
pub fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Writes `report.json` and `report.html` into the output directory. Returns the path of `report.html`.
pub fn write_build(output: &Path, report: &BuildReport) -> anyhow::Result<PathBuf> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let page = html::build(report)?;
    write(&output.join("report.json"), json.as_bytes())?;
    let path = output.join("report.html");
    write(&path, page.as_bytes())?;
    Ok(path)
}

/// Writes the list that a Zuul job returns as `zuul.artifacts`, one entry for each tag. Without a path, writes nothing.
pub fn write_zuul_artifacts(path: Option<&Path>, published: &[Published]) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let entries: Vec<_> = published
        .iter()
        .flat_map(|image| image.destinations.iter().map(move |d| (&image.digest, &d.reference)))
        .map(|(digest, reference)| {
            let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, ""));
            json!({
                "name": reference,
                "url": format!("docker://{reference}"),
                "metadata": {
                    "type": "container_image",
                    "repository": repository,
                    "tag": tag,
                    "digest": digest,
                },
            })
        })
        .collect();
    write(path, (serde_json::to_string_pretty(&entries)? + "\n").as_bytes())
}
