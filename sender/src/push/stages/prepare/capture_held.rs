//! Stage *capture held*: makes a sendshot of a snapshot that the receiver holds already, so that the first push with the
//! sendshot engine after others is incremental. The snapshot is the hidden one of the last push by the kernel
//! engine, or one of the user's own that was pushed.
//!
//! **It comes before the capture of the new snapshot.** The engine's rule treats an extent as unchanged if
//! both sendshots map the same address and the extent's own item, as the *new* capture found it, is not younger
//! than the parent. That describes the data at this address up to the new capture. If the parent were captured
//! later, a balance in between could have put other data there.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Write a record of its own, state `sending`. — A record without sendshot; reconciliation deletes it.
//! 2. Capture the snapshot, durably, after writing back its data: it may be any read-only subvolume. — The record
//!    and its sendshot; reconciliation deletes both.
//! 3. Mark the record acknowledged. — A sendshot like that of any acknowledged push, beside the kernel
//!    engine's record with its snapshot.
//!
//! Only the receiver's report shows that it holds the state: this sender may never have sent it. So a captured
//! state supersedes nothing; the next state sent does.
//!
//! Until the next acknowledgement both records stand for the same state. The snapshot could be deleted as soon as
//! step 3 is durable; it is deleted when that acknowledgement supersedes it like any snapshot, so that a
//! concurrent push by the kernel engine, or one that follows because this one failed, still has its parent.
//! A dry run stops after step 2 and discards the record.

use std::io;

use sendshot_engine::{Frozen, Head, Sendshot};
use sendshot_model::{ReceiverId, RootId};
use sendshot_sys::subvolume;

use crate::decide::held_snapshot;
use crate::decide::parent::{Candidate, Lineage, LocalSnapshot, ParentChoice};
use crate::push::stages::prepare::capture::{self, Captured, KnownSendshots};
use crate::state::discard;
use crate::state::record::{Intent, Origin, Phase, Record, SnapshotId, Standing};
use crate::state::store::StateSubvolume;
use crate::volume::lineage;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be opened, or the journal cannot be written.
    #[error("adopt a snapshot that the receiver holds")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// The snapshot was deleted, or changed since the receiver got it.
    #[error("the snapshot that the receiver holds was changed or deleted just now")]
    Changed,
}

/// Chooses the held snapshot to capture for a push of `new`: the best parent of the kernel engine, unless a sendshot of
/// the same lineage is as young.
pub fn choose(
    parent_choice: ParentChoice,
    new: &Head,
    lineage: &Lineage,
    candidates: Vec<Candidate>,
    (known, to): (&KnownSendshots, (ReceiverId, Option<RootId>)),
) -> Option<LocalSnapshot> {
    let known = known.usable_for(to);
    let usable = known.filter(|(record, _)| record.standing != Standing::Rejected);
    let heads: Vec<&Head> = usable.map(|(_, sendshot)| sendshot.head()).collect();
    held_snapshot::choose(parent_choice, new, lineage, candidates, &heads)
}

/// Performs steps 1 and 2. `intent` names this capture, not the push that it is for.
///
/// # Errors
/// See [`Error`]; the capture is undone then.
pub fn capture(
    state: &StateSubvolume,
    snapshot: &LocalSnapshot,
    intent: Intent,
    known: &KnownSendshots,
) -> Result<(Record, Sendshot), Error> {
    let fd = lineage::open(state.top(), snapshot.id)?.ok_or(Error::Changed)?;
    let mut record = Record::new(intent);
    // The state is as old as its snapshot, whenever it is captured: lists are ordered by that, and copies named.
    record.taken_at = subvolume::info(&fd)?.otime;
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

/// Performs step 3.
///
/// # Errors
/// I/O errors; the capture is undone then.
pub fn keep(state: &StateSubvolume, mut record: Record) -> io::Result<Record> {
    (record.phase, record.origin) = (Phase::Acknowledged, Origin::Reported);
    match record.store(state.pushes()) {
        Ok(()) => Ok(record),
        Err(e) => {
            undo(state, &record);
            Err(e)
        }
    }
}

/// Undoes the capture; what cannot be deleted now, reconciliation deletes.
fn undo(state: &StateSubvolume, record: &Record) {
    if let Err(e) = discard::discard(state, record) {
        tracing::warn!(push = %record.push, "an adoption is left to be reconciled later: {e}");
    }
}
