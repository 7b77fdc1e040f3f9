//! The error type that every subcommand returns, and its one rendering.

use std::error::Error;

/// Printed with its causes; the exit code is 1.
pub type Failure = Box<dyn Error>;

/// An error and its causes in one text. A cause that the text already contains is left out.
pub fn render(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
