//! Renews certificates over the paired connection, in the last third of their lives. Open connections stay so; the
//! next connection shows the new certificate. Every push checks, and once a day the daemon, for receivers that
//! nothing is pushed to.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. The receiver signs, and records the new end. The sender checks the answer: only another working certificate
//!    replaces one that works. — The former certificate, valid as long as it was.
//! 2. Replace the file in `receivers.d`, unless it was paired again meanwhile. — The new certificate.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::{ConfigError, ReceiverEntry};
use sendshot_identity::{CertificateError, Validity};
use sendshot_model::PeerName;
use sendshot_proto::hello::Support;
use sendshot_proto::problem::with_causes;
use sendshot_proto::v1;
use tonic::Request;

use crate::connection;
use crate::connection::call::answer;
use crate::connection::link::{self, Link};
use crate::shared::blocking::{Died, blocking};
use crate::shared::sender::Sender;

/// Longest wait for the receiver to sign.
const DEADLINE: Duration = Duration::from_secs(15);

/// How often the daemon itself checks.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Connection(#[from] connection::error::Error),
    /// The receiver's version does not support renewal.
    #[error("the receiver is too old for it")]
    TooOld(PeerName),
    /// The certificate signing request could not be made.
    #[error("{}", with_causes(.0))]
    Csr(#[from] CertificateError),
    /// The receiver's file cannot be read or written.
    #[error("{}", with_causes(.0))]
    Config(#[from] ConfigError),
    /// A worker thread ended without a result.
    #[error(transparent)]
    Thread(#[from] Died),
}

impl Error {
    /// What the user can do; may be empty.
    fn remedy(&self) -> String {
        match self {
            Self::Connection(error) => error.remedy(),
            Self::TooOld(name) => format!("upgrade {name}, or pair with it again"),
            Self::Csr(_) | Self::Config(_) | Self::Thread(_) => String::new(),
        }
    }
}

/// Checks all certificates at start and periodically; ends only by being dropped.
pub async fn watch(sender: Arc<Sender>) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        match sender.receivers().await {
            Ok(receivers) => {
                for (name, entry) in &receivers {
                    look(&sender, name, entry).await;
                }
            }
            // A push reports the error to its user.
            Err(error) => tracing::info!("cannot check the certificates: {error}"),
        }
    }
}

async fn look(sender: &Arc<Sender>, name: &PeerName, entry: &ReceiverEntry) {
    let validity = Validity::of_pem(&entry.client_certificate);
    let Some(validity) = validity.filter(|v| v.is_renewal_due(Timestamp::now())) else {
        return;
    };
    match link::connect(entry, sender.key()).await {
        Ok(mut link) => if_due(sender, name, entry, &mut link).await,
        Err(error) => not_renewed(name, validity, &error.into()),
    }
}

/// Renews the certificate by which a receiver knows this sender, if it is time. A failure is logged, and the next
/// connection tries again.
pub async fn if_due(sender: &Arc<Sender>, name: &PeerName, entry: &ReceiverEntry, link: &mut Link) {
    let now = Timestamp::now();
    let Some(validity) = Validity::of_pem(&entry.client_certificate) else {
        return;
    };
    if !validity.is_renewal_due(now) {
        return;
    }
    match renew(sender, name, entry, link).await {
        Ok(()) => tracing::info!(receiver = %name, "the certificate for it was renewed"),
        Err(error) => not_renewed(name, validity, &error),
    }
}

fn not_renewed(name: &PeerName, validity: Validity, error: &Error) {
    if validity.ends_soon(Timestamp::now()) {
        tracing::warn!(receiver = %name, ends = %validity.not_after, remedy = %error.remedy(),
            "the certificate for it ends, and cannot be renewed: {error}");
    } else {
        tracing::info!(receiver = %name, "the certificate for it is not renewed yet: {error}");
    }
}

async fn renew(
    sender: &Arc<Sender>,
    name: &PeerName,
    entry: &ReceiverEntry,
    link: &mut Link,
) -> Result<(), Error> {
    if link.renew() == Support::Lacks {
        return Err(Error::TooOld(name.clone()));
    }
    let csr = sender.key().csr();
    let mut request = Request::new(v1::RenewRequest {
        signing_request: csr?,
    });
    request.set_timeout(DEADLINE);
    let address = link.address().to_owned();
    let answer = answer(&address, DEADLINE, link.client().renew(request)).await?; // 1
    let certificate = link::own_certificate(
        (sender.id(), sender.key()),
        &entry.ca_certificate,
        &answer.certificate,
        Timestamp::now(),
    )?;
    let before = Validity::of_pem(&entry.client_certificate);
    let after = Validity::of_pem(&certificate);
    if after.map(|v| v.not_after) <= before.map(|v| v.not_after) {
        let why = "the new certificate lasts no longer";
        return Err(connection::error::Error::invalid(why).into());
    }
    let renewed = ReceiverEntry {
        client_certificate: certificate,
        ..entry.clone()
    };
    let (dir, name, known) = (
        sender.paths().receivers_dir.clone(),
        name.clone(),
        entry.clone(),
    );
    let store = move || match sendshot_config::load_dir(&dir)?.remove(&name) {
        Some(now) if now == known => sendshot_config::store(&dir, &name, &renewed), // 2
        Some(_) | None => Ok(()),
    };
    Ok(blocking("receivers", store).await??)
}
