//! Pairing with a receiver by the token that it printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::{Address, ConfigError, ReceiverEntry};
use sendshot_identity::{CertificateError, ConnectError, SenderKey, TlsError, Token, TokenError};
use sendshot_model::{PeerName, ReceiverId, SenderId};
use sendshot_proto::transfer::Windows;
use sendshot_proto::v1;
use sendshot_proto::v1::pairing_client::PairingClient;
use sendshot_proto::{hello, malformed};
use tonic::Request;

use crate::connection::call;
use crate::connection::error::Error as CallError;
use crate::connection::link;
use crate::connection::wire::{Counted, WireBytes};
use crate::shared::blocking::{Died, blocking};
use crate::shared::sender::Sender;
use sendshot_proto::problem::with_causes;

/// Longest wait for TCP, TLS and the answer, each.
const DEADLINE: Duration = Duration::from_secs(15);

/// The result of a pairing.
#[derive(Debug)]
pub struct Paired {
    /// The receiver's name on this host.
    pub name: PeerName,
    /// This sender's name on the receiver.
    pub sender_name: String,
    /// The receiver's file in `receivers.d`.
    pub file: PathBuf,
}

/// Why pairing failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", with_causes(.0))]
    Token(#[from] TokenError),
    /// TLS cannot use the token's authority.
    #[error("{}", with_causes(.0))]
    Tls(#[from] TlsError),
    /// The token was made by a receiver other than the one that answers.
    #[error(
        "the token was made by another receiver than the one that answers at {address} ({reason})"
    )]
    OtherToken {
        address: String,
        /// The TLS error.
        reason: String,
    },
    /// The receiver was not reached, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The certificate signing request could not be made.
    #[error("{}", with_causes(.0))]
    Csr(#[from] CertificateError),
    /// The former ids of this sender cannot be written.
    #[error("cannot record the former id of this sender: {0}")]
    StateDir(std::io::Error),
    /// The receiver's file cannot be written.
    #[error("{}", with_causes(.0))]
    Config(#[from] ConfigError),
    /// A worker thread ended without a result.
    #[error(transparent)]
    Thread(#[from] Died),
}

/// What a host shows to the receiver: its id and its key.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    pub id: SenderId,
    pub key: &'a SenderKey,
}

/// The purpose of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To push, from now on.
    Push,
    /// To read copies with a temporary key, and nothing else.
    Restore,
}

/// A redeemed token.
#[derive(Debug)]
pub struct Redeemed {
    /// The receiver's entry for `receivers.d`.
    pub entry: ReceiverEntry,
    /// This host's name on the receiver.
    pub sender_name: String,
    /// The former ids of this host.
    pub former: Vec<SenderId>,
    /// End of a temporary key, in seconds since 1970 UTC; 0 for any other.
    pub restore_until: i64,
}

/// Redeems a token at the receiver at `address`.
///
/// Steps: 1. connect, trusting only the authority of the token; 2. redeem the token.
///
/// # Errors
/// See [`Error`].
pub async fn redeem(
    host: Host<'_>,
    address: Address,
    token: &str,
    purpose: Purpose,
) -> Result<Redeemed, Error> {
    let token = Token::parse(token)?;
    let config = sendshot_identity::pairing_client_config(token.fingerprint())?;
    let stream = sendshot_identity::connect(address.host(), address.port(), config, DEADLINE)
        .await
        .map_err(not_paired_yet)?; // 1
    let authority = sendshot_identity::ca_pem(stream.peer_certificates(), token.fingerprint());
    let wire = WireBytes::default();
    wire.read_at_most(call::MAX_ANSWER);
    let channel = link::channel(
        &address.to_string(),
        Counted::new(stream, wire),
        Windows::NEAR,
    )
    .await?;
    let mut request = Request::new(v1::PairRequest {
        secret: token.secret().to_bytes().to_vec(),
        sender_id: host.id.to_bytes().to_vec(),
        signing_request: host.key.csr()?,
        restore: purpose == Purpose::Restore,
    });
    request.set_timeout(DEADLINE);
    let mut client = PairingClient::new(channel);
    let asked = client.pair(request);
    let answer = call::answer(&address.to_string(), DEADLINE, asked).await?; // 2
    Ok(Redeemed {
        entry: entry(host, address, authority, &answer)?,
        sender_name: sendshot_model::printable(&answer.sender_name),
        former: hello::former_ids(&answer.former_sender_ids).map_err(CallError::invalid)?,
        restore_until: answer.restore_until,
    })
}

