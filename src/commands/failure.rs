//! Any stage's error -> the reason for the exit code.

use crate::config::file::ConfigError;
use crate::oci::ReferenceError;
use crate::publish::PublishError;
use crate::util::cancel::Interrupted;

/// Why a command did not end well; each has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1: something could not be done.
    Failed(anyhow::Error),
    /// 2: it was asked for wrongly.
    Usage(anyhow::Error),
    /// 3: the image breaks its contract. The report has been printed.
    Contract,
    /// 130 or 143: the person, or the service manager, stopped it.
    Interrupted,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.chain().any(|cause| cause.is::<Interrupted>()) {
            Failure::Interrupted
        } else if error.chain().any(is_usage) {
            Failure::Usage(error)
        } else {
            Failure::Failed(error)
        }
    }
}

/// Whether it was asked for wrongly: an unknown distro, a name that cannot be one.
fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<ConfigError>()
        || cause.is::<ReferenceError>()
        || matches!(cause.downcast_ref(), Some(PublishError::Destination { .. }))
}
