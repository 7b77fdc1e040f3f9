//! Parses values of flags that can be checked before any work starts.

use std::path::PathBuf;

use url::Url;

use crate::config::check::readable;

/// A file that exists and can be opened.
pub fn existing_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    readable(&path).map(|()| path)
}

/// An absolute URI.
pub fn uri(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(_) => Ok(text.to_string()),
        Err(e) => Err(format!("not a URI, such as https://example.org/ci: {e}")),
    }
}
