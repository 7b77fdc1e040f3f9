//! A signing key and a pushed image -> the commands that verify the image with cosign 2 or 3, whole. They work without a
//! transparency log and without a network besides the registry: the signatures here have no log entry.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::KeySource;

/// Skips Rekor, and with it Sigstore's trust root (TUF). Both series have this flag; cosign 3 has no `--private-infrastructure`.
const WITHOUT_LOG: &str = "--insecure-ignore-tlog=true";

/// The key that signed, and how to connect to the registry.
pub struct CosignCommands<'a> {
    pub key: &'a KeySource,
    pub plain_http: bool,
    pub ca: Option<&'a Path>,
}

impl CosignCommands<'_> {
    /// For images by digest, `HOST/PATH@DIGEST`.
    pub fn verify<'i>(&self, images: impl IntoIterator<Item = &'i str>) -> Vec<String> {
        let mut images = images.into_iter().peekable();
        if images.peek().is_none() {
            return Vec::new();
        }
        let (make, public) = self.public_key();
        let mut registry = String::new();
        if self.plain_http {
            registry += " --allow-http-registry=true";
        }
        if let Some(ca) = self.ca {
            registry += &format!(" --registry-cacert {}", quoted(&ca.display().to_string()));
        }
        let verify = |image| {
            format!(
                "cosign verify --key {} {WITHOUT_LOG}{registry} {image}",
                quoted(&public)
            )
        };
        make.into_iter().chain(images.map(verify)).collect()
    }

    /// The command that writes the public key, if it is not there, and how `cosign verify` names the key.
    fn public_key(&self) -> (Option<String>, String) {
        match self.key {
            KeySource::File(path) => {
                let public = path.with_extension("pub");
                let make = (!public.is_file()).then(|| {
                    let (from, to) = (
                        quoted(&path.display().to_string()),
                        quoted(&public.display().to_string()),
                    );
                    match is_cosigns(path) {
                        true => format!("cosign public-key --key {from} > {to}"),
                        false => format!("openssl pkey -in {from} -pubout -out {to}"),
                    }
                });
                (make, public.display().to_string())
            }
            KeySource::Environment(variable) => {
                let public = format!("{variable}.pub");
                let make = match std::env::var(variable).is_ok_and(|text| has_cosigns_label(&text)) {
                    true => format!("cosign public-key --key env://{variable} > {public}"),
                    false => format!("printenv {variable} | openssl pkey -pubout -out {public}"),
                };
                (Some(make), public)
            }
            other => (None, other.to_string()),
        }
    }
}

fn is_cosigns(path: &Path) -> bool {
    let mut start = Vec::new();
    // A pipe must not be read twice.
    let file = path.is_file().then(|| File::open(path)).and_then(Result::ok);
    let read = file.is_some_and(|file| file.take(4096).read_to_end(&mut start).is_ok());
    read && has_cosigns_label(&String::from_utf8_lossy(&start))
}

/// openssl cannot read these keys.
fn has_cosigns_label(pem: &str) -> bool {
    ["SIGSTORE", "COSIGN"]
        .iter()
        .any(|kind| pem.contains(&format!("-----BEGIN ENCRYPTED {kind} PRIVATE KEY")))
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_whole_and_make_a_missing_public_key() {
        let dir = tempfile::tempdir().unwrap();
        let commands = |key: &KeySource, plain_http: bool| {
            let ca = plain_http.then_some(Path::new("my ca.pem"));
            let commands = CosignCommands { key, plain_http, ca };
            commands.verify(["r.example/a@sha256:0"]).join("\n")
        };
        let private = dir.path().join("release.key");
        let key = KeySource::File(private.clone());
        std::fs::write(&private, "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----").unwrap();
        let made = commands(&key, true);
        assert!(made.starts_with("cosign public-key --key "), "{made}");
        assert!(
            made.contains("--allow-http-registry=true --registry-cacert 'my ca.pem' r.example/a@sha256:0"),
            "{made}"
        );
        std::fs::write(&private, "-----BEGIN PRIVATE KEY-----").unwrap();
        assert!(commands(&key, false).starts_with("openssl pkey -in "));
        std::fs::write(dir.path().join("release.pub"), "").unwrap();
        let public = dir.path().join("release.pub").display().to_string();
        assert_eq!(
            commands(&key, false),
            format!("cosign verify --key {public} {WITHOUT_LOG} r.example/a@sha256:0")
        );
        let token: KeySource = "pkcs11:token=t;object=o".parse().unwrap();
        assert!(commands(&token, false).contains("--key 'pkcs11:token=t;object=o' "));
    }
}
