//! Runs the agent as a child process: forwards signals, reaps children and returns the agent's exit code.
//!
//! As PID 1 of the container this process adopts the root helpers that outlive their sudo. The agent leads its own process
//! group, so that the whole group can be killed if the agent does not end within the grace period after SIGTERM. This process
//! cannot kill the helpers that run as root; they end when their socket to the agent closes.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use super::log;

/// The longest sleep of the loop.
const IDLE: Duration = Duration::from_secs(3600);

/// The signals to forward. From the registration on, none is lost, even before the agent starts.
pub struct Signals {
    wake: UnixStream,
    pending: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    pub fn register() -> io::Result<Self> {
        let (wake, sender) = UnixStream::pair()?;
        let mut pending = Vec::new();
        for (number, signal) in [(SIGTERM, Signal::TERM), (SIGINT, Signal::INT), (SIGHUP, Signal::HUP)] {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, flag.clone())?;
            pending.push((signal, flag));
        }
        // After the flags, so that a flag is set before the wake-up is read.
        for number in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] {
            signal_hook::low_level::pipe::register(number, sender.try_clone()?)?;
        }
        Ok(Self { wake, pending })
    }

    /// Waits for a signal, which includes the end of a child.
    fn wait(&mut self, longest: Duration) -> io::Result<()> {
        // A read timeout of zero is invalid.
        self.wake
            .set_read_timeout(Some(longest.max(Duration::from_millis(1))))?;
        let mut bytes = [0; 64];
        match self.wake.read(&mut bytes) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Err(error),
            _ => Ok(()),
        }
    }

    fn take(&self) -> impl Iterator<Item = Signal> {
        let taken = self
            .pending
            .iter()
            .filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        taken.map(|(signal, _)| *signal)
    }
}

/// Starts the agent as the leader of a process group.
pub fn start(command: &mut Command) -> io::Result<Pid> {
    let child = command.process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

/// Waits until the agent ends. Returns its exit code, or 128 plus the number of the signal that ended it.
pub fn wait(agent: Pid, signals: &mut Signals, grace: Duration) -> io::Result<u8> {
    let mut deadline: Option<Instant> = None;
    loop {
        for signal in signals.take() {
            // Fails if the agent has just ended.
            let _ = rustix::process::kill_process(agent, signal);
            if signal != Signal::HUP {
                deadline.get_or_insert_with(|| Instant::now() + grace);
            }
        }
        if let Some(code) = reap(agent)? {
            return Ok(code);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            log(&format!(
                "the agent did not end within {} s of the signal: killing it",
                grace.as_secs_f32()
            ));
            let _ = rustix::process::kill_process_group(agent, Signal::KILL);
            // Do not kill it again while its end is pending.
            deadline = Some(Instant::now() + IDLE);
        }
        signals.wait(left.filter(|left| !left.is_zero()).unwrap_or(IDLE))?;
    }
}

/// Reaps every child that has ended. Returns the exit code of the agent if it is one of them.
fn reap(agent: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == agent => code = Some(exit_code(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(code),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
