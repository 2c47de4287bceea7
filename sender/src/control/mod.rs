//! The control socket: what sendshotctl asks of the sending daemon.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::{Address, ReceiverEntry};
use sendshot_identity::Validity;
use sendshot_model::{PeerName, PushId, Reason, Target, VolumeRef};
use sendshot_proto::hello::software;
use sendshot_proto::malformed;
use sendshot_proto::v1;
use sendshot_proto::v1::sender_control_server::SenderControl;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::connection::pair;
use crate::decide::plan::Wish;
use crate::push::dry_run::Foreseen;
use crate::push::progress::{self, Listener};
use crate::push::request;
use crate::retained::foreign::{self, Action};
use crate::retained::forget::{self, Chain, Which};
use crate::retained::interrupted;
use crate::retained::kept::{self, Kept};
use crate::retained::prune;
use crate::retained::selection::Selection as Choice;
use crate::shared::history::{Last, Outcome};
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::volume::resolve;
use sendshot_model::Engine;
use sendshot_proto::problem::{Kind, Problem, delete_remedy};
use sendshot_proto::report::path_bytes;

/// Serves the control socket.
#[derive(Debug, Clone)]
pub struct Control(pub Arc<Sender>);

type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::PushEvent, Status>> + Send>>;

/// Who calls, by the kernel's word.
fn is_root<T>(request: &Request<T>) -> bool {
    request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .is_some_and(|cred| cred.uid() == 0)
}

fn needs_root(what: &str) -> Problem {
    Problem::new(Kind::Refused, format!("{what} needs root"))
        .remedy("run it with sudo, or name a volume that sender.toml configures")
}

/// Parses what names a receiver and a volume; `None` if it names neither. Opening a path tells
/// whether it is there, which is not everybody's to know.
fn target(receiver: String, volume: Vec<u8>, root: bool) -> Result<Option<Target>, Problem> {
    if receiver.is_empty() && volume.is_empty() {
        return Ok(None);
    }
    let mut argument = OsString::from(receiver);
    argument.push(":");
    argument.push(OsString::from_vec(volume));
    let target = Target::parse(argument).map_err(|e| usage(&e))?;
    if matches!(target.volume, VolumeRef::Path(_)) && !root {
        return Err(needs_root("naming a path"));
    }
    Ok(Some(target))
}

fn usage(error: &dyn std::error::Error) -> Problem {
    Problem::from_error(Kind::Usage, error)
}

fn wish(text: &str) -> Result<Wish, Problem> {
    match text {
        "" | "auto" => Ok(Wish::Auto),
        "none" => Ok(Wish::None),
        uuid => Uuid::parse_str(uuid).map(Wish::Uuid).map_err(|_| {
            Problem::new(Kind::Usage, format!("`{uuid}` is no parent"))
                .remedy("give `auto`, `none` or the UUID of a snapshot")
        }),
    }
}

fn engine(text: &str) -> Result<Option<Engine>, Problem> {
    match text {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(|e| usage(&e)),
    }
}

/// Parses a request, and checks that its caller may make it.
fn parse(message: v1::PushRequest, root: bool) -> Result<request::Request, Problem> {
    let mut argument = OsString::from(message.receiver);
    argument.push(":");
    argument.push(OsString::from_vec(message.volume));
    let target = Target::parse(argument).map_err(|e| usage(&e))?;
    if matches!(target.volume, VolumeRef::Path(_)) && !root {
        return Err(needs_root("pushing a path"));
    }
    Ok(request::Request {
        receiver: target.receiver,
        volume: target.volume,
        wish: wish(&message.parent)?,
        retry_for: message.retry_milliseconds.map(Duration::from_millis),
        engine: engine(&message.engine)?,
    })
}

#[tonic::async_trait]
impl SenderControl for Control {
    type PushStream = Events;

