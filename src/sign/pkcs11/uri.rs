//! Parses `pkcs11:token=…;object=…?module-path=…` (RFC 7512, as in cosign's `--key`) into the object to find, its
//! module and the PIN. Missing parts come from cosign's environment variables.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use cryptoki::object::Attribute;
use cryptoki::types::AuthPin;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::error::TokenProblem;

const SCHEME: &str = "pkcs11:";
const PIN: &str = "COSIGN_PKCS11_PIN";
const MODULE: &str = "COSIGN_PKCS11_MODULE_PATH";
/// Longer than any token's PIN.
const PIN_LIMIT: usize = 4096;

/// The attributes that name an object or its token. Output shows no others.
const NAMING: [&str; 8] = [
    "token",
    "manufacturer",
    "model",
    "serial",
    "slot-id",
    "object",
    "id",
    "type",
];

/// The text of a PKCS#11 URI, which may include a PIN; Display and Debug hide it. It is parsed at use, because an error
/// from the command line parser would print it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenUri(Zeroizing<String>);

/// The values of a URI and the environment.
#[derive(Default)]
pub(super) struct Wanted {
    pub token: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub serial: Option<String>,
    pub slot: Option<u64>,
    pub object: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
    pub module: PathBuf,
    pub pin: Option<AuthPin>,
}

impl Wanted {
    /// The attributes that the object must have.
    pub fn naming(&self) -> Vec<Attribute> {
        let object = self.object.clone().map(Attribute::Label);
        object.into_iter().chain(self.id.clone().map(Attribute::Id)).collect()
    }
}

impl TokenUri {
    /// `None` if `text` has another scheme.
    pub(in crate::sign) fn new(text: &str) -> Option<Self> {
        text.starts_with(SCHEME).then(|| Self(Zeroizing::new(text.to_string())))
    }

    pub(super) fn read(&self) -> Result<Wanted, TokenProblem> {
        let mut wanted = self.attributes()?;
        let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if wanted.module.as_os_str().is_empty() {
            wanted.module = from_env(MODULE).ok_or(TokenProblem::NoModule)?.into();
        }
        if wanted.pin.is_none()
            && let Some(value) = from_env(PIN)
        {
            wanted.pin = Some(pin(PIN, value.into_vec())?);
        }
        Ok(wanted)
    }

    fn attributes(&self) -> Result<Wanted, TokenProblem> {
        let (path, query) = self.parts();
        let mut wanted = Wanted::default();
        let mut seen = Vec::new();
        let pairs = path.split(';').map(|pair| (pair, true));
        let pairs = pairs.chain(query.split('&').map(|pair| (pair, false)));
        for (pair, in_path) in pairs.filter(|(pair, _)| !pair.is_empty()) {
            // Without `=`, the text may be part of a PIN: do not print it.
            let (name, value) = pair.split_once('=').ok_or_else(|| invalid("a part has no \"=\""))?;
            if seen.contains(&name) {
                return Err(invalid(format!("duplicate attribute {name}")));
            }
            seen.push(name);
            let value = decode(name, value)?;
            match (in_path, name) {
                (true, "token") => wanted.token = Some(text(name, value)?),
                (true, "manufacturer") => wanted.manufacturer = Some(text(name, value)?),
                (true, "model") => wanted.model = Some(text(name, value)?),
                (true, "serial") => wanted.serial = Some(text(name, value)?),
                (true, "slot-id") => {
                    let number = text(name, value)?.parse();
                    wanted.slot = Some(number.map_err(|_| invalid("slot-id is not a number"))?);
                }
                (true, "object") => wanted.object = Some(value),
                (true, "id") => wanted.id = Some(value),
                // The operation determines the object class.
                (true, "type") => {}
                (false, "module-path") => wanted.module = OsString::from_vec(value).into(),
                (false, "pin-value") if wanted.pin.is_none() => wanted.pin = Some(pin(name, value)?),
                (false, "pin-source") if wanted.pin.is_none() => wanted.pin = Some(pin_from(&value)?),
                (false, "pin-value" | "pin-source") => {
                    return Err(invalid("pin-value and pin-source exclude each other"));
                }
                (_, "module-path" | "pin-value" | "pin-source") => {
                    return Err(invalid(format!("{name} must be after the \"?\"")));
                }
                _ => {
                    return Err(invalid(format!(
                        "unknown attribute {name:?}; known are {}, and after the \"?\" module-path, pin-value, pin-source",
                        NAMING.join(", ")
                    )));
                }
            }
        }
        Ok(wanted)
    }

    fn parts(&self) -> (&str, &str) {
        let rest = self.0.strip_prefix(SCHEME).unwrap_or_default();
        rest.split_once('?').unwrap_or((rest, ""))
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.parts().0.split(';');
        let shown = pairs.filter(|pair| pair.split_once('=').is_some_and(|(name, _)| NAMING.contains(&name)));
        // Up to an `&`: the text after it may be a PIN in the wrong place (before the `?`).
        let shown = shown.map(|pair| pair.split('&').next().unwrap_or_default());
        write!(f, "{SCHEME}{}", shown.collect::<Vec<_>>().join(";"))
    }
}

impl fmt::Debug for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenUri({self})")
    }
}

