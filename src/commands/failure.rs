//! Any stage's error -> the reason for the exit code, and its text: for people on stderr, with `--json` also as JSON on stdout,
//! unless the result is there already.

use std::process::ExitCode;

use serde_json::json;

use super::Context;
use super::print::write_stdout;
use crate::config::file::ConfigError;
use crate::layout::{ReadError, StoreError};
use crate::oci::ReferenceError;
use crate::publish::PublishError;
use crate::sign::KeyError;
use crate::util::cancel::Interrupted;
use crate::util::errors::render;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_CONTRACT: u8 = 3;

/// Why a command did not end well; each has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: something could not be done.
    Failed(anyhow::Error),
    /// 2: it was asked for wrongly.
    Usage(anyhow::Error),
    /// 3: the image breaks its contract. The report has been printed.
    Contract,
    /// 1: `diff --exit-code` found differences. They have been printed.
    Differs,
    /// 130 or 143: the person, or the service manager, stopped it.
    Interrupted,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.chain().any(|cause| cause.is::<Interrupted>()) {
            Failure::Interrupted
        } else if error.chain().any(is_usage) {
            Failure::Usage(error)
        } else {
            Failure::Failed(error)
        }
    }
}

/// Whether the command line or build.toml is wrong: an unknown distro, an invalid name, or the name of a file,
/// directory, tag or image that this machine does not have. What a registry does not have is a failure: it may have it
/// later.
fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<ConfigError>()
        || cause.is::<ReferenceError>()
        || matches!(cause.downcast_ref(), Some(PublishError::Destination { .. }))
        || cause.downcast_ref().is_some_and(StoreError::is_wrong_name)
        || cause.downcast_ref().is_some_and(ReadError::is_wrong_name)
        || cause.downcast_ref().is_some_and(KeyError::is_wrong_name)
}

impl Failure {
    /// Prints the reason and returns the exit code. `signal` is the exit code of the signal that stopped the run, if one did.
    pub fn report(&self, context: &Context, signal: Option<u8>) -> u8 {
        let interrupted = "interrupted: stopped and cleaned up".to_string();
        // An interrupted run prints no result, not even an error as JSON.
        let (text, code, is_result) = match (self, signal) {
            (Self::Contract, _) => return EXIT_CONTRACT,
            (Self::Differs, _) => return EXIT_FAILED,
            (_, Some(code)) => (interrupted, code, false),
            (Self::Interrupted, None) => (interrupted, super::signals::EXIT_SIGINT, false),
            (Self::Failed(error), None) => (render(error), EXIT_FAILED, true),
            (Self::Usage(error), None) => (render(error), EXIT_USAGE, true),
        };
        context.terminal.close();
        context.terminal.say(&text);
        if is_result && context.global.json && !context.has_printed() {
            print_json(&text, code);
        }
        code
    }
}

/// A usage error, or the text of `--help` and `--version`.
pub fn refuse(error: &clap::Error, wants_json: bool) -> ExitCode {
    let _ = error.print();
    let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE);
    if wants_json && error.use_stderr() {
        let text = error.render().to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default();
        print_json(text.split("\n\nFor more").next().unwrap_or_default(), code);
    }
    ExitCode::from(code)
}

/// `{"error": …, "help": …, "exit_code": …}`
fn print_json(text: &str, code: u8) {
    let text = text.trim().trim_start_matches("error: ");
    let (error, help) = match text.split_once("\nhelp: ") {
        Some((error, help)) => (error, Some(help)),
        None => (text, None),
    };
    let mut result = json!({ "error": error, "exit_code": code });
    if let Some(help) = help {
        result["help"] = help.into();
    }
    // Nobody is left to report a closed stdout to.
    let _ = write_stdout(|out| writeln!(out, "{result:#}"));
}
