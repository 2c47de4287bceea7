//! Connects to a receiver, and classifies failures.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, ClientConfig};
use sendshot_model::printable_within;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::transport::peer::PeerIdentityError;
use crate::transport::stream::{self, PeerStream};
use crate::transport::tls::receiver_name;

/// Maximum length of a failure's text that is passed on, in bytes.
const MAX_SAID: usize = 500;

/// Reason why there is no connection to a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is no answer: unknown host, refused, timed out, interrupted.
    #[error("the receiver at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Error from the system.
        reason: String,
    },
    /// The answering service is not a Sendshot receiver.
    #[error("{address} answers, but not as a Sendshot receiver ({reason})")]
    NotAReceiver {
        /// Host and port.
        address: String,
        /// Error from TLS.
        reason: String,
    },
    /// The certificate is from another authority than the paired receiver's.
    #[error("{address} is another receiver than the one paired ({reason})")]
    WrongReceiver {
        /// Host and port.
        address: String,
        /// Error from TLS.
        reason: String,
    },
    /// The receiver does not accept this sender's certificate.
    #[error("the receiver at {address} does not accept this sender ({reason})")]
    Refused {
        /// Host and port.
        address: String,
        /// Error from TLS.
        reason: String,
    },
    /// A certificate is not valid at this time.
    #[error("{address}: {fault} ({reason})")]
    Clock {
        /// Host and port.
        address: String,
        /// The certificate concerned, and its fault.
        fault: ClockFault,
        /// Error from TLS.
        reason: String,
    },
}

/// A certificate is outside its validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockFault {
    /// By the sender's clock, the receiver's has expired; the receiver renews it when its daemon starts.
    #[error("the receiver's certificate has expired")]
    Expired,
    /// By the sender's clock, the receiver's is not valid yet.
    #[error("the receiver's certificate is not valid yet")]
    NotYetValid,
    /// By the receiver's clock, the sender's has expired or is not valid yet.
    #[error("the receiver finds this sender's certificate expired or not valid yet")]
    OwnCertificate,
}

/// Phase of an error: bytes that are not TLS indicate another service at first, and damage later.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Handshake,
    Established,
}

/// Connects to a receiver by host (a name, or an IP address without brackets) and port.
///
/// # Errors
/// [`ConnectError`] if there is no receiver, or not the expected one. In TLS 1.3 a receiver refuses this
/// sender's certificate only after this has returned; see [`ConnectError::find_in`].
pub async fn connect(
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<PeerStream, ConnectError> {
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let attempt = async {
        let (tcp, addr) = dial(host, port, limit).await?;
        stream::prepare(&tcp)?;
        let name = receiver_name().map_err(io::Error::other)?;
        let began = Instant::now();
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        PeerStream::new(tls, addr, began.elapsed()).map_err(io::Error::other)
    };
    match timeout(limit, attempt).await {
        Ok(result) => result.map_err(|e| ConnectError::classify(&address, &e, Phase::Handshake)),
        Err(_) => Err(ConnectError::unreachable(
            &address,
            format!("no answer within {} s", limit.as_secs_f32()),
        )),
    }
}

/// Tries the host's addresses in turn. Each gets its share of the time, so that a dead IPv6 route does not
/// use up all of it.
async fn dial(host: &str, port: u16, limit: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let deadline = Instant::now() + limit;
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok((tcp, *address)),
            Ok(Err(e)) => last = e,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }
    Err(last)
}

