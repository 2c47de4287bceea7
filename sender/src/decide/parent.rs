//! What a parent is, what is known of those that may be one, and the words in which a choice is explained. The
//! choice itself is made by [`crate::decide::parent_sendshot`] for the sendshot engine and by
//! [`crate::decide::parent_snapshot`] for the kernel's.

use std::sync::Arc;

use sendshot_model::{PeerName, PushId, Reason, ReasonCode, ReceiverId, RootId, VolumeId};
use sendshot_proto::inventory::HeldCopy;
use uuid::Uuid;

pub use crate::decide::verdict::{Relation, Verdict};
use crate::state::record::{Origin, Record, State};

/// What the user wants of the parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// The best one.
    #[default]
    Auto,
    /// A full send.
    None,
    /// This one or none at all.
    Uuid(Uuid),
}

/// A subvolume that what we push descends from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    /// Its UUID.
    pub uuid: Uuid,
    /// Only what it held up to this transaction is in our past.
    pub until: u64,
    /// What it is to what we push.
    pub relation: Relation,
}

/// The subvolumes that what we push descends from, nearest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Those that are known.
    pub ancestors: Vec<Ancestor>,
    /// Where it could not be followed further: this ancestor was deleted, and took with it what it had been
    /// made from. `None` if the first ancestor was made from nothing.
    pub cut_at: Option<Uuid>,
}

/// A snapshot on this box that a copy was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSnapshot {
    /// Subvolume id.
    pub id: u64,
    /// Its own UUID.
    pub uuid: Uuid,
    /// What it is a snapshot of.
    pub parent_uuid: Uuid,
    /// Transaction of its last change.
    pub ctransid: u64,
    /// Transaction of its creation.
    pub otransid: u64,
    /// Transaction in which it was received; `None` if it was not.
    pub rtransid: Option<u64>,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// A copy at the receiver, and its snapshot here if there still is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What the receiver reports.
    pub copy: HeldCopy,
    /// What is here.
    pub local: Option<LocalSnapshot>,
    /// What the journal knows of it.
    pub recorded: Recorded,
}

/// What the journal knows of a state that the receiver holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing.
    #[default]
    Nothing,
    /// It was pushed from a hidden snapshot, which was to stay.
    Snapshot,
    /// It was pushed from a hidden snapshot that was deleted, and a sendshot stayed.
    Sendshot,
}

/// The parent that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// UUID under which the receiver knows it.
    pub uuid: Uuid,
    /// ctransid, equal on both sides.
    pub ctransid: u64,
    /// What we have of it.
    pub local: Local,
}

/// What is on this box of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The snapshot with this subvolume id.
    Snapshot(u64),
    /// The sendshot of this push.
    Sendshot(PushId),
}

/// What to do, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// `None` means a full send.
    pub parent: Option<Parent>,
    /// Why.
    pub reason: Reason,
    /// Every copy, with what was thought of it.
    pub verdicts: Vec<(HeldCopy, Verdict)>,
}

/// The user's own choice of a parent cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The receiver holds no such copy.
    #[error("the receiver holds no copy of this volume with UUID {0}")]
    NotHeld(Uuid),
    /// Something stands against it.
    #[error("{uuid} cannot be the parent: {verdict}")]
    Unusable {
        /// What was asked for.
        uuid: Uuid,
        /// What stands against it.
        verdict: Verdict,
    },
}

pub(crate) fn full_asked_for() -> Reason {
    Reason::new(ReasonCode::FullAskedFor, "a full send was asked for")
}

pub(crate) fn chosen_by_hand(copy: &HeldCopy) -> Reason {
    let text = format!("chosen by hand: copy {}", copy.name);
    Reason::new(ReasonCode::ChosenByHand, text)
}

