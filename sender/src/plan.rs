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

use std::fmt;
use std::sync::Arc;

use sendshot_model::PushId;
use sendshot_proto::inventory::HeldCopy;
use uuid::Uuid;

use crate::problem::{Kind, Problem};

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
    /// The push whose sendshot stands for it, if there is one.
    pub sendshot: Option<PushId>,
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
    /// For a person.
    pub reason: String,
    /// Every copy, with what was thought of it.
    pub verdicts: Vec<(HeldCopy, Verdict)>,
}

/// What stands against a copy as parent, or that nothing does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Usable,
    /// The receiver says why.
    UnusableThere(Arc<str>),
    /// Its snapshot is not on this box.
    Gone,
    /// Its snapshot is not on this box; its sendshot is, which is of no use to the kernel.
    OnlySendshot,
    /// Its sendshot is not on this box.
    NoSendshot,
    /// Its sendshot is on this box and cannot be used.
    SendshotUnusable(String),
    /// The receiver could not apply streams that were built on it.
    Rejected,
    /// Its snapshot can be written to.
    Writable,
    /// Its snapshot is not what was sent.
    Changed {
        /// ctransid when it was sent.
        sent: u64,
        /// ctransid now.
        now: u64,
    },
    /// Its snapshot was once writable, or deduplicated.
    OnceChanged,
    /// It is a snapshot of something else, or of a future that was given up.
    Unrelated,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("usable"),
            Self::UnusableThere(why) => write!(f, "not usable at the receiver: {why}"),
            Self::Gone => f.write_str("its snapshot is no longer on this box"),
            Self::OnlySendshot => f.write_str(
                "only a sendshot of it is on this box, and the kernel engine needs the snapshot, \
                 which was let go",
            ),
            Self::NoSendshot => f.write_str("no sendshot of it is on this box"),
            Self::SendshotUnusable(why) => {
                write!(f, "its sendshot on this box cannot be used: {why}")
            }
            Self::Rejected => {
                f.write_str("the receiver could not apply the streams that were built on it")
            }
            Self::Writable => f.write_str("its snapshot on this box is writable"),
            Self::Changed { sent, now } => write!(
                f,
                "its snapshot on this box changed after it was sent (transaction {now}, sent at {sent})"
            ),
            Self::OnceChanged => {
                f.write_str("its snapshot on this box was once writable or was deduplicated")
            }
            Self::Unrelated => {
                f.write_str("it is not a snapshot of what this volume was made from")
            }
        }
    }
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

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::from_error(Kind::Usage, &error)
            .remedy("`sendshotctl plan` shows which copies can be the parent")
    }
}

