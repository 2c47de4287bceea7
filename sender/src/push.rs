//! The way of a push: its stages in order. Each is a module of its name.
//!
//! | stage | module |
//! |---|---|
//! | snapshot | [`crate::snapshot`]; with our engine [`crate::capture`] |
//! | negotiate | [`crate::negotiate`] |
//! | plan | [`crate::lineage`] asks, [`crate::plan`] decides |
//! | generate | [`crate::generate`] |
//! | transfer, apply, commit, acknowledge | [`crate::transfer`], and the receiver |
//! | record | [`crate::record`] |
//! | prune | [`crate::prune`] |

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_engine::recapture::Effort;
use sendshot_engine::{Head, Sendshot, verify};
use sendshot_model::{PeerName, TransferId, VolumeId, VolumeRef};
use sendshot_proto::inventory::{HeldCopy, VolumeKey};
use sendshot_proto::transfer::{Begin, ParentRef};
use sendshot_sys::subvolume::Info;
use sendshot_sys::top_level::TopLevel;

use crate::blocking;
use crate::capture;
use crate::engine::Engine;
use crate::generate::{self, Generator};
use crate::journal::{Intent, Record, State};
use crate::lineage;
use crate::negotiate;
use crate::plan::{self, Local, Plan, Wish};
use crate::plan_sendshots;
use crate::problem::{self, Kind, Problem};
use crate::progress::Listener;
use crate::prune;
use crate::receiver_link::{self, Link};
use crate::record;
use crate::report::Report;
use crate::running::Running;
use crate::sender::Sender;
use crate::settle;
use crate::snapshot::{self, PushSnapshot};
use crate::state_subvolume::StateSubvolume;
use crate::transfer::{self, Committed, Transfer};
use crate::volume::{self, Volume};

/// What is said when the journal of pushes cannot be read or written.
const JOURNAL: &str = "keep the journal of pushes on this box";

/// Longest wait for a cancelled send to end. It ends at once, unless the kernel compares trees
/// without finding anything to write; its snapshot is then left to be settled later.
const ENDING: Duration = Duration::from_secs(30);

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub receiver: PeerName,
    /// What.
    pub volume: VolumeRef,
    /// The parent that the user wants.
    pub wish: Wish,
    /// What is to make the stream. The user's own snapshots are always sent by the kernel.
    pub engine: Engine,
}

/// What is read by this push: a snapshot taken for it, or the user's own.
#[derive(Debug)]
struct Subject {
    fd: OwnedFd,
    info: Info,
    taken_at: i64,
    /// `None` for the user's own snapshot: nothing of it is ours to record or delete.
    record: Option<Record>,
    /// What was captured of it, for our engine.
    sendshot: Option<Sendshot>,
}

impl Subject {
    fn engine(&self) -> Engine {
        match self.sendshot {
            Some(_) => Engine::Sendshot,
            None => Engine::Kernel,
        }
    }
}

/// What all stages of one push share.
struct Push {
    sender: Arc<Sender>,
    running: Arc<Running>,
    listener: Listener,
    key: VolumeKey,
    link: Link,
    state: Arc<StateSubvolume>,
    engine: Engine,
}

/// Runs a push to its end.
///
/// # Errors
/// A [`Problem`] for the user; what the push made is then gone, except that a snapshot which
/// the receiver may have committed stays until the next push finds out.
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> Result<Report, Problem> {
    let skipped = volume
        .skipped
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    listener.stage(&running, "connect", "");
    let link = connect(&sender, &request.receiver, &running).await?;
    let state = Arc::new(prepare(&sender, &volume).await?);
    let wish = request.wish;
    let mut push = Push {
        key: volume.key.clone(),
        sender,
        running,
        listener,
        link,
        state,
        engine: request.engine,
    };
    let subject = push.snapshot(volume).await?;
    let record = subject.record.clone();
    let outcome = match push.capture(subject).await {
        Ok(subject) => push.send(subject, wish).await,
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(mut report) => {
            report.skipped = skipped;
            push.finish().await;
            Ok(report)
        }
        Err(problem) => {
            push.abandon(record).await;
            Err(problem)
        }
    }
}