/// The newest copy that is newer than the parent and cannot be one, with its verdict. What is here of both
/// says which is newer; else the receiver's clock.
pub(crate) fn newer_unusable<'a>(
    parent: &HeldCopy,
    taken: u64,
    judged: impl Iterator<Item = (&'a HeldCopy, Option<u64>, &'a Verdict)>,
) -> Option<(Arc<str>, &'a Verdict)> {
    judged
        .filter(|(_, _, verdict)| !verdict.is_usable())
        .filter(|(copy, other, _)| match other {
            Some(other) => *other > taken,
            None => copy.committed_at > parent.committed_at,
        })
        .max_by_key(|(copy, _, _)| (copy.committed_at, &copy.name))
        .map(|(copy, _, verdict)| (Arc::clone(&copy.name), verdict))
}

/// Why nothing is shared: the verdict on the newest copy says most.
pub(crate) fn why_full<'a>(judged: impl Iterator<Item = (&'a HeldCopy, &'a Verdict)>) -> Reason {
    let Some((copy, verdict)) = judged.max_by_key(|(copy, _)| (copy.committed_at, &copy.name))
    else {
        return Reason::new(
            ReasonCode::NoCopyYet,
            "the receiver holds no copy of this volume yet",
        );
    };
    let text = format!(
        "the receiver's newest copy {} cannot be the parent: {verdict}",
        copy.name
    );
    let reason = Reason::new(verdict.code(), text);
    match verdict.remedy(copy) {
        Some(remedy) => reason.and(&remedy),
        None => reason,
    }
}

/// What a receiver has acknowledged of a volume, by the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing.
    Nothing,
    /// States, the newest taken at this time.
    Until(i64),
    /// States, but on other disks of the receiver than the one that is there, the newest taken at this time.
    ByAnotherDisk(i64),
    /// Nothing, but another instance that had the receiver's name has: the newest was taken at this time.
    ByAnotherInstance(i64),
}

impl Acknowledged {
    /// What `records` say of a volume and a receiver, which has a name here.
    pub fn of(
        records: &[Record],
        volume: VolumeId,
        (receiver, root): (ReceiverId, Option<RootId>),
        receiver_name: &PeerName,
    ) -> Self {
        let acknowledged = records.iter().filter(|record| {
            record.volume == volume
                && record.state == State::Acknowledged
                && record.origin == Origin::Sent
        });
        let newest = |by: &dyn Fn(&Record) -> bool| {
            let records = acknowledged.clone().filter(|record| by(record));
            records.map(|record| record.taken_at).max()
        };
        let on_it =
            |record: &Record| record.root.is_none() || root.is_none() || record.root == root;
        let of_receiver = |record: &Record| record.receiver == receiver;
        match newest(&|record| of_receiver(record) && on_it(record)) {
            Some(taken_at) => Self::Until(taken_at),
            None => match (
                newest(&of_receiver),
                newest(&|record| record.receiver_name == *receiver_name),
            ) {
                (Some(taken_at), _) => Self::ByAnotherDisk(taken_at),
                (None, Some(taken_at)) => Self::ByAnotherInstance(taken_at),
                (None, None) => Self::Nothing,
            },
        }
    }
}

impl Plan {
    /// Says more of a receiver that holds no copy: whether it had one.
    #[must_use]
    pub fn with(mut self, acknowledged: Acknowledged) -> Self {
        if self.reason.code != ReasonCode::NoCopyYet {
            return self;
        }
        let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
        self.reason = match acknowledged {
            Acknowledged::Nothing => return self,
            Acknowledged::Until(taken_at) => Reason::new(
                ReasonCode::CopiesGone,
                format!(
                    "the receiver holds no copy of this volume any more: it acknowledged that of {}, which \
                     was deleted there, or is on another disk than the one at its root now",
                    time(taken_at)
                ),
            ),
            Acknowledged::ByAnotherDisk(taken_at) => Reason::new(
                ReasonCode::NewDisk,
                format!(
                    "this disk of the receiver holds no copy of this volume yet; that of {} was acknowledged \
                     by another of its disks",
                    time(taken_at)
                ),
            ),
            Acknowledged::ByAnotherInstance(taken_at) => Reason::new(
                ReasonCode::ReceiverReplaced,
                format!(
                    "the receiver holds no copy of this volume: that of {} was acknowledged by another \
                     receiver of this name, or before this one was set up again",
                    time(taken_at)
                ),
            ),
        };
        self
    }
}
