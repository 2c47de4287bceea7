//! `sendshotctl peer`: the paired and invited senders.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_identity::{InviteError, Pairing, PeerId};
use sendshot_model::PeerName;
use sendshot_proto::answer::only_root;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use sendshot_service::is_root;
use tonic::Request;

use super::request::blocking;
use crate::shared::receiver::Receiver;
use crate::upkeep;

fn kind(error: &InviteError) -> Kind {
    match error {
        InviteError::AlreadyPaired { .. } => Kind::Usage,
        InviteError::Registry(_) | InviteError::Random(_) => Kind::Failed,
    }
}

fn name(text: &str) -> Result<PeerName, Problem> {
    PeerName::parse(text).map_err(|e| Problem::new(Kind::Usage, e.to_string()))
}

pub(super) async fn invite(
    receiver: &Arc<Receiver>,
    request: Request<v1::InviteRequest>,
) -> Result<v1::InviteResponse, Problem> {
    only_root(is_root(&request), "inviting a sender")?;
    let message = request.into_inner();
    let name = name(&message.name)?;
    let pairing = if message.replace {
        Pairing::Replace
    } else {
        Pairing::New
    };
    let receiver = Arc::clone(receiver);
    blocking(move || {
        let now = Timestamp::now();
        let token = receiver
            .senders()
            .invite(&name, pairing, now)
            .map_err(|e| Problem::new(kind(&e), e.to_string()).remedy(e.remedy()))?;
        let expires = receiver
            .senders()
            .invitations(now)
            .into_iter()
            .find(|invitation| invitation.name == name)
            .map_or(0, |invitation| invitation.expires_at.as_second());
        Ok(v1::InviteResponse {
            token: token.reveal(),
            expires_at: expires,
            problem: None,
        })
    })
    .await?
}

/// Revokes a sender's access, and ends its running calls.
pub(super) async fn revoke(
    receiver: &Arc<Receiver>,
    request: Request<v1::RevokeRequest>,
) -> Result<v1::RevokeResponse, Problem> {
    only_root(is_root(&request), "revoking a sender")?;
    let name = name(&request.into_inner().name)?;
    let receiver = Arc::clone(receiver);
    blocking(move || {
        receiver
            .senders()
            .revoke(&name, Timestamp::now())
            .map_err(|e| Problem::new(Kind::Usage, e.to_string()).remedy(e.remedy()))?;
        // A running call must not outlive the revocation.
        let mut senders = receiver.senders().list().into_iter();
        let record = senders.find(|(found, _)| *found == name);
        let ended = record.map_or(0, |(_, record)| {
            let peer = PeerId::Sender(record.sender_id);
            receiver.connections().end_all_of(peer)
        });
        tracing::info!(sender = %name, ended, "revoked; its connections were ended");
        upkeep::drop_interrupted(&receiver, &name);
        Ok(v1::RevokeResponse { problem: None })
    })
    .await?
}

/// Lists the paired, revoked and invited senders.
pub(super) fn list(receiver: &Receiver) -> v1::PeersResponse {
    let paired = receiver.senders().list().into_iter().map(|(name, record)| {
        let (state, since) = match record.revoked_at {
            Some(revoked_at) => ("revoked", revoked_at),
            None => ("paired", record.paired_at),
        };
        v1::PeerState {
            name: name.to_string(),
            sender_id: record.sender_id.to_bytes().to_vec(),
            state: state.to_owned(),
            since: since.as_second(),
            certificate_ends: record.certificate_expires_at.as_second(),
        }
    });
    let invited = receiver.senders().invitations(Timestamp::now());
    let invited = invited.into_iter().map(|invitation| v1::PeerState {
        name: invitation.name.to_string(),
        state: "invited".to_owned(),
        since: invitation.expires_at.as_second(),
        ..Default::default()
    });
    v1::PeersResponse {
        peers: paired.chain(invited).collect(),
    }
}