/// What a push would do, without doing it.
///
/// # Errors
/// A [`Problem`] for the user.
pub async fn dry_run(
    sender: &Arc<Sender>,
    request: &Request,
    volume: Volume,
) -> Result<(VolumeKey, Plan), Problem> {
    let entry = sender.receiver(&request.receiver).await?;
    let mut link = receiver_link::connect(&entry, sender.key()).await?;
    let held = negotiate::inventory(&mut link, &volume.key).await?.copies;
    let (key, info, wish) = (volume.key.clone(), volume.info.clone(), request.wish);
    let plan = blocking("plan", move || -> Result<Plan, Problem> {
        let top = TopLevel::of(&volume.fd)?;
        decide(&top, &info, held, wish)
    })
    .await??;
    Ok((key, plan))
}

async fn connect(sender: &Sender, receiver: &PeerName, running: &Running) -> Result<Link, Problem> {
    let entry = sender.receiver(receiver).await?;
    tokio::select! {
        link = receiver_link::connect(&entry, sender.key()) => Ok(link?),
        () = running.cancel.cancelled() => Err(transfer::Error::Cancelled.into()),
    }
}

/// Opens our state subvolume and settles what crashed pushes left in it.
async fn prepare(sender: &Arc<Sender>, volume: &Volume) -> Result<StateSubvolume, Problem> {
    let fd = another(&volume.fd)?;
    let sender = Arc::clone(sender);
    let path = volume.path.clone();
    blocking("state-subvolume", move || -> Result<_, Problem> {
        let top = TopLevel::of(&fd)?;
        sender
            .filesystems()
            .remember(top.fsid(), &path)
            .map_err(|e| Problem::local_io("write down which file systems are used", &e))?;
        let state = StateSubvolume::open_or_create(top)?;
        settle::leftovers(&state, sender.id(), |push| sender.table().contains(push))
            .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        Ok(state)
    })
    .await?
}

fn decide(top: &TopLevel, info: &Info, held: Vec<HeldCopy>, wish: Wish) -> Result<Plan, Problem> {
    let failed = |e| Problem::local_io("look for what both sides hold", &e);
    let ancestors = lineage::of(top, info).map_err(failed)?;
    let candidates = lineage::candidates(top, held).map_err(failed)?;
    Ok(plan::decide(wish, &ancestors, candidates)?)
}

fn decide_by_sendshots(
    state: &StateSubvolume,
    volume: VolumeId,
    new: &Head,
    held: Vec<HeldCopy>,
    wish: Wish,
) -> Result<Plan, Problem> {
    let sendshots =
        capture::acknowledged(state, volume).map_err(|e| Problem::local_io(JOURNAL, &e))?;
    let candidates = held.into_iter().map(|copy| {
        let sendshot = sendshots
            .iter()
            .find(|(_, s)| s.head().wire_uuid == copy.uuid);
        plan_sendshots::Candidate {
            sendshot: sendshot.map(|(record, s)| (record.push, s.head().clone())),
            copy,
        }
    });
    Ok(plan_sendshots::decide(wish, new, candidates.collect())?)
}

/// The parent's sendshot, read through once more.
fn open_parent(state: &StateSubvolume, local: Option<Local>) -> Result<Option<Sendshot>, Problem> {
    let Some(Local::Sendshot(push)) = local else {
        return Ok(None);
    };
    let record =
        crate::journal::find(state.pushes(), push).map_err(|e| Problem::local_io(JOURNAL, &e))?;
    let record = record.ok_or_else(|| {
        Problem::new(
            Kind::Failed,
            "the parent's sendshot was let go in the middle of the push",
        )
        .remedy("push again")
    })?;
    sendshot_engine::open_at(state.sendshots(), &record.sendshot_name())
        .map(Some)
        .map_err(|e| Problem::from_error(Kind::Failed, &e).remedy("push again"))
}

