//! Builds the TLS configuration of one registry's connections: trusted authorities and client certificate.
//!
//! Self-signed certificates are commonly made with CA:TRUE and used by a server; zuul-jobs' buildset registry does
//! this. webpki rejects a CA certificate as a server's certificate. Therefore a certificate named in the settings is
//! compared byte for byte, as Go's verifier does, and with it docker and podman. Name, dates, purpose and the
//! handshake's signature are checked as well.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5280::ID_KP_SERVER_AUTH;
use x509_cert::ext::pkix::ExtendedKeyUsage;

/// Loads the system's certificate authorities.
type Authorities = Box<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>;

/// A client certificate with its chain and key.
pub(super) struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// All certificates of a PEM file; the error describes the defect.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    if found.is_empty() {
        return Err("it contains no PEM certificate".into());
    }
    Ok(found)
}

pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| format!("it contains no readable private key: {e}"))
}

/// Trusts the system's authorities and the certificates in `named`.
pub(super) fn config(
    named: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    config_with(Box::new(system_authorities), named, identity)
}

fn system_authorities() -> Vec<CertificateDer<'static>> {
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::debug!(%error, "a certificate authority of the system cannot be read");
    }
    system.certs
}

fn config_with(
    system: Authorities,
    named: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(system, named, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key)?,
        None => builder.with_no_client_auth(),
    };
    // The protocol that the HTTP client is built for.
    config.alpn_protocols = vec!["http/1.1".into()];
    Ok(config)
}

