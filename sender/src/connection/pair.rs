//! Pairing with a receiver by the token it printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::{Address, ReceiverEntry};
use sendshot_identity::{ConnectError, Token};
use sendshot_model::{PeerName, ReceiverId};
use sendshot_proto::v1;
use sendshot_proto::v1::pairing_client::PairingClient;
use sendshot_proto::{hello, malformed};
use tonic::Request;

use crate::connection::call;
use crate::connection::error::Error;
use crate::connection::link;
use crate::connection::wire::{Counted, WireBytes};
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;
use sendshot_proto::problem::{Kind, Problem};

/// Longest wait for TCP, TLS and the answer, each.
const DEADLINE: Duration = Duration::from_secs(15);

/// A pairing that was made.
#[derive(Debug)]
pub struct Paired {
    /// The receiver's name here.
    pub name: PeerName,
    /// Our name there.
    pub sender_name: String,
    /// The file that was written.
    pub file: PathBuf,
}

/// Pairs with the receiver at `address` and keeps it under `name`.
///
/// Steps: 1. dial, trusting the authority of the token only; 2. redeem the token; 3. write the
/// receiver's file. After a crash between 2 and 3 the same sender can redeem the token again,
/// until it expires.
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn pair(
    sender: &Arc<Sender>,
    address: Address,
    name: PeerName,
    token: &str,
) -> Result<Paired, Problem> {
    let token = Token::parse(token).map_err(|e| Problem::from_error(Kind::Refused, &e))?;
    let config = sendshot_identity::pairing_client_config(token.fingerprint())
        .map_err(|e| Problem::from_error(Kind::Failed, &e))?;
    let stream = sendshot_identity::connect(address.host(), address.port(), config, DEADLINE)
        .await
        .map_err(not_paired_yet)?; // 1
    let authority = sendshot_identity::ca_pem(stream.peer_certificates(), token.fingerprint());
    let wire = WireBytes::default();
    wire.read_at_most(call::MAX_ANSWER);
    let channel = link::channel(&address.to_string(), Counted::new(stream, wire)).await?;
    let mut request = Request::new(v1::PairRequest {
        secret: token.secret().to_bytes().to_vec(),
        sender_id: sender.id().to_bytes().to_vec(),
        signing_request: sender
            .key()
            .csr()
            .map_err(|e| Problem::from_error(Kind::Failed, &e))?,
    });
    request.set_timeout(DEADLINE);
    let mut client = PairingClient::new(channel);
    let asked = client.pair(request);
    let answer = call::answer(&address.to_string(), DEADLINE, asked).await?; // 2
    let entry = entry(sender, address, authority, &answer)?;
    let former = hello::former_ids(&answer.former_sender_ids).map_err(|e| {
        Problem::new(
            Kind::Failed,
            format!("the receiver's answer makes no sense: {e}"),
        )
    })?;
    let (noting, receiver) = (Arc::clone(sender), entry.receiver_id);
    blocking("former-ids", move || {
        noting.former().note(receiver, &former)
    })
    .await?
    .map_err(|e| Problem::state_io("write down what this sender was before", &e))?;
    let dir = sender.paths().receivers_dir.clone();
    let file = dir.join(format!("{name}.toml"));
    let stored_name = name.clone();
    blocking("receivers", move || {
        sendshot_config::store(&dir, &stored_name, &entry) // 3
    })
    .await?
    .map_err(|e| Problem::from_error(Kind::Failed, &e))?;
    let sender_name = sendshot_model::printable(&answer.sender_name);
    tracing::info!(receiver = %name, file = %file.display(), %sender_name, "paired");
    Ok(Paired {
        name,
        sender_name,
        file,
    })
}

/// Nothing was paired before: that another receiver answers says something of the token.
fn not_paired_yet(error: ConnectError) -> Problem {
    match error {
        ConnectError::WrongReceiver { address, reason } => Problem::new(
            Kind::Refused,
            format!("the token was made by another receiver than the one that answers at {address} ({reason})"),
        )
        .remedy(format!(
            "run `sendshotctl peer invite NAME` on the receiver at {address}, or give the address of the one that made the token"
        )),
        ConnectError::Unreachable { .. }
        | ConnectError::NotAReceiver { .. }
        | ConnectError::Refused { .. }
        | ConnectError::Clock { .. } => Error::Connect(error).into(),
    }
}

/// The authority is the one that TLS verified, whatever the answer says.
fn entry(
    sender: &Sender,
    address: Address,
    authority: Option<String>,
    answer: &v1::PairResponse,
) -> Result<ReceiverEntry, Problem> {
    let nonsense = |what: String| {
        Problem::new(
            Kind::Failed,
            format!("the receiver's answer makes no sense: {what}"),
        )
    };
    let id = malformed::id_bytes(&answer.receiver_id, "receiver_id")
        .map_err(|e| nonsense(e.to_string()))?;
    let ca_certificate =
        authority.ok_or_else(|| nonsense("its authority is not in its chain".into()))?;
    let client_certificate = link::own_certificate(
        sender,
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
    use super::*;

    #[test]
    fn a_token_of_another_receiver_is_told_as_such() {
        let problem = not_paired_yet(ConnectError::WrongReceiver {
            address: "nas2:7117".into(),
            reason: "UnknownIssuer".into(),
        });
        assert_eq!(problem.kind, Kind::Refused);
        assert!(problem.message.contains("the token was made by another"));
        assert!(problem.message.contains("nas2:7117"));
        assert!(!problem.message.contains("paired"));
        assert!(problem.remedy.contains("sendshotctl peer invite"));
    }
}
