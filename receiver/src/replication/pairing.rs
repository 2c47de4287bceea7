//! Pairing: redeems invitations.

use std::sync::Arc;

use sendshot_identity::{Access, Moment, PeerId, RedeemError, Redeemed, Secret};
use sendshot_model::SenderId;
use sendshot_model::history::{Key, ReceiverEvent};
use sendshot_proto::refusal::refusal;
use sendshot_proto::v1;
use sendshot_proto::v1::pairing_server::Pairing;
use sendshot_proto::{hello, malformed};
use tonic::{Code, Request, Response, Status};

use crate::shared::receiver::Receiver;

#[derive(Debug, Clone)]
pub struct PairingService(pub Arc<Receiver>);

#[tonic::async_trait]
impl Pairing for PairingService {
    async fn pair(
        &self,
        request: Request<v1::PairRequest>,
    ) -> Result<Response<v1::PairResponse>, Status> {
        let message = request.into_inner();
        let secret = Secret::from_bytes(malformed::id_bytes(&message.secret, "secret")?);
        let sender = SenderId::from_bytes(malformed::id_bytes(&message.sender_id, "sender_id")?);
        let access = match message.restore {
            true => Access::ReadOnly,
            false => Access::Full,
        };
        let receiver = Arc::clone(&self.0);
        let redeemed = self.0.calls().run(None, "pairing", move || {
            let csr = &message.signing_request;
            let senders = receiver.senders();
            let redeemed = senders.redeem(&secret, csr, sender, access, &Moment::now())?;
            record(&receiver, &redeemed, sender, access);
            Ok(redeemed)
        });
        let redeemed = redeemed
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| refuse(&e))?;
        // Also the sender's own connections with its former key.
        for former in redeemed.replaced.into_iter().chain([sender]) {
            let connections = self.0.connections();
            connections.end_all_of(PeerId::Sender(former));
        }
        let former_ids = match access {
            Access::Full => self.0.senders().former_ids(&redeemed.name),
            Access::ReadOnly => Vec::new(),
        };
        let grant = redeemed.grant.as_ref();
        Ok(Response::new(v1::PairResponse {
            restore_until: grant.map_or(0, |grant| grant.period.ends_at().as_second()),
            sender_name: redeemed.name.to_string(),
            receiver_id: self.0.id().to_bytes().to_vec(),
            certificate: redeemed.certificate.pem,
            authority: self.0.authority().ca_pem().to_owned(),
            former_sender_ids: hello::former_ids_message(&former_ids),
        }))
    }
}

fn refuse(error: &RedeemError) -> Status {
    tracing::info!("a pairing was refused: {error}");
    let code = match error {
        RedeemError::Registry(_) => {
            return refusal(
                Code::Internal,
                "the receiver cannot store the pairing",
                "read the journal of sendshot-receiver",
            );
        }
        RedeemError::Unknown
        | RedeemError::Expired { .. }
        | RedeemError::Used { .. }
        | RedeemError::Void { .. }
        | RedeemError::OnlyRestores { .. }
        | RedeemError::OnlyPairs { .. }
        | RedeemError::HasOwnKey { .. }
        | RedeemError::OtherName { .. } => Code::PermissionDenied,
        RedeemError::Sign(_) => Code::InvalidArgument,
    };
    refusal(code, error.to_string(), &error.remedy())
}

/// Logs a pairing and what it permits, and adds both to the history. Blocks.
fn record(receiver: &Receiver, redeemed: &Redeemed, id: SenderId, access: Access) {
    let sender = &redeemed.name;
    match (access, redeemed.replaced) {
        (Access::Full, Some(replaced)) => {
            tracing::info!(%sender, %id, %replaced, "paired, in place of a former host");
        }
        (Access::Full, None) => tracing::info!(%sender, %id, "paired"),
        (Access::ReadOnly, _) => tracing::info!(%sender, %id, "an invitation to restore was used"),
    }
    let by = match access {
        Access::Full => {
            let sender = sender.clone();
            receiver.note(ReceiverEvent::Paired { sender });
            Key::Own
        }
        Access::ReadOnly => Key::Temporary,
    };
    if let Some(grant) = &redeemed.grant {
        let until = grant.period.ends_at();
        let volume = grant.volume.as_ref().map(tracing::field::display);
        tracing::info!(%sender, %id, volume, %until, "it can read its copies for a time");
        receiver.note(ReceiverEvent::Granted {
            sender: sender.clone(),
            volume: grant.volume.as_ref().map(ToString::to_string),
            until,
            by,
        });
    }
}
