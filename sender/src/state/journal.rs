//! The journal of pushes: what the sender created on a source file system, and why it still exists.
//!
//! One small file per push in the state subvolume, so it moves with the disk that it describes. The sender deletes
//! only what the journal names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use sendshot_model::PushId;
use sendshot_sys::durable;

use crate::state::record::{Record, VERSION};

const SUFFIX: &str = ".json";

impl Record {
    /// Writes the record, durably.
    ///
    /// # Errors
    /// I/O errors.
    pub fn store(&self, pushes: impl AsFd) -> io::Result<()> {
        durable::write_json_at(pushes, &file_name(self.push), self)
    }

    /// Removes the record, durably.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(&self, pushes: impl AsFd) -> io::Result<()> {
        durable::remove_at(pushes, &file_name(self.push))
    }
}

fn file_name(push: PushId) -> OsString {
    format!("{push}{SUFFIX}").into()
}

/// Reads all records of a journal. An unreadable one is logged and left alone: what it names is then not known
/// to belong to this sender.
///
/// # Errors
/// I/O errors.
pub fn records(pushes: impl AsFd) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for name in durable::names(&pushes)? {
        let text = name.to_string_lossy();
        if text.starts_with('.') || !text.ends_with(SUFFIX) {
            continue;
        }
        match read(&pushes, &name) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(e) => tracing::warn!(record = %text, "journal record cannot be read: {e}"),
        }
    }
    Ok(records)
}

/// The message for a file whose layout version this program does not know.
pub(crate) fn other_version(found: u32, own: u32) -> String {
    match found > own {
        true => format!("its version {found} is newer than this program; upgrade"),
        false => format!("its version {found} does not exist"),
    }
}

fn read(pushes: impl AsFd, name: &OsStr) -> io::Result<Option<Record>> {
    let record: Option<Record> = durable::read_json_at(pushes, name)?;
    match record {
        Some(record) if record.version != VERSION => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            other_version(record.version, VERSION),
        )),
        Some(record) if file_name(record.push) != name => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it names another push than its file does",
        )),
        other => Ok(other),
    }
}

/// Reads the current record of one push.
///
/// # Errors
/// I/O errors, or `InvalidData`.
pub fn find(pushes: impl AsFd, push: PushId) -> io::Result<Option<Record>> {
    read(pushes, &file_name(push))
}
