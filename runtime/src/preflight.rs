//! Checks before the start: the container's set-up -> every reason why the agent cannot work in it, each with its fix.
//!
//! The checks change nothing and wait for nothing. They do not contact what may start later than this container (FRR, Open
//! vSwitch).

mod agent;

use std::fmt;

use crate::sysctl::access;

pub use agent::Pod;

/// The reaction to problems
#[derive(Clone, Debug, clap::Args)]
pub struct Preflight {
    /// What to do if the container lacks something that the agent needs: fail, or print a warning and continue
    #[arg(long, env = "PREFLIGHT", value_name = "WHAT", value_enum, default_value_t = Mode::Fail)]
    preflight: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Fail,
    Warn,
}

#[derive(Debug, PartialEq, Eq)]
struct Problem {
    cause: String,
    help: String,
    /// If false, the agent works with a limitation.
    fatal: bool,
}

impl Problem {
    fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            help: help.into(),
            fatal: true,
        }
    }

    fn note(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            fatal: false,
            ..Self::new(cause, help)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cannot = if self.fatal { "the agent cannot work here: " } else { "" };
        write!(f, "{cannot}{}\nhelp: {}", self.cause, self.help)
    }
}

/// All fatal problems.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\nobgp-runtime: "))]
pub struct PreflightError(Vec<String>);

impl Preflight {
    /// The checks that `frr-init` can do: it has the mounts of the agent's container but no capabilities.
    pub fn node(&self) -> Result<(), PreflightError> {
        self.report(sysctls())
    }

    /// All checks, in the agent's container.
    pub fn agent(&self, pod: &Pod<'_>) -> Result<(), PreflightError> {
        self.report(sysctls().into_iter().chain(pod.problems()))
    }

    fn report(&self, problems: impl IntoIterator<Item = Problem>) -> Result<(), PreflightError> {
        let mut fatal = Vec::new();
        for problem in problems {
            match problem.fatal && self.preflight == Mode::Fail {
                true => fatal.push(problem.to_string()),
                false => eprintln!("obgp-runtime: note: {problem}"),
            }
        }
        match fatal.is_empty() {
            true => Ok(()),
            false => Err(PreflightError(fatal)),
        }
    }
}

fn sysctls() -> Option<Problem> {
    access::check()
        .err()
        .map(|denied| Problem::new(format!("cannot set network sysctls: {denied}"), denied.help()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fatal_problem_is_reported_and_a_note_is_not_fatal() {
        let problems = || {
            [
                Problem::new("a is b", "do c"),
                Problem::note("d", "e"),
                Problem::new("f", "g"),
            ]
        };
        let error = Preflight { preflight: Mode::Fail }
            .report(problems())
            .unwrap_err()
            .to_string();
        let expected =
            "the agent cannot work here: a is b\nhelp: do c\nobgp-runtime: the agent cannot work here: f\nhelp: g";
        assert_eq!(error, expected);
        assert!(Preflight { preflight: Mode::Warn }.report(problems()).is_ok());
        assert!(
            Preflight { preflight: Mode::Fail }
                .report([Problem::note("d", "e")])
                .is_ok()
        );
    }
}
