//! `vtysh` for the agent: commands and configuration files -> requests to FRR's daemons, their output and an exit status.
//!
//! The image contains no FRR, so this client does not know the grammar; the daemons do. It only knows which lines open and close a
//! context (see [`session`]), because a daemon that rejects a context must not get the lines inside it.
//!
//! Deliberate differences from FRR's vtysh: any rejected line makes the status of `-f` non-zero (FRR's vtysh returns 0 if a
//! transaction of several lines is rejected at its end), the output has no messages about processes, and there is no interactive
//! mode.

mod context;
mod session;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::files::{self, FileError};
use crate::vty::Reply;
use session::{Answer, Session};

/// Usually FRR answers at once, but mgmtd may wait for another client's configuration, and bgpd may have to walk a full table.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Usual configuration files have a few kB.
const MAX_FILE: u64 = 4 << 20;

/// Send commands and configuration to FRR's daemons, like FRR's vtysh
#[derive(Debug, Parser)]
#[command(
    name = "vtysh",
    version,
    group = clap::ArgGroup::new("what").required(true),
    after_help = "Examples:\n  vtysh -c 'show bgp summary json'\n  vtysh -c 'configure terminal' -c 'no router bgp 65000 vrf red'\n  \
                  vtysh --vty_socket /run/frr -f red.conf\n\n\
                  Write the words that open a context (router, vrf, interface, route-map, address-family) in full.\n\
                  Exit status: 0 if every line was accepted. -c ends with 1 at the first line that was not. -f executes all lines and ends\n\
                  with FRR's status of the last line that was not (2 unknown, 3 ambiguous, 4 incomplete, 13 rejected)."
)]
struct Args {
    /// Command to execute; can be repeated
    #[arg(short = 'c', long = "command", value_name = "COMMAND", group = "what")]
    commands: Vec<String>,
    /// File of configuration lines
    #[arg(short = 'f', long = "inputfile", value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Directory with the daemons' sockets
    #[arg(long = "vty_socket", value_name = "DIR", default_value = "/run/frr")]
    sockets: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum VtyshError {
    #[error(transparent)]
    Vty(#[from] crate::vty::VtyError),
    #[error("failed to connect to any daemons: none listens in {} (is FRR running?)", .0.display())]
    NoDaemons(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
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
    // Before FRR is contacted, so that an unreadable file changes nothing.
    let file = args.file.as_deref().map(read_file).transpose()?;
    let mut session = Session::open(&args.sockets, TIMEOUT)?;
    match file {
        Some(text) => Ok(execute_file(&mut session, &text)),
        None => Ok(execute_commands(&mut session, &args.commands)),
    }
}

/// Configures FRR, for other commands of this program. Stops at the first rejected line.
pub fn configure(sockets: &Path, timeout: Duration, lines: &[String]) -> Result<(), String> {
    let mut session = Session::open(sockets, timeout).map_err(|error| error.to_string())?;
    let accepted = |answer: Answer, line: &str| {
        if answer.is_accepted() {
            return Ok(());
        }
        let why: Vec<String> = answer
            .rejections()
            .map(|(daemon, _, text)| format!("{daemon}: {}", text.trim()))
            .collect();
        Err(format!(
            "{line:?} was rejected (status {}) {}",
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

fn read_file(path: &Path) -> Result<String, FileError> {
    let file = std::fs::File::open(path).map_err(|source| FileError::Io {
        doing: "read",
        path: path.into(),
        source,
    })?;
    let content = files::read_limited(&file, path, MAX_FILE)?;
    String::from_utf8(content).map_err(|_| FileError::NotText { path: path.into() })
}

/// Prints replies to stdout, also a rejection, and returns 1 at the first line that is not accepted, like FRR's vtysh.
fn execute_commands(session: &mut Session, commands: &[String]) -> u8 {
    // A quoted command may have several lines.
    for line in commands.iter().flat_map(|command| command.lines()) {
        let answer = session.execute(line);
        print_texts(&answer);
        if !answer.is_accepted() {
            for (daemon, status, text) in answer.rejections() {
                match text.is_empty() {
                    true => eprintln!("{daemon} rejected {:?} (status {status})", line.trim()),
                    false => print(text),
                }
            }
            match answer.status {
                Reply::UNKNOWN => print(&format!("% Unknown command: {line}")),
                Reply::AMBIGUOUS => print(&format!("% Ambiguous command: {line}")),
                Reply::INCOMPLETE => print(&format!("% Command incomplete: {line}")),
                _ => {}
            }
            return 1;
        }
    }
    0
}

/// Executes all lines, like FRR's vtysh. Returns the status of the last rejected one.
fn execute_file(session: &mut Session, text: &str) -> u8 {
    let begun = session.configure();
    if !begun.is_accepted() {
        report(&begun, 0, "configure terminal");
        return begun.status;
    }
    let mut status = 0;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        // FRR's own files end with this line. Lines after it are still configuration.
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
            for (daemon, status, text) in answer.rejections() {
                eprintln!(
                    "line {number}: {daemon} rejected {line:?} (status {status}): {}",
                    text.trim_end()
                );
            }
        }
    }
}

/// Prints the replies of the daemons that accepted the line. Several daemons may give the same reply; it is printed once.
fn print_texts(answer: &Answer) {
    let mut printed: Vec<&str> = Vec::new();
    for text in answer.accepted_texts() {
        if !printed.contains(&text) {
            print(text);
            printed.push(text);
        }
    }
}

/// A closed stdout must not stop the configuration.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.is_empty() && !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}
