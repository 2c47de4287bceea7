//! The way of a push: its stages in order. Each is a module of its name.
//!
//! | stage | module |
//! |---|---|
//! | snapshot | [`crate::snapshot`] |
//! | negotiate | [`crate::negotiate`] |
//! | (adopt, capture, with our engine) | [`crate::prepare`] runs [`crate::adopt`], [`crate::capture`] |
//! | plan | [`crate::prepare`] asks; [`crate::plan`] decides by [`crate::lineage`], [`crate::plan_sendshots`] by [`crate::sendshots`] |
//! | generate | [`crate::generate`] |
//! | transfer, apply, commit, acknowledge | [`crate::transfer`], and the receiver |
//! | record | [`crate::record`] |
//! | prune | [`crate::prune`] chooses |
//! | (report) | here the user is told |
//! | release | [`crate::release`] |

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::{PeerName, PushId, TransferId, VolumeRef};
use sendshot_proto::inventory::{HeldCopy, VolumeKey};
use sendshot_proto::transfer::{Begin, ParentRef};
use sendshot_sys::subvolume::Info;
use sendshot_sys::top_level::TopLevel;

use crate::blocking;
use crate::engine::{self, Engine};
use crate::generate::{self, Generator};
use crate::journal::{self, Intent, Record, State};
use crate::negotiate;
use crate::plan::{Local, Wish};
use crate::prepare::{Adoption, BySendshots, Prepared};
use crate::problem::{JOURNAL, Problem};
use crate::progress::Listener;
use crate::prune;
use crate::receiver_link::{self, Link};
use crate::record::{self, Superfluous};
use crate::release::Release;
use crate::report::Report;
use crate::running::Running;
use crate::sender::Sender;
use crate::settle;
use crate::snapshot;
use crate::state_subvolume::StateSubvolume;
use crate::transfer::{self, Committed, Transfer};
use crate::volume::{self, Volume};

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
    /// What is to make the stream; `None` for what is usual for the volume.
    pub engine: Option<Engine>,
}

/// What is read by this push: a snapshot taken for it, or the user's own.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) fd: OwnedFd,
    pub(crate) info: Info,
    taken_at: i64,
    /// `None` for the user's own snapshot: nothing of it is ours to record or delete.
    pub(crate) record: Option<Record>,
}

/// What all stages of one push share.
pub(crate) struct Push {
    pub(crate) sender: Arc<Sender>,
    pub(crate) running: Arc<Running>,
    pub(crate) listener: Listener,
    pub(crate) key: VolumeKey,
    pub(crate) link: Link,
    pub(crate) state: Arc<StateSubvolume>,
    pub(crate) engine: Engine,
}

