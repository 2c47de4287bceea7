//! `sendshotctl peer`: the paired and invited senders, and who may read their copies.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::RestoreRule;
use sendshot_identity::{GrantError, InviteError, Moment, Pairing, PeerId, RevokeError};
use sendshot_model::history::{Key, ReceiverEvent};
use sendshot_model::{PeerName, SenderId, VolumeName, human};
use sendshot_proto::answer::only_root;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use sendshot_service::is_root;
use tonic::Request;

use super::request::blocking;
use crate::shared::receiver::Receiver;
use crate::store::volumes;
use crate::upkeep;

fn kind(error: &InviteError) -> Kind {
    match error {
        InviteError::AlreadyPaired { .. } | InviteError::NeverPaired { .. } => Kind::Usage,
        InviteError::Registry(_) | InviteError::Random(_) => Kind::Failed,
    }
}

fn name(text: &str) -> Result<PeerName, Problem> {
    PeerName::parse(text).map_err(|e| Problem::new(Kind::Usage, e.to_string()))
}

/// Parses the scope of a permission to read; empty for all volumes.
fn scope(text: &str) -> Result<Option<VolumeName>, Problem> {
    match text {
        "" => Ok(None),
        text => VolumeName::parse(text)
            .map(Some)
            .map_err(|e| Problem::new(Kind::Usage, e.to_string())),
    }
}

