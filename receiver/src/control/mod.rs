//! The control socket: what sendshotctl asks of the receiving daemon.

mod roots;

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_identity::{InviteError, Pairing, PeerId};
use sendshot_model::{NotKept, PeerName};
use sendshot_proto::failure::Failure;
use sendshot_proto::inventory::HeldCopy;
use sendshot_proto::v1::receiver_control_server::ReceiverControl;
use sendshot_proto::{not_kept, v1};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::receive::failures::{io_failure, staging_failure};
use crate::receive::transfers::Glance;
use crate::shared::receiver::Receiver;
use crate::store::holdings;
use crate::store::partials;
use crate::store::usage;

/// Serves the control socket.
#[derive(Debug, Clone)]
pub struct Control(pub Arc<Receiver>);

type Problem = v1::Problem;

fn problem(kind: v1::ProblemKind, message: impl ToString, remedy: &str) -> Problem {
    Problem {
        kind: kind.into(),
        message: message.to_string(),
        remedy: remedy.to_owned(),
    }
}

/// Who calls, by the kernel's word.
fn only_root<T>(request: &Request<T>, what: &str) -> Result<(), Problem> {
    let cred = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    if cred.is_some_and(|cred| cred.uid() == 0) {
        return Ok(());
    }
    let message = format!("{what} needs root");
    Err(problem(
        v1::ProblemKind::Refused,
        message,
        "run it with sudo",
    ))
}

fn kind(error: &InviteError) -> v1::ProblemKind {
    match error {
        InviteError::AlreadyPaired { .. } => v1::ProblemKind::Usage,
        InviteError::Registry(_) | InviteError::Random(_) => v1::ProblemKind::Failed,
    }
}

fn root_kind(error: &crate::store::root::Error) -> v1::ProblemKind {
    use crate::store::root::Error;
    match error {
        Error::Own { .. } | Error::Nobodys { .. } => v1::ProblemKind::Usage,
        _ => v1::ProblemKind::Failed,
    }
}

fn name(text: &str) -> Result<PeerName, Problem> {
    PeerName::parse(text).map_err(|e| problem(v1::ProblemKind::Usage, e, ""))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    sendshot_service::blocking::run("control", work)
        .await
        .map_err(|e| problem(v1::ProblemKind::Failed, e, ""))
}

impl Control {
    async fn make_invitation(
        &self,
        request: Request<v1::InviteRequest>,
    ) -> Result<(String, i64), Problem> {
        only_root(&request, "inviting a sender")?;
        let message = request.into_inner();
        let name = name(&message.name)?;
        let pairing = if message.replace {
            Pairing::Replace
        } else {
            Pairing::New
        };
        let receiver = Arc::clone(&self.0);
        blocking(move || {
            let now = Timestamp::now();
            let token = receiver
                .senders()
                .invite(&name, pairing, now)
                .map_err(|e| problem(kind(&e), &e, &e.remedy()))?;
            let expires = receiver
                .senders()
                .invitations(now)
                .into_iter()
                .find(|invitation| invitation.name == name)
                .map_or(0, |invitation| invitation.expires_at.as_second());
            Ok((token.reveal(), expires))
        })
        .await?
    }

    async fn revoke_sender(&self, request: Request<v1::RevokeRequest>) -> Result<(), Problem> {
        only_root(&request, "revoking a sender")?;
        let name = name(&request.into_inner().name)?;
        let receiver = Arc::clone(&self.0);
        blocking(move || {
            receiver
                .senders()
                .revoke(&name, Timestamp::now())
                .map_err(|e| problem(v1::ProblemKind::Usage, &e, e.remedy()))?;
            // What is under way must not outlive it.
            let mut senders = receiver.senders().list().into_iter();
            let record = senders.find(|(found, _)| *found == name);
            let ended = record.map_or(0, |(_, record)| {
                let peer = PeerId::Sender(record.sender_id);
                receiver.connections().end_all_of(peer)
            });
            tracing::info!(sender = %name, ended, "revoked; its connections were ended");
            receiver.drop_interrupted(&name);
            Ok(())
        })
        .await?
    }
}