/// Pairs with the receiver at `address` and stores it under `name`.
///
/// Steps: 1. redeem the token; 2. write the receiver's file. After a crash in between the same sender can redeem the
/// token again, until it expires.
///
/// # Errors
/// See [`Error`].
pub async fn pair(
    sender: &Arc<Sender>,
    address: Address,
    name: PeerName,
    token: &str,
) -> Result<Paired, Error> {
    let host = Host {
        id: sender.id(),
        key: sender.key(),
    };
    let redeemed = redeem(host, address, token, Purpose::Push).await?; // 1
    let Redeemed {
        entry,
        sender_name,
        former,
        ..
    } = redeemed;
    let (noting, receiver) = (Arc::clone(sender), entry.receiver_id);
    blocking("former-ids", move || {
        noting.former().note(receiver, &former)
    })
    .await?
    .map_err(Error::StateDir)?;
    let dir = sender.paths().receivers_dir.clone();
    let file = dir.join(format!("{name}.toml"));
    let stored_name = name.clone();
    blocking("receivers", move || {
        sendshot_config::store(&dir, &stored_name, &entry) // 2
    })
    .await??;
    tracing::info!(receiver = %name, file = %file.display(), %sender_name, "paired");
    Ok(Paired {
        name,
        sender_name,
        file,
    })
}

/// Converts a connection error. Before pairing, another receiver's answer means that the token is another's.
fn not_paired_yet(error: ConnectError) -> Error {
    match error {
        ConnectError::WrongReceiver { address, reason } => Error::OtherToken { address, reason },
        ConnectError::Unreachable { .. }
        | ConnectError::NotAReceiver { .. }
        | ConnectError::Refused { .. }
        | ConnectError::Clock { .. } => CallError::Connect(error).into(),
    }
}

/// Makes the receiver's entry. The authority is the one that TLS verified, whatever the answer contains.
fn entry(
    host: Host<'_>,
    address: Address,
    authority: Option<String>,
    answer: &v1::PairResponse,
) -> Result<ReceiverEntry, Error> {
    let id = malformed::id_bytes(&answer.receiver_id, "receiver_id").map_err(CallError::invalid)?;
    let ca_certificate =
        authority.ok_or_else(|| CallError::invalid("its certificate chain lacks its authority"))?;
    let client_certificate = link::own_certificate(
        (host.id, host.key),
        &ca_certificate,
        &answer.certificate,
        Timestamp::now(),
    )?;
    Ok(ReceiverEntry {
        address,
        receiver_id: ReceiverId::from_bytes(id),
        ca_certificate,
        client_certificate,
    })
}

#[cfg(test)]
mod tests {
    use sendshot_proto::problem::{Kind, Problem};

    use super::*;

    #[test]
    fn a_token_of_another_receiver_is_named() {
        let problem = Problem::from(not_paired_yet(ConnectError::WrongReceiver {
            address: "nas2:7117".into(),
            reason: "UnknownIssuer".into(),
        }));
        assert_eq!(problem.kind, Kind::Refused);
        assert!(problem.message.contains("the token was made by another"));
        assert!(problem.message.contains("nas2:7117"));
        assert!(!problem.message.contains("paired"));
        assert!(problem.remedy.contains("sendshotctl peer invite"));
    }
}
