//! What the certificates of an authority look like.

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

/// An authority outlives the disks it backs up. A new one means pairing every sender again.
pub(crate) const CA_LIFE: Duration = YEAR.saturating_mul(20);

/// A receiver's own certificate is renewed at a start of the daemon in the last third of its
/// life, so a daemon may run for more than three years without one.
pub(crate) const RECEIVER_LIFE: Duration = YEAR.saturating_mul(10);

/// A sender has to be paired again after this long. Renewal over the paired channel comes later;
/// until then a short life would only stop backups, since revoking needs no expiry.
pub(crate) const SENDER_LIFE: Duration = YEAR.saturating_mul(5);

/// No box runs this program before: an earlier time is that of a clock that was never set.
pub(crate) const EARLIEST: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

/// A certificate that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// There is no serial number.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The authority's own certificate.
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

/// The certificate of a sender or receiver.
///
/// Both may serve and dial: who opens the connection is independent of who sends.
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

/// A certificate as PEM text.
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

/// The only certificate of a PEM text; `None` if it is not one.
pub(crate) fn from_pem(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}
