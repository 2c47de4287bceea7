//! Checks which of the states in the journal still exist.

use std::ffi::OsStr;
use std::io;

use sendshot_sys::durable;

use crate::state::journal;
use crate::state::record::{Item, Presence, Record};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// Reads the records of a file system, with the presence of each one's snapshot or sendshot.
///
/// # Errors
/// I/O errors of the journal.
pub fn items(state: &StateSubvolume) -> io::Result<Vec<Item>> {
    let with_presence = |record| Item {
        presence: presence(state, &record),
        record,
    };
    let records = journal::records(state.pushes())?;
    Ok(records.into_iter().map(with_presence).collect())
}

/// Checks whether the snapshot or sendshot exists. When unsure, it counts as present.
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

/// Returns the metadata of a file in the directory of sendshots.
///
/// # Errors
/// I/O errors.
pub fn stat(state: &StateSubvolume, name: &OsStr) -> io::Result<rustix::fs::Stat> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statat(state.sendshots(), name, flags)?)
}
