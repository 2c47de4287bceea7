//! `sendshotctl peer`.

use std::process::ExitCode;
use std::time::Duration;

use sendshot_proto::v1::{InviteRequest, PeerState, PeersRequest, RevokeRequest};
use serde::Serialize;

use crate::client::{self, Receiver};
use crate::outcome::{self, Outcome};
use crate::output::{self, Output, table};

#[derive(Serialize)]
struct Invitation {
    name: String,
    token: String,
    expires_at: Option<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct PeerJson {
    name: String,
    sender_id: Option<String>,
    state: String,
    since: Option<String>,
    certificate_ends: Option<String>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: String,
}

/// Purpose of an invitation.
pub enum Purpose {
    /// Pairs a new sender.
    New,
    /// Pairs a sender in the place of another.
    Replace,
    /// Gives any host a temporary key.
    Restore {
        volume: Option<String>,
        lasts: Option<Duration>,
    },
}

impl From<bool> for Purpose {
    fn from(replace: bool) -> Self {
        match replace {
            true => Self::Replace,
            false => Self::New,
        }
    }
}

/// Life of a temporary key: a night for a large restore, and some hours of the days around it.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Invites a sender, or any host to restore, and prints the token.
pub async fn invite(
    mut client: Receiver,
    name: String,
    purpose: Purpose,
    output: &Output,
) -> Outcome {
    let (restores, request) = match purpose {
        Purpose::New => (false, InviteRequest::default()),
        Purpose::Replace => (
            false,
            InviteRequest {
                replace: true,
                ..Default::default()
            },
        ),
        Purpose::Restore { volume, lasts } => (
            true,
            InviteRequest {
                restore: true,
                volume: volume.unwrap_or_default(),
                restore_seconds: lasts.unwrap_or(KEY_LIFE).as_secs(),
                ..Default::default()
            },
        ),
    };
    let request = InviteRequest {
        name: name.clone(),
        ..request
    };
    let answer = client
        .invite(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    notes(&answer.notes, output);
    let expires = output::time(answer.expires_at);
    output.note(&match restores {
        false => format!(
            "on {name}, run `sendshotctl pair` with this host's address and give it this token, which \
             works once and until {expires}:"
        ),
        true => format!(
            "on the host to restore to, run `sendshotctl restore --pair` with this host's address and give it \
             this token, which works once and until {expires}:"
        ),
    });
    let invitation = Invitation {
        name,
        expires_at: output::time_json(answer.expires_at),
        token: answer.token,
        notes: answer.notes,
    };
    output.result(&invitation, || invitation.token.clone());
    Ok(ExitCode::SUCCESS)
}

/// Prints why a permission may not have the effect that the user expects.
pub fn notes(notes: &[String], output: &Output) {
    for note in notes {
        output.note(&format!("note: {note}"));
    }
}

/// Shows senders and invitations.
pub async fn list(mut client: Receiver, output: &Output) -> Outcome {
    let answer = client
        .peers(PeersRequest {})
        .await
        .map_err(client::failed)?;
    let peers = answer.into_inner().peers;
    if output.is_json() {
        for peer in peers {
            output.result(&json(peer), String::new);
        }
    } else if peers.is_empty() {
        output.note("no sender is paired: begin with `sendshotctl peer invite NAME`");
    } else {
        let rows = peers.into_iter().map(row).collect();
        output.result(&(), || {
            table(
                &["name", "state", "since / until", "certificate ends", "id"],
                rows,
            )
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn json(peer: PeerState) -> PeerJson {
    PeerJson {
        name: peer.name,
        sender_id: Some(output::uuid(&peer.sender_id)).filter(|id| !id.is_empty()),
        state: peer.state,
        since: output::time_json(peer.since),
        certificate_ends: output::time_json(peer.certificate_ends),
    }
}

fn row(peer: PeerState) -> Vec<String> {
    let ends = match peer.certificate_ends {
        0 => String::new(),
        ends => output::time(ends),
    };
    vec![
        peer.name,
        peer.state,
        output::time(peer.since),
        ends,
        output::uuid(&peer.sender_id),
    ]
}

pub async fn revoke(mut client: Receiver, name: String, output: &Output) -> Outcome {
    let request = RevokeRequest {
        name: name.clone(),
        restore: false,
    };
    let answer = client
        .revoke(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    outcome::check(answer.problem)?;
    let revoked = Revoked { revoked: name };
    output.result(&revoked, || {
        format!("{} is revoked; its copies stay", revoked.revoked)
    });
    Ok(ExitCode::SUCCESS)
}
