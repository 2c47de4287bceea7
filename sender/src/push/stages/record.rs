//! Stage *record*: recording the receiver's acknowledgement.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Mark the push acknowledged. — Two acknowledged pushes; the next one prunes the older. With the sendshot
//!    engine also a snapshot that is not needed any more; reconciliation deletes it.
//! 2. Choose what it supersedes. — The same: nothing was deleted yet.
//!
//! The user gets the report now. Superseded states are deleted afterwards, by [`crate::push::stages::release`].

use std::io;
use std::num::NonZeroU32;

use crate::decide::parent::{Local, Parent};
use crate::decide::retention;
use crate::push::context::PushContext;
use crate::push::error::Error;
use crate::push::stages::standing;
use crate::state::presence;
use crate::state::record::{Phase, Record};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;
use sendshot_proto::problem::JOURNAL;

/// What an acknowledged push supersedes.
#[derive(Debug, Default)]
pub struct Superseded {
    /// The record of the push, if a sendshot replaces its snapshot.
    pub snapshot_of: Option<Record>,
    /// Older states, with everything kept of them.
    pub older: Vec<Record>,
}

/// Records the acknowledgement and finds what it supersedes.
///
/// # Errors
/// I/O errors of the journal. The push is then still `unconfirmed`, and the next one detects the commit.
pub(crate) async fn record(
    context: &PushContext,
    record: Option<Record>,
    parent: Option<Parent>,
) -> Result<Superseded, Error> {
    context.enter("record", "");
    let Some(record) = record else {
        return Ok(Superseded::default());
    };
    let keep = context.sender.keep(&context.key.name);
    let recorded = context.on_store("record", move |state| {
        acknowledged(state, record, parent, keep)
    });
    let superseded = recorded.await?.map_err(Error::volume(JOURNAL))?;
    let detail = match superseded.older.len() {
        0 => "nothing to delete".to_owned(),
        1 => "1 older state is deleted".to_owned(),
        n => format!("{n} older states are deleted"),
    };
    context.enter("prune", detail);
    Ok(superseded)
}

/// Records an acknowledgement; returns what it supersedes. `keep` sendshots stay.
///
/// `parent`, which the receiver reported in this push, stays too if `keep` is more than one: until the receiver
/// reports the new copy as well, only its acknowledgement speaks for that, and a lying receiver must not displace
/// what both sides really have.
///
/// # Errors
/// I/O errors. The push is then still `unconfirmed`, and the next one detects the commit.
pub fn acknowledged(
    state: &StateSubvolume,
    mut record: Record,
    parent: Option<Parent>,
    keep: NonZeroU32,
) -> io::Result<Superseded> {
    record.phase = Phase::Acknowledged;
    record.acknowledged_at = Some(jiff::Timestamp::now().as_second());
    record.store(state.pushes())?; // 1
    sendshot_sys::crash::point("acknowledged-noted");
    let older = superseded(state, &record, keep); // 2
    let mut older = older.unwrap_or_else(|e| {
        tracing::warn!(push = %record.push, "states that this push supersedes stay until the next push: {e}");
        Vec::new()
    });
    if let Some(Local::Sendshot(parent)) = parent.map(|parent| parent.local)
        && let Err(e) = standing::note_success(state, parent)
    {
        tracing::warn!(push = %parent, "the next push captures the whole volume: {e}");
    }
    let parent = parent.map(|parent| parent.uuid);
    let is_parent = |older: &Record| older.snapshot.map(|s| s.uuid) == parent && parent.is_some();
    older.retain(|older| keep.get() == 1 || older.engine == Engine::Kernel || !is_parent(older));
    let has_sendshot = record.engine == Engine::Sendshot;
    Ok(Superseded {
        snapshot_of: has_sendshot.then_some(record),
        older,
    })
}

/// Finds what the push just acknowledged supersedes among the acknowledged states of its volume and receiver.
///
/// # Errors
/// I/O errors of the journal.
pub fn superseded(
    state: &StateSubvolume,
    newest: &Record,
    keep: NonZeroU32,
) -> io::Result<Vec<Record>> {
    let mut items = presence::items(state)?;
    items.retain(|item| {
        item.record.phase == Phase::Acknowledged
            && item.record.replication_key() == newest.replication_key()
    });
    let verdicts = retention::decide(&items, |_| keep, |record| record.push == newest.push);
    let superseded = items.into_iter().zip(verdicts);
    Ok(superseded
        .filter(|(_, verdict)| verdict.deletes())
        .map(|(item, _)| item.record)
        .collect())
}
