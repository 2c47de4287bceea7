//! One state on its way to the receiver: what is read, what was prepared of it, and how far it has come.

use std::sync::Arc;

use sendshot_engine::Head;
use sendshot_model::{PushId, Reason, RootId};
use sendshot_proto::inventory::Inventory;
use uuid::Uuid;

use crate::decide::parent::{Local, Plan, Wish};
use crate::decide::resume::{self, Start};
use crate::push::stages::candidates::Demand;
use crate::push::stages::prepare::{BySendshots, Prepared};
use crate::push::stages::source::SourceSnapshot;
use crate::push::stages::standing::Refused;
use crate::shared::running::Protected;
use crate::state::record::{Record, State};
use crate::state::segment_log::{Memory, Trail};

/// A state on its way.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) source: SourceSnapshot,
    pub(crate) origin: Origin,
    pub(crate) prepared: Option<Prepared>,
    pub(crate) progress: TransferProgress,
    /// The parent that the receiver could apply nothing on.
    pub(crate) rejected: Option<RejectedParent>,
    pub(crate) _protected: Option<Protected>,
}

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was snapshotted for this push.
    Fresh,
    /// It was, for a push that broke off.
    Interrupted,
}

/// How far a transfer has come.
#[derive(Debug, Default)]
pub(crate) struct TransferProgress {
    /// Whether the transfer of the record was begun: the receiver may have a part of it.
    pub(crate) begun: bool,
    /// How far the receiver has come at most.
    pub(crate) furthest: u64,
    pub(crate) resumed_at: Option<u64>,
    pub(crate) restarts: u32,
    pub(crate) trail: Option<Arc<Trail>>,
    /// What an earlier push remembers of the stream.
    pub(crate) memory: Memory,
}

/// A parent on which the receiver could not apply a stream that was captured whole.
#[derive(Debug)]
pub(crate) struct RejectedParent {
    pub(crate) push: PushId,
    /// Why everything is sent now.
    pub(crate) reason: Reason,
}

/// The receiver's disk that is there, seen from a transfer that may have begun on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It is the one, or none was noted.
    Same,
    /// The transfer waits for the other one.
    Awaited,
    /// The other one may have the copy; only that disk can tell.
    Unconfirmed,
    /// What was agreed on was agreed on for the other one.
    Exchanged,
}

impl Delivery {
    /// For a snapshot that was just taken, or for the user's own.
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

    /// The record of what the receiver may have a part of.
    pub(crate) fn begun(&self) -> Option<&Record> {
        let record = self.source.record.as_ref();
        record.filter(|_| self.progress.begun)
    }

    /// What was agreed on, or sent, is void.
    pub(crate) fn restart(&mut self) {
        self.prepared = None;
        self.progress.begun = false;
    }

    /// What the parent has to be.
    pub(crate) fn demand(&self, wish: Wish) -> Demand {
        match &self.rejected {
            Some(rejected) => Demand::Full(rejected.reason.clone()),
            None => self.source.demand(wish),
        }
    }

    /// What was decided.
    pub(crate) fn plan(&self) -> Plan {
        let prepared = self.prepared.as_ref();
        prepared.map_or_else(Plan::default, |prepared| prepared.plan.clone())
    }

    pub(crate) fn by_sendshots(&self) -> Option<&BySendshots> {
        self.prepared.as_ref()?.by_sendshots.as_ref()
    }

    /// UUID and ctransid that the stream says: a snapshot that was deduplicated since it was taken has another.
    pub(crate) fn identity(&self) -> (Uuid, u64) {
        let captured = self.by_sendshots().map(|by| by.new.head());
        let (uuid, ctransid) = (self.source.info.wire_uuid(), self.source.info.ctransid);
        captured.map_or((uuid, ctransid), |head: &Head| {
            (head.wire_uuid, head.wire_ctransid)
        })
    }

    /// The stream that was refused, if it was built on a sendshot.
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

    /// What the receiver's disk `root` is to this transfer.
    pub(crate) fn disk(&self, root: Option<RootId>) -> Disk {
        let record = self.source.record.as_ref();
        let sent_to = record.and_then(|record| record.root);
        if sent_to.is_none() || root.is_none() || sent_to == root {
            return Disk::Same;
        }
        match (self.origin, record.map(|record| record.state)) {
            (Origin::Interrupted, _) => Disk::Awaited,
            (Origin::Fresh, Some(State::Unconfirmed)) => Disk::Unconfirmed,
            (Origin::Fresh, _) => Disk::Exchanged,
        }
    }

    /// Where to go on with what was begun; `None` if nothing was.
    pub(crate) fn start(&self, inventory: &Inventory) -> Option<Start> {
        let transfer = self.begun()?.transfer.as_ref()?;
        let offered = resume::offered(&inventory.partials, transfer.id);
        let trail = self.progress.trail.as_ref();
        let known = trail.map_or_else(Vec::new, |trail| trail.known());
        Some(resume::choose(&known, &offered))
    }
}
