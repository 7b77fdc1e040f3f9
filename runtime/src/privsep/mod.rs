//! `obgp-runtime privsep`: a request of the agent's user for a root helper -> oslo.privsep's helper, or a refusal.
//!
//! It is the only command that sudoers permits, so this module is the boundary between that user and root. The helper imports
//! any Python object that is named as its context and loads any class that its configuration names (oslo.log's
//! log_config_append). Therefore the arguments are restricted here:
//!
//! - [`arguments`]: an exact grammar, without an argument parser whose conveniences (`--a=b`, abbreviations) would accept more.
//! - `caller`: the caller must be the agent's user, through sudo.
//! - `trusted`: only root can change the configuration files and every part of their paths. So there is no race: a user who could
//!   swap a part between the check and the helper's `open` is already root.
//! - [`socket`]: the caller's own socket in the caller's own directory. The caller can swap the socket, so the checked inode is
//!   kept open and the helper gets `/proc/self/fd/N` instead of the path.
//! - `confine`: fewer capabilities, no inherited environment, file descriptors or groups; then exec.
//!
//! The file that the agent's user writes (`/run/ovn-bgp-agent/node.conf`) is accepted as an argument and not passed to the helper. A
//! list of harmless options in it would have to be adapted to every release of oslo.config and oslo.log, and the helper does
//! not need them: no privileged function of the agent reads configuration.

pub mod arguments;
mod caller;
mod confine;
mod context;
pub mod socket;
mod trusted;

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use crate::failure::Failure;
use arguments::{Configuration, Request};

/// Start one of the agent's root helpers, through sudo
///
/// The only command that sudoers permits. The agent runs it as oslo.privsep's helper_command. The arguments must have this order and
/// form; all others are refused:
///
///   [--config-file FILE | --config-dir DIR]... --privsep_context CONTEXT --privsep_sock_path SOCKET
///
/// FILE and DIR must be below /etc/ovn-bgp-agent or /etc/bgp-agent, and only root may be able to change them (a writable
/// directory is accepted on a read-only mount, as Kubernetes mounts a ConfigMap). /run/ovn-bgp-agent/node.conf, which the agent
/// writes, is accepted and not passed to the helper. CONTEXT is ovn_bgp_agent.privileged.default, .ovs_vsctl_cmd or .vtysh_cmd.
/// SOCKET is /tmp/tmpXXXXXXXX/privsep.sock and belongs to the caller. The options user, group and capabilities in the
/// configuration's privsep sections cannot exceed what this program grants to the context.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example, in the agent's configuration:\n  [privsep]\n  helper_command = sudo obgp-runtime privsep \
                  --config-file /etc/ovn-bgp-agent/ovn-bgp-agent.conf"
)]
pub struct Args {}

/// For the completeness of clap's subcommands: [`main`] handles every command line except `--help`.
pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err(Refusal::from(arguments::ArgumentError::Missing("--privsep_context")).into())
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Arguments(#[from] arguments::ArgumentError),
    #[error(transparent)]
    Caller(#[from] caller::CallerError),
    #[error(transparent)]
    Path(#[from] trusted::PathError),
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    #[error(transparent)]
    Confine(#[from] confine::ConfineError),
}

/// `arguments` follow `privsep`. Returns only after a refusal; otherwise the process becomes the helper.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let refusal = exec_helper(arguments);
    let caller = std::env::var_os("SUDO_UID").unwrap_or_else(|| "unknown".into());
    let line = one_line(&format!(
        "refused: {refusal} (caller: uid {})",
        caller.to_string_lossy()
    ));
    eprintln!("obgp-runtime privsep: {line}");
    syslog(&line);
    ExitCode::FAILURE
}

fn exec_helper(arguments: &[OsString]) -> Refusal {
    match check(arguments).and_then(|checked| Ok(confine::exec(checked)?)) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

/// A request that passed all checks, and the open socket.
#[derive(Debug)]
struct Checked {
    request: Request,
    socket: std::os::fd::OwnedFd,
}

fn check(arguments: &[OsString]) -> Result<Checked, Refusal> {
    let caller = caller::Caller::from_sudo(std::env::var_os("SUDO_UID"))?;
    let request = arguments::parse(arguments)?;
    for configuration in &request.configuration {
        match configuration {
            Configuration::File(path) => trusted::file(path)?,
            Configuration::Directory(path) => trusted::directory(path)?,
        }
    }
    let socket = socket::open(&request.socket, caller.uid)?;
    Ok(Checked { request, socket })
}

/// Escapes a text into one printable line of limited length. The text may contain input of the caller.
fn one_line(text: &str) -> String {
    const MAX_LENGTH: usize = 400;
    let mut line = String::new();
    for c in text.chars().take(MAX_LENGTH) {
        match c {
            ' '..='~' => line.push(c),
            _ => line.extend(c.escape_default()),
        }
    }
    if text.chars().count() > MAX_LENGTH {
        line.push_str("...");
    }
    line
}

/// Logs to the node as well, if the container has its log socket: the agent controls stderr and might hide the refusal. A container
/// has no kmsg, so without a log socket stderr remains.
fn syslog(line: &str) {
    /// authpriv.warning, RFC 5424 section 6.2.1.
    const PRIORITY: u8 = 10 * 8 + 4;
    if let Ok(log) = UnixDatagram::unbound() {
        let message = format!("<{PRIORITY}>obgp-runtime privsep[{}]: {line}", std::process::id());
        // Best effort: the refusal does not depend on it.
        let _ = log.set_nonblocking(true);
        let _ = log.send_to(message.as_bytes(), "/dev/log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_of_printable_text() {
        let line = one_line("path \"/etc/x\nroot: all is well\u{1b}[2J\0\u{202e}");
        assert_eq!(line, "path \"/etc/x\\nroot: all is well\\u{1b}[2J\\u{0}\\u{202e}");
        let long = one_line(&"a".repeat(100_000));
        assert!(long.len() < 500, "{} bytes", long.len());
    }
}