/// Decides.
///
/// # Errors
/// Only for a parent chosen by hand; otherwise a full send is always possible.
pub fn decide(wish: Wish, lineage: &[Ancestor], candidates: Vec<Candidate>) -> Result<Plan, Error> {
    let judged: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, lineage);
            (candidate, verdict)
        })
        .collect();
    let (parent, reason) = match wish {
        Wish::None => (None, "a full send was asked for".to_owned()),
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

fn judge(candidate: &Candidate, lineage: &[Ancestor]) -> Verdict {
    if let Some(why) = &candidate.copy.unusable {
        return Verdict::UnusableThere(why.clone());
    }
    let local = match (&candidate.local, candidate.sendshot) {
        (Some(local), _) => local,
        (None, Some(_)) => return Verdict::OnlySendshot,
        (None, None) => return Verdict::Gone,
    };
    if !local.read_only {
        return Verdict::Writable;
    }
    if local.ctransid != candidate.copy.ctransid {
        return Verdict::Changed {
            sent: candidate.copy.ctransid,
            now: local.ctransid,
        };
    }
    if local.ctransid > local.otransid {
        return Verdict::OnceChanged;
    }
    match distance(local, lineage) {
        Some(_) => Verdict::Usable,
        None => Verdict::Unrelated,
    }
}

/// How many steps up the lineage the snapshot was taken; `None` if it is no ancestor.
fn distance(local: &LocalSnapshot, lineage: &[Ancestor]) -> Option<usize> {
    lineage.iter().position(|ancestor| {
        local.uuid == ancestor.uuid
            || (local.parent_uuid == ancestor.uuid && local.otransid <= ancestor.until)
    })
}

fn by_hand(uuid: Uuid, judged: &[(Candidate, Verdict)]) -> Result<(Option<Parent>, String), Error> {
    let mut refused = Error::NotHeld(uuid);
    for (candidate, verdict) in judged.iter().filter(|(c, _)| c.copy.uuid == uuid) {
        match (verdict, &candidate.local) {
            (Verdict::Usable | Verdict::OnceChanged | Verdict::Unrelated, Some(local)) => {
                let reason = format!("chosen by hand: copy {}", candidate.copy.name);
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

fn automatic(lineage: &[Ancestor], judged: &[(Candidate, Verdict)]) -> (Option<Parent>, String) {
    let best = judged
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::Usable)
        .filter_map(|(candidate, _)| Some((candidate, candidate.local.as_ref()?)))
        .min_by_key(|(_, local)| {
            (
                distance(local, lineage).unwrap_or(usize::MAX),
                std::cmp::Reverse(local.otransid),
                local.id,
            )
        });
    match best {
        Some((candidate, local)) => (
            Some(parent(candidate, local)),
            format!(
                "copy {} is the newest state of this volume that both sides hold",
                candidate.copy.name
            ),
        ),
        None => {
            let judged = judged.iter().map(|(c, verdict)| (&c.copy, verdict));
            (None, why_full(judged))
        }
    }
}

fn parent(candidate: &Candidate, local: &LocalSnapshot) -> Parent {
    Parent {
        uuid: candidate.copy.uuid,
        ctransid: candidate.copy.ctransid,
        local: Local::Snapshot(local.id),
    }
}

/// Why nothing is shared: the verdict on the newest copy says most.
pub(crate) fn why_full<'a>(judged: impl Iterator<Item = (&'a HeldCopy, &'a Verdict)>) -> String {
    match judged.max_by_key(|(copy, _)| (copy.committed_at, &copy.name)) {
        None => "the receiver holds no copy of this volume yet".to_owned(),
        Some((copy, verdict)) => format!(
            "the receiver's newest copy {} cannot be the parent: {verdict}",
            copy.name
        ),
    }
}

#[cfg(test)]
mod tests {
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
                read_only: true,
            }),
            sendshot: None,
        }
    }

    fn lineage() -> Vec<Ancestor> {
        vec![
            Ancestor {
                uuid: VOLUME,
                until: u64::MAX,
            },
            Ancestor {
                uuid: PAST,
                until: 50,
            },
        ]
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
        let cases: [(Spoil, &str); 6] = [
            (
                |c| c.copy.unusable = Some("writable".into()),
                "not usable at the receiver: writable",
            ),
            (|c| c.local = None, "no longer on this box"),
            (
                |c| c.local.as_mut().unwrap().read_only = false,
                "is writable",
            ),
            (
                |c| c.local.as_mut().unwrap().ctransid = 61,
                "changed after it was sent",
            ),
            (
                |c| {
                    c.copy.ctransid = 61;
                    c.local.as_mut().unwrap().ctransid = 61;
                },
                "once writable or was deduplicated",
            ),
            (
                |c| c.local.as_mut().unwrap().parent_uuid = Uuid::from_u128(77),
                "not a snapshot of",
            ),
        ];
        for (spoil, expected) in cases {
            let mut spoilt = candidate(10, VOLUME, 60);
            spoil(&mut spoilt);
            let plan = decide(Wish::Auto, &lineage(), vec![spoilt]).unwrap();
            assert_eq!(plan.parent, None, "{expected}");
            assert!(plan.reason.contains(expected), "{}", plan.reason);
        }
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
        assert!(plan.reason.contains("no copy of this volume yet"));
    }
}
