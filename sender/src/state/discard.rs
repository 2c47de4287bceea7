//! The only place that deletes anything kept on a source file system.

use std::io;

use sendshot_sys::{crash, durable, filesystem, subvolume};

use crate::state::record::Record;
use crate::state::segment_log;
use crate::state::store::StateSubvolume;

/// Deletes the snapshot and the sendshot of a record, then the record.
///
/// Steps, and what a crash after each leaves:
///
/// 1. Delete the snapshot. — Both, or a record without snapshot, which is deleted once more.
/// 2. Commit; delete the marks. — A record without snapshot.
/// 3. Delete the block hashes, then the sendshot. — A sendshot without hashes, which is valid; or a record
///    without either, which is deleted once more.
/// 4. Remove the record. — Nothing. Without step 2 it could be durable before step 1 is, and leave a
///    snapshot that no record names and that is never deleted.
///
/// # Errors
/// I/O errors; the record then stays, so that reconciliation tries again.
pub fn discard(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    delete_snapshot(state, record)?; // 1, 2
    durable::remove_at(state.sendshots(), &record.hashes_name())?; // 3
    durable::remove_at(state.sendshots(), &record.sendshot_name())?;
    crash::point("prune-record");
    record.remove(state.pushes()) // 4
}

/// Deletes the snapshot of a record, durably, and what it takes to resume its push; record and sendshot stay.
///
/// # Errors
/// I/O errors.
pub fn delete_snapshot(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    destroy(state, record)?;
    crash::point("release-snapshot");
    filesystem::commit(state.top())?;
    crash::point("release-committed");
    marks(state, record)
}

/// Deletes what it takes to resume the push of a record.
///
/// # Errors
/// I/O errors.
pub fn marks(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    durable::remove_at(state.pushes(), &segment_log::file_name(record.push))
}

fn destroy(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    match subvolume::destroy(state.snapshots(), &record.snapshot_name()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