    async fn push(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let root = is_root(&request);
        let (events, received) = mpsc::channel(progress::QUEUE);
        let listener = Listener::new(events);
        let started = match parse(request.into_inner(), root) {
            Ok(wanted) => self.0.start_push(wanted, listener.clone()).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = started {
            listener.over(Err(problem)).await;
        }
        let stream = tokio_stream::StreamExt::map(ReceiverStream::new(received), Ok);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn plan(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let root = is_root(&request);
        let answer = match self.plan_push(request.into_inner(), root).await {
            Ok(answer) => answer,
            Err(problem) => v1::PlanResponse {
                problem: Some(problem.into()),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let wanted = Selection::parse(request.into_inner())?;
        let mut cancelled = 0;
        for running in self.0.table().all() {
            if wanted.selects(&running) && !running.is_reported() {
                running.cancel.cancel();
                running.over().await;
                cancelled += 1;
            }
        }
        Ok(Response::new(v1::CancelResponse { cancelled }))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let root = is_root(&request);
        let answer = match self.list_kept(request.into_inner(), root).await {
            Ok(answer) => answer,
            Err(problem) => v1::ListResponse {
                problem: Some(problem.into()),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let root = is_root(&request);
        let answer = match self.prune_now(request.into_inner(), root).await {
            Ok(answer) => answer,
            Err(problem) => v1::PruneResponse {
                problem: Some(problem.into()),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        let root = is_root(&request);
        let answer = match self.forget_named(request.into_inner(), root).await {
            Ok(answer) => answer,
            Err(problem) => v1::ForgetResponse {
                problem: Some(problem.into()),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn foreign(
        &self,
        request: Request<v1::ForeignRequest>,
    ) -> Result<Response<v1::ForeignResponse>, Status> {
        let root = is_root(&request);
        let (snapshots, problem) = match self.of_others(request.into_inner(), root).await {
            Ok(snapshots) => (snapshots, None),
            Err(problem) => (Vec::new(), Some(problem.into())),
        };
        Ok(Response::new(v1::ForeignResponse { snapshots, problem }))
    }

    async fn forget_filesystem(
        &self,
        request: Request<v1::ForgetFilesystemRequest>,
    ) -> Result<Response<v1::ForgetFilesystemResponse>, Status> {
        let root = is_root(&request);
        let forgotten = self.forget_gone(request.into_inner(), root).await;
        Ok(Response::new(match forgotten {
            Ok((fsid, path)) => v1::ForgetFilesystemResponse {
                filesystem: fsid.as_bytes().to_vec(),
                path: path_bytes(&path),
                problem: None,
            },
            Err(problem) => v1::ForgetFilesystemResponse {
                problem: Some(problem.into()),
                ..Default::default()
            },
        }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let receivers = match self.0.receivers().await {
            Ok(receivers) => receivers,
            Err(problem) => return Err(Status::failed_precondition(problem.message)),
        };
        let sender = Arc::clone(&self.0);
        let volumes = crate::shared::blocking::blocking("status", move || volume_states(&sender))
            .await
            .unwrap_or_default();
        Ok(Response::new(v1::StatusResponse {
            software: software("sendshot-sender"),
            sender_id: self.0.id().to_bytes().to_vec(),
            running: self.0.table().all().iter().map(running).collect(),
            last: self.0.history().all().into_iter().map(last).collect(),
            receivers: receivers
                .into_iter()
                .map(|(name, entry)| receiver_state(&name, &entry))
                .collect(),
            volumes,
        }))
    }

    async fn pair(
        &self,
        request: Request<v1::PairCommand>,
    ) -> Result<Response<v1::PairResult>, Status> {
        let outcome = if is_root(&request) {
            self.pair_with(request.into_inner()).await
        } else {
            Err(Problem::new(Kind::Refused, "pairing needs root").remedy("run it with sudo"))
        };
        let answer = match outcome {
            Ok(paired) => v1::PairResult {
                name: paired.name.to_string(),
                sender_name: paired.sender_name,
                file: paired.file.display().to_string(),
                problem: None,
            },
            Err(problem) => v1::PairResult {
                problem: Some(problem.into()),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }
}

fn receiver_state(name: &PeerName, entry: &ReceiverEntry) -> v1::ReceiverState {
    let validity = Validity::of_pem(&entry.client_certificate);
    let ends_soon = validity.is_some_and(|validity| validity.ends_soon(Timestamp::now()));
    v1::ReceiverState {
        name: name.to_string(),
        address: entry.address.to_string(),
        receiver_id: entry.receiver_id.to_bytes().to_vec(),
        certificate_ends: validity.map_or(0, |validity| validity.not_after.as_second()),
        problem: if ends_soon {
            format!("the certificate for {name} ends: push to it, which renews it, or pair again")
        } else {
            String::new()
        },
    }
}

impl Control {
    async fn plan_push(
        &self,
        message: v1::PushRequest,
        root: bool,
    ) -> Result<v1::PlanResponse, Problem> {
        let top = message.top as usize;
        let request = parse(message, root)?;
        self.0.receiver(&request.receiver).await?;
        let volume = self.0.resolve(&request).await?;
        let skipped = volume.skipped.iter().map(|path| path_bytes(path)).collect();
        let receiver = request.receiver.to_string();
        let foreseen = self.0.plan(request, volume, top).await?;
        Ok(v1::PlanResponse {
            receiver,
            skipped,
            ..planned(foreseen)
        })
    }

    async fn list_kept(
        &self,
        message: v1::ListRequest,
        root: bool,
    ) -> Result<v1::ListResponse, Problem> {
        let target = target(message.receiver, message.volume, root)?;
        let paired = self.paired().await?;
        let sender = Arc::clone(&self.0);
        crate::shared::blocking::blocking("list", move || {
            let selection = Choice::resolve(&sender, target)?;
            let (mut snapshots, missed) = kept::list(&sender, &selection, &paired);
            if matches!(selection, Choice::All) {
                snapshots.extend(foreign::list(&sender, &paired));
            }
            Ok(v1::ListResponse {
                snapshots,
                interrupted: interrupted::list(&sender, &selection),
                not_looked_at: missed.into_iter().map(Into::into).collect(),
                problem: None,
            })
        })
        .await?
    }

    async fn prune_now(
        &self,
        message: v1::PruneRequest,
        root: bool,
    ) -> Result<v1::PruneResponse, Problem> {
        let mode = mode(message.dry_run);
        if mode == prune::Mode::Delete && !root {
            return Err(Problem::new(Kind::Refused, "pruning needs root")
                .remedy("run it with sudo, or look with --dry-run"));
        }
        let target = target(message.receiver, message.volume, root)?;
        let paired = self.paired().await?;
        self.0.wait_for_releases().await;
        let held = self.0.hold_starts().await;
        let sender = Arc::clone(&self.0);
        // Whoever hangs up meanwhile: the thread holds pushes back until it is done.
        crate::shared::blocking::blocking("prune", move || {
            let _held = held;
            let selection = Choice::resolve(&sender, target)?;
            let (pruned, missed) = prune::now(&sender, &selection, mode);
            let all: Vec<_> = pruned.iter().map(|pruned| pruned.kept.clone()).collect();
            Ok(v1::PruneResponse {
                verdicts: pruned
                    .into_iter()
                    .map(|pruned| verdict(pruned, &all, &paired))
                    .collect(),
                not_looked_at: missed.into_iter().map(Into::into).collect(),
                problem: None,
            })
        })
        .await?
    }

    async fn forget_named(
        &self,
        message: v1::ForgetRequest,
        root: bool,
    ) -> Result<v1::ForgetResponse, Problem> {
        if !root {
            return Err(
                Problem::new(Kind::Refused, "forgetting needs root").remedy("run it with sudo")
            );
        }
        let wish = forget_wish(message)?;
        let paired = self.paired().await?;
        self.0.wait_for_releases().await;
        let held = self.0.hold_starts().await;
        let sender = Arc::clone(&self.0);
        crate::shared::blocking::blocking("forget", move || {
            let _held = held;
            let forgotten = forget::forget(&sender, &wish)?;
            let states = &forgotten.states;
            Ok(v1::ForgetResponse {
                snapshots: states
                    .iter()
                    .map(|kept| kept::describe(kept, Reason::default(), states, &paired))
                    .collect(),
                consequence: forgotten.consequence,
                not_looked_at: forgotten
                    .not_looked_at
                    .into_iter()
                    .map(Into::into)
                    .collect(),
                problem: None,
            })
        })
        .await?
    }

    async fn of_others(
        &self,
        message: v1::ForeignRequest,
        root: bool,
    ) -> Result<Vec<v1::KeptSnapshot>, Problem> {
        if !root {
            let message = "what other hosts left needs root";
            return Err(Problem::new(Kind::Refused, message).remedy("run it with sudo"));
        }
        let path = PathBuf::from(OsString::from_vec(message.path));
        let action = match message.take_over {
            true => Action::TakeOver,
            false => Action::Forget,
        };
        let agreed = pushes(&message.agreed)?;
        let paired = self.paired().await?;
        let held = self.0.hold_starts().await;
        let sender = Arc::clone(&self.0);
        crate::shared::blocking::blocking("foreign", move || {
            let _held = held;
            let mode = mode(message.dry_run);
            foreign::act(&sender, &path, action, mode, &agreed, &paired)
        })
        .await?
    }

    async fn forget_gone(
        &self,
        message: v1::ForgetFilesystemRequest,
        root: bool,
    ) -> Result<(Uuid, PathBuf), Problem> {
        if !root {
            let message = "forgetting a file system needs root";
            return Err(Problem::new(Kind::Refused, message).remedy("run it with sudo"));
        }
        let held = self.0.hold_starts().await;
        let sender = Arc::clone(&self.0);
        crate::shared::blocking::blocking("forget", move || {
            let _held = held;
            Ok(sender.filesystems().forget(&message.filesystem)?)
        })
        .await?
    }

    async fn paired(&self) -> Result<kept::Paired, Problem> {
        let receivers = self.0.receivers().await?;
        let instance =
            |(name, entry): (_, sendshot_config::ReceiverEntry)| (name, entry.receiver_id);
        Ok(receivers.into_iter().map(instance).collect())
    }

    async fn pair_with(&self, command: v1::PairCommand) -> Result<pair::Paired, Problem> {
        let address = Address::from_str(&command.address).map_err(|e| usage(&e))?;
        let name = match command.name.as_str() {
            "" => address.default_name().ok_or_else(|| {
                Problem::new(
                    Kind::Usage,
                    format!("`{address}` is no name for a receiver"),
                )
                .remedy("give it one with --name")
            })?,
            name => PeerName::parse(name).map_err(|e| usage(&e))?,
        };
        pair::pair(&self.0, address, name, &command.token).await
    }
}

fn mode(dry_run: bool) -> prune::Mode {
    match dry_run {
        true => prune::Mode::DryRun,
        false => prune::Mode::Delete,
    }
}

fn verdict(pruned: prune::Pruned, all: &[Kept], paired: &kept::Paired) -> v1::PruneVerdict {
    let reason = pruned.reason.clone();
    let (verdict, reason) = match (&pruned.failed, pruned.verdict.lets_go()) {
        (Some(e), _) => {
            let text = format!("{reason}, but: {e}");
            let text = match delete_remedy(e) {
                "" => text,
                remedy => format!("{text} ({remedy})"),
            };
            ("failed", Reason::new(reason.code, text))
        }
        (None, true) => ("let_go", reason),
        (None, false) => ("kept", reason),
    };
    v1::PruneVerdict {
        snapshot: Some(kept::describe(&pruned.kept, reason.clone(), all, paired)),
        verdict: verdict.to_owned(),
        reason_code: reason.code.to_string(),
        reason: reason.text,
    }
}

fn in_a_line(problem: Problem) -> String {
    match problem.remedy.as_str() {
        "" => problem.message,
        remedy => format!("{} ({remedy})", problem.message),
    }
}

fn forget_wish(message: v1::ForgetRequest) -> Result<forget::Wish, Problem> {
    let target = target(message.receiver, message.volume, true)?;
    let target = target.ok_or_else(|| {
        Problem::new(Kind::Usage, "which receiver and volume?").remedy("name them: HOST:VOL")
    })?;
    let which = match (message.all, message.which.as_str(), message.root.as_str()) {
        (true, "", "") => Which::All,
        (false, "", root) if !root.is_empty() => Which::root(root)?,
        (false, which, "") => Which::parse(which)?,
        (..) => {
            let both = "more than one of WHICH, --all and --root were given";
            return Err(Problem::new(Kind::Usage, both).remedy("give one of them"));
        }
    };
    let agreed = pushes(&message.agreed)?;
    Ok(forget::Wish {
        target,
        which,
        chain: match message.break_chain {
            true => Chain::Break,
            false => Chain::Keep,
        },
        mode: mode(message.dry_run),
        agreed,
    })
}

fn pushes(ids: &[Vec<u8>]) -> Result<BTreeSet<PushId>, Problem> {
    ids.iter()
        .map(|bytes| PushId::try_from(bytes.as_slice()).map_err(|e| usage(&e)))
        .collect()
}

fn planned(foreseen: Foreseen) -> v1::PlanResponse {
    let Foreseen { plan, size, .. } = foreseen;
    v1::PlanResponse {
        volume: foreseen.key.name.to_string(),
        parent: plan
            .parent
            .map(|parent| parent.uuid.as_bytes().to_vec())
            .unwrap_or_default(),
        parent_reason: plan.reason.text,
        parent_reason_code: plan.reason.code.to_string(),
        engine: foreseen.engine.to_string(),
        candidates: plan
            .verdicts
            .into_iter()
            .map(|(copy, verdict)| v1::Candidate {
                uuid: copy.uuid.as_bytes().to_vec(),
                name: copy.name.to_string(),
                verdict: verdict.to_string(),
                verdict_code: verdict.code().to_string(),
                remedy: verdict.remedy(&copy).unwrap_or_default(),
            })
            .collect(),
        stream_bytes: size.map(|size| size.bytes),
        commands: size.map(|size| size.commands),
        top: foreseen
            .top
            .into_iter()
            .map(|cost| v1::PathCost {
                path: cost.path,
                stream_bytes: cost.bytes,
            })
            .collect(),
        notes: foreseen.notes,
        ..Default::default()
    }
}

/// Which running pushes a request means; empty fields mean all.
struct Selection {
    push: Option<PushId>,
    receiver: String,
    volume: Vec<u8>,
}

impl Selection {
    fn parse(message: v1::CancelRequest) -> Result<Self, Status> {
        let push = match message.push_id.as_slice() {
            [] => None,
            bytes => Some(PushId::from_bytes(malformed::id_bytes(bytes, "push_id")?)),
        };
        Ok(Self {
            push,
            receiver: message.receiver,
            volume: message.volume,
        })
    }

    fn selects(&self, running: &Running) -> bool {
        let receiver = self.receiver.is_empty() || running.receiver.as_str() == self.receiver;
        let volume = self.volume.is_empty()
            || running.volume.as_str().as_bytes() == self.volume
            || path_bytes(&running.path) == self.volume;
        receiver && volume && self.push.is_none_or(|push| running.push == push)
    }
}

fn running(running: &Arc<Running>) -> v1::RunningPush {
    v1::RunningPush {
        push_id: running.push.to_bytes().to_vec(),
        volume: running.volume.to_string(),
        receiver: running.receiver.to_string(),
        stage: running.stage().to_owned(),
        stream_bytes: running.progress().0,
        seconds: running.elapsed().as_secs_f64(),
    }
}

fn last(last: Last) -> v1::LastPush {
    use v1::last_push::Outcome as Wire;
    v1::LastPush {
        volume: last.volume.to_string(),
        receiver: last.receiver.to_string(),
        ended_at: last.ended_at,
        last_success: last.last_success.unwrap_or(0),
        disks: last
            .disks
            .into_iter()
            .map(|(root, last_success)| v1::DiskSuccess {
                root_id: malformed::root_bytes(Some(root)),
                last_success,
            })
            .collect(),
        outcome: Some(match last.outcome {
            Outcome::Done(report) => Wire::Done((*report).into()),
            Outcome::Failed(message) => Wire::Failed(Problem::new(Kind::Failed, message).into()),
        }),
    }
}

fn volume_states(sender: &Sender) -> Vec<v1::VolumeState> {
    let config = sender.config();
    let state =
        |(name, configured): (&sendshot_model::VolumeName, &sendshot_config::VolumeConfig)| {
            let found = resolve::look(name, configured);
            let (skipped, problem) = match found {
                Ok(skipped) => (skipped, String::new()),
                Err(error) => (Vec::new(), in_a_line(Problem::from(error))),
            };
            v1::VolumeState {
                name: name.to_string(),
                path: path_bytes(&configured.path),
                receivers: configured
                    .receivers
                    .iter()
                    .map(PeerName::to_string)
                    .collect(),
                skipped: skipped.iter().map(|path| path_bytes(path)).collect(),
                problem,
            }
        };
    config.volumes.iter().map(state).collect()
}
