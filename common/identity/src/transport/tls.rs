//! TLS configurations: 1.3 only, h2 only, no resumption.
//!
//! A resumed session inherits the verification of the first one: a certificate that has expired or was
//! revoked since would still be accepted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::keys::authority::Authority;
use crate::keys::certificate;
use crate::keys::crypto::{has_aes, provider, takes_own_order};
use crate::keys::sender_key::SenderKey;
use crate::transport::peer::{CaFingerprint, RECEIVER_DNS_NAME};

const ALPN: &[u8] = b"h2";

/// A configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text of a certificate is invalid.
    #[error("the {which} certificate is damaged")]
    Damaged {
        /// Owner of the certificate: `receiver's` or `sender's`.
        which: &'static str,
    },
    /// The library refuses, for instance if a key does not match the certificate.
    #[error("cannot set up TLS; was a key replaced?")]
    Tls(#[from] rustls::Error),
    /// The authority cannot be used for verification.
    #[error("cannot set up verification: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// Makes the configuration of the receiver's port.
///
/// A peer may connect without a certificate, since pairing uses the same port; a presented certificate must
/// be from this authority.
///
/// # Errors
/// [`TlsError`] if the authority's certificates and keys cannot be used.
pub fn server_config(authority: &Arc<Authority>) -> Result<Arc<ServerConfig>, TlsError> {
    let roots = Arc::new(roots(authority.ca())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Present::new(authority)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = takes_own_order(has_aes());
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The receiver's certificate at the time of the handshake, since it is renewed while the daemon runs.
#[derive(Debug)]
struct Present {
    authority: Arc<Authority>,
    key: Arc<dyn SigningKey>,
}

impl Present {
    fn new(authority: &Arc<Authority>) -> Result<Self, TlsError> {
        let key = provider()
            .key_provider
            .load_private_key(authority.server_key())?;
        let present = Self {
            authority: Arc::clone(authority),
            key,
        };
        present.certified().keys_match()?;
        Ok(present)
    }

    fn certified(&self) -> CertifiedKey {
        CertifiedKey::new(self.authority.chain(), Arc::clone(&self.key))
    }
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::new(self.certified()))
    }
}

/// Makes the configuration of a paired sender: it trusts only the receiver's authority, and presents its certificate.
///
/// # Errors
/// [`TlsError`] if a certificate is damaged, or the sender's does not match its key.
pub fn client_config(
    ca_pem: &str,
    certificate_pem: &str,
    key: &SenderKey,
) -> Result<Arc<ClientConfig>, TlsError> {
    let ca = certificate::from_pem(ca_pem).ok_or(TlsError::Damaged {
        which: "receiver's",
    })?;
    let own =
        certificate::from_pem(certificate_pem).ok_or(TlsError::Damaged { which: "sender's" })?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(server_verifier(&ca)?)
        .with_client_auth_cert(vec![own], key.to_der())?;
    Ok(finish(config))
}

/// Makes the configuration for pairing: the sender trusts only the authority of the token, and presents nothing.
///
/// # Errors
/// [`TlsError`] if the library refuses, which is not expected.
pub fn pairing_client_config(fingerprint: CaFingerprint) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PairingVerifier { fingerprint }))
        .with_no_client_auth();
    Ok(finish(config))
}

/// Returns the authority's certificate from the chain that a receiver presented, in PEM: a sender stores it
/// after pairing.
#[must_use]
pub fn ca_pem(chain: &[CertificateDer<'_>], fingerprint: CaFingerprint) -> Option<String> {
    find(chain, fingerprint).map(certificate::to_pem)
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub(crate) fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

fn server_verifier(ca: &CertificateDer<'static>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let roots = Arc::new(roots(ca)?);
    Ok(WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?)
}

fn find<'c, 'd>(
    chain: &'c [CertificateDer<'d>],
    fingerprint: CaFingerprint,
) -> Option<&'c CertificateDer<'d>> {
    chain
        .iter()
        .find(|certificate| CaFingerprint::of(certificate) == fingerprint)
}

/// Finds the token's authority in the presented chain and leaves every check to webpki, with that authority
/// as the only root. A fingerprint is public, so the comparison need not take constant time.
#[derive(Debug)]
struct PairingVerifier {
    fingerprint: CaFingerprint,
}

impl ServerCertVerifier for PairingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = find(intermediates, self.fingerprint).ok_or(CertificateError::UnknownIssuer)?;
        let verifier = server_verifier(&ca.clone().into_owned())
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Returns the name in every receiver's certificate, which is independent of its host name.
pub(crate) fn receiver_name() -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from(RECEIVER_DNS_NAME).map_err(|e| rustls::Error::General(e.to_string()))
}
