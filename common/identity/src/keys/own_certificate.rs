//! Checks the certificate that a receiver issued to this sender before it is stored: an invalid one must not
//! replace a valid one.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use sendshot_model::SenderId;

use crate::keys::certificate;
use crate::keys::crypto::provider;
use crate::keys::sender_key::SenderKey;
use crate::transport::peer::{PeerId, PeerIdentity, PeerIdentityError};
use crate::transport::tls::{self, TlsError};

/// Maximum length of a certificate in bytes. One has about 600.
const LONGEST: usize = 16 * 1024;

/// Reason why the certificate is not usable.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// There is no certificate.
    #[error("there is no certificate in it")]
    None,
    /// It is longer than any valid one.
    #[error("its certificate has {len} bytes, more than {LONGEST}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It names no Sendshot peer.
    #[error("its certificate names no host")]
    Identity(#[from] PeerIdentityError),
    /// It names another peer.
    #[error("its certificate is that of {id}")]
    Other {
        /// Id of the named peer.
        id: PeerId,
    },
    /// It is for another key.
    #[error("its certificate is of another key than this sender's")]
    OtherKey,
    /// The authority cannot be used for verification.
    #[error(transparent)]
    Authority(#[from] TlsError),
    /// The receiver's authority did not sign it, or it is not valid now.
    #[error("its certificate would not be accepted by itself")]
    Refused(#[source] rustls::Error),
}

/// Checks that a certificate is this sender's, signed by the authority in `ca_pem`, and valid now. Returns it
/// as PEM, without any surrounding text.
///
/// # Errors
/// See [`OwnCertificateError`].
pub fn own_certificate(
    ca_pem: &str,
    pem: &str,
    (sender, key): (SenderId, &SenderKey),
    now: Timestamp,
) -> Result<String, OwnCertificateError> {
    let found = certificate::from_pem(pem).ok_or(OwnCertificateError::None)?;
    if found.len() > LONGEST {
        return Err(OwnCertificateError::TooLong { len: found.len() });
    }
    let identity = PeerIdentity::from_certificates(std::slice::from_ref(&found))?;
    if identity.id != PeerId::Sender(sender) {
        return Err(OwnCertificateError::Other { id: identity.id });
    }
    if identity.pin != key.pin() {
        return Err(OwnCertificateError::OtherKey);
    }
    let ca = certificate::from_pem(ca_pem).ok_or(TlsError::Damaged {
        which: "receiver's",
    })?;
    let roots = tls::roots(&ca).map_err(TlsError::from)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build();
    let verifier = verifier.map_err(TlsError::from)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier
        .verify_client_cert(&found, &[], now)
        .map_err(OwnCertificateError::Refused)?;
    Ok(certificate::to_pem(&found))
}
