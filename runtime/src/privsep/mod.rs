//! `obgp-runtime privsep`: a request of the agent's user for a root helper becomes oslo.privsep's own helper, or a refusal.
//!
//! It is the one command that sudoers allows, so everything here is the border between that user and root. The helper imports
//! whatever Python object it is given as its context and loads whatever classes its configuration names (oslo.log's
//! log_config_append), so what may be given is decided here:
//!
//! - [`arguments`]: an exact grammar, read without an argument parser whose conveniences (`--a=b`, abbreviations) would widen it.
//! - [`caller`]: root by way of sudo, for the agent's user.
//! - [`trusted`]: configuration that root alone can change, each part of its path included. So there is nothing to race with:
//!   who could swap a part between the check and the helper's own opening is root already.
//! - [`socket`]: the caller's own socket in the caller's own directory. The caller can swap that, so the checked inode is
//!   kept open and the helper is given `/proc/self/fd/N`, not the path.
//! - [`confine`]: fewer capabilities, no inherited environment, file descriptors, groups; then exec.
//!
//! The file that the agent writes for itself (`/run/ovn-bgp-agent/node.conf`) is accepted as an argument and left out of what
//! the helper gets. A list of harmless options in it would have to follow every release of oslo.config and oslo.log, and
//! the helper needs none of them: no privileged function of the agent reads configuration.

pub mod arguments;
pub mod caller;
pub mod confine;
pub mod context;
pub mod socket;
pub mod trusted;

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use crate::cli::Failure;
use arguments::{Configuration, Request};

/// Start one of the agent's root helpers, through sudo
///
/// The only command that sudoers allows. The agent calls it by oslo.privsep's helper_command; the arguments have this order and
/// these forms, and everything else is refused:
///
///   [--config-file FILE | --config-dir DIR]... --privsep_context CONTEXT --privsep_sock_path SOCKET
///
/// FILE and DIR are below /etc/ovn-bgp-agent or /etc/bgp-agent and can be changed by root alone (a directory that is writable
/// passes on a read-only mount, as Kubernetes mounts a ConfigMap). /run/ovn-bgp-agent/node.conf, which the agent
/// writes, is accepted and not passed on. CONTEXT is ovn_bgp_agent.privileged.default, .ovs_vsctl_cmd or
/// .vtysh_cmd; SOCKET is /tmp/tmpXXXXXXXX/privsep.sock, the caller's own. The options user, group and capabilities of the
/// configuration's privsep sections have no effect beyond what the context is given here.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example, in the agent's configuration:\n  [privsep]\n  helper_command = sudo obgp-runtime privsep \
                  --config-file /etc/ovn-bgp-agent/ovn-bgp-agent.conf"
)]
pub struct Args {}

/// Only reached for a command line that [`main`] was not given, which none is.
pub fn run(_: &Args) -> Result<ExitCode, Failure> {
    Err(Refusal::from(arguments::ArgumentError::Missing("--privsep_context")).into())
}

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
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

/// `arguments` are those after `privsep`. Returns only to refuse: otherwise the process is the helper.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let refusal = become_helper(arguments);
    let caller = std::env::var_os("SUDO_UID").unwrap_or_else(|| "unknown".into());
    let line = one_line(&format!(
        "refused: {refusal} (caller: uid {})",
        caller.to_string_lossy()
    ));
    eprintln!("obgp-runtime privsep: {line}");
    syslog(&line);
    ExitCode::FAILURE
}

fn become_helper(arguments: &[OsString]) -> Refusal {
    match check(arguments).and_then(|checked| Ok(confine::exec(checked)?)) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

/// A request of which everything was checked, and the socket's inode.
#[derive(Debug)]
pub struct Checked {
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

/// The text in one line of a log whatever the caller put into it, and not longer than a line should be.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut line = String::new();
    for c in text.chars().take(LONGEST) {
        match c {
            ' '..='~' => line.push(c),
            _ => line.extend(c.escape_default()),
        }
    }
    if text.chars().count() > LONGEST {
        line.push_str("...");
    }
    line
}

/// To the node's log as well, where its socket is in the container: stderr belongs to the agent, who may be the one to hide this.
/// There is no kmsg in a container, and without a log socket stderr is all there is.
fn syslog(line: &str) {
    /// authpriv.warning, RFC 5424 section 6.2.1.
    const PRIORITY: u8 = 10 * 8 + 4;
    if let Ok(log) = UnixDatagram::unbound() {
        let message = format!("<{PRIORITY}>obgp-runtime privsep[{}]: {line}", std::process::id());
        // Best effort by nature: the refusal does not depend on it.
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
