//! Adoption: a sendshot of a snapshot that the receiver holds already, made so that the first push
//! with our engine after others is incremental. The snapshot is the hidden one of the last push by
//! the kernel's engine, or one of the user's own that was pushed.
//!
//! **Before the new snapshot is captured.** The engine's rule takes an extent for unchanged if both
//! sendshots map the same address and the extent's own item, as the *new* capture found it, is not
//! younger than the parent. That says what was at this address up to the new capture. Were
//! the parent captured after it, a balance in between could have put other data there.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Write a record of its own, state `sending`. — A record without sendshot; settling drops it.
//! 2. Capture the snapshot, durably, its data having been written back: it may be any read-only
//!    subvolume. — The record and its sendshot; settling drops both.
//! 3. Mark the record acknowledged. — A sendshot like that of any acknowledged push, and the
//!    kernel's record with its snapshot beside it.
//!
//! That the receiver holds it is its own word: we may never have sent it. So an adopted state supersedes nothing;
//! the next one that is sent does.
//!
//! Until the next acknowledgement both stand for the same state. The snapshot could go as soon as
//! step 3 is durable; it goes when that acknowledgement supersedes it like any snapshot, so that a
//! push by the kernel's engine that runs meanwhile, or one that follows because this one failed,
//! still has its parent. A plan stops after step 2 and lets go of the record.

use std::io;

use sendshot_engine::{Frozen, Head, Sendshot};
use sendshot_sys::subvolume;

use crate::decide::plan::{self, Candidate, Lineage, LocalSnapshot, Verdict, Wish};
use crate::push::stages::capture::{self, Captured, Known};
use crate::state::discard;
use crate::state::journal::{Intent, Origin, Record, SnapshotId, Standing, State};
use crate::state::state_subvolume::StateSubvolume;
use crate::volume::lineage;

/// Why a snapshot was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be opened, or the journal not be written.
    #[error("adopt a snapshot that the receiver holds")]
    Io(#[from] io::Error),
    /// It cannot be captured.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// It is gone, or not what the receiver has any more.
    #[error("the snapshot that the receiver holds was changed or deleted just now")]
    Changed,
}

/// The snapshot to adopt for a push of `new`: the best parent that the kernel's engine would have,
/// unless we have a sendshot of the same lineage that is as young. Pure.
pub fn choose(
    wish: Wish,
    new: &Head,
    lineage: &Lineage,
    candidates: Vec<Candidate>,
    known: &Known,
) -> Option<LocalSnapshot> {
    let known = known.sendshots.iter();
    let usable = known.filter(|(record, _)| record.standing != Standing::Rejected);
    let heads: Vec<&Head> = usable.map(|(_, sendshot)| sendshot.head()).collect();
    choose_by_heads(wish, new, lineage, candidates, &heads)
}

fn choose_by_heads(
    wish: Wish,
    new: &Head,
    lineage: &Lineage,
    mut candidates: Vec<Candidate>,
    known: &[&Head],
) -> Option<LocalSnapshot> {
    use sendshot_engine::diff::rule::Kinship;

    let stands_for = |copy: &sendshot_proto::inventory::HeldCopy| {
        let same =
            |head: &&&Head| head.wire_uuid == copy.uuid && head.wire_ctransid == copy.ctransid;
        copy.unusable.is_none().then(|| known.iter().find(same))?
    };
    let youngest = candidates
        .iter()
        .filter_map(|candidate| stands_for(&candidate.copy))
        .filter(|head| Kinship::of(head, new) == Kinship::Lineage)
        .map(|head| head.otransid)
        .max();
    candidates.retain(|candidate| stands_for(&candidate.copy).is_none());
    let locals: Vec<LocalSnapshot> = candidates.iter().filter_map(|c| c.local).collect();
    let plan = plan::decide(wish, lineage, candidates).ok()?;
    let parent = plan.parent?;
    let usable = plan
        .verdicts
        .iter()
        .any(|(copy, verdict)| copy.uuid == parent.uuid && *verdict == Verdict::Usable);
    let local = locals
        .into_iter()
        .find(|local| parent.local == plan::Local::Snapshot(local.id))?;
    let younger = wish != Wish::Auto || youngest.is_none_or(|youngest| local.otransid > youngest);
    (usable && younger).then_some(local)
}

/// Steps 1 and 2. `intent` names the adoption, not the push that it is for.
///
/// # Errors
/// See [`Error`]; nothing is left then.
pub fn capture(
    state: &StateSubvolume,
    snapshot: &LocalSnapshot,
    intent: Intent,
    known: &Known,
) -> Result<(Record, Sendshot), Error> {
    let fd = lineage::open(state.top(), snapshot.id)?.ok_or(Error::Changed)?;
    let mut record = Record::new(intent);
    record.snapshot = Some(SnapshotId {
        uuid: snapshot.uuid,
        otransid: snapshot.otransid,
    });
    record.store(state.pushes())?; // 1
    let captured = Frozen::write_back(&fd)
        .map_err(Error::from)
        .and_then(|fd| Ok(capture::capture(state, fd, &record, known)?)) // 2
        .and_then(|Captured { sendshot, .. }| {
            let info = subvolume::info(&fd)?;
            let same = info.uuid == snapshot.uuid
                && info.read_only
                && info.ctransid == snapshot.ctransid
                && sendshot.head().ctransid == snapshot.ctransid;
            if same {
                Ok(sendshot)
            } else {
                Err(Error::Changed)
            }
        });
    match captured {
        Ok(sendshot) => Ok((record, sendshot)),
        Err(e) => {
            undo(state, &record);
            Err(e)
        }
    }
}

