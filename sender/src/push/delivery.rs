//! The delivery of one state to the receiver: what is read, what was prepared from it, and how far it has come.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::{PushId, Reason, RootId};
use sendshot_proto::inventory::Inventory;
use sendshot_sys::filesystem;
use uuid::Uuid;

use crate::decide::parent::{Local, ParentChoice, Plan};
use crate::decide::resume::{self, Start};
use crate::push::stages::prepare::candidates::Demand;
use crate::push::stages::prepare::{BySendshots, Prepared};
use crate::push::stages::source::SourceSnapshot;
use crate::push::stages::standing::Refused;
use crate::shared::pushed_states::PushedState;
use crate::shared::running::Protected;
use crate::state::record::{Phase, Record};
use crate::state::segment_log::{RecentSegments, SegmentLog};
use crate::volume::live_state::LiveState;

#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) source: SourceSnapshot,
    pub(crate) origin: Origin,
    pub(crate) prepared: Option<Prepared>,
    pub(crate) progress: TransferProgress,
    /// The parent on which the receiver could not apply any stream.
    pub(crate) rejected: Option<RejectedParent>,
    pub(crate) _protected: Option<Protected>,
}

/// Where the state of a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A snapshot taken for this push.
    Fresh,
    /// The snapshot of an interrupted push.
    Interrupted,
}

#[derive(Debug, Default)]
pub(crate) struct TransferProgress {
    /// Whether the transfer of the record was begun, so that the receiver may have a part of it.
    pub(crate) begun: bool,
    /// The most bytes that the receiver has applied.
    pub(crate) furthest: u64,
    pub(crate) resumed_at: Option<u64>,
    pub(crate) restarts: u32,
    pub(crate) segment_log: Option<Arc<SegmentLog>>,
    /// The segments that an earlier push of this daemon remembers.
    pub(crate) memory: RecentSegments,
}

/// A parent on which the receiver could not apply a stream made from a whole capture.
#[derive(Debug)]
pub(crate) struct RejectedParent {
    pub(crate) push: PushId,
    /// Why a full stream is sent now.
    pub(crate) reason: Reason,
}

/// The receiver's current disk compared with the disk on which the transfer may have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It is the same disk, or none was recorded.
    Same,
    /// It is another disk; the transfer waits for its own.
    Awaited,
    /// It is another disk; the transfer's own may have the copy, and only that disk can show it.
    Unconfirmed,
    /// It is another disk; what was prepared was for the transfer's own.
    Exchanged,
}

impl Delivery {
    /// A delivery of a new snapshot, or of the user's own.
    pub(crate) fn fresh(source: SourceSnapshot) -> Self {
        Self {
            source,
            origin: Origin::Fresh,
            prepared: None,
            progress: TransferProgress::default(),
            rejected: None,
            _protected: None,
        }
    }

    /// The record of the transfer of which the receiver may have a part.
    pub(crate) fn begun(&self) -> Option<&Record> {
        let record = self.source.record.as_ref();
        record.filter(|_| self.progress.begun)
    }

    /// Invalidates what was prepared and sent.
    pub(crate) fn restart(&mut self) {
        self.prepared = None;
        self.progress.begun = false;
    }

    /// The parent that this delivery requires.
    pub(crate) fn demand(&self, parent_choice: ParentChoice) -> Demand {
        match &self.rejected {
            Some(rejected) => Demand::Full(rejected.reason.clone()),
            None => self.source.demand(parent_choice),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let prepared = self.prepared.as_ref();
        prepared.map_or_else(Plan::default, |prepared| prepared.plan.clone())
    }

    pub(crate) fn by_sendshots(&self) -> Option<&BySendshots> {
        self.prepared.as_ref()?.by_sendshots.as_ref()
    }

    /// UUID and ctransid in the stream. They are the sendshot's if there is one: deduplication of the snapshot
    /// since then changes the snapshot's ctransid.
    pub(crate) fn identity(&self) -> (Uuid, u64) {
        let info = &self.source.info;
        match self.by_sendshots().map(|by| by.new.head()) {
            Some(head) => (head.wire_uuid, head.wire_ctransid),
            None => (info.wire_uuid(), info.ctransid),
        }
    }

    /// The state that the receiver holds once this is delivered, if it is of a live volume.
    pub(crate) fn pushed_state(&self) -> Option<PushedState> {
        let info = &self.source.info;
        let is_push_snapshot = self.source.record.is_some() && !info.parent_uuid.is_nil();
        let (uuid, ctransid) = self.identity();
        let filesystem = filesystem::fsid(&self.source.fd).ok()?;
        is_push_snapshot.then(|| PushedState {
            live: LiveState {
                filesystem,
                subvolume: info.parent_uuid,
                ctransid: info.ctransid,
            },
            seen: None,
            uuid,
            ctransid,
            reported_at: Timestamp::now().as_second(),
        })
    }

    /// The refused stream, if it was built on a sendshot.
    pub(crate) fn refused(&self) -> Option<Refused> {
        let prepared = self.prepared.as_ref()?;
        let by_sendshots = prepared.by_sendshots.as_ref()?;
        match prepared.plan.parent?.local {
            Local::Sendshot(parent) => Some(Refused {
                push: self.source.record.as_ref()?.push,
                parent,
                captured: by_sendshots.from,
            }),
            Local::Snapshot(_) => None,
        }
    }

    /// Compares the receiver's disk `root` with that of this transfer.
    pub(crate) fn disk(&self, root: Option<RootId>) -> Disk {
        let record = self.source.record.as_ref();
        let sent_to = record.and_then(|record| record.root);
        if sent_to.is_none() || root.is_none() || sent_to == root {
            return Disk::Same;
        }
        match (self.origin, record.map(|record| record.phase)) {
            (Origin::Interrupted, _) => Disk::Awaited,
            (Origin::Fresh, Some(Phase::Unconfirmed)) => Disk::Unconfirmed,
            (Origin::Fresh, _) => Disk::Exchanged,
        }
    }

    /// Where to continue a transfer that was begun; `None` if none was.
    pub(crate) fn start(&self, inventory: &Inventory) -> Option<Start> {
        let transfer = self.begun()?.transfer.as_ref()?;
        let offered = resume::offered(&inventory.partials, transfer.id);
        let segment_log = self.progress.segment_log.as_ref();
        let known = segment_log.map_or_else(Vec::new, |segment_log| segment_log.known());
        Some(resume::choose(&known, &offered))
    }
}