/// Decodes every `%XX`. Rejects other uses of `%`: a truncated `id` would find another key.
fn decode(name: &str, value: &str) -> Result<Vec<u8>, TokenProblem> {
    let hex = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    match value.split('%').skip(1).all(hex) {
        true => Ok(percent_decode_str(value).collect()),
        false => Err(invalid(format!("{name} has a \"%\" without two hexadecimal digits"))),
    }
}

fn text(name: &str, value: Vec<u8>) -> Result<String, TokenProblem> {
    String::from_utf8(value).map_err(|_| invalid(format!("{name} is not UTF-8")))
}

fn pin(from: &str, value: Vec<u8>) -> Result<AuthPin, TokenProblem> {
    let value = Zeroizing::new(value);
    let value = std::str::from_utf8(&value).map_err(|_| invalid(format!("the PIN in {from} is not UTF-8")))?;
    Ok(AuthPin::from(value))
}

/// The first line of a file, given as a path or `file:` URI.
fn pin_from(source: &[u8]) -> Result<AuthPin, TokenProblem> {
    let source = String::from_utf8_lossy(source);
    let path = source
        .strip_prefix("file://")
        .or(source.strip_prefix("file:"))
        .unwrap_or(&source);
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(invalid("pin-source is not file:/ABSOLUTE/PATH"));
    }
    let unreadable = |reason: String| TokenProblem::PinSource {
        path: path.to_path_buf(),
        reason,
    };
    let content = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|e| unreadable(e.to_string()))?;
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.len() > PIN_LIMIT {
        return Err(unreadable("its first line is not a PIN".into()));
    }
    pin("pin-source", line.to_vec())
}

fn invalid(reason: impl Into<String>) -> TokenProblem {
    TokenProblem::Uri(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Wanted, TokenProblem> {
        TokenUri::new(text).unwrap().attributes()
    }

    fn refused(text: &str) -> String {
        read(text)
            .err()
            .unwrap_or_else(|| panic!("{text} is taken"))
            .to_string()
    }

    /// URIs as printed by `cosign pkcs11-tool list-keys-uris` and by `p11tool --list-privkeys`.
    #[test]
    fn uris_of_cosign_and_of_gnutls() {
        let uri =
            "pkcs11:token=My%20Token;slot-id=7;id=%00%4a%ff;object=a+b?module-path=/usr/lib/x%2ey.so&pin-value=12%2634";
        let wanted = read(uri).unwrap();
        assert_eq!(wanted.token.as_deref(), Some("My Token"));
        assert_eq!(wanted.slot, Some(7));
        assert_eq!(wanted.id.as_deref(), Some(&[0, 0x4a, 0xff][..]));
        assert_eq!(wanted.object.as_deref(), Some(&b"a+b"[..]));
        assert_eq!(wanted.module, Path::new("/usr/lib/x.y.so"));
        let uri =
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=0a1b;token=t;id=%01;object=k;type=private";
        let wanted = read(uri).unwrap();
        assert_eq!(wanted.model.as_deref(), Some("SoftHSM v2"));
        assert_eq!(wanted.serial.as_deref(), Some("0a1b"));
        assert!(wanted.pin.is_none());
        assert!(TokenUri::new("cosign.key").is_none());
    }

    #[test]
    fn other_uris_are_refused() {
        for (uri, told) in [
            ("pkcs11:token", "no \"=\""),
            ("pkcs11:token=a;token=b", "duplicate attribute token"),
            ("pkcs11:id=%4", "hexadecimal"),
            ("pkcs11:id=%zz", "hexadecimal"),
            ("pkcs11:token=%ff", "UTF-8"),
            ("pkcs11:slot-id=one", "number"),
            ("pkcs11:library-manufacturer=x", "library-manufacturer"),
            ("pkcs11:token=a?module-name=x", "module-name"),
            ("pkcs11:token=a;pin-value=1234", "after the \"?\""),
            ("pkcs11:?pin-value=1234&pin-source=file:/x", "exclude each other"),
            ("pkcs11:?pin-source=%7c/bin/ask-for-1234", "file:/ABSOLUTE"),
            ("pkcs11:?pin-source=file:/nonexistent", "No such file"),
            ("pkcs11:?1234", "no \"=\""),
        ] {
            let refused = refused(uri);
            assert!(refused.contains(told), "{uri}: {refused}");
            assert!(!refused.contains("1234"), "{uri}: {refused}");
        }
    }

    #[test]
    fn a_pin_is_never_shown() {
        for uri in [
            "pkcs11:token=a;object=b?pin-value=1234",
            "pkcs11:token=a;pin-value=1234;object=b",
            "pkcs11:token=a;1234;object=b",
            "pkcs11:token=a;object=b&pin-value=1234",
        ] {
            let uri = TokenUri::new(uri).unwrap();
            assert_eq!(uri.to_string(), "pkcs11:token=a;object=b");
            assert_eq!(format!("{uri:?}"), "TokenUri(pkcs11:token=a;object=b)");
        }
    }

    #[test]
    fn a_pin_comes_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        for (content, good) in [("1234\r\nmore", true), ("1234", true), ("\n1234", false), ("", false)] {
            std::fs::write(&path, content).unwrap();
            for scheme in ["", "file:", "file://"] {
                let uri = format!("pkcs11:?pin-source={scheme}{}", path.display());
                assert_eq!(read(&uri).is_ok(), good, "{content:?}");
            }
        }
    }
}