impl Push {
    /// Takes the push snapshot; an existing read-only one is read as it is.
    async fn snapshot(&self, volume: Volume) -> Result<Subject, Problem> {
        if volume.kind == volume::Kind::Snapshot {
            let detail = format!("{} is read-only already", volume.path.display());
            self.listener.stage(&self.running, "snapshot", detail);
            return Ok(Subject {
                taken_at: volume.info.otime,
                fd: volume.fd,
                info: volume.info,
                record: None,
                sendshot: None,
            });
        }
        let detail = format!("of {}", volume.path.display());
        self.listener.stage(&self.running, "snapshot", detail);
        let intent = self.intent();
        let state = Arc::clone(&self.state);
        let taken = blocking("snapshot", move || {
            snapshot::take(&state, &volume.fd, &volume.path, intent)
        })
        .await??;
        Ok(Subject {
            fd: taken.fd,
            info: taken.info,
            taken_at: taken.record.taken_at,
            record: Some(taken.record),
            sendshot: None,
        })
    }

    /// Captures what our engine needs; the kernel's needs nothing.
    async fn capture(&self, subject: Subject) -> Result<Subject, Problem> {
        let Subject {
            record: Some(record),
            ..
        } = &subject
        else {
            return Ok(subject);
        };
        if self.engine != Engine::Sendshot {
            return Ok(subject);
        }
        let taken = PushSnapshot {
            fd: another(&subject.fd)?,
            info: subject.info.clone(),
            record: record.clone(),
        };
        let state = Arc::clone(&self.state);
        let captured = blocking("capture", move || capture::capture(&state, &taken)).await?;
        let (sendshot, effort) = captured.map_err(|e| Problem::from_error(Kind::Failed, &e))?;
        let detail = match effort {
            Effort::Full => format!("{} inodes", sendshot.counts().inodes),
            Effort::Changes(read) => {
                format!(
                    "{} inodes, {read} of them read again",
                    sendshot.counts().inodes
                )
            }
        };
        self.listener.stage(&self.running, "capture", detail);
        Ok(Subject {
            sendshot: Some(sendshot),
            ..subject
        })
    }

    fn intent(&self) -> Intent {
        Intent {
            sender: self.sender.id(),
            volume: self.key.id,
            volume_name: self.key.name.clone(),
            receiver: self.link.receiver(),
            receiver_name: self.running.receiver.clone(),
            push: self.running.push,
            taken_at: Timestamp::now().as_second(),
            engine: self.engine,
        }
    }

    async fn send(&mut self, mut subject: Subject, wish: Wish) -> Result<Report, Problem> {
        let held = self.negotiate().await?;
        if let Some(copy) = already_held(&subject.info, &held) {
            return Ok(self.nothing_to_do(&subject, copy));
        }
        let engine = subject.engine();
        let plan = self.plan(&subject, held, wish).await?;
        let sendshot = subject.sendshot.take();
        let committed = self.transfer(&subject, sendshot, &plan).await?;
        let pruned = self.record(subject.record).await?;
        Ok(Report {
            volume: self.key.name.clone(),
            receiver: self.running.receiver.clone(),
            uuid: subject.info.wire_uuid(),
            parent: plan.parent.map(|parent| parent.uuid),
            parent_reason: plan.reason,
            engine: engine.to_string(),
            stream_bytes: committed.stream_bytes,
            wire_bytes: self.link.wire_bytes(),
            resumed_at: None,
            seconds: self.running.elapsed().as_secs_f64(),
            pruned,
            skipped: Vec::new(),
            copy: committed.copy,
        })
    }

    async fn negotiate(&mut self) -> Result<Vec<HeldCopy>, Problem> {
        let inventory = tokio::select! {
            inventory = negotiate::inventory(&mut self.link, &self.key) => inventory?,
            () = self.running.cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
        };
        let detail = match inventory.copies.len() {
            0 => "the receiver holds no copy yet".to_owned(),
            1 => "the receiver holds 1 copy".to_owned(),
            n => format!("the receiver holds {n} copies"),
        };
        self.listener.stage(&self.running, "negotiate", detail);
        let (state, volume, receiver) =
            (Arc::clone(&self.state), self.key.id, self.link.receiver());
        let sender = Arc::clone(&self.sender);
        blocking("settle", move || {
            let running = |push| sender.table().contains(push);
            settle::acknowledgements(&state, volume, receiver, &inventory, running)
                .map(|()| inventory.copies)
        })
        .await?
        .map_err(|e| Problem::local_io(JOURNAL, &e))
    }

