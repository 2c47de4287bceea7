//! Content of the certificates of an authority.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sendshot_model::ReceiverId;

use crate::keys::crypto::{RandomError, random};
use crate::transport::peer::PeerId;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Every certificate is valid from a day before it was made: the peer's clock may be behind.
const BACKDATED: Duration = DAY;

/// Life of an authority, longer than that of the disks it serves. A new one requires pairing every sender again.
pub(crate) const CA_LIFE: Duration = YEAR.saturating_mul(20);

/// Life of a receiver's own certificate. It is renewed in the last third of its life, so the daemon may be
/// stopped for more than three years without losing it.
pub(crate) const RECEIVER_LIFE: Duration = YEAR.saturating_mul(10);

/// Life of a sender's certificate. Unless it is renewed within this time, the sender must be paired again. A
/// shorter life would only risk stopping backups, since revoking needs no expiry.
pub(crate) const SENDER_LIFE: Duration = YEAR.saturating_mul(5);

/// The program did not exist before: an earlier time means that the clock was never set.
pub(crate) const EARLIEST: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// No serial number could be generated.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Makes the authority's own certificate.
pub(crate) fn ca(
    receiver: ReceiverId,
    now: Timestamp,
) -> Result<CertificateParams, CertificateError> {
    let mut params = valid_from(now, CA_LIFE)?;
    params.distinguished_name = common_name(format!("Sendshot authority {receiver}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

/// Makes the certificate of a sender or receiver.
///
/// It is valid for servers and clients: the direction of the connection is independent of the roles.
pub(crate) fn leaf(
    peer: PeerId,
    now: Timestamp,
    life: Duration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = valid_from(now, life)?;
    params.distinguished_name = common_name(peer.to_string());
    params.subject_alt_names = vec![
        SanType::DnsName(peer.dns_name().try_into()?),
        SanType::URI(peer.to_string().try_into()?),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn valid_from(now: Timestamp, life: Duration) -> Result<CertificateParams, CertificateError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = epoch + Duration::from_secs(now.as_second().max(EARLIEST).unsigned_abs());
    let mut params = CertificateParams::default();
    params.not_before = now - BACKDATED;
    params.not_after = now + life;
    params.serial_number = Some(SerialNumber::from_slice(&random::<16>()?));
    Ok(params)
}

fn common_name(name: String) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Encodes a certificate as PEM.
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = data_encoding::BASE64.encode(certificate);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Decodes the only certificate of a PEM text; `None` if it is not one.
pub(crate) fn from_pem(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}
