//! Checks before the start: the container's set-up -> every reason why the agent cannot work in it, each with its fix.
//!
//! The checks change nothing and wait for nothing. They do not contact what may start later than this container (FRR, Open
//! vSwitch).

mod agent;
mod node;

use std::fmt;
use std::path::Path;

use crate::agent_options::AgentOptions;
use crate::optional_arg::OptionalArg;
use crate::sysctl::access;

pub use agent::Pod;
pub use node::Frr;

/// The reaction to problems
#[derive(Clone, Debug, clap::Args)]
pub struct Preflight {
    /// What to do if the container lacks something that the agent needs: fail, or print a warning and continue
    #[arg(long, env = "PREFLIGHT", value_name = "WHAT", value_enum, default_value_t = Mode::Fail)]
    preflight: Mode,
    /// Group of FRR's sockets, as a number: this container must have it. Without the option, the existing sockets
    /// tell the group
    #[arg(
        long,
        env = "FRR_VTY_GROUP",
        value_name = "GID",
        default_value = "",
        hide_default_value = true
    )]
    vty_group: OptionalArg<u32>,
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
    affected: Affected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affected {
    Agent,
    Frr,
    /// Nothing, or it is uncertain: a note.
    Nothing,
}

impl Problem {
    fn new(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            help: help.into(),
            affected: Affected::Agent,
        }
    }

    fn note(cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            affected: Affected::Nothing,
            ..Self::new(cause, help)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cannot = match self.affected {
            Affected::Agent => "the agent cannot work here: ",
            Affected::Frr => "FRR cannot work here: ",
            Affected::Nothing => "",
        };
        write!(f, "{cannot}{}\nhelp: {}", self.cause, self.help)
    }
}

/// All fatal problems.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\nobgp-runtime: "))]
pub struct PreflightError(Vec<String>);

impl Preflight {
    /// The checks that `frr-init` can do: it has the network and some mounts of the agent's container, but no
    /// capabilities.
    pub fn node(&self, frr: &Frr<'_>, config: &Path) -> Result<(), PreflightError> {
        let mut problems = Vec::from_iter(sysctls());
        problems.extend(node::no_vrf());
        problems.extend(frr.problems());
        // `frr-init` reports a mistake in the configuration itself, if it needs the file.
        let options = AgentOptions::load(config).unwrap_or_default();
        problems.extend(node::table_taken(&options));
        problems.extend(agent::open_vswitch(&options, agent::Directory::MayBeMissing));
        problems.extend(self.vty_group.0.and_then(agent::not_in_group));
        self.report(problems)
    }

    /// All checks, in the agent's container.
    pub fn agent(&self, pod: &Pod<'_>) -> Result<(), PreflightError> {
        let mut problems = Vec::from_iter(sysctls());
        problems.extend(node::no_vrf());
        problems.extend(pod.problems(self.vty_group.0));
        self.report(problems)
    }

    fn report(&self, problems: impl IntoIterator<Item = Problem>) -> Result<(), PreflightError> {
        let mut fatal = Vec::new();
        for problem in problems {
            match problem.affected != Affected::Nothing && self.preflight == Mode::Fail {
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
        let preflight = |preflight| Preflight {
            preflight,
            vty_group: OptionalArg(None),
        };
        let error = preflight(Mode::Fail).report(problems()).unwrap_err().to_string();
        let expected =
            "the agent cannot work here: a is b\nhelp: do c\nobgp-runtime: the agent cannot work here: f\nhelp: g";
        assert_eq!(error, expected);
        assert!(preflight(Mode::Warn).report(problems()).is_ok());
        assert!(preflight(Mode::Fail).report([Problem::note("d", "e")]).is_ok());
    }
}
