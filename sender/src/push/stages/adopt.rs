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

use crate::decide::adoption;
use crate::decide::parent::{Candidate, Lineage, LocalSnapshot, Wish};
use crate::push::stages::capture::{self, Captured, Known};
use crate::state::discard;
use crate::state::record::{Intent, Origin, Record, SnapshotId, Standing, State};
use crate::state::store::StateSubvolume;
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
/// unless there is a sendshot of the same lineage that is as young.
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
    adoption::choose(wish, new, lineage, candidates, &heads)
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
