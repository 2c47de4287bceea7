//! Stage *plan*: which parent, or a full send, and why. Pure: it asks nobody.
//!
//! A copy can be the parent of an increment made by the kernel's send when all of this holds:
//!
//! 1. The receiver reported it in this push and calls it usable.
//! 2. Its snapshot is still here, read-only, and unchanged since it was sent (equal ctransid).
//! 3. It was never writable nor deduplicated (ctransid ≤ otransid), and it is an *ancestor*:
//!    a snapshot, taken at a time that lies in our past, of a subvolume that we descend from.
//!
//! The third point is what keeps wrong streams away: the kernel compares any two trees it is
//! given, and two that split share inode numbers and generations with other meanings. It is
//! waived for a parent that the user names. Names and clocks decide nothing.

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

/// Decides.
///
/// # Errors
/// Only for a parent chosen by hand; otherwise a full send is always possible.
pub fn decide(wish: Wish, lineage: &Lineage, candidates: Vec<Candidate>) -> Result<Plan, Error> {
    let judged: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, lineage);
            (candidate, verdict)
        })
        .collect();
    let (parent, reason) = match wish {
        Wish::None => (None, full_asked_for()),
        Wish::Uuid(uuid) => by_hand(uuid, &judged)?,
        Wish::Auto => automatic(lineage, &judged),
    };
    Ok(Plan {
        parent,
        reason,
        verdicts: judged
            .into_iter()
            .map(|(candidate, verdict)| (candidate.copy, verdict))
            .collect(),
    })
}

fn judge(candidate: &Candidate, lineage: &Lineage) -> Verdict {
    if let Some(unusable) = &candidate.copy.unusable {
        return Verdict::UnusableThere(unusable.clone());
    }
    let local = match (&candidate.local, candidate.recorded) {
        (Some(local), _) => local,
        (None, Recorded::Sendshot) => return Verdict::OnlySendshot,
        (None, Recorded::Snapshot) => return Verdict::Deleted,
        (None, Recorded::Nothing) => return Verdict::Gone,
    };
    if !local.read_only {
        return Verdict::Writable;
    }
    let (sent, now) = (candidate.copy.ctransid, local.ctransid);
    if now > sent {
        return Verdict::Changed { sent, now };
    }
    if now < sent {
        return Verdict::OtherState { sent, now };
    }
    if local.ctransid > local.otransid {
        return match local.rtransid {
            Some(received) if local.otransid <= received => Verdict::ReceivedByOtherTool,
            Some(_) | None => Verdict::OnceChanged {
                changed: local.ctransid,
                created: local.otransid,
            },
        };
    }
    match (distance(local, lineage), lineage.cut_at) {
        (Some(_), _) => Verdict::Usable,
        (None, cut_at) => later(local, lineage)
            .or(cut_at.map(Verdict::AncestryCut))
            .unwrap_or(Verdict::Unrelated),
    }
}

/// How many steps up the lineage the snapshot was taken; `None` if it is no ancestor.
fn distance(local: &LocalSnapshot, lineage: &Lineage) -> Option<usize> {
    lineage.ancestors.iter().position(|ancestor| {
        local.uuid == ancestor.uuid
            || (local.parent_uuid == ancestor.uuid && local.otransid <= ancestor.until)
    })
}

/// Whether it is of an ancestor, but of a state after our past.
fn later(local: &LocalSnapshot, lineage: &Lineage) -> Option<Verdict> {
    let mut ancestors = lineage.ancestors.iter();
    let ancestor = ancestors.find(|ancestor| local.parent_uuid == ancestor.uuid)?;
    Some(Verdict::Later {
        of: ancestor.relation,
        taken: local.otransid,
        until: ancestor.until,
    })
}

