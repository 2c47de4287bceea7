//! Decides what becomes of a sendshot when a receiver cannot apply a stream that was built on it.
//!
//! A refused stream is never made a second time from the same two sendshots. Either may be wrong: the new one by
//! what it took over from the sendshot that it was captured from, the parent by what it took over from an
//! earlier one. So the new snapshot is captured whole first; if that stream cannot be applied either, the parent
//! is not used any more.
//!
//! Steps after a refusal, and what a crash after each leaves:
//!
//! 1. Remove from the push's record what it takes to make the stream again. — A push that never began; the next
//!    start deletes it, and the next push takes a new snapshot.
//! 2. Record the new standing of the parent and of the sendshot that was the source of the capture. — The same;
//!    the next push captures the volume whole, or does without the parent.

use std::io;

use sendshot_model::PushId;

use crate::state::journal;
use crate::state::record::Standing;
use crate::state::store::StateSubvolume;

/// A stream that a receiver could not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The push whose record describes the stream.
    pub push: PushId,
    /// The push whose sendshot was the stream's parent.
    pub parent: PushId,
    /// The source of the new sendshot.
    pub captured: CapturedFrom,
}

/// What a sendshot was captured from, besides its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapturedFrom {
    /// Nothing else: everything was read.
    Snapshot,
    Sendshot(PushId),
    /// Not recorded: an earlier push captured it.
    Unknown,
}

/// Decides the standing of a parent after a refusal.
fn after_refusal(standing: Standing, captured: CapturedFrom) -> Standing {
    match (standing, captured) {
        (Standing::Rejected, _) | (_, CapturedFrom::Snapshot) => Standing::Rejected,
        (_, CapturedFrom::Sendshot(_) | CapturedFrom::Unknown) => Standing::Suspect,
    }
}

/// Performs steps 1 and 2. Returns the new standing of the parent.
///
/// # Errors
/// I/O errors of the journal.
pub fn note_refusal(state: &StateSubvolume, refused: Refused) -> io::Result<Standing> {
    let pushes = state.pushes();
    if let Some(mut record) = journal::find(pushes, refused.push)? {
        record.transfer = None;
        record.store(pushes)?; // 1
    }
    if let CapturedFrom::Sendshot(source) = refused.captured
        && source != refused.parent
    {
        set(state, source, |standing| match standing {
            Standing::Good => Standing::Suspect,
            Standing::Suspect | Standing::Rejected => standing,
        })?;
    }
    let noted = set(state, refused.parent, |standing| {
        after_refusal(standing, refused.captured)
    })?; // 2
    Ok(noted.unwrap_or(Standing::Rejected))
}

/// Reverts the rejection of a parent: a full send of the same state was refused as well, so the parent is not at
/// fault.
///
/// # Errors
/// I/O errors of the journal.
pub fn note_full_refusal(state: &StateSubvolume, parent: PushId) -> io::Result<()> {
    set(state, parent, |standing| match standing {
        Standing::Rejected | Standing::Suspect => Standing::Suspect,
        Standing::Good => Standing::Good,
    })
    .map(drop)
}

/// Clears the suspicion of a parent: a stream that was built on it was committed.
///
/// # Errors
/// I/O errors of the journal.
pub fn note_success(state: &StateSubvolume, parent: PushId) -> io::Result<()> {
    set(state, parent, |standing| match standing {
        Standing::Good | Standing::Suspect => Standing::Good,
        Standing::Rejected => Standing::Rejected,
    })
    .map(drop)
}

/// Changes the standing in a record; `None` if the record is gone.
fn set(
    state: &StateSubvolume,
    push: PushId,
    change: impl FnOnce(Standing) -> Standing,
) -> io::Result<Option<Standing>> {
    let Some(mut record) = journal::find(state.pushes(), push)? else {
        return Ok(None);
    };
    let standing = change(record.standing);
    if standing != record.standing {
        record.standing = standing;
        record.store(state.pushes())?;
    }
    Ok(Some(standing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_rejected_once_a_whole_capture_did_not_help() {
        let source = CapturedFrom::Sendshot(PushId::generate());
        for captured in [source, CapturedFrom::Unknown] {
            for standing in [Standing::Good, Standing::Suspect] {
                assert_eq!(after_refusal(standing, captured), Standing::Suspect);
            }
        }
        for standing in [Standing::Good, Standing::Suspect, Standing::Rejected] {
            let after = after_refusal(standing, CapturedFrom::Snapshot);
            assert_eq!(after, Standing::Rejected);
        }
    }
}
