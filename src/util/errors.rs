//! Renders an error and its causes as text.

use std::error::Error;

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
