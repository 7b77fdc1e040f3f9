//! Renders an error and its causes as text.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// An error that several waiting tasks return, with its causes.
#[derive(Clone)]
pub struct Shared(Arc<anyhow::Error>);

impl From<anyhow::Error> for Shared {
    fn from(error: anyhow::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The error and its causes, the innermost last.
pub fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The innermost cause. The outer errors are generic, e.g. "client error (SendRequest)".
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// `error: what was being done: what went wrong`; repeated causes are printed once.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            text += &format!("\n  because: {cause}");
            said = cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_error_keeps_its_causes() {
        let error = anyhow::anyhow!("connection refused").context("pulling the base");
        let shared = Shared::from(error);
        let rendered = render(&anyhow::Error::new(shared.clone()).context("debian_bookworm"));
        assert_eq!(
            rendered,
            "error: debian_bookworm\n  because: pulling the base\n  because: connection refused"
        );
    }
}
