//! The arguments and the environment -> [`Cli`], or the usage error.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, Command, CommandFactory as _, FromArgMatches as _};

use super::{BuildArgs, Cli};

/// The command line. An empty environment variable counts as unset.
pub fn command() -> Command {
    without_empty_variables(Cli::command())
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

impl Cli {
    /// `arguments` begin with the program's name.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        refuse_before_subcommand(&mut command, &matches)?;
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Whether the arguments ask for JSON; also answers for arguments that [`Cli::read`] rejects.
pub fn wants_json(arguments: &[OsString]) -> bool {
    let options = arguments.iter().take_while(|argument| *argument != "--");
    options.into_iter().any(|argument| argument == "--json")
}

/// Before a subcommand there may be global options only: a flag of `build` would have no effect there.
fn refuse_before_subcommand(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some((subcommand, _)) = matches.subcommand() else {
        return Ok(());
    };
    let build = BuildArgs::augment_args(Command::new("build"));
    let misplaced = build
        .get_arguments()
        .find(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine));
    match misplaced.and_then(Arg::get_long) {
        None => Ok(()),
        Some(flag) => Err(command.error(
            ErrorKind::ArgumentConflict,
            format!("--{flag} stands before the subcommand, where it has no effect: write it after `{subcommand}`"),
        )),
    }
}
