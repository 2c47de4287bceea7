//! Finds an interrupted push in the journal, and opens all that is needed to resume it. [`crate::decide::resume`]
//! decides where.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sendshot_engine::Sendshot;
use sendshot_engine::capture::recapture::Effort;
use sendshot_model::{Engine, PushId, Reason, ReceiverId, SenderId, VolumeId};
use sendshot_proto::inventory::Inventory;
use sendshot_proto::problem::JOURNAL;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::{durable, filesystem};

use crate::decide::parent::{Local, Parent, ParentChoice, Plan};
use crate::decide::resume::Start;
use crate::push::context::{PushContext, another};
use crate::push::delivery::{Delivery, Origin, TransferProgress};
use crate::push::error::Error;
use crate::push::request::Request;
use crate::push::stages::prepare::{BySendshots, Prepared};
use crate::push::stages::source::SourceSnapshot;
use crate::push::stages::standing::CapturedFrom;
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal;
use crate::state::record::{self, Phase, Record, ResumePoint, Transferring};
use crate::state::segment_log::SegmentLog;
use crate::state::store::StateSubvolume;
use crate::volume::resolve::Volume;

/// Where a transfer continues.
pub(crate) enum Resumption {
    /// At this point, or at the beginning.
    At(Option<ResumePoint>),
    /// Nowhere: the current state of the volume is sent instead.
    StartOver,
}

/// Finds the interrupted push to complete; none if the user has chosen a parent or another engine.
///
/// # Errors
/// I/O errors of the journal.
pub(crate) async fn interrupted(
    context: &PushContext,
    volume: &Volume,
    request: &Request,
) -> Result<Option<Interrupted>, Error> {
    if request.parent_choice != ParentChoice::Auto || context.engine != Engine::Sendshot {
        return Ok(None);
    }
    let sender = Arc::clone(&context.sender);
    let chain = (sender.id(), volume.key.id, context.link.receiver());
    let found = context.on_store("resume", move |state| {
        find(state, chain, |push| sender.table().contains(push))
    });
    found.await?.map_err(Error::volume(JOURNAL))
}

/// Discards interrupted pushes of this volume to this receiver that will not be completed. What the receiver
/// may have committed stays until the receiver has reported.
///
/// # Errors
/// I/O errors of the journal.
pub(crate) async fn discard_interrupted(context: &PushContext) -> Result<(), Error> {
    let sender = Arc::clone(&context.sender);
    let chain = (sender.id(), context.key.id, context.link.receiver());
    let root = context.root;
    let discarded = context.on_store("let-go", move |state| -> io::Result<()> {
        for record in journal::records(state.pushes())? {
            let mine = record.replication_key() == chain;
            let unfinished = record.phase == Phase::Sending && record.is_resumable();
            // A transfer to another of the receiver's disks is resumed when that disk is back.
            let elsewhere = record.root.is_some() && root.is_some() && record.root != root;
            if mine && unfinished && !elsewhere && !sender.table().contains(record.push) {
                tracing::info!(push = %record.push, "an interrupted push is discarded: another one takes its place");
                sender.interrupted().take_recent(record.push);
                discard::discard(state, &record)?;
            }
        }
        Ok(())
    });
    discarded.await?.map_err(Error::volume(JOURNAL))
}

/// Whether a volume is unchanged since the snapshot of a push was taken. When unsure, it counts as changed.
pub(crate) async fn is_unchanged(sender: &Sender, volume: &Volume, delivery: &Delivery) -> bool {
    let snapshot = &delivery.source.info;
    let record = delivery.source.record.as_ref();
    let mount = record.and_then(|record| sender.interrupted().take_mount(record.push));
    let (uuid, otransid) = (snapshot.parent_uuid, snapshot.otransid);
    let Ok(fd) = another(&volume.fd) else {
        return false;
    };
    let work = move || -> io::Result<bool> {
        filesystem::sync(&fd)?;
        let now = subvolume::info(&fd)?;
        // The replay of a log after a power loss changes the subvolume, and leaves the number of its last change as it was.
        // It needs another mount, and changes the generation, as other things do, too.
        let is_same_mount =
            mount.is_some() && filesystem::mount_number(filesystem::fsid(&fd)?) == mount;
        let excludes_replay = is_same_mount || now.generation <= otransid;
        Ok(now.uuid == uuid && now.ctransid <= otransid && excludes_replay)
    };
    matches!(blocking("compare", work).await, Ok(Ok(true)))
}

/// Rereads the record: the previous attempt may have written it.
///
/// # Errors
/// I/O errors of the journal, or a deleted record.
pub(crate) async fn reread(context: &PushContext, delivery: &mut Delivery) -> Result<(), Error> {
    let Some(record) = &delivery.source.record else {
        return Ok(());
    };
    let (id, progress) = (record.push, &mut delivery.progress);
    let (known, memory) = (
        progress.segment_log.clone(),
        std::mem::take(&mut progress.memory),
    );
    let now = context.on_store("journal", move |state| {
        let record = journal::find(state.pushes(), id)?;
        // This process remembers more segments than the file has.
        let segment_log = match known {
            Some(segment_log) => segment_log,
            None => Arc::new(SegmentLog::open(state.pushes(), id, memory)?),
        };
        Ok::<_, io::Error>((record, segment_log))
    });
    let (record, segment_log) = now.await?.map_err(Error::volume(JOURNAL))?;
    delivery.source.record = Some(record.ok_or(Error::RecordGone)?);
    delivery.progress.segment_log = Some(segment_log);
    Ok(())
}

