//! What a parent is, what is known of the candidates, and the words that explain a choice.
//! [`crate::decide::parent_sendshot`] chooses for the sendshot engine, [`crate::decide::parent_snapshot`] for the
//! kernel engine.

use std::sync::Arc;

use sendshot_model::{PeerName, PushId, Reason, ReasonCode, ReceiverId, RootId, VolumeId};
use sendshot_proto::inventory::HeldCopy;
use uuid::Uuid;

pub use crate::decide::verdict::{Relation, Verdict};
use crate::state::record::{Phase, Record};

/// The user's choice of a parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ParentChoice {
    /// The best parent.
    #[default]
    Auto,
    /// A full send.
    None,
    /// This one, or the push fails.
    Uuid(Uuid),
}

/// A subvolume from which the pushed state descends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    pub uuid: Uuid,
    /// Only its state up to this transaction is in the past of the pushed one.
    pub until: u64,
    /// Its relation to the pushed state.
    pub relation: Relation,
}

/// The subvolumes from which the pushed state descends, nearest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The known ones.
    pub ancestors: Vec<Ancestor>,
    /// Where the lineage ends early: this ancestor was deleted, and with it the record of its own origin.
    /// `None` if the first ancestor has no origin.
    pub cut_at: Option<Uuid>,
}

/// A snapshot on this host of which the receiver holds a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSnapshot {
    pub id: u64,
    pub uuid: Uuid,
    /// UUID of the subvolume of which it is a snapshot.
    pub parent_uuid: Uuid,
    /// Transaction of its last change.
    pub ctransid: u64,
    /// Transaction of its creation.
    pub otransid: u64,
    /// Transaction in which it was received; `None` if it was not.
    pub rtransid: Option<u64>,
    pub read_only: bool,
}

/// A copy at the receiver, and its snapshot on this host if that still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The receiver's report.
    pub copy: HeldCopy,
    /// The snapshot on this host.
    pub local: Option<LocalSnapshot>,
    pub recorded: Recorded,
}

/// What the journal records of a state that the receiver holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recorded {
    #[default]
    Nothing,
    /// A push from a hidden snapshot that was to stay.
    Snapshot,
    /// A push from a hidden snapshot that was deleted, leaving a sendshot.
    Sendshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// UUID by which the receiver knows it.
    pub uuid: Uuid,
    /// ctransid, equal on both sides.
    pub ctransid: u64,
    /// What this host has of it.
    pub local: Local,
}

/// What this host has of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The snapshot with this subvolume id.
    Snapshot(u64),
    /// The sendshot of this push.
    Sendshot(PushId),
}

/// A decision on the parent, and its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// `None` means a full send.
    pub parent: Option<Parent>,
    pub reason: Reason,
    /// Every copy with the verdict on it.
    pub verdicts: Vec<(HeldCopy, Verdict)>,
}

/// Why the parent that the user chose cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The receiver holds no such copy.
    #[error("the receiver holds no copy of this volume with UUID {0}")]
    NotHeld(Uuid),
    /// The copy cannot be a parent.
    #[error("{uuid} cannot be the parent: {verdict}")]
    Unusable {
        /// UUID of the copy.
        uuid: Uuid,
        verdict: Verdict,
    },
}

pub(crate) fn full_asked_for() -> Reason {
    Reason::new(ReasonCode::FullAskedFor, "a full send was requested")
}

pub(crate) fn chosen_by_hand(copy: &HeldCopy) -> Reason {
    let text = format!("chosen by hand: copy {}", copy.name);
    Reason::new(ReasonCode::ChosenByHand, text)
}

/// The newest copy that is newer than the parent and cannot be one, with its verdict. Their transactions on this
/// host show which is newer; without one, the receiver's clock.
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

/// Explains a full send by the verdict on the newest copy, which says most.
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

/// What a receiver has acknowledged of a volume, according to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    Nothing,
    /// States, the newest taken at this time.
    Until(i64),
    /// States, but on other disks of the receiver than its current one, the newest taken at this time.
    ByAnotherDisk(i64),
    /// Nothing by this instance, but states by another of the same name, the newest taken at this time.
    ByAnotherInstance(i64),
}

impl Acknowledged {
    /// What `records` show for a volume and a receiver, which has a name on this host.
    pub fn of(
        records: &[Record],
        volume: VolumeId,
        (receiver, root): (ReceiverId, Option<RootId>),
        receiver_name: &PeerName,
    ) -> Self {
        let acknowledged = records.iter().filter(|record| {
            record.volume == volume
                && record.phase == Phase::Acknowledged
                && record.origin.is_sent()
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
    /// Adds to the reason for a receiver without copies whether it had one.
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