    async fn plan(
        &self,
        subject: &Subject,
        held: Vec<HeldCopy>,
        wish: Wish,
    ) -> Result<Plan, Problem> {
        let (state, info) = (Arc::clone(&self.state), subject.info.clone());
        let (volume, new) = (
            self.key.id,
            subject.sendshot.as_ref().map(|s| s.head().clone()),
        );
        let work = move || match new {
            Some(new) => decide_by_sendshots(&state, volume, &new, held, wish),
            None => decide(state.top(), &info, held, wish),
        };
        let plan = blocking("plan", work).await??;
        let reason = plan.reason.clone();
        self.listener.stage(&self.running, "plan", reason);
        Ok(plan)
    }

    async fn transfer(
        &mut self,
        subject: &Subject,
        sendshot: Option<Sendshot>,
        plan: &Plan,
    ) -> Result<Committed, Problem> {
        let stream_version = self.link.stream_version();
        let begin = Begin {
            transfer: TransferId::generate(),
            volume: self.key.clone(),
            uuid: subject.info.wire_uuid(),
            ctransid: subject.info.ctransid,
            parent: plan.parent.map(|parent| ParentRef {
                uuid: parent.uuid,
                ctransid: parent.ctransid,
            }),
            taken_at: subject.taken_at,
            stream_version,
        };
        self.listener.stage(&self.running, "transfer", "");
        let accepted = tokio::select! {
            accepted = Transfer::open(&mut self.link, begin) => accepted?,
            () = self.running.cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
        };
        let generator = self
            .generate(subject, sendshot, plan, stream_version)
            .await?;
        let before_end = async || self.announce_end(subject.record.clone()).await;
        let outcome = tokio::select! {
            outcome = accepted.run(generator.outputs, &self.running, &self.running.cancel, before_end) => outcome,
            never = self.listener.tick(Arc::clone(&self.running)) => match never {},
        };
        // A snapshot that is still being sent could not be deleted.
        let _ = tokio::time::timeout(ENDING, generator.over.wait()).await;
        Ok(outcome?)
    }

    async fn generate(
        &self,
        subject: &Subject,
        sendshot: Option<Sendshot>,
        plan: &Plan,
        stream_version: u32,
    ) -> Result<Generator, Problem> {
        let snapshot = another(&subject.fd)?;
        let local = plan.parent.map(|parent| parent.local);
        let Some(new) = sendshot else {
            let parent = match local {
                Some(Local::Snapshot(id)) => Some(id),
                Some(Local::Sendshot(_)) | None => None,
            };
            return Ok(generate::kernel(generate::Source {
                snapshot,
                parent,
                stream_version,
            })?);
        };
        let (state, running) = (Arc::clone(&self.state), Arc::clone(&self.running));
        let name = subject.record.as_ref().map(Record::sendshot_name);
        let work = move || -> Result<Generator, Problem> {
            let name = name.unwrap_or_default();
            let parent = open_parent(&state, local)?;
            let new = match &parent {
                Some(parent) => verify(parent, new, &snapshot, state.sendshots(), &name)
                    .map_err(generate::Error::Verify)?,
                None => new,
            };
            let source = generate::Sendshots {
                snapshot,
                parent,
                new,
                place: (another(state.sendshots())?, name),
                stream_version,
            };
            running.expect(source.size()?.bytes);
            Ok(generate::sendshot(source)?)
        };
        blocking("measure", work).await?
    }

    /// From here on the receiver may commit without our hearing of it.
    async fn announce_end(&self, record: Option<Record>) -> std::io::Result<()> {
        self.listener.stage(&self.running, "commit", "");
        let Some(mut record) = record else {
            return Ok(());
        };
        let state = Arc::clone(&self.state);
        let work = move || {
            record.state = State::Unconfirmed;
            record.store(state.pushes())
        };
        blocking("record", work)
            .await
            .map_err(|problem| std::io::Error::other(problem.message))?
    }

