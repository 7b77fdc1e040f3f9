//! `vtysh`, for what the agent does with it: command lines and configuration files become requests to FRR's daemons, their
//! answers output and an exit status.
//!
//! The image carries no FRR, so this client knows no grammar; the daemons do. What it has to know is which lines open and
//! close a context (see [`session`]), because a daemon that does not know a context must not get the lines inside it.
//!
//! What differs from FRR's vtysh, on purpose: every refused line makes the status of `-f` non-zero (FRR's leaves it 0 when a
//! transaction of several lines is refused at its end), nothing is printed about processes, and there is no interactive use.

mod context;
mod session;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::vty::Reply;
use session::{Answer, Session};

/// FRR answers at once; mgmtd may have to wait for another client's configuration, bgpd for a full table to be walked.
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration file has a few kilobytes.
const MAX_FILE: u64 = 4 << 20;

/// Speaks to FRR's daemons, as FRR's vtysh does.
#[derive(Debug, Parser)]
#[command(
    name = "vtysh",
    version,
    group = clap::ArgGroup::new("what").required(true),
    after_help = "Examples:\n  vtysh -c 'show bgp summary json'\n  vtysh -c 'configure terminal' -c 'no router bgp 65000 vrf red'\n  \
                  vtysh --vty_socket /run/frr -f red.conf\n\n\
                  Write the words that open a context (router, vrf, interface, route-map, address-family) in full.\n\
                  Exit status: 0 when every line was accepted. With -c 1 at the first that was not; with -f FRR's status of the last\n\
                  that was not (2 unknown, 3 ambiguous, 4 incomplete, 13 refused), after all lines."
)]
struct Args {
    /// A command; several are executed one after the other
    #[arg(short = 'c', long = "command", value_name = "COMMAND", group = "what")]
    commands: Vec<String>,
    /// A file of configuration lines
    #[arg(short = 'f', long = "inputfile", value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// The directory with the daemons' sockets
    #[arg(long = "vty_socket", value_name = "DIR", default_value = "/run/frr")]
    sockets: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum VtyshError {
    #[error(transparent)]
    Vty(#[from] crate::vty::VtyError),
    #[error("failed to connect to any daemons: none listens in {} (is FRR up?)", .0.display())]
    Nobody(PathBuf),
    #[error("{} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {MAX_FILE} bytes", .0.display())]
    Size(PathBuf),
}

pub fn main(arguments: &[OsString]) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    match run(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vtysh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<u8, VtyshError> {
    // Read before FRR is spoken to: a file that cannot be read changes nothing.
    let file = args.file.as_deref().map(read_file).transpose()?;
    let mut session = Session::open(&args.sockets, PATIENCE)?;
    match file {
        Some(text) => Ok(execute_file(&mut session, &text)),
        None => Ok(execute_commands(&mut session, &args.commands)),
    }
}

/// Configures FRR with these lines, for other commands of this program; the first line that is refused ends it.
pub fn configure(sockets: &Path, patience: Duration, lines: &[String]) -> Result<(), String> {
    let mut session = Session::open(sockets, patience).map_err(|error| error.to_string())?;
    let accepted = |answer: Answer, line: &str| {
        if answer.is_accepted() {
            return Ok(());
        }
        let why: Vec<String> = answer
            .refusals()
            .map(|(daemon, _, text)| format!("{daemon}: {}", text.trim()))
            .collect();
        Err(format!(
            "{line:?} is not accepted (status {}) {}",
            answer.status,
            why.join(", ")
        ))
    };
    let begun = session.configure();
    accepted(begun, "configure terminal")?;
    for line in lines {
        let answer = session.execute(line);
        accepted(answer, line)?;
    }
    session.end();
    Ok(())
}

fn read_file(path: &Path) -> Result<String, VtyshError> {
    use std::io::Read;
    let failed = |source| VtyshError::File {
        path: path.to_path_buf(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 {
        0..=MAX_FILE => Ok(text),
        _ => Err(VtyshError::Size(path.to_path_buf())),
    }
}

/// As FRR's vtysh: answers to stdout, also the refusing one, and 1 at the first line that is not accepted.
fn execute_commands(session: &mut Session, commands: &[String]) -> u8 {
    // A command may hold several lines, as a shell's quotes make them.
    for line in commands.iter().flat_map(|command| command.lines()) {
        let answer = session.execute(line);
        print_texts(&answer);
        if !answer.is_accepted() {
            for (daemon, status, text) in answer.refusals() {
                match text.is_empty() {
                    true => eprintln!("{daemon} refused {:?} (status {status})", line.trim()),
                    false => say(text),
                }
            }
            match answer.status {
                Reply::UNKNOWN => say(&format!("% Unknown command: {line}")),
                Reply::AMBIGUOUS => say(&format!("% Ambiguous command: {line}")),
                Reply::INCOMPLETE => say(&format!("% Command incomplete: {line}")),
                _ => {}
            }
            return 1;
        }
    }
    0
}

/// All lines are executed, as FRR's vtysh does; the status of the last one that was refused.
fn execute_file(session: &mut Session, text: &str) -> u8 {
    let begun = session.configure();
    if !begun.is_accepted() {
        report(&begun, 0, "configure terminal");
        return begun.status;
    }
    let mut status = 0;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        // The end of FRR's own files; what comes after it is configuration nonetheless.
        if line.trim() == "end" {
            session.leave_all_contexts();
            continue;
        }
        let answer = session.execute(line);
        print_texts(&answer);
        if answer.is_accepted() {
            continue;
        }
        status = answer.status;
        report(&answer, number, line.trim());
    }
    session.end();
    status
}

fn report(answer: &Answer, number: usize, line: &str) {
    match answer.status {
        Reply::UNKNOWN => eprintln!("line {number}: % Unknown command: {line}"),
        Reply::AMBIGUOUS => eprintln!("line {number}: % Ambiguous command: {line}"),
        Reply::INCOMPLETE => eprintln!("line {number}: % Command incomplete: {line}"),
        _ => {
            for (daemon, status, text) in answer.refusals() {
                eprintln!(
                    "line {number}: {daemon} refused {line:?} (status {status}): {}",
                    text.trim_end()
                );
            }
        }
    }
}

/// What the daemons that accepted the line have to say, each text once: several answer `show version` alike.
fn print_texts(answer: &Answer) {
    let mut printed: Vec<&str> = Vec::new();
    for text in answer.accepted_texts() {
        if !printed.contains(&text) {
            say(text);
            printed.push(text);
        }
    }
}

/// A reader that went away is no reason to stop configuring.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.is_empty() && !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}
