//! Network settings of this machine: CA bundle, proxies and package index. A build gets them as secrets or predefined
//! arguments, which leave no trace in an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The paths of the CA bundle on common distributions, most common first.
const CA_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The arguments that BuildKit predefines: every step gets them, and history and cache keys exclude them.
const PROXY_VARIABLES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

#[derive(Clone, Debug, Default)]
pub struct Host {
    pub ca_bundle: Option<PathBuf>,
    /// By upper-case name. May contain credentials.
    pub proxies: BTreeMap<String, String>,
    /// The package index that pip and uv use instead of PyPI. May contain credentials.
    pub pip_index: Option<String>,
}

impl Host {
    pub fn from_env() -> Self {
        Self::new(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
            .iter()
            .filter_map(|name| variable(name))
            .map(PathBuf::from);
        let proxies = PROXY_VARIABLES.iter().filter_map(|name| {
            let value = variable(name).or_else(|| variable(&name.to_lowercase()))?;
            Some((name.to_string(), value))
        });
        Host {
            ca_bundle: named
                .chain(CA_BUNDLES.iter().map(PathBuf::from))
                .find(|path| path.is_file()),
            proxies: proxies.collect(),
            pip_index: variable("PIP_INDEX_URL").or_else(|| variable("UV_DEFAULT_INDEX")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_taken_in_either_case_and_the_named_bundle_wins() {
        let bundle = tempfile::NamedTempFile::new().unwrap();
        let path = bundle.path().display().to_string();
        let host = Host::new(|name| match name {
            "https_proxy" => Some("http://proxy.example:3128".into()),
            "SSL_CERT_FILE" => Some(path.clone()),
            _ => None,
        });
        assert_eq!(host.proxies["HTTPS_PROXY"], "http://proxy.example:3128");
        assert_eq!(host.ca_bundle.as_deref(), Some(bundle.path()));
    }
}
