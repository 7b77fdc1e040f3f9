//! Runs a credential helper: `docker-credential-NAME get`
//! (<https://github.com/docker/docker-credential-helpers#development>).

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Credentials, field, text_of};

/// The message with which helpers report that they have no credentials.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks a secret as an identity token.
const TOKEN: &str = "<token>";

/// The credentials of `server`; `None` if the helper has none. The error names the program and contains no secret.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: &dyn std::fmt::Display| format!("{program}: {reason}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper need not read its input.
        let _ = stdin.write_all(server.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(&e))?;
    if !output.status.success() {
        let (stdout, stderr) = (first_line(&output.stdout), first_line(&output.stderr));
        // A JSON document may contain a secret.
        let says_why = |line: &&String| !line.is_empty() && !line.starts_with('{');
        return match [&stdout, &stderr].into_iter().find(says_why) {
            Some(line) if *line == NOT_FOUND => Ok(None),
            Some(line) => Err(failed(&format!("{}: {line}", output.status))),
            None => Err(failed(&output.status)),
        };
    }
    match serde_json::from_slice(&output.stdout) {
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

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}
