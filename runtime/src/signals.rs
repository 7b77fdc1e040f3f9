//! Termination signals during start-up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

/// Makes SIGTERM and SIGINT end the process with 128 plus the signal's number, as shells report it, while the returned flag is
/// true. PID 1 of a container ignores signals that have no handler: the pod would wait out its grace period.
pub fn exit_on_termination() -> io::Result<Arc<AtomicBool>> {
    let enabled = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, enabled.clone())?;
    }
    Ok(enabled)
}