/// Decides where the transfer continues, by what the receiver reports of it.
pub(crate) fn resumption(
    context: &PushContext,
    delivery: &mut Delivery,
    inventory: &Inventory,
) -> Resumption {
    match delivery.start(inventory) {
        None => Resumption::At(None),
        Some(Start::At(waypoint)) => Resumption::At(Some(waypoint)),
        Some(Start::Beginning(why)) => {
            let why = why.reason();
            context.enter("resume", format!("restarting from the beginning: {why}"));
            tracing::info!(push = %context.running.push, volume = %context.running.volume,
                "an interrupted push cannot be resumed: {why}");
            if delivery.origin == Origin::Interrupted {
                return Resumption::StartOver;
            }
            delivery.progress.begun = false;
            Resumption::At(None)
        }
    }
}

/// An interrupted push, with all that is needed to resume it.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub record: Record,
    /// Parameters of the transfer when it began.
    pub transfer: Transferring,
    /// Root directory of its snapshot.
    pub fd: OwnedFd,
    pub info: Info,
    pub new: Sendshot,
    pub parent: Option<Sendshot>,
}

impl Interrupted {
    /// Makes the delivery that resumes it. As long as that lives, reconciliation skips the record.
    pub(crate) fn into_delivery(self, sender: &Sender) -> Delivery {
        let plan = self.plan();
        let protected = sender.table().protect(self.record.push);
        let memory = sender.interrupted().take_recent(self.record.push);
        Delivery {
            source: SourceSnapshot {
                fd: self.fd,
                info: self.info,
                taken_at: self.record.taken_at,
                record: Some(self.record),
                still: None,
            },
            origin: Origin::Interrupted,
            prepared: Some(Prepared {
                plan,
                by_sendshots: Some(BySendshots {
                    new: Arc::new(self.new),
                    parent: self.parent.map(Arc::new),
                    effort: Effort::Changes(0),
                    from: CapturedFrom::Unknown,
                }),
            }),
            progress: TransferProgress {
                begun: true,
                memory,
                ..TransferProgress::default()
            },
            rejected: None,
            _protected: Some(protected),
        }
    }

    /// The plan with which the transfer began.
    fn plan(&self) -> Plan {
        let parent = self.transfer.parent.map(|parent| Parent {
            uuid: parent.uuid,
            ctransid: parent.ctransid,
            local: Local::Sendshot(parent.push),
        });
        Plan {
            parent,
            reason: Reason::new(self.transfer.reason_code, self.transfer.reason.clone()),
            verdicts: Vec::new(),
        }
    }
}

/// Finds the newest interrupted push of a volume to a receiver for which everything still exists.
/// `running` says whether a push works on a record: a receiver can have two names.
///
/// # Errors
/// I/O errors of the journal.
fn find(
    state: &StateSubvolume,
    chain: (SenderId, VolumeId, ReceiverId),
    running: impl Fn(PushId) -> bool,
) -> io::Result<Option<Interrupted>> {
    let mut records = journal::records(state.pushes())?;
    records.retain(|record| record.replication_key() == chain);
    records.retain(|record| record.is_resumable() && !running(record.push));
    records.sort_by_key(Record::age_order);
    while let Some(record) = records.pop() {
        match open(state, record) {
            Ok(found) => return Ok(Some(found)),
            Err(e) => tracing::info!("an interrupted push cannot be resumed: {e:#}"),
        }
    }
    Ok(None)
}

fn open(state: &StateSubvolume, record: Record) -> anyhow::Result<Interrupted> {
    let Some(transfer) = record.transfer.clone() else {
        anyhow::bail!("{} did not begin its transfer", record.push);
    };
    let fd = durable::open_dir(state.snapshots(), &record.snapshot_name())?;
    let info = subvolume::info(&fd)?;
    anyhow::ensure!(
        record
            .snapshot
            .is_some_and(|snapshot| snapshot.uuid == info.uuid)
            && info.read_only,
        "{} is not the snapshot that was taken for it",
        record.push
    );
    let new = sendshot_engine::open_at(state.sendshots(), &record.sendshot_name())?;
    let parent = match transfer.parent {
        None => None,
        Some(parent) => {
            let name = record::sendshot_name(parent.push);
            let found = sendshot_engine::open_at(state.sendshots(), &name)?;
            let same = (found.head().wire_uuid, found.head().wire_ctransid)
                == (parent.uuid, parent.ctransid);
            anyhow::ensure!(same, "{} is not the state on which it builds", parent.push);
            Some(found)
        }
    };
    Ok(Interrupted {
        record,
        transfer,
        fd,
        info,
        new,
        parent,
    })
}
