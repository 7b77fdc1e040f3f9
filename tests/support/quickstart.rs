//! The images of `scripts/quickstart`, which `scripts/test` runs before the tests.

use std::path::Path;

use serde_json::Value;

/// Returns the build report. If it is missing, prints how to make it and returns `None`; panics in CI.
pub fn report() -> Option<Value> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = target.join("quickstart/report.json");
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) if std::env::var_os("CI").is_some() => panic!("{} is missing", path.display()),
        Err(_) => {
            eprintln!(
                "SKIPPED: no image to look at; make one: scripts/quickstart --output {}",
                target.join("quickstart").display()
            );
            None
        }
    }
}