#[tonic::async_trait]
impl ReceiverControl for Control {
    async fn invite(
        &self,
        request: Request<v1::InviteRequest>,
    ) -> Result<Response<v1::InviteResponse>, Status> {
        Ok(Response::new(match self.make_invitation(request).await {
            Ok((token, expires_at)) => v1::InviteResponse {
                token,
                expires_at,
                problem: None,
            },
            Err(problem) => v1::InviteResponse {
                problem: Some(problem),
                ..Default::default()
            },
        }))
    }

    async fn peers(
        &self,
        _: Request<v1::PeersRequest>,
    ) -> Result<Response<v1::PeersResponse>, Status> {
        let paired = self.0.senders().list().into_iter().map(|(name, record)| {
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
        let invited = self.0.senders().invitations(Timestamp::now());
        let invited = invited.into_iter().map(|invitation| v1::PeerState {
            name: invitation.name.to_string(),
            state: "invited".to_owned(),
            since: invitation.expires_at.as_second(),
            ..Default::default()
        });
        Ok(Response::new(v1::PeersResponse {
            peers: paired.chain(invited).collect(),
        }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let problem = self.revoke_sender(request).await.err();
        Ok(Response::new(v1::RevokeResponse { problem }))
    }

    async fn copies(
        &self,
        request: Request<v1::CopiesRequest>,
    ) -> Result<Response<v1::CopiesResponse>, Status> {
        let (receiver, wanted) = (Arc::clone(&self.0), request.into_inner());
        let listed = blocking(move || list(&receiver, &wanted)).await;
        let failed = |failure: Failure| problem(v1::ProblemKind::Failed, &failure, &failure.remedy);
        Ok(Response::new(
            match listed.and_then(|copies| copies.map_err(failed)) {
                Ok(copies) => v1::CopiesResponse {
                    copies,
                    problem: None,
                },
                Err(problem) => v1::CopiesResponse {
                    copies: Vec::new(),
                    problem: Some(problem),
                },
            },
        ))
    }

    async fn roots(
        &self,
        _: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        self.about_roots(|receiver| Ok(roots::list(&receiver)))
            .await
    }

    async fn add_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(&request, "adding a disk") {
            return Ok(refused(problem));
        }
        self.about_roots(|receiver| roots::add(&receiver)).await
    }

    async fn remove_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(&request, "removing a disk") {
            return Ok(refused(problem));
        }
        let id = request.into_inner().id;
        self.about_roots(move |receiver| roots::remove(&receiver, &id))
            .await
    }

    async fn take_over_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(&request, "taking a disk over") {
            return Ok(refused(problem));
        }
        let owner = request.into_inner().owner_id;
        self.about_roots(move |receiver| roots::take_over(&receiver, &owner))
            .await
    }

    async fn partials(
        &self,
        request: Request<v1::CopiesRequest>,
    ) -> Result<Response<v1::PartialsResponse>, Status> {
        let (receiver, wanted) = (Arc::clone(&self.0), request.into_inner());
        let listed = blocking(move || partial_states(&receiver, &wanted)).await;
        let failed = |failure: Failure| problem(v1::ProblemKind::Failed, &failure, &failure.remedy);
        let (partials, problem) = match listed.and_then(|partials| partials.map_err(failed)) {
            Ok(partials) => (partials, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        Ok(Response::new(v1::PartialsResponse { partials, problem }))
    }
}

fn refused(problem: Problem) -> Response<v1::RootsResponse> {
    Response::new(v1::RootsResponse {
        problem: Some(problem),
        ..Default::default()
    })
}

impl Control {
    async fn about_roots(
        &self,
        work: impl FnOnce(Arc<Receiver>) -> Result<v1::RootsResponse, crate::store::root::Error>
        + Send
        + 'static,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        let receiver = Arc::clone(&self.0);
        let done = blocking(move || work(receiver)).await;
        let failed = |e: crate::store::root::Error| problem(root_kind(&e), &e, &e.remedy());
        Ok(match done.and_then(|done| done.map_err(failed)) {
            Ok(response) => Response::new(response),
            Err(problem) => refused(problem),
        })
    }
}

/// The transfers that are not committed: those on disk, with what the table knows of them.
fn partial_states(
    receiver: &Receiver,
    wanted: &v1::CopiesRequest,
) -> Result<Vec<v1::PartialState>, Failure> {
    let root = receiver.root().open()?;
    let failed = |e| io_failure("look at the partials", &e);
    let area = Area::new(&root).map_err(failed)?;
    let on_disk = match area.exists() {
        true => {
            let dir = area.dir().map_err(|e| staging_failure(&e))?;
            partials::all(dir).map_err(failed)?
        }
        false => Vec::new(),
    };
    let keep = i64::try_from(receiver.config().partial_keep.as_secs()).unwrap_or(i64::MAX);
    let mut states: Vec<v1::PartialState> = on_disk
        .iter()
        .map(|partial| v1::PartialState {
            sender: partial.record.sender_name.to_string(),
            volume: partial.record.volume_name.to_string(),
            transfer_id: partial.record.transfer.to_bytes().to_vec(),
            uuid: partial.record.uuid.as_bytes().to_vec(),
            state: "interrupted".to_owned(),
            offset: 0,
            checkpoints: partial
                .checkpoints
                .iter()
                .map(|(c, _)| c.point.offset)
                .collect(),
            since: partial.since(),
            until: partial.since().saturating_add(keep),
        })
        .collect();
    for glance in receiver.transfers().glances() {
        add_glance(&mut states, &glance);
    }
    states.retain(|state| {
        let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        asked(&wanted.sender, &state.sender) && asked(&wanted.volume, &state.volume)
    });
    states.sort_by(|a, b| (&a.sender, &a.volume).cmp(&(&b.sender, &b.volume)));
    Ok(states)
}

fn add_glance(states: &mut Vec<v1::PartialState>, glance: &Glance) {
    let transfer_id = glance.transfer.to_bytes().to_vec();
    let at = match states.iter().position(|s| s.transfer_id == transfer_id) {
        Some(at) => at,
        None => {
            states.push(v1::PartialState {
                sender: glance.sender.to_string(),
                volume: glance.volume.to_string(),
                transfer_id,
                uuid: glance.uuid.as_bytes().to_vec(),
                ..Default::default()
            });
            states.len() - 1
        }
    };
    let state = &mut states[at];
    state.offset = glance.applied;
    state.state = match glance.waits_at {
        Some(_) => "waiting",
        None => "running",
    }
    .to_owned();
    if glance.waits_at.is_none() {
        state.until = 0;
    }
}

fn list(receiver: &Receiver, wanted: &v1::CopiesRequest) -> Result<Vec<v1::CopyState>, Failure> {
    let root = receiver.root().open()?;
    let failed = |e| io_failure("look at the copies", &e);
    let mut copies = Vec::new();
    for (sender, volume, dir) in holdings::all(&root).map_err(failed)? {
        let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        if !asked(&wanted.sender, &sender) || !asked(&wanted.volume, &volume) {
            continue;
        }
        let path = root.path().join(&sender).join(&volume);
        let not_kept = usage::not_kept(&dir).map_err(failed)?;
        for copy in holdings::copies(&dir).map_err(failed)? {
            let path = path.join(copy.name.as_ref());
            let lacks = not_kept.copy((copy.uuid, copy.ctransid));
            let path = path.as_os_str().as_bytes();
            copies.push(describe(&sender, &volume, copy, path, &lacks));
        }
    }
    Ok(copies)
}

fn describe(
    sender: &str,
    volume: &str,
    copy: HeldCopy,
    path: &[u8],
    lacks: &NotKept,
) -> v1::CopyState {
    let (unusable, unusable_code) = match &copy.unusable {
        Some(unusable) => (unusable.why.to_string(), unusable.code.to_string()),
        None => Default::default(),
    };
    v1::CopyState {
        sender: sender.to_owned(),
        volume: volume.to_owned(),
        name: copy.name.to_string(),
        uuid: copy.uuid.as_bytes().to_vec(),
        committed_at: copy.committed_at,
        unusable,
        unusable_code,
        path: path.to_vec(),
        not_kept: not_kept::message(lacks),
    }
}
