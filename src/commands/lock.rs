//! `obgp-build lock`: a lock for every pair of ref and interpreter that the chosen distros need.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Context, Failure};
use crate::cli::LockArgs;
use crate::plan::host_env::Host;
use crate::plan::lock::{self, LockRequest};
use crate::plan::settings::{find_distro, lock_moment, pick_distros};
use crate::plan::source;

pub async fn run(context: &Context, args: &LockArgs) -> Result<(), Failure> {
    let file = context.build_file()?;
    let all = vec!["all".to_string()];
    let distros = pick_distros(&file, if args.distro.is_empty() { &all } else { &args.distro })?;
    let mut wanted: BTreeMap<String, (String, String)> = BTreeMap::new();
    for name in &distros {
        let distro = find_distro(&file, name)?;
        let reference = args
            .project_ref
            .as_ref()
            .or(distro.reference.as_ref())
            .unwrap_or(&file.project.reference);
        source::check_python(&file, reference, name, distro)?;
        let lock_name = lock::file_name(&file, reference, &distro.python)?;
        wanted.insert(lock_name, (reference.clone(), distro.python.clone()));
    }
    let exclude_newer = lock_moment()?;
    let host = Host::from_env();
    let mut replaced = Vec::new();
    let mut made = Vec::new();
    let locking = async {
        for (name, (reference, python)) in &wanted {
            let progress = context.terminal.line(name);
            let series = &source::series(&file, reference)?.constraints;
            if let Some(from) = &args.constraints
                && !replaced.contains(series)
            {
                progress.step(&format!("taking over constraints from {from}"));
                context
                    .unless_cancelled(lock::replace_constraints(&file, series, from))
                    .await??;
                replaced.push(series.clone());
            }
            let source = context.unless_cancelled(source::resolve(&file, reference)).await??;
            let request = LockRequest {
                file: &file,
                reference,
                source: &source,
                python,
                exclude_newer,
            };
            made.push(lock::lock(&request, &host, progress.as_ref(), &context.cancel).await?);
        }
        Ok(())
    };
    let locked: Result<(), Failure> = locking.await;
    if made.is_empty() {
        return locked;
    }
    // Locks that are written before a failure are reported too.
    let result: Vec<_> = made
        .iter()
        .map(|lock| json!({ "name": lock.name, "path": lock.path, "digest": lock.digest, "pins": lock.pins }))
        .collect();
    context.print(&result, || {
        made.iter()
            .map(|lock| format!("{}  {} distributions\n", lock.path.display(), lock.pins.len()))
            .collect()
    })?;
    locked
}
