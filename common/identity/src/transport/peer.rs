//! The identity in a certificate.

use std::fmt;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sendshot_model::{ReceiverId, SenderId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::keys::crypto::{hex_bytes, sha256};

const SCHEME: &str = "sendshot://";

hex_bytes! {
    /// SHA-256 of a public key with its algorithm (SubjectPublicKeyInfo), by which a sender is pinned.
    pub SpkiPin, 32
}
hex_bytes! {
    /// The first 20 bytes of the SHA-256 of an authority's certificate, which a token carries.
    pub CaFingerprint, 20
}

impl CaFingerprint {
    /// Returns the fingerprint of this certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = [0; 20];
        fingerprint.copy_from_slice(&sha256(certificate)[..20]);
        Self(fingerprint)
    }

    /// Returns the fingerprint of the first certificate in a PEM text; `None` if there is none.
    #[must_use]
    pub fn of_pem(pem: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        Some(Self::of(&certificate))
    }
}

/// One end of a pairing, by role and instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerId {
    /// An instance of a sender.
    Sender(SenderId),
    /// An instance of a receiver.
    Receiver(ReceiverId),
}

impl PeerId {
    /// Returns the DNS name in the certificate, which TLS checks: a sender's certificate cannot serve as a
    /// receiver's.
    #[must_use]
    pub const fn dns_name(self) -> &'static str {
        match self {
            Self::Sender(_) => "sender.sendshot",
            Self::Receiver(_) => RECEIVER_DNS_NAME,
        }
    }

    fn parse(uri: &str) -> Option<Self> {
        match uri.strip_prefix(SCHEME)?.split_once('/')? {
            ("sender", id) => id.parse().ok().map(Self::Sender),
            ("receiver", id) => id.parse().ok().map(Self::Receiver),
            _ => None,
        }
    }
}

/// The DNS name in every receiver's certificate.
pub(crate) const RECEIVER_DNS_NAME: &str = "receiver.sendshot";

/// Writes the URI in the certificate: `sendshot://sender/UUID`.
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender(id) => write!(f, "{SCHEME}sender/{id}"),
            Self::Receiver(id) => write!(f, "{SCHEME}receiver/{id}"),
        }
    }
}

/// The identity in a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Role and instance of the holder.
    pub id: PeerId,
    /// Hash of the holder's public key.
    pub pin: SpkiPin,
    /// Beginning of the validity.
    pub not_before: Timestamp,
    /// End of the validity.
    pub not_after: Timestamp,
}

/// A certificate names no Sendshot peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// There is no certificate.
    #[error("the peer presented no certificate")]
    None,
    /// The bytes are not a certificate.
    #[error("the peer's certificate cannot be read: {reason}")]
    Unreadable {
        /// Error of the parser.
        reason: String,
    },
    /// The certificate was not made by Sendshot.
    #[error("the peer's certificate does not name exactly one sendshot:// id")]
    Unnamed,
}

impl PeerIdentity {
    /// Reads the first certificate of a chain that TLS has verified; this does not verify anything.
    ///
    /// # Errors
    /// [`PeerIdentityError`] if there is none, or it does not name exactly one Sendshot peer.
    pub fn from_certificates(chain: &[CertificateDer<'_>]) -> Result<Self, PeerIdentityError> {
        let leaf = chain.first().ok_or(PeerIdentityError::None)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(unreadable)?;
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(unreadable)
        };
        Ok(Self {
            id: named(&certificate)?,
            pin: SpkiPin(sha256(certificate.public_key().raw)),
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
        })
    }
}

fn named(certificate: &X509Certificate<'_>) -> Result<PeerId, PeerIdentityError> {
    let names = certificate.subject_alternative_name().map_err(unreadable)?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next().and_then(PeerId::parse), uris.next()) {
        (Some(id), None) => Ok(id),
        _ => Err(PeerIdentityError::Unnamed),
    }
}

fn unreadable(e: impl fmt::Display) -> PeerIdentityError {
    PeerIdentityError::Unreadable {
        reason: e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back() {
        for id in [
            PeerId::Sender(SenderId::generate()),
            PeerId::Receiver(ReceiverId::generate()),
        ] {
            assert_eq!(PeerId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn other_uris_name_no_peer() {
        for uri in [
            "",
            "sendshot://",
            "sendshot://sender",
            "sendshot://sender/7",
            "https://sender/",
        ] {
            assert_eq!(PeerId::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn no_chain_and_rubbish_are_typed() {
        assert_eq!(
            PeerIdentity::from_certificates(&[]),
            Err(PeerIdentityError::None)
        );
        let rubbish = [CertificateDer::from(vec![0x30, 0x82])];
        let error = PeerIdentity::from_certificates(&rubbish).unwrap_err();
        assert!(matches!(error, PeerIdentityError::Unreadable { .. }));
    }

    #[test]
    fn a_certificate_without_a_uri_names_no_peer() {
        let made = rcgen::generate_simple_self_signed(["receiver.sendshot".to_owned()]).unwrap();
        let error = PeerIdentity::from_certificates(&[made.cert.der().clone()]).unwrap_err();
        assert_eq!(error, PeerIdentityError::Unnamed);
    }
}
