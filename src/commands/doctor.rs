//! `obgp-build doctor`.

use std::fmt::Write as _;

use console::style;
use serde_json::json;

use super::{Context, Failure};
use crate::cli::DoctorArgs;
use crate::doctor::{self, Finding, Status};
use crate::plan::host_env::Host;

pub async fn run(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    let file = context.build_file()?;
    let findings = doctor::examine(&file, &Host::from_env(), &context.output(args.output.as_deref(), &file)).await;
    let missing = findings.iter().filter(|f| f.status == Status::Missing).count();
    context.print(&json!({ "ready": missing == 0, "findings": findings }), || {
        text(&findings)
    })?;
    match missing {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("one thing is missing, see above").into()),
        n => Err(anyhow::anyhow!("{n} things are missing, see above").into()),
    }
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => style("ok     ").green(),
            Status::Warn => style("warning").yellow(),
            Status::Missing => style("MISSING").red().bold(),
        };
        let _ = writeln!(
            text,
            "{mark}  {:<width$}  {}",
            finding.check,
            finding.found.replace('\n', "; ")
        );
        if let Some(fix) = &finding.fix
            && finding.status != Status::Ok
        {
            let _ = writeln!(text, "         {:<width$}  -> {fix}", "");
        }
    }
    text
}