/// Step 3.
///
/// # Errors
/// The kernel's; nothing is left then.
pub fn keep(state: &StateSubvolume, mut record: Record) -> io::Result<Record> {
    (record.state, record.origin) = (State::Acknowledged, Origin::Told);
    match record.store(state.pushes()) {
        Ok(()) => Ok(record),
        Err(e) => {
            undo(state, &record);
            Err(e)
        }
    }
}

/// Takes an adoption back; what cannot be taken back, settling will.
fn undo(state: &StateSubvolume, record: &Record) {
    if let Err(e) = discard::let_go(state, record) {
        tracing::warn!(push = %record.push, "an adoption is left to be settled later: {e}");
    }
}

#[cfg(test)]
mod tests {
    use sendshot_proto::inventory::HeldCopy;
    use uuid::Uuid;

    use super::*;
    use crate::decide::verdict::Relation;

    const VOLUME: Uuid = Uuid::from_u128(5);

    fn head(number: u128, otransid: u64) -> Head {
        Head {
            wire_uuid: Uuid::from_u128(number),
            wire_ctransid: otransid,
            ctransid: otransid,
            fsid: Uuid::from_u128(1),
            uuid: Uuid::from_u128(number),
            parent_uuid: VOLUME,
            otransid,
            generation: otransid,
            taken_at: 0,
        }
    }

    fn candidate(number: u128, otransid: u64, local: bool) -> Candidate {
        let snapshot = LocalSnapshot {
            id: number as u64,
            uuid: Uuid::from_u128(number),
            parent_uuid: VOLUME,
            ctransid: otransid,
            otransid,
            rtransid: None,
            read_only: true,
        };
        Candidate {
            copy: HeldCopy {
                uuid: snapshot.uuid,
                ctransid: otransid,
                name: "copy".into(),
                unusable: None,
                committed_at: 0,
            },
            local: local.then_some(snapshot),
            recorded: plan::Recorded::Nothing,
        }
    }

    fn chosen(wish: Wish, candidates: &[Candidate], known: &[&Head]) -> Option<u64> {
        let lineage = Lineage {
            ancestors: vec![plan::Ancestor {
                uuid: VOLUME,
                until: u64::MAX,
                relation: Relation::Volume,
            }],
            cut_at: None,
        };
        let new = head(9, 90);
        choose_by_heads(wish, &new, &lineage, candidates.to_vec(), known).map(|local| local.id)
    }

    #[test]
    fn a_snapshot_younger_than_every_sendshot_is_adopted() {
        let all = [candidate(1, 50, false), candidate(2, 60, true)];
        assert_eq!(chosen(Wish::Auto, &all, &[]), Some(2));
        assert_eq!(chosen(Wish::Auto, &all, &[&head(1, 50)]), Some(2));
        assert_eq!(chosen(Wish::None, &all, &[]), None);
    }

    #[test]
    fn what_has_a_sendshot_or_is_older_than_one_is_not() {
        let all = [candidate(1, 50, true), candidate(2, 60, false)];
        assert_eq!(chosen(Wish::Auto, &all, &[&head(2, 60)]), None);
        assert_eq!(chosen(Wish::Auto, &all[..1], &[&head(1, 50)]), None);
        // A sendshot of what the receiver does not hold any more is of no use.
        assert_eq!(chosen(Wish::Auto, &all[..1], &[&head(2, 60)]), Some(1));
    }

    #[test]
    fn a_parent_named_by_hand_is_adopted_however_old() {
        let all = [candidate(1, 50, true), candidate(2, 60, false)];
        let wish = Wish::Uuid(Uuid::from_u128(1));
        assert_eq!(chosen(wish, &all, &[&head(2, 60)]), Some(1));
    }

    #[test]
    fn what_was_once_changed_or_is_writable_is_not_adopted() {
        for change in [
            |local: &mut LocalSnapshot| local.read_only = false,
            |local: &mut LocalSnapshot| local.ctransid += 1,
            |local: &mut LocalSnapshot| local.otransid -= 1,
            |local: &mut LocalSnapshot| local.parent_uuid = Uuid::from_u128(6),
        ] {
            let mut changed = candidate(1, 50, true);
            changed.local.as_mut().map(change);
            for wish in [Wish::Auto, Wish::Uuid(Uuid::from_u128(1))] {
                assert_eq!(chosen(wish, &[changed.clone()], &[]), None);
            }
        }
    }
}