impl ConnectError {
    /// Returns what the user can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { .. } => "check that the host is up, that `sendshot-receiver` runs on it and \
                                         that no firewall is in between; then try again"
                .to_owned(),
            Self::NotAReceiver { .. } => {
                "is the port right? A receiver's is 7117, or the one of `listen` in its receiver.toml"
                    .to_owned()
            }
            Self::WrongReceiver { address, .. } => format!(
                "was it re-installed, or does the address lead elsewhere? If it is the right one, {}",
                pair_again(address)
            ),
            Self::Refused { address, .. } => pair_again(address),
            Self::Clock { address, fault, .. } => match fault {
                ClockFault::Expired => "correct the clocks of both hosts; if they are right, restart the \
                                        receiver, which renews its certificate"
                    .to_owned(),
                ClockFault::NotYetValid => "correct the clocks of both hosts".to_owned(),
                ClockFault::OwnCertificate => format!(
                    "correct the clocks of both hosts; if they are right, {}",
                    pair_again(address)
                ),
            },
        }
    }

    /// Classifies the error of an established connection.
    #[must_use]
    pub fn from_io(address: &str, error: &io::Error) -> Self {
        Self::classify(address, error, Phase::Established)
    }

    fn classify(address: &str, error: &io::Error, phase: Phase) -> Self {
        let inner = error.get_ref();
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Self::from_tls(address, tls, phase)
        } else if inner.is_some_and(|inner| inner.is::<PeerIdentityError>()) {
            Self::NotAReceiver {
                address: address.to_owned(),
                reason: said(error),
            }
        } else if let Some(alert) = alert_in(&error.to_string()) {
            Self::from_tls(address, &rustls::Error::AlertReceived(alert), phase)
        } else {
            Self::unreachable(address, said(error))
        }
    }

    /// Finds a connection's error among the causes of another, such as a transport's.
    #[must_use]
    pub fn find_in(address: &str, error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                // The source of an I/O error skips the error that it wraps.
                let inner = io.get_ref().and_then(|inner| Self::find_in(address, inner));
                return Some(inner.unwrap_or_else(|| Self::from_io(address, io)));
            }
            next = error.source();
        }
        None
    }

    fn unreachable(address: &str, reason: String) -> Self {
        Self::Unreachable {
            address: address.to_owned(),
            reason,
        }
    }

    fn from_tls(address: &str, error: &rustls::Error, phase: Phase) -> Self {
        let (address, reason) = (address.to_owned(), said(error));
        match error {
            rustls::Error::InvalidCertificate(certificate) => match clock_fault(certificate) {
                Some(fault) => Self::Clock {
                    address,
                    fault,
                    reason,
                },
                None => Self::WrongReceiver { address, reason },
            },
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Self::Clock {
                address,
                fault: ClockFault::OwnCertificate,
                reason,
            },
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
                Self::Refused { address, reason }
            }
            _ => match phase {
                Phase::Handshake => Self::NotAReceiver { address, reason },
                Phase::Established => Self::Unreachable { address, reason },
            },
        }
    }
}

/// Formats an error whose text may contain parts of a certificate, which are the peer's choice.
fn said(error: &dyn Error) -> String {
    printable_within(&error.to_string(), MAX_SAID)
}

fn pair_again(address: &str) -> String {
    format!(
        "pair again: `sendshotctl peer invite NAME --replace` on the receiver, then \
         `sendshotctl pair {address}` here"
    )
}

fn clock_fault(error: &CertificateError) -> Option<ClockFault> {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some(ClockFault::Expired)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some(ClockFault::NotYetValid)
        }
        _ => None,
    }
}

/// The alerts by which a receiver reports that it does not accept this sender's certificate.
const ABOUT_OUR_CERTIFICATE: [AlertDescription; 8] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

fn is_about_our_certificate(alert: AlertDescription) -> bool {
    ABOUT_OUR_CERTIFICATE.contains(&alert)
}

/// Finds an alert in the text of an error: HTTP/2 passes on only the text of a connection's error.
fn alert_in(text: &str) -> Option<AlertDescription> {
    let mut known = ABOUT_OUR_CERTIFICATE
        .into_iter()
        .chain([AlertDescription::CertificateExpired]);
    known.find(|alert| text.contains(&rustls::Error::AlertReceived(*alert).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_alerts_are_recognised_in_error_texts() {
        let refused = |alert| {
            let text = rustls::Error::AlertReceived(alert).to_string();
            ConnectError::from_io("nas2:7117", &io::Error::other(text))
        };
        assert!(matches!(
            refused(AlertDescription::CertificateExpired),
            ConnectError::Clock {
                fault: ClockFault::OwnCertificate,
                ..
            }
        ));
        assert!(matches!(
            refused(AlertDescription::UnknownCA),
            ConnectError::Refused { .. }
        ));
        let other = ConnectError::from_io("nas2:7117", &io::Error::other("reset"));
        assert!(matches!(other, ConnectError::Unreachable { .. }));
    }
}
