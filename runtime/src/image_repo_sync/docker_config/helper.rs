//! Runs a credential helper: `docker-credential-NAME get`
//! (<https://github.com/docker/docker-credential-helpers#development>).

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Credentials, field, text_of};

/// The message with which helpers report that they have no credentials.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks a secret as an identity token.
const TOKEN: &str = "<token>";
const ANSWER_BYTES: u64 = 1 << 20;

/// The credentials of `server`; `None` if the helper has none. The error names the program and contains no secret.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: &dyn std::fmt::Display| format!("{program}: {reason}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper need not read its input.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(ANSWER_BYTES)
            .read_to_end(&mut answer)
            .map_err(|e| failed(&e))?;
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        return match text.trim() {
            NOT_FOUND => Ok(None),
            // A JSON document may contain a secret.
            document if document.is_empty() || document.starts_with('{') => Err(failed(&status)),
            message => Err(failed(&format!("{status}: {}", first_line(message)))),
        };
    }
    match serde_json::from_slice(&answer) {
        Ok(Value::Object(answer)) => {
            let text = |name: &str| text_of(field(&answer, name));
            Ok(match (text("Username"), text("Secret")) {
                (username, token) if username == TOKEN => Some(Credentials::IdentityToken(token)),
                (username, _) if username.is_empty() => None,
                (username, password) => Some(Credentials::Password { username, password }),
            })
        }
        _ => Err(failed(&"its output is not a JSON object")),
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(200).collect()
}
