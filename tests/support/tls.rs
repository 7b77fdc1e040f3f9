//! Makes certificates for mutual TLS with an engine.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

/// A CA, a certificate for the engine and one for its clients, in the files that docker uses.
pub struct Certificates {
    pub server: rustls::ServerConfig,
}

impl Certificates {
    /// Writes `ca.pem`, `cert.pem` and `key.pem` of a client into `client_dir`.
    pub fn make(client_dir: &Path) -> Self {
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let issue = |names: &[&str], usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (client, client_key) = issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::create_dir_all(client_dir).unwrap();
        std::fs::write(client_dir.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(client_dir.join("cert.pem"), client.pem()).unwrap();
        std::fs::write(client_dir.join("key.pem"), client_key.serialize_pem()).unwrap();

        let (server, server_key) = issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![server.der().clone()],
                PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { server }
    }
}