fn by_hand(uuid: Uuid, judged: &[(Candidate, Verdict)]) -> Result<(Option<Parent>, Reason), Error> {
    let mut refused = Error::NotHeld(uuid);
    for (candidate, verdict) in judged.iter().filter(|(c, _)| c.copy.uuid == uuid) {
        let is_waived = matches!(
            verdict,
            Verdict::OnceChanged { .. }
                | Verdict::ReceivedByOtherTool
                | Verdict::Later { .. }
                | Verdict::AncestryCut(_)
                | Verdict::Unrelated
        );
        match &candidate.local {
            Some(local) if is_waived || verdict.is_usable() => {
                let mut reason = chosen_by_hand(&candidate.copy);
                if is_waived {
                    reason = reason.and(&format!("otherwise it would not be: {verdict}"));
                }
                return Ok((Some(parent(candidate, local)), reason));
            }
            _ => {
                refused = Error::Unusable {
                    uuid,
                    verdict: verdict.clone(),
                }
            }
        }
    }
    Err(refused)
}

pub(crate) fn full_asked_for() -> Reason {
    Reason::new(ReasonCode::FullAskedFor, "a full send was asked for")
}

pub(crate) fn chosen_by_hand(copy: &HeldCopy) -> Reason {
    let text = format!("chosen by hand: copy {}", copy.name);
    Reason::new(ReasonCode::ChosenByHand, text)
}