/// webpki's verifier, plus the remaining checks for certificates named in the settings.
struct Verifier {
    /// Authorities in the settings. The system's, some hundred files, are read when a server presents a certificate.
    roots: RootCertStore,
    system: Authorities,
    usual: OnceLock<Result<Arc<WebPkiServerVerifier>, rustls::Error>>,
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        system: Authorities,
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &named {
            roots.add(certificate.clone())?;
        }
        Ok(Self {
            roots,
            system,
            usual: OnceLock::new(),
            named,
            provider,
        })
    }

    fn usual(&self) -> Result<&WebPkiServerVerifier, rustls::Error> {
        let usual = self.usual.get_or_init(|| {
            let mut roots = self.roots.clone();
            // Systems ship some certificates that are too old for webpki; skip those.
            roots.add_parsable_certificates((self.system)());
            if roots.is_empty() {
                let text =
                    "the system has no certificate authorities\nhelp: install ca-certificates, or use --registry-ca FILE";
                return Err(rustls::Error::General(text.into()));
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))
        });
        usual.as_deref().map_err(Clone::clone)
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("named", &self.named.len())
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.named.iter().any(|named| named == end_entity) {
            // Parsing also rejects unknown critical extensions.
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            check_dates_and_purpose(end_entity, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.usual()?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

/// RFC 5280, sections 4.1.2.5 and 4.2.1.12.
fn check_dates_and_purpose(der: &[u8], now: UnixTime) -> Result<(), CertificateError> {
    let certificate = Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
    let certificate = certificate.tbs_certificate();
    let validity = certificate.validity();
    let seconds = Duration::from_secs(now.as_secs());
    let not_before = validity.not_before.to_unix_duration();
    if seconds < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before: UnixTime::since_unix_epoch(not_before),
        });
    }
    let not_after = validity.not_after.to_unix_duration();
    if seconds > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after: UnixTime::since_unix_epoch(not_after),
        });
    }
    let usage = certificate
        .get_extension::<ExtendedKeyUsage>()
        .map_err(|_| CertificateError::BadEncoding)?;
    match usage {
        Some((_, usage)) if !usage.0.contains(&ID_KP_SERVER_AUTH) => Err(CertificateError::InvalidPurpose),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConnection, ProtocolVersion, ServerConfig, ServerConnection};

    use super::*;

    /// A self-signed certificate, as from `openssl req -x509`.
    fn self_signed(change: impl Fn(&mut CertificateParams)) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec!["registry.example".to_string(), "127.0.0.1".into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().der().clone(), key)
    }

    /// A handshake with a server that presents this certificate and signs with this key.
    fn handshake(
        client: &ClientConfig,
        name: &str,
        certificate: &CertificateDer<'static>,
        key: &KeyPair,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Result<Option<ProtocolVersion>, rustls::Error> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.clone()], key));
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let name = ServerName::try_from(name.to_string()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        while client.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).unwrap();
            server.read_tls(&mut &sent[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut answer = Vec::new();
            server.write_tls(&mut answer).unwrap();
            client.read_tls(&mut &answer[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.protocol_version())
    }

    fn system(authorities: Vec<CertificateDer<'static>>) -> Authorities {
        Box::new(move || authorities.clone())
    }

    fn trusting(named: &[&CertificateDer<'static>]) -> ClientConfig {
        let (other, _) = self_signed(|_| {});
        config_with(system(vec![other]), named.iter().map(|c| (*c).clone()).collect(), None).unwrap()
    }

    fn refused(result: Result<Option<ProtocolVersion>, rustls::Error>) -> CertificateError {
        match result {
            Err(rustls::Error::InvalidCertificate(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    const TLS13: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;
    const TLS12: &rustls::SupportedProtocolVersion = &rustls::version::TLS12;

    #[test]
    fn a_server_may_show_an_authoritys_certificate_that_is_named() {
        let (certificate, key) = self_signed(|_| {});
        let client = trusting(&[&certificate]);
        for version in [TLS12, TLS13] {
            for name in ["registry.example", "127.0.0.1"] {
                let spoken = handshake(&client, name, &certificate, &key, version).unwrap();
                assert_eq!(spoken, Some(version.version));
            }
        }
    }

    #[test]
    fn one_that_is_not_named_is_refused_even_if_the_system_trusts_it() {
        let (certificate, key) = self_signed(|_| {});
        let (other, _) = self_signed(|_| {});
        refused(handshake(&trusting(&[&other]), "127.0.0.1", &certificate, &key, TLS13));
        let system = config_with(system(vec![certificate.clone()]), vec![other], None).unwrap();
        let error = refused(handshake(&system, "127.0.0.1", &certificate, &key, TLS13));
        assert!(format!("{error:?}").contains("CaUsedAsEndEntity"), "{error:?}");
    }

    #[test]
    fn another_host_name_is_refused() {
        let (certificate, key) = self_signed(|_| {});
        let client = trusting(&[&certificate]);
        for name in ["other.example", "127.0.0.2"] {
            let error = refused(handshake(&client, name, &certificate, &key, TLS13));
            assert!(
                matches!(error, CertificateError::NotValidForNameContext { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn dates_and_purpose_are_kept_to() {
        let (expired, key) = self_signed(|p| p.not_after = date_time_ymd(2020, 1, 1));
        let error = refused(handshake(&trusting(&[&expired]), "127.0.0.1", &expired, &key, TLS13));
        assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
        let (early, key) = self_signed(|p| p.not_before = date_time_ymd(2999, 1, 1));
        let error = refused(handshake(&trusting(&[&early]), "127.0.0.1", &early, &key, TLS13));
        assert!(
            matches!(error, CertificateError::NotValidYetContext { .. }),
            "{error:?}"
        );
        let usage = |usage: ExtendedKeyUsagePurpose| {
            let (certificate, key) = self_signed(|p| p.extended_key_usages = vec![usage.clone()]);
            handshake(&trusting(&[&certificate]), "127.0.0.1", &certificate, &key, TLS13)
        };
        assert_eq!(
            refused(usage(ExtendedKeyUsagePurpose::ClientAuth)),
            CertificateError::InvalidPurpose
        );
        usage(ExtendedKeyUsagePurpose::ServerAuth).unwrap();
    }

    #[test]
    fn a_server_without_the_certificates_key_is_refused() {
        let (certificate, _) = self_signed(|_| {});
        let client = trusting(&[&certificate]);
        for version in [TLS12, TLS13] {
            let error = refused(handshake(
                &client,
                "127.0.0.1",
                &certificate,
                &KeyPair::generate().unwrap(),
                version,
            ));
            assert_eq!(error, CertificateError::BadSignature);
        }
    }

    #[test]
    fn a_file_without_a_certificate_or_key_is_an_error() {
        assert!(certificates(b"").unwrap_err().contains("no PEM certificate"));
        assert!(private_key(b"").unwrap_err().contains("no readable private key"));
    }

    #[test]
    fn a_handshake_without_authorities_names_the_option() {
        let (certificate, key) = self_signed(|_| {});
        let client = config_with(system(Vec::new()), Vec::new(), None).unwrap();
        let error = handshake(&client, "127.0.0.1", &certificate, &key, TLS13).unwrap_err();
        assert!(error.to_string().contains("--registry-ca"), "{error}");
    }
}
