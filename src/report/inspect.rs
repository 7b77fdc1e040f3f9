//! What a registry has under a name, as a person reads it.

use std::fmt::Write as _;

use comfy_table::Cell;
use indicatif::HumanBytes;

use super::text::{number, table, trim_lines};
use crate::registry::inspect::{Inspected, Kind};

pub fn text(inspected: &Inspected) -> String {
    let mut text = format!(
        "{}\n{} {}\n\n",
        inspected.reference, inspected.digest, inspected.media_type
    );
    let mut rows = table(&["  PLATFORM", "SIZE", "LAYERS", "CREATED"]);
    for platform in &inspected.platforms {
        rows.add_row(vec![
            Cell::new(format!("  {}", platform.platform)),
            number(HumanBytes(platform.size)),
            number(platform.layers),
            Cell::new(platform.created.as_deref().unwrap_or("-")),
        ]);
    }
    // A whole digest has a line of its own: beside other columns it would not fit 80 columns.
    let rows = trim_lines(&rows.to_string());
    let digests = inspected.platforms.iter().map(|platform| platform.digest.as_str());
    for (row, digest) in rows.lines().zip([""].into_iter().chain(digests)) {
        let _ = writeln!(text, "{row}");
        if !digest.is_empty() {
            let _ = writeln!(text, "    {digest}");
        }
    }
    text.push('\n');
    if let Some(platform) = inspected.platforms.first() {
        for (name, value) in &platform.labels {
            let _ = writeln!(text, "  {name} = {value}");
        }
    }
    text += match inspected.artifacts.is_empty() {
        true => "\n  no signature, no attestation, no referrer\n",
        false => "\n",
    };
    for beside in &inspected.artifacts {
        let of = match beside.subject == inspected.digest {
            true => "the image".to_string(),
            false => platform_of(inspected, &beside.subject),
        };
        let what = match beside.kind {
            Kind::Signatures => format!("{} signature(s) under a tag", beside.what),
            Kind::Attestations => format!("{} attestation(s) under a tag", beside.what),
            Kind::Referrer => format!("referrer {}", beside.what),
        };
        let _ = writeln!(text, "  {of}: {what} ({})", beside.digest);
    }
    text
}

fn platform_of(inspected: &Inspected, digest: &str) -> String {
    let found = inspected.platforms.iter().find(|p| p.digest == digest);
    found.map_or(digest.to_string(), |p| p.platform.to_string())
}