fn automatic(lineage: &Lineage, judged: &[(Candidate, Verdict)]) -> (Option<Parent>, Reason) {
    let best = judged
        .iter()
        .filter(|(_, verdict)| verdict.is_usable())
        .filter_map(|(candidate, _)| Some((candidate, candidate.local.as_ref()?)))
        .min_by_key(|(_, local)| {
            (
                distance(local, lineage).unwrap_or(usize::MAX),
                std::cmp::Reverse(local.otransid),
                local.id,
            )
        });
    let all = judged.iter().map(|(c, verdict)| (&c.copy, verdict));
    let Some((candidate, local)) = best else {
        return (None, why_full(all));
    };
    let name = &candidate.copy.name;
    let ages = judged.iter().map(|(c, verdict)| {
        let taken = c.local.as_ref().map(|local| local.otransid);
        (&c.copy, taken, verdict)
    });
    let reason = match newer_unusable(&candidate.copy, local.otransid, ages) {
        None => Reason::new(
            ReasonCode::NewestCommonSnapshot,
            format!("copy {name} is the newest state of this volume that both sides hold"),
        ),
        Some((newer, verdict)) => Reason::new(
            ReasonCode::NewestUsableSnapshot,
            format!(
                "copy {name} is the newest state that both sides hold and that can be the parent; the \
                 newer copy {newer} cannot: {verdict}"
            ),
        ),
    };
    (Some(parent(candidate, local)), reason)
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

fn parent(candidate: &Candidate, local: &LocalSnapshot) -> Parent {
    Parent {
        uuid: candidate.copy.uuid,
        ctransid: candidate.copy.ctransid,
        local: Local::Snapshot(local.id),
    }
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

#[cfg(test)]
mod tests {
    use sendshot_proto::inventory::Unusable;

    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(1);
    const PAST: Uuid = Uuid::from_u128(2);

    fn copy(uuid: u128, ctransid: u64) -> HeldCopy {
        HeldCopy {
            uuid: Uuid::from_u128(uuid),
            ctransid,
            name: format!("copy-{uuid}").into(),
            unusable: None,
            committed_at: ctransid as i64,
        }
    }

    fn candidate(uuid: u128, of: Uuid, otransid: u64) -> Candidate {
        Candidate {
            copy: copy(uuid, otransid),
            local: Some(LocalSnapshot {
                id: uuid as u64,
                uuid: Uuid::from_u128(uuid),
                parent_uuid: of,
                ctransid: otransid,
                otransid,
                rtransid: None,
                read_only: true,
            }),
            recorded: Recorded::Nothing,
        }
    }

    fn lineage() -> Lineage {
        let ancestor = |uuid, until, relation| Ancestor {
            uuid,
            until,
            relation,
        };
        Lineage {
            ancestors: vec![
                ancestor(VOLUME, u64::MAX, Relation::Volume),
                ancestor(PAST, 50, Relation::Past),
            ],
            cut_at: None,
        }
    }

    fn chosen(candidates: Vec<Candidate>) -> Option<u64> {
        let plan = decide(Wish::Auto, &lineage(), candidates).unwrap();
        plan.parent.map(|parent| match parent.local {
            Local::Snapshot(id) => id,
            Local::Sendshot(_) => 0,
        })
    }

    #[test]
    fn the_newest_common_snapshot_of_the_volume_is_the_parent() {
        let candidates = vec![candidate(10, VOLUME, 60), candidate(11, VOLUME, 70)];
        assert_eq!(chosen(candidates), Some(11));
    }

    #[test]
    fn a_nearer_relative_is_better_than_a_newer_one() {
        let candidates = vec![candidate(10, VOLUME, 60), candidate(11, PAST, 45)];
        assert_eq!(chosen(candidates), Some(10));
    }

    #[test]
    fn after_a_rollback_only_what_lies_before_the_branch_is_an_ancestor() {
        assert_eq!(chosen(vec![candidate(10, PAST, 50)]), Some(10));
        assert_eq!(chosen(vec![candidate(10, PAST, 51)]), None);
    }

    #[test]
    fn the_snapshot_we_were_made_from_is_an_ancestor_itself() {
        let mut own = candidate(2, Uuid::from_u128(99), 40);
        own.copy.uuid = PAST;
        assert_eq!(chosen(vec![own]), Some(2));
    }

    #[test]
    fn whatever_stands_against_a_parent_means_a_full_send_that_says_so() {
        type Spoil = fn(&mut Candidate);
        fn local(c: &mut Candidate) -> &mut LocalSnapshot {
            c.local.as_mut().unwrap()
        }
        use ReasonCode as Code;
        let cases: [(Spoil, Code, &str); 12] = [
            (
                |c| {
                    c.copy.unusable = Some(Unusable {
                        code: Code::CopyChanged,
                        why: "changed".into(),
                    })
                },
                Code::CopyChanged,
                "not usable at the receiver: changed",
            ),
            (
                |c| c.local = None,
                Code::SnapshotNotHere,
                "not on the volume's file system",
            ),
            (
                |c| (c.local, c.recorded) = (None, Recorded::Snapshot),
                Code::SnapshotDeleted,
                "was deleted",
            ),
            (
                |c| (c.local, c.recorded) = (None, Recorded::Sendshot),
                Code::OnlySendshotHere,
                "only a sendshot",
            ),
            (
                |c| local(c).read_only = false,
                Code::SnapshotWritable,
                "is writable",
            ),
            (
                |c| local(c).ctransid = 61,
                Code::SnapshotChanged,
                "changed after it was sent",
            ),
            (
                |c| c.copy.ctransid = 61,
                Code::SnapshotOtherState,
                "different states",
            ),
            (
                |c| (c.copy.ctransid, local(c).ctransid) = (61, 61),
                Code::SnapshotOnceChanged,
                "once writable or was deduplicated",
            ),
            (
                |c| {
                    (c.copy.ctransid, local(c).ctransid) = (61, 61);
                    local(c).rtransid = Some(61);
                },
                Code::SnapshotReceivedByOtherTool,
                "received by another tool",
            ),
            (
                |c| {
                    (c.copy.ctransid, local(c).ctransid) = (61, 61);
                    local(c).rtransid = Some(59);
                },
                Code::SnapshotOnceChanged,
                "once writable or was deduplicated",
            ),
            (
                |c| local(c).parent_uuid = PAST,
                Code::LaterThanRollback,
                "later (transaction 60) than the state that the volume was made from (50)",
            ),
            (
                |c| local(c).parent_uuid = Uuid::from_u128(77),
                Code::Unrelated,
                "not a snapshot of",
            ),
        ];
        for (spoil, code, expected) in cases {
            let mut spoilt = candidate(10, VOLUME, 60);
            spoil(&mut spoilt);
            let plan = decide(Wish::Auto, &lineage(), vec![spoilt]).unwrap();
            assert_eq!(plan.parent, None, "{expected}");
            assert_eq!(plan.reason.code, code);
            assert!(plan.reason.text.contains(expected), "{}", plan.reason);
        }
    }

    #[test]
    fn what_the_pushed_snapshot_is_older_than_is_said_so() {
        let mut lineage = lineage();
        lineage.ancestors[0].until = 55;
        let plan = decide(Wish::Auto, &lineage, vec![candidate(10, VOLUME, 60)]).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::LaterThanPushed);
    }

    #[test]
    fn where_the_ancestry_is_cut_nothing_is_called_unrelated() {
        let cut = Lineage {
            cut_at: Some(PAST),
            ..lineage()
        };
        let unknown = candidate(10, Uuid::from_u128(77), 40);
        let plan = decide(Wish::Auto, &cut, vec![unknown]).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::AncestryCut);
        let remedy = format!("--parent {}", Uuid::from_u128(10));
        assert!(plan.reason.text.contains(&remedy), "{}", plan.reason);
    }

    #[test]
    fn a_newer_copy_that_cannot_be_the_parent_is_not_passed_over_in_silence() {
        let mut newer = candidate(11, VOLUME, 70);
        newer.local.as_mut().unwrap().read_only = false;
        let all = vec![candidate(10, VOLUME, 60), newer];
        let plan = decide(Wish::Auto, &lineage(), all).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::NewestUsableSnapshot);
        assert!(plan.reason.text.contains("copy-11"), "{}", plan.reason);
        let mut older = candidate(9, VOLUME, 50);
        older.local.as_mut().unwrap().read_only = false;
        let all = vec![candidate(10, VOLUME, 60), older];
        let plan = decide(Wish::Auto, &lineage(), all).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::NewestCommonSnapshot);
    }

    #[test]
    fn a_receiver_that_has_lost_everything_is_told_from_one_that_never_had_anything() {
        use crate::decide::retention::tests::record;
        let acknowledged = record();
        let of = |receiver, name: &str| {
            let name = name.parse().unwrap();
            let records = std::slice::from_ref(&acknowledged);
            let known = Acknowledged::of(records, acknowledged.volume, (receiver, None), &name);
            let plan = decide(Wish::Auto, &lineage(), Vec::new()).unwrap();
            plan.with(known).reason.code
        };
        assert_eq!(of(acknowledged.receiver, "nas2"), ReasonCode::CopiesGone);
        let other = ReceiverId::generate();
        assert_eq!(of(other, "nas2"), ReasonCode::ReceiverReplaced);
        assert_eq!(of(other, "nas3"), ReasonCode::NoCopyYet);
    }

    #[test]
    fn a_parent_by_hand_may_be_unrelated_but_not_changed() {
        let unrelated = candidate(10, Uuid::from_u128(77), 60);
        let plan = decide(Wish::Uuid(Uuid::from_u128(10)), &lineage(), vec![unrelated]).unwrap();
        assert_eq!(plan.parent.unwrap().local, Local::Snapshot(10));
        let mut changed = candidate(10, VOLUME, 60);
        changed.local.as_mut().unwrap().ctransid = 61;
        let refused = decide(Wish::Uuid(Uuid::from_u128(10)), &lineage(), vec![changed]);
        assert!(matches!(refused, Err(Error::Unusable { .. })));
        let missing = decide(Wish::Uuid(Uuid::from_u128(5)), &lineage(), Vec::new());
        assert_eq!(missing, Err(Error::NotHeld(Uuid::from_u128(5))));
    }

    #[test]
    fn without_copies_the_send_is_full() {
        let plan = decide(Wish::Auto, &lineage(), Vec::new()).unwrap();
        assert_eq!(plan.parent, None);
        assert!(plan.reason.text.contains("no copy of this volume yet"));
    }
}