fn lasting(seconds: u64) -> Result<Duration, Problem> {
    match seconds {
        0 => Err(Problem::new(
            Kind::Usage,
            "a permission lasts at least a second",
        )),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn purpose(message: &v1::InviteRequest) -> Result<Pairing, Problem> {
    match (message.replace, message.restore) {
        (false, false) => Ok(Pairing::New),
        (true, false) => Ok(Pairing::Replace),
        (false, true) => Ok(Pairing::Restore {
            volume: scope(&message.volume)?,
            lasts: lasting(message.restore_seconds)?,
        }),
        (true, true) => Err(Problem::new(
            Kind::Usage,
            "an invitation is to replace a host or to restore, not both",
        )),
    }
}

/// Says why a permission to read may not have the effect that the user expects. Blocks.
fn notes(receiver: &Receiver, name: &PeerName, volume: Option<&VolumeName>) -> Vec<String> {
    let mut notes = Vec::new();
    if receiver.config().policy(name).restore == RestoreRule::Never {
        notes.push(format!(
            "receiver.toml has `restore = \"never\"` for {name}: until that is changed and sendshot-receiver reloaded, \
             nothing can be restored"
        ));
    }
    let Some(volume) = volume else {
        return notes;
    };
    // If the disk is absent, it is not known whether it has the directory.
    let Ok(Ok(all)) = receiver.root().open().map(|root| volumes::all(&root)) else {
        return notes;
    };
    let of_name = all.iter().filter(|(sender, _, _)| sender == name.as_str());
    let dirs: Vec<&str> = of_name.map(|(_, volume, _)| volume.as_str()).collect();
    if !dirs.contains(&volume.as_str()) {
        let there = match dirs.is_empty() {
            true => "no directory".to_owned(),
            false => format!("directories of {}", human::few(&dirs)),
        };
        notes.push(format!(
            "{name} has no directory `{volume}` on the disk that is present now; it has {there}"
        ));
    }
    notes
}

pub(super) async fn invite(
    receiver: &Arc<Receiver>,
    request: Request<v1::InviteRequest>,
) -> Result<v1::InviteResponse, Problem> {
    only_root(is_root(&request), "inviting a sender")?;
    let message = request.into_inner();
    let name = name(&message.name)?;
    let pairing = purpose(&message)?;
    let receiver = Arc::clone(receiver);
    blocking(move || {
        let now = Timestamp::now();
        let token = receiver
            .senders()
            .invite(&name, pairing.clone(), now)
            .map_err(|e| Problem::new(kind(&e), e.to_string()).remedy(e.remedy()))?;
        let expires = receiver
            .senders()
            .invitations(now)
            .into_iter()
            .find(|invitation| invitation.name == name && invitation.pairing == pairing)
            .map_or(0, |invitation| invitation.expires_at.as_second());
        let notes = match &pairing {
            Pairing::New | Pairing::Replace => Vec::new(),
            Pairing::Restore { volume, .. } => {
                let shown = volume.as_ref().map(tracing::field::display);
                tracing::info!(sender = %name, volume = shown, "a host was invited to restore its copies");
                notes(&receiver, &name, volume.as_ref())
            }
        };
        Ok(v1::InviteResponse {
            token: token.reveal(),
            expires_at: expires,
            problem: None,
            notes,
        })
    })
    .await?
}

/// Grants a sender to read its own copies for a time.
pub(super) async fn grant(
    receiver: &Arc<Receiver>,
    request: Request<v1::GrantRequest>,
) -> Result<v1::GrantResponse, Problem> {
    only_root(is_root(&request), "permitting a restore")?;
    let message = request.into_inner();
    let name = name(&message.name)?;
    let volume = scope(&message.volume)?;
    let lasts = lasting(message.seconds)?;
    let receiver = Arc::clone(receiver);
    blocking(move || {
        let granted = receiver
            .senders()
            .grant(&name, volume.as_ref(), lasts, &Moment::now())
            .map_err(|e| Problem::new(grant_kind(&e), e.to_string()).remedy(e.remedy()))?;
        let until = granted.period.ends_at();
        let shown = volume.as_ref().map(tracing::field::display);
        tracing::info!(sender = %name, volume = shown, %until, "it may read its copies");
        receiver.note(ReceiverEvent::Granted {
            sender: name.clone(),
            volume: volume.as_ref().map(ToString::to_string),
            until,
            by: Key::Own,
        });
        Ok(v1::GrantResponse {
            until: until.as_second(),
            notes: notes(&receiver, &name, volume.as_ref()),
            problem: None,
        })
    })
    .await?
}

fn grant_kind(error: &GrantError) -> Kind {
    match error {
        GrantError::Unknown { .. } | GrantError::Revoked { .. } => Kind::Usage,
        GrantError::Registry(_) => Kind::Failed,
    }
}

/// Lists the grants and temporary keys.
pub(super) fn grants(receiver: &Receiver) -> v1::GrantsResponse {
    let granted = receiver.senders().grants(&Moment::now()).into_iter();
    let grants = granted.map(|granted| v1::GrantState {
        name: granted.name.to_string(),
        volume: granted.grant.volume.map_or_else(String::new, Into::into),
        from: granted.grant.period.begins_at().as_second(),
        until: granted.grant.period.ends_at().as_second(),
        kind: match granted.temporary_key {
            Some(_) => "temporary-key",
            None => "grant",
        }
        .to_owned(),
    });
    v1::GrantsResponse {
        grants: grants.collect(),
    }
}

/// Revokes a sender's access, or only the permissions to read its copies, and ends the running calls.
pub(super) async fn revoke(
    receiver: &Arc<Receiver>,
    request: Request<v1::RevokeRequest>,
) -> Result<v1::RevokeResponse, Problem> {
    only_root(is_root(&request), "revoking a sender")?;
    let message = request.into_inner();
    let name = name(&message.name)?;
    let receiver = Arc::clone(receiver);
    let revoke = match message.restore {
        true => revoke_restore,
        false => revoke_all,
    };
    blocking(move || revoke(&receiver, &name)).await?
}

fn revoke_all(receiver: &Receiver, name: &PeerName) -> Result<v1::RevokeResponse, Problem> {
    let senders = receiver.senders();
    let withdrawn = senders
        .revoke(name, Timestamp::now())
        .map_err(not_revoked)?;
    // A running call must not outlive the revocation.
    let id = senders.record(name).map(|record| record.sender_id);
    let ended = end_connections(receiver, id.into_iter().chain(withdrawn.temporary_key));
    tracing::info!(sender = %name, ended, "revoked; its connections were ended");
    let sender = name.clone();
    receiver.note(ReceiverEvent::Revoked { sender });
    upkeep::drop_interrupted(receiver, name);
    Ok(v1::RevokeResponse::default())
}

/// Ends the connections of the temporary key, and if there was a grant, those of the sender's own key: a running
/// fetch must not outlive the permission. A push over such a connection resumes by itself.
fn revoke_restore(receiver: &Receiver, name: &PeerName) -> Result<v1::RevokeResponse, Problem> {
    let senders = receiver.senders();
    let withdrawn = senders
        .revoke_restore(name, Timestamp::now())
        .map_err(not_revoked)?;
    let own = senders.record(name).map(|record| record.sender_id);
    let own = own.filter(|_| withdrawn.grants > 0);
    let ended = end_connections(receiver, own.into_iter().chain(withdrawn.temporary_key));
    let temporary_keys = usize::from(withdrawn.temporary_key.is_some());
    let grants = withdrawn.grants;
    tracing::info!(sender = %name, grants, temporary_keys, ended, "the permissions to restore its copies were withdrawn");
    let sender = name.clone();
    receiver.note(ReceiverEvent::Withdrawn { sender });
    let mut notes = Vec::new();
    if receiver.config().policy(name).restore == RestoreRule::Always {
        notes.push(format!(
            "receiver.toml has `restore = \"always\"` for {name}: its own key can still read its copies"
        ));
    }
    Ok(v1::RevokeResponse {
        withdrawn: u32::try_from(grants + temporary_keys).unwrap_or(u32::MAX),
        notes,
        problem: None,
    })
}

fn end_connections(receiver: &Receiver, ids: impl Iterator<Item = SenderId>) -> usize {
    let end = |id| receiver.connections().end_all_of(PeerId::Sender(id));
    ids.map(end).sum()
}

fn not_revoked(error: RevokeError) -> Problem {
    Problem::new(Kind::Usage, error.to_string()).remedy(error.remedy())
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
        state: match invitation.pairing {
            Pairing::New | Pairing::Replace => "invited",
            Pairing::Restore { .. } => "invited-to-restore",
        }
        .to_owned(),
        since: invitation.expires_at.as_second(),
        ..Default::default()
    });
    v1::PeersResponse {
        peers: paired.chain(invited).collect(),
    }
}
