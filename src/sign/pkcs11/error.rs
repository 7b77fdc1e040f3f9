//! Errors of keys in tokens. No message contains a PIN.

use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    #[error("it is not a PKCS#11 URI (RFC 7512): {0}")]
    Uri(String),
    #[error(
        "it does not name the token's PKCS#11 module\nhelp: add ?module-path=/PATH/TO/MODULE.so, \
         or set COSIGN_PKCS11_MODULE_PATH"
    )]
    NoModule,
    #[error("loading the PKCS#11 module {}: {reason}", .path.display())]
    Module { path: PathBuf, reason: String },
    #[error("no token matches the URI; the module has {}", list(.0))]
    NoToken(Vec<String>),
    #[error("several tokens match the URI: {}\nhelp: add token=, serial= or slot-id=", list(.0))]
    SeveralTokens(Vec<String>),
    #[error("reading the PIN from {}: {reason}", .path.display())]
    PinSource { path: PathBuf, reason: String },
    #[error("the token needs a PIN\nhelp: set COSIGN_PKCS11_PIN, or put the PIN into a file (pin-source=file:/PATH)")]
    NoPin,
    #[error("the token rejected the PIN; further wrong PINs will lock the token")]
    WrongPin,
    #[error("the token is locked after too many wrong PINs\nhelp: unlock it with the vendor's tool")]
    Locked,
    #[error("no {what} in the token matches the URI; it has {}", list(.found))]
    NoObject { what: &'static str, found: Vec<String> },
    #[error("several {what}s match the URI ({})\nhelp: add id= or object=", list(.found))]
    SeveralObjects { what: &'static str, found: Vec<String> },
    #[error(
        "the token has no public key or certificate with the private key's id\n\
         help: add one to the token; every signature is checked with it"
    )]
    NoPublicKey,
    #[error(
        "the token requires its PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which is not supported\n\
         help: use a key without this attribute"
    )]
    EveryTime,
    #[error("the token returned a signature of {0} bytes instead of 64")]
    NoSignature(usize),
    #[error("the token's signature does not match its public key: the private and public key are not a pair")]
    OtherPublicKey,
    #[error("{doing}: the token failed: {reason}")]
    Failed { doing: &'static str, reason: String },
}

/// The first few names.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names {
        [] => "none".into(),
        [shown @ .., _] if shown.len() >= SHOWN => {
            format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN)
        }
        all => all.join(", "),
    }
}

/// The function and its error code, by their names in the standard; the library's texts are paragraphs of the standard.
pub(super) fn describe(error: &cryptoki::error::Error) -> String {
    match error {
        cryptoki::error::Error::Pkcs11(code, function) => format!("C_{function:?} returned {code:?}"),
        other => other.to_string(),
    }
}

/// For `map_err`: adds the operation during which a function of the module failed.
pub(super) fn failed(doing: &'static str) -> impl Fn(cryptoki::error::Error) -> TokenProblem {
    move |error| TokenProblem::Failed {
        doing,
        reason: describe(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stay_short() {
        let names: Vec<String> = (1..=9).map(|n| n.to_string()).collect();
        assert_eq!(list(&[]), "none");
        assert_eq!(list(&names[..8]), "1, 2, 3, 4, 5, 6, 7, 8");
        assert_eq!(list(&names), "1, 2, 3, 4, 5, 6, 7, 8 and 1 more");
    }
}
