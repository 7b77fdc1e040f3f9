//! The result of a command on stdout, as text or JSON.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;

use super::{Context, Failure};
use crate::report::text;
use crate::sign::{CosignCommands, KeySource};
use crate::verify::{Verdict, Verified};

impl Context {
    /// Prints the result: JSON with `--json`, otherwise the text.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let written = write_stdout(|out| match self.global.json {
            true => {
                serde_json::to_writer_pretty(&mut *out, value)?;
                writeln!(out)
            }
            false => out.write_all(text().as_bytes()),
        });
        self.printed.store(written.is_ok(), Ordering::Relaxed);
        written.map_err(Failure::Failed)
    }

    /// The commands that verify images, `HOST/PATH@DIGEST`, which the key signed.
    pub fn cosign_commands(&self, key: Option<&KeySource>, images: &[String]) -> Vec<String> {
        let registries = &self.global.registries;
        let commands = key.map(|key| CosignCommands {
            key,
            plain_http: registries.plain_http,
            ca: registries.registry_ca.as_deref(),
        });
        let images = images.iter().map(String::as_str);
        commands.map(|commands| commands.verify(images)).unwrap_or_default()
    }

    /// Returns the value if every platform passed; otherwise prints the verdicts and fails.
    pub fn admit<T>(&self, name: &str, value: T, verdicts: Vec<Verdict>) -> Result<Verified<T>, Failure> {
        Verified::admit(value, verdicts).map_err(|refused| {
            let result = json!({ "image": name, "passed": false, "platforms": refused.verdicts });
            let printed = self.print(&result, || text::refused(&refused));
            printed.err().unwrap_or(Failure::Contract)
        })
    }

    pub fn has_printed(&self) -> bool {
        self.printed.load(Ordering::Relaxed)
    }
}

/// Writes to stdout. A reader that closed the pipe (`obgp-build plan | head`) is not an error.
pub fn write_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}
