//! The command line -> a subcommand, and its error -> a message and an exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::render;
use crate::{agent, drain, frr_config, frr_init, health, image_repo_sync, privsep, sysctl, vtysh};

/// The OVN BGP Agent pod's runtime.
#[derive(Debug, Parser)]
#[command(name = "obgp-runtime", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    FrrInit(frr_init::Args),
    FrrConfig(frr_config::Args),
    Agent(agent::Args),
    Health(health::Args),
    Drain(drain::Args),
    Privsep(privsep::Args),
    ImageRepoSync(image_repo_sync::Args),
}

/// Runs the subcommand. Under the name `vtysh` or `sysctl` (links in the image) the program is that tool.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let called_as = arguments.first().map(Path::new).and_then(Path::file_name);
    match called_as.and_then(std::ffi::OsStr::to_str) {
        Some("vtysh") => return vtysh::main(&arguments),
        Some("sysctl") => return sysctl::main(&arguments),
        _ => {}
    }
    // privsep runs as root and parses its arguments itself, with a strict grammar. clap only prints its help.
    match arguments.as_slice() {
        [_, name, help] if name == "privsep" && help == "--help" => {}
        [_, name, rest @ ..] if name == "privsep" => return privsep::main(rest),
        _ => {}
    }
    let result = match Cli::parse_from(arguments).command {
        Command::FrrInit(args) => frr_init::run(&args),
        Command::FrrConfig(args) => frr_config::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Privsep(args) => privsep::run(&args),
        Command::ImageRepoSync(args) => image_repo_sync::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("obgp-runtime: {}", render(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
