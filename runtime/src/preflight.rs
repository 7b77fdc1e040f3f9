//! Checks before the start: each cause for which the agent cannot work in this container, with its remedy.
//!
//! Nothing is changed, and nothing is waited for: what starts later than this container (FRR, Open vSwitch) is not asked.

mod agent;

use std::fmt;

use crate::sysctl::way;

pub use agent::Pod;

/// What is done about a problem that is found
#[derive(Clone, Debug, clap::Args)]
pub struct Preflight {
    /// What a problem of the container does that keeps the agent from working: stop the start, or be printed
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
    /// Without it the agent works, but not for everybody.
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

/// All problems for which there is no start.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\nobgp-runtime: "))]
pub struct PreflightError(Vec<String>);

impl Preflight {
    /// What `frr-init` can see: the same mounts as the agent's container, but no capability.
    pub fn node(&self) -> Result<(), PreflightError> {
        self.settle(sysctls())
    }

    /// What the agent's container can see.
    pub fn agent(&self, pod: &Pod<'_>) -> Result<(), PreflightError> {
        self.settle(sysctls().into_iter().chain(pod.problems()))
    }

    fn settle(&self, problems: impl IntoIterator<Item = Problem>) -> Result<(), PreflightError> {
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
    way::check()
        .err()
        .map(|access| Problem::new(format!("no network sysctl can be set: {access}"), access.help()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fatal_problem_is_told_and_a_note_stops_nothing() {
        let problems = || {
            [
                Problem::new("a is b", "do c"),
                Problem::note("d", "e"),
                Problem::new("f", "g"),
            ]
        };
        let error = Preflight { preflight: Mode::Fail }
            .settle(problems())
            .unwrap_err()
            .to_string();
        let expected =
            "the agent cannot work here: a is b\nhelp: do c\nobgp-runtime: the agent cannot work here: f\nhelp: g";
        assert_eq!(error, expected);
        assert!(Preflight { preflight: Mode::Warn }.settle(problems()).is_ok());
        assert!(
            Preflight { preflight: Mode::Fail }
                .settle([Problem::note("d", "e")])
                .is_ok()
        );
    }
}
