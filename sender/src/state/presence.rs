//! What is there of that which the journal names.

use std::ffi::OsStr;
use std::io;

use sendshot_sys::durable;

use crate::state::journal;
use crate::state::record::{Item, Presence, Record};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

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
