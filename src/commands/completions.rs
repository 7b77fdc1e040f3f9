//! `obgp-build completions SHELL`: a script that asks this program for the candidates, so they include distros and tags.

use anyhow::anyhow;
use clap_complete::env::Shells;

use super::Failure;
use super::print::write_stdout;
use crate::cli::CompletionsArgs;

const NAME: &str = "obgp-build";

/// Bash splits words at colons, but `oci:DIR:TAG` is one word.
const BASH_KEEPS_COLONS: &str = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n";

pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| anyhow!("no completion for {name}"))?;
    write_stdout(|out| {
        if name == "bash" {
            out.write_all(BASH_KEEPS_COLONS.as_bytes())?;
        }
        shell.write_registration("COMPLETE", NAME, NAME, NAME, out)
    })?;
    Ok(())
}