    /// Records the acknowledgement and lets go of what it makes superfluous.
    async fn record(&self, record: Option<Record>) -> Result<Vec<uuid::Uuid>, Problem> {
        self.listener.stage(&self.running, "record", "");
        let Some(record) = record else {
            return Ok(Vec::new());
        };
        let state = Arc::clone(&self.state);
        let keep = self.sender.keep(&self.key.name);
        let pruned = blocking("record", move || record::acknowledged(&state, record, keep))
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        let detail = match pruned.len() {
            0 => "nothing to let go".to_owned(),
            1 => "1 older state let go".to_owned(),
            n => format!("{n} older states let go"),
        };
        self.listener.stage(&self.running, "prune", detail);
        Ok(pruned)
    }

    fn nothing_to_do(&self, subject: &Subject, copy: &HeldCopy) -> Report {
        Report {
            volume: self.key.name.clone(),
            receiver: self.running.receiver.clone(),
            uuid: subject.info.wire_uuid(),
            parent: None,
            parent_reason: "nothing to send: the receiver holds this snapshot already".into(),
            engine: subject.engine().to_string(),
            stream_bytes: 0,
            wire_bytes: self.link.wire_bytes(),
            resumed_at: None,
            seconds: self.running.elapsed().as_secs_f64(),
            pruned: Vec::new(),
            skipped: Vec::new(),
            copy: copy.name.clone(),
        }
    }

    /// Lets go of the file system.
    async fn finish(self) {
        let work = move || {
            if let Ok(state) = Arc::try_unwrap(self.state) {
                state.reclaim_space();
            }
        };
        if let Err(e) = blocking("reclaim-space", work).await {
            tracing::debug!("commit after deleting snapshots: {e}");
        }
    }

    /// Lets go of the snapshot of a push that failed, unless the receiver may have committed.
    async fn abandon(self, record: Option<Record>) {
        let state = Arc::clone(&self.state);
        if let Some(record) = record {
            let push = record.push;
            let work = move || match crate::journal::find(state.pushes(), push)? {
                Some(now) if now.state == State::Sending => prune::let_go(&state, &now),
                Some(_) | None => Ok(()),
            };
            match blocking("abandon", work).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    tracing::warn!(%push, "an abandoned push is left to be settled later: {e}")
                }
                Err(e) => {
                    tracing::warn!(%push, "an abandoned push is left to be settled later: {e}")
                }
            }
        }
        self.finish().await;
    }
}

fn another(fd: impl AsFd) -> Result<OwnedFd, Problem> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|e| Problem::local_io("open the volume once more", &e))
}

/// A copy of exactly this state.
fn already_held<'a>(info: &Info, held: &'a [HeldCopy]) -> Option<&'a HeldCopy> {
    held.iter().find(|copy| {
        copy.uuid == info.wire_uuid() && copy.ctransid == info.ctransid && copy.unusable.is_none()
    })
}

impl From<transfer::Error> for Problem {
    fn from(error: transfer::Error) -> Self {
        match error {
            transfer::Error::Refused(failure) => failure.into(),
            transfer::Error::Cancelled => Problem::new(Kind::Cancelled, "the push was cancelled")
                .remedy("it cannot be resumed yet; the next push starts over"),
            transfer::Error::Broken(problem) => problem,
            transfer::Error::Generate(_)
            | transfer::Error::Nonsense(_)
            | transfer::Error::Record(_) => Problem::from_error(Kind::Failed, &error),
        }
    }
}

impl From<snapshot::Error> for Problem {
    fn from(error: snapshot::Error) -> Self {
        let remedy = match &error {
            snapshot::Error::SwapFile { .. } => {
                "the kernel cannot snapshot it: `swapoff` the file, or move it into a subvolume of its own"
            }
            snapshot::Error::Journal(source) | snapshot::Error::Io(source) => {
                problem::io_remedy(source)
            }
        };
        let kind = match &error {
            snapshot::Error::SwapFile { .. } => Kind::Usage,
            snapshot::Error::Journal(_) | snapshot::Error::Io(_) => Kind::Failed,
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<plan::Error> for Problem {
    fn from(error: plan::Error) -> Self {
        Problem::from_error(Kind::Usage, &error)
            .remedy("`sendshotctl plan` shows which copies can be the parent")
    }
}
