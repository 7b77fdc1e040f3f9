//! Renders results as text for the terminal.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use console::style;
use indicatif::HumanBytes;

use super::terminal::{compact, duration};
use crate::build::result::{BuildReport, Built, ImageReport, Outcome};
use crate::publish::{Delivered, Published, TagChange};
use crate::verify::{Refused, Verdict};

/// Findings printed per rule: one defect often breaks a rule in every file.
const FINDINGS_SHOWN: usize = 8;

pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().map(Cell::new));
    table
}

pub fn number(cell: impl std::fmt::Display) -> Cell {
    Cell::new(cell).set_alignment(CellAlignment::Right)
}

pub fn build(report: &BuildReport) -> String {
    let mut text = String::new();
    for image in &report.images {
        text += &image_text(image, report.builders.len() + report.absent.len() > 1);
    }
    let _ = writeln!(text, "{} in {}", summary(report), duration(report.seconds));
    text
}

fn summary(report: &BuildReport) -> String {
    let of = |outcome| report.images.iter().filter(|i| i.outcome == outcome).count();
    let unchanged = |image: &&ImageReport| {
        let built: Vec<&Built> = image.platforms.iter().filter_map(|p| p.built.as_ref()).collect();
        image.outcome == Outcome::Done && built.iter().all(|built| built.nothing_ran())
    };
    let unchanged = report.images.iter().filter(unchanged).count();
    let mut parts = vec![format!("{} built and verified", of(Outcome::Done) - unchanged)];
    match (parts[0].starts_with("0 "), unchanged) {
        (_, 0) => {}
        (true, unchanged) => parts[0] = format!("{unchanged} unchanged and verified"),
        (false, unchanged) => parts.push(format!("{unchanged} unchanged and verified")),
    }
    for (count, what) in [
        (of(Outcome::BreaksContract), "broke the contract"),
        (of(Outcome::Failed), "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

/// `builders`: whether several builders exist, so that the builder is printed.
fn image_text(image: &ImageReport, builders: bool) -> String {
    let mut text = format!("{}\n", style(&image.name).bold());
    text += &platform_table(image, builders);
    text += &platform_problems(image);
    match (&image.layout, &image.digest) {
        (Some(layout), Some(digest)) => {
            let _ = writeln!(text, "  {layout}\n  {digest}");
            for delivered in image.published.iter().flat_map(|p| &p.destinations) {
                let _ = writeln!(text, "  {} {}", delivered.reference, self::delivered(delivered));
            }
            if let Some(error) = &image.error {
                let _ = writeln!(text, "\n{}\n{error}", style("not pushed:").red().bold());
            }
            text += &verify_with_cosign(&image.verify);
            text += "\n";
        }
        (None, _) if image.error.is_some() => {
            let error = image.error.as_deref().unwrap_or_default();
            let _ = writeln!(text, "\n{}\n{error}\n", style("not tagged:").red().bold());
        }
        _ => {
            let _ = writeln!(
                text,
                "  not tagged: {}\n",
                if image.outcome == Outcome::Failed {
                    "not every platform was built"
                } else {
                    "it breaks its contract"
                }
            );
        }
    }
    text
}

fn platform_table(image: &ImageReport, builders: bool) -> String {
    let smoke = image
        .platforms
        .iter()
        .flat_map(|p| &p.built)
        .any(|b| !b.smoke.is_empty());
    let mut header = vec!["  PLATFORM", "DIGEST", "SIZE", "STEPS", "CONTRACT", "TIME"];
    if smoke {
        header.insert(5, "SMOKE");
    }
    if builders {
        header.insert(1, "BUILDER");
    }
    let mut rows = table(&header);
    for platform in &image.platforms {
        let name = format!("  {}", platform.platform);
        let mut row = match &platform.built {
            Some(built) => vec![
                Cell::new(name),
                Cell::new(short(&built.digest)),
                number(HumanBytes(built.compressed_bytes)),
                number(steps(built)),
                Cell::new(contract(built)),
            ],
            None => vec![
                Cell::new(name),
                Cell::new("failed"),
                number("-"),
                number("-"),
                Cell::new("-"),
            ],
        };
        if smoke {
            row.push(Cell::new(platform.built.as_ref().map_or("-".into(), smoke_result)));
        }
        row.push(number(compact(platform.seconds)));
        if builders {
            row.insert(
                1,
                Cell::new(platform.built.as_ref().map_or("-", |b| b.builder.as_str())),
            );
        }
        rows.add_row(row);
    }
    format!("{}\n", trim_lines(&rows.to_string()))
}

/// Errors, findings and failed smoke tests of each platform.
fn platform_problems(image: &ImageReport) -> String {
    let mut text = String::new();
    for platform in &image.platforms {
        if let Some(error) = &platform.error {
            let _ = writeln!(
                text,
                "\n{} {}:\n{error}",
                style("failed:").red().bold(),
                platform.platform
            );
        }
        if platform.built.as_ref().is_some_and(Built::was_in_engine_storage) {
            let _ = writeln!(text, "  {} was read from the engine's storage", platform.platform);
        }
        if let Some(built) = &platform.built {
            text += &findings(&built.verdict);
            for smoke in built.smoke.iter().filter(|s| !s.passed) {
                let _ = writeln!(
                    text,
                    "\n{} {} {}:\n{}",
                    style("smoke test failed:").red().bold(),
                    platform.platform,
                    smoke.id,
                    smoke.output
                );
            }
        }
    }
    text
}

/// The result of a push or a promotion.
pub fn published(published: &Published) -> String {
    let mut text = format!("{}\n", published.digest);
    for delivered in &published.destinations {
        let _ = writeln!(text, "  {} {}", delivered.reference, self::delivered(delivered));
        for artifact in &delivered.left {
            let _ = writeln!(text, "    not copied: {artifact}");
        }
    }
    let _ = writeln!(text, "{} sent", HumanBytes(published.bytes_sent));
    text
}

/// Commands of a block that a person copies: whole, one a line.
pub fn verify_with_cosign(commands: &[String]) -> String {
    match commands.is_empty() {
        true => String::new(),
        false => format!("\nverify with cosign 2 or 3:\n{}\n", commands.join("\n")),
    }
}

/// The verdicts on several platforms.
pub fn verdicts(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(verdict).collect::<Vec<_>>().join("\n")
}

/// An image that was not published.
pub fn refused(refused: &Refused) -> String {
    verdicts(&refused.verdicts) + "\nnot published: it breaks its contract\n"
}

/// The change of a tag, and the transferred blobs.
pub fn delivered(delivered: &Delivered) -> String {
    let mut parts = vec![match &delivered.tag {
        TagChange::Created => "created".to_string(),
        TagChange::Moved { from } => format!("moved from {from}"),
        TagChange::Unchanged => "unchanged".to_string(),
    }];
    let blobs = &delivered.blobs;
    for (count, what) in [
        (blobs.uploaded, "blobs uploaded"),
        (blobs.mounted, "mounted"),
        (blobs.present, "already there"),
        (delivered.artifacts, "signatures and attestations"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

fn steps(built: &Built) -> String {
    match built.nothing_ran() {
        true => "unchanged".into(),
        false => format!("{}/{} cached", built.cached_steps, built.steps),
    }
}

fn contract(built: &Built) -> String {
    let rules = built.verdict.rules().len();
    match built.verdict.broken().count() {
        0 => format!("{rules} passed"),
        broken => format!("{broken}/{rules} failed"),
    }
}

fn smoke_result(built: &Built) -> String {
    let passed = built.smoke.iter().filter(|s| s.passed).count();
    format!("{passed}/{}", built.smoke.len())
}

/// The verdict for one platform, rule by rule.
pub fn verdict(verdict: &Verdict) -> String {
    let mut text = style(verdict.platform()).bold().to_string();
    // An image in an engine has no registry digest.
    if let Some(digest) = verdict.digest() {
        let _ = write!(text, " {digest}");
    }
    text.push('\n');
    for rule in verdict.rules() {
        let mark = if rule.passed {
            style("ok  ").green()
        } else {
            style("FAIL").red().bold()
        };
        let _ = writeln!(
            text,
            "  {mark} {:<24} {} ({} {})",
            rule.id, rule.title, rule.checked.count, rule.checked.of
        );
    }
    text += &findings(verdict);
    text
}

/// The evidence of every failed rule.
fn findings(verdict: &Verdict) -> String {
    let mut text = String::new();
    for rule in verdict.broken() {
        let _ = writeln!(
            text,
            "\n{} {} {}: {}",
            style("broken:").red().bold(),
            verdict.platform(),
            style(rule.id).bold(),
            rule.title
        );
        for finding in rule.findings.iter().take(FINDINGS_SHOWN) {
            let layer = finding.layer.map(|l| format!(" (layer {l})")).unwrap_or_default();
            let _ = writeln!(
                text,
                "    {}{layer}\n      expected {}\n      found    {}",
                finding.path, finding.expected, finding.found
            );
        }
        let more = rule.findings.len().saturating_sub(FINDINGS_SHOWN) + rule.omitted;
        if more > 0 {
            let _ = writeln!(text, "    and {more} more (--json lists them)");
        }
    }
    text
}

/// `0123456789ab`: a short digest that still identifies an image.
pub fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    &hex[..hex.len().min(12)]
}

/// Removes trailing blanks from every line.
pub fn trim_lines(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