/// Runs a push until its user can be told how it ended. What is to be done after that is returned
/// with the outcome; `None` if the push has not come so far that there is anything.
///
/// A push that failed leaves nothing, except that a snapshot which the receiver may have committed
/// stays until the next push finds out.
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> (Result<Report, Problem>, Option<Release>) {
    let skipped = volume
        .skipped
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let usual = sender.engine(&volume.key.name);
    let engine = match engine::choose(request.engine, usual, &volume) {
        Ok(engine) => engine,
        Err(e) => return (Err(e.into()), None),
    };
    let begun = Push::begin(
        sender,
        &request.receiver,
        engine,
        &volume,
        running,
        listener,
    )
    .await;
    let mut push = match begun {
        Ok(push) => push,
        Err(problem) => return (Err(problem), None),
    };
    let subject = match push.snapshot(volume).await {
        Ok(subject) => subject,
        Err(problem) => return (Err(problem), Some(push.release(Superfluous::default()))),
    };
    let record = subject.record.clone();
    match push.send(subject, request.wish).await {
        Ok((report, superfluous)) => {
            let report = Report { skipped, ..report };
            (Ok(report), Some(push.release(superfluous)))
        }
        Err(problem) => {
            push.abandon(record).await;
            (Err(problem), Some(push.release(Superfluous::default())))
        }
    }
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

impl Push {
    /// Connects, and opens what is kept on the volume's file system.
    pub(crate) async fn begin(
        sender: Arc<Sender>,
        receiver: &PeerName,
        engine: Engine,
        volume: &Volume,
        running: Arc<Running>,
        listener: Listener,
    ) -> Result<Self, Problem> {
        listener.stage(&running, "connect", "");
        let link = connect(&sender, receiver, &running).await?;
        let state = Arc::new(prepare(&sender, volume).await?);
        Ok(Self {
            key: volume.key.clone(),
            sender,
            running,
            listener,
            link,
            state,
            engine,
        })
    }

    /// The version of the stream that both sides speak.
    pub(crate) fn stream_version(&self) -> u32 {
        self.link.stream_version()
    }

    /// Takes the push snapshot; an existing read-only one is read as it is.
    pub(crate) async fn snapshot(&self, volume: Volume) -> Result<Subject, Problem> {
        if volume.kind == volume::Kind::Snapshot {
            let detail = format!("{} is read-only already", volume.path.display());
            self.listener.stage(&self.running, "snapshot", detail);
            return Ok(Subject {
                taken_at: volume.info.otime,
                fd: volume.fd,
                info: volume.info,
                record: None,
            });
        }
        let detail = format!("of {}", volume.path.display());
        self.listener.stage(&self.running, "snapshot", detail);
        let intent = self.intent(self.running.push);
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
        })
    }

    pub(crate) fn intent(&self, push: PushId) -> Intent {
        Intent {
            sender: self.sender.id(),
            volume: self.key.id,
            volume_name: self.key.name.clone(),
            receiver: self.link.receiver(),
            receiver_name: self.running.receiver.clone(),
            push,
            taken_at: Timestamp::now().as_second(),
            engine: self.engine,
        }
    }

    async fn send(
        &mut self,
        subject: Subject,
        wish: Wish,
    ) -> Result<(Report, Superfluous), Problem> {
        let held = self.negotiate().await?;
        if let Some(copy) = already_held(&subject.info, &held) {
            let report = self.nothing_to_do(&subject, copy);
            return Ok((report, Superfluous::default()));
        }
        let (prepared, _) = self.prepare(&subject, held, wish, Adoption::Kept).await?;
        let plan = prepared.plan.clone();
        let committed = self.transfer(&subject, prepared).await?;
        let uuid = subject.info.wire_uuid();
        let superfluous = self.record(subject.record).await?;
        let pruned = superfluous.older.iter();
        let report = Report {
            volume: self.key.name.clone(),
            receiver: self.running.receiver.clone(),
            uuid,
            parent: plan.parent.map(|parent| parent.uuid),
            parent_reason: plan.reason,
            engine: self.engine.to_string(),
            stream_bytes: committed.stream_bytes,
            wire_bytes: self.link.wire_bytes(),
            resumed_at: None,
            seconds: self.running.elapsed().as_secs_f64(),
            pruned: pruned
                .filter_map(|record| Some(record.snapshot?.uuid))
                .collect(),
            skipped: Vec::new(),
            copy: committed.copy,
        };
        Ok((report, superfluous))
    }

    /// Asks what the receiver holds, and settles what that decides.
    pub(crate) async fn negotiate(&mut self) -> Result<Vec<HeldCopy>, Problem> {
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

    async fn transfer(
        &mut self,
        subject: &Subject,
        prepared: Prepared,
    ) -> Result<Committed, Problem> {
        // What the stream says: a snapshot that was deduplicated since it was taken has another.
        let captured = prepared.by_sendshots.as_ref();
        let ctransid = captured.map_or(subject.info.ctransid, |by| by.new.head().ctransid);
        let begin = Begin {
            transfer: TransferId::generate(),
            volume: self.key.clone(),
            uuid: subject.info.wire_uuid(),
            ctransid,
            parent: prepared.plan.parent.map(|parent| ParentRef {
                uuid: parent.uuid,
                ctransid: parent.ctransid,
            }),
            taken_at: subject.taken_at,
            stream_version: self.stream_version(),
        };
        self.listener.stage(&self.running, "transfer", "");
        let accepted = tokio::select! {
            accepted = Transfer::open(&mut self.link, begin) => accepted?,
            () = self.running.cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
        };
        let generator = self.generate(subject, prepared).await?;
        let before_end = async || self.announce_end(subject.record.clone()).await;
        let outcome = tokio::select! {
            outcome = accepted.run(generator.outputs, &self.running, &self.running.cancel, before_end) => outcome,
            never = self.listener.tick(Arc::clone(&self.running)) => match never {},
        };
        // A snapshot that is still being sent could not be deleted.
        let _ = tokio::time::timeout(ENDING, generator.over.wait()).await;
        Ok(outcome?)
    }

    async fn generate(&self, subject: &Subject, prepared: Prepared) -> Result<Generator, Problem> {
        let snapshot = another(&subject.fd)?;
        let stream_version = self.stream_version();
        let Some(BySendshots { new, parent, .. }) = prepared.by_sendshots else {
            let parent = match prepared.plan.parent.map(|parent| parent.local) {
                Some(Local::Snapshot(id)) => Some(id),
                Some(Local::Sendshot(_)) | None => None,
            };
            return Ok(generate::kernel(generate::Source {
                snapshot,
                parent,
                stream_version,
            })?);
        };
        let name = subject.record.as_ref().map(Record::sendshot_name);
        let place = (another(self.state.sendshots())?, name.unwrap_or_default());
        let running = Arc::clone(&self.running);
        let work = move || -> Result<Generator, Problem> {
            let size = generate::size(parent.as_ref(), &new, stream_version)?;
            running.expect(size.bytes);
            Ok(generate::sendshot(generate::Sendshots {
                snapshot,
                parent,
                new,
                place,
                stream_version,
            })?)
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

    /// Records the acknowledgement and finds what it makes superfluous.
    async fn record(&self, record: Option<Record>) -> Result<Superfluous, Problem> {
        self.listener.stage(&self.running, "record", "");
        let Some(record) = record else {
            return Ok(Superfluous::default());
        };
        let state = Arc::clone(&self.state);
        let keep = self.sender.keep(&self.key.name);
        let superfluous = blocking("record", move || record::acknowledged(&state, record, keep))
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        let detail = match superfluous.older.len() {
            0 => "nothing to let go".to_owned(),
            1 => "1 older state is let go".to_owned(),
            n => format!("{n} older states are let go"),
        };
        self.listener.stage(&self.running, "prune", detail);
        Ok(superfluous)
    }

    fn nothing_to_do(&self, subject: &Subject, copy: &HeldCopy) -> Report {
        Report {
            volume: self.key.name.clone(),
            receiver: self.running.receiver.clone(),
            uuid: subject.info.wire_uuid(),
            parent: None,
            parent_reason: "nothing to send: the receiver holds this snapshot already".into(),
            engine: self.engine.to_string(),
            stream_bytes: 0,
            wire_bytes: self.link.wire_bytes(),
            resumed_at: None,
            seconds: self.running.elapsed().as_secs_f64(),
            pruned: Vec::new(),
            skipped: Vec::new(),
            copy: copy.name.clone(),
        }
    }

    /// What is left to do when the user has been told.
    pub(crate) fn release(self, superfluous: Superfluous) -> Release {
        Release::new(self.state, superfluous)
    }

    /// Lets go of the snapshot of a push that failed, unless the receiver may have committed.
    pub(crate) async fn abandon(&self, record: Option<Record>) {
        if let Some(record) = record {
            self.let_go(record).await;
        }
    }

    pub(crate) async fn let_go(&self, record: Record) {
        let (state, push) = (Arc::clone(&self.state), record.push);
        let work = move || match journal::find(state.pushes(), push)? {
            Some(now) if now.state == State::Sending => prune::let_go(&state, &now),
            Some(_) | None => Ok(()),
        };
        let let_go = blocking("abandon", work).await;
        if let Err(e) = let_go.and_then(|done| done.map_err(Problem::from)) {
            tracing::warn!(%push, "an abandoned push is left to be settled later: {e}");
        }
    }
}

pub(crate) fn another(fd: impl AsFd) -> Result<OwnedFd, Problem> {
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
