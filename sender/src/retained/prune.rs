//! Stage *prune*: deleting what no later push needs, by [`crate::decide::retention`].

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroU32;

use sendshot_model::Reason;
use sendshot_sys::{crash, durable, filesystem, subvolume};

use crate::decide::retention::{self, Item, Presence, Verdict};
use crate::retained::kept::{self, Kept};
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::filesystems::NotLookedAt;
use crate::state::journal::{self, Record, State};
use crate::state::state_subvolume::StateSubvolume;
use crate::state::trail;
use crate::volume::engine::Engine;

/// Deletes the snapshot and the sendshot of a record, then the record.
///
/// Steps, and what a crash after each leaves:
///
/// 1. Delete the snapshot. — Both, or a record without snapshot, which is let go once more.
/// 2. Commit; remove the marks. — A record without snapshot.
/// 3. Delete the block hashes, then the sendshot. — A sendshot without hashes, which is a whole
///    one; or a record without anything, which is let go once more.
/// 4. Remove the record. — Nothing. Without step 2 it could be durable before step 1 is, and
///    leave a snapshot that no record names and nobody ever deletes.
///
/// # Errors
/// The kernel's; the record then stays, so that settling tries again.
pub fn let_go(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    release(state, record)?; // 1, 2
    durable::remove_at(state.sendshots(), &record.hashes_name())?; // 3
    durable::remove_at(state.sendshots(), &record.sendshot_name())?;
    crash::point("prune-record");
    record.remove(state.pushes()) // 4
}

/// Deletes the snapshot of a record, durably, and what it takes to resume its push; record and
/// sendshot stay.
///
/// # Errors
/// The kernel's.
pub fn release(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    destroy(state, record)?;
    crash::point("release-snapshot");
    filesystem::commit(state.top())?;
    crash::point("release-committed");
    durable::remove_at(state.pushes(), &trail::file_name(record.push))
}

fn destroy(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    match subvolume::destroy(state.snapshots(), &record.snapshot_name()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// What a push that was just acknowledged makes superfluous among the acknowledged states of its
/// volume and receiver: it can go now.
///
/// # Errors
/// The kernel's, for reading the journal.
pub fn superseded(
    state: &StateSubvolume,
    newest: &Record,
    keep: NonZeroU32,
) -> io::Result<Vec<Record>> {
    let mut items = items(state)?;
    items.retain(|item| {
        item.record.state == State::Acknowledged
            && retention::chain(&item.record) == retention::chain(newest)
    });
    let verdicts = retention::decide(&items, |_| keep, |record| record.push == newest.push);
    let superfluous = items.into_iter().zip(verdicts);
    Ok(superfluous
        .filter(|(_, verdict)| verdict.lets_go())
        .map(|(item, _)| item.record)
        .collect())
}

/// The records of a file system, with what is there of each.
///
/// # Errors
/// The kernel's, for reading the journal.
pub fn items(state: &StateSubvolume) -> io::Result<Vec<Item>> {
    let with_presence = |record| Item {
        presence: presence(state, &record),
        record,
    };
    let records = journal::records(state.pushes())?;
    Ok(records.into_iter().map(with_presence).collect())
}

/// In doubt it is there.
fn presence(state: &StateSubvolume, record: &Record) -> Presence {
    let is_gone =
        |result: io::Result<()>| matches!(result, Err(e) if e.kind() == io::ErrorKind::NotFound);
    let gone = match record.engine {
        Engine::Sendshot => is_gone(stat(state, &record.sendshot_name()).map(drop)),
        Engine::Kernel => {
            is_gone(durable::open_dir(state.snapshots(), &record.snapshot_name()).map(drop))
        }
    };
    if gone { Presence::Gone } else { Presence::Here }
}

/// Looks at a file beside the sendshots.
///
/// # Errors
/// The kernel's.
pub fn stat(state: &StateSubvolume, name: &OsStr) -> io::Result<rustix::fs::Stat> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statat(state.sendshots(), name, flags)?)
}

/// Whether a prune by hand really deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Delete,
    /// It only tells.
    DryRun,
}

/// What became of one kept state.
#[derive(Debug)]
pub struct Pruned {
    /// It, as it was before.
    pub kept: Kept,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Why it could not be let go though it was to be.
    pub failed: Option<io::Error>,
}

/// Applies `keep` now, on all file systems that are there. No push may start meanwhile, see
/// [`Sender::hold_starts`]; what is of a volume whose push is running stays. Returns what became of each, and
/// the file systems that were not looked at. Blocks.
pub fn now(sender: &Sender, selection: &Selection, mode: Mode) -> (Vec<Pruned>, Vec<NotLookedAt>) {
    let keep = |volume: &_| sender.keep(volume);
    let in_use = |record: &Record| {
        let table = sender.table();
        table.contains(record.push) || table.of_volume(record.volume).is_some()
    };
    let mut pruned = Vec::new();
    let missed = kept::each(sender, selection, |state, items| {
        let verdicts = retention::decide(&items, keep, in_use);
        let reasons = kept::reasons(&items, &verdicts);
        for ((item, verdict), reason) in items.into_iter().zip(verdicts).zip(reasons) {
            let kept = Kept::of(state, item);
            let failed = match (verdict.lets_go(), mode) {
                (true, Mode::Delete) => let_go(state, &kept.record).err(),
                (true, Mode::DryRun) | (false, _) => None,
            };
            if verdict.lets_go() && mode == Mode::Delete {
                log(&kept.record, &reason, failed.as_ref());
            }
            pruned.push(Pruned {
                kept,
                verdict,
                reason,
                failed,
            });
        }
    });
    pruned.sort_by_key(|pruned| pruned.kept.order());
    (pruned, missed)
}

fn log(record: &Record, reason: &Reason, failed: Option<&io::Error>) {
    let (push, volume, receiver) = (record.push, &record.volume_name, &record.receiver_name);
    match failed {
        None => tracing::info!(%push, %volume, %receiver, %reason, "pruned by hand"),
        Some(e) => tracing::warn!(%push, %volume, %receiver, "prune by hand: {e}"),
    }
}
