//! Why a token's key is not usable. No message holds a PIN.

use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    #[error("it is not a PKCS#11 URI (RFC 7512): {0}")]
    Uri(String),
    #[error(
        "it does not say which PKCS#11 module reaches the token: add ?module-path=/PATH/TO/MODULE.so, \
         or set COSIGN_PKCS11_MODULE_PATH"
    )]
    NoModule,
    #[error("the PKCS#11 module {} cannot be used: {reason}", .path.display())]
    Module { path: PathBuf, reason: String },
    #[error("no token is like that; the module has {}", list(.0))]
    NoToken(Vec<String>),
    #[error("several tokens are like that ({}): say which by token=, serial= or slot-id=", list(.0))]
    SeveralTokens(Vec<String>),
    #[error("the PIN cannot be read from {}: {reason}", .path.display())]
    PinSource { path: PathBuf, reason: String },
    #[error("the token wants a PIN: set COSIGN_PKCS11_PIN, or name a file that holds it (pin-source=file:/PATH)")]
    NoPin,
    #[error("the token refuses the PIN; after some more wrong ones it will lock itself")]
    WrongPin,
    #[error("the token is locked after too many wrong PINs: unlock it with its own tool")]
    Locked,
    #[error("the token has no {what} like that; it has {}", list(.found))]
    NoObject { what: &'static str, found: Vec<String> },
    #[error("the token has several {what}s like that ({}): say which by id= or object=", list(.found))]
    SeveralObjects { what: &'static str, found: Vec<String> },
    #[error(
        "the token has no public key and no certificate with the private key's id: \
         put one there, what is signed is checked with it"
    )]
    NoPublicKey,
    #[error(
        "the token wants the PIN again for every signature (CKA_ALWAYS_AUTHENTICATE), which is not supported: \
         use a key without that"
    )]
    EveryTime,
    #[error("the token returned {0} bytes where a signature has 64")]
    NoSignature(usize),
    #[error("what the token signs does not fit the public key it has beside the private key: they are of two pairs")]
    OtherPublicKey,
    #[error("the token fails while {doing}: {reason}")]
    Failed { doing: &'static str, reason: String },
}

/// As many as a person reads.
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

/// The function and the code it returned, by their names in the standard; the library's own texts are paragraphs of it.
pub(super) fn told(error: &cryptoki::error::Error) -> String {
    match error {
        cryptoki::error::Error::Pkcs11(code, function) => format!("C_{function:?} returned {code:?}"),
        other => other.to_string(),
    }
}

/// For `map_err`: what was being done when a function of the module failed.
pub(super) fn failed(doing: &'static str) -> impl Fn(cryptoki::error::Error) -> TokenProblem {
    move |error| TokenProblem::Failed {
        doing,
        reason: told(&error),
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
