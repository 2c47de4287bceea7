//! Stage *snapshot*: a hidden read-only snapshot of the volume, journalled before it exists.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Write the record, state `sending`. — A record without snapshot; reconciliation deletes it.
//! 2. Make the snapshot, named by the push. — A snapshot that a record names; reconciliation deletes both.
//! 3. Add the snapshot's UUID to the record. — The same.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use sendshot_sys::subvolume::{self, Access, Info};
use sendshot_sys::{crash, durable};

use crate::state::record::{Intent, Record, SnapshotId};
use crate::state::store::StateSubvolume;

/// The kernel's list of active swap files.
const SWAPS: &str = "/proc/swaps";

/// Why the snapshot could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel cannot snapshot a volume whose swap file is in use.
    #[error("the volume holds an active swap file: {}", list(.files))]
    SwapFile {
        /// Active swap files inside the volume; empty if they could not be determined.
        files: Vec<PathBuf>,
    },
    /// A journal record could not be written.
    #[error("cannot write the push's record")]
    Journal(#[source] io::Error),
    /// The kernel could not make or open the snapshot.
    #[error("cannot snapshot the volume")]
    Io(#[source] io::Error),
}

fn list(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    if names.is_empty() {
        "see /proc/swaps".to_owned()
    } else {
        sendshot_model::human::few(&names)
    }
}

#[derive(Debug)]
pub struct PushSnapshot {
    /// Root directory of the snapshot.
    pub fd: OwnedFd,
    pub info: Info,
    pub record: Record,
}

/// Takes the snapshot of a push.
///
/// # Errors
/// See [`Error`]; the snapshot and its record are deleted then.
pub fn take(
    state: &StateSubvolume,
    volume: impl AsFd,
    path: &Path,
    intent: Intent,
) -> Result<PushSnapshot, Error> {
    let mut record = Record::new(intent);
    record.store(state.pushes()).map_err(Error::Journal)?; // 1
    crash::point("snapshot-record");
    let result = create(state, volume, &mut record);
    result.map_err(|e| {
        undo(state, &record);
        match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::TXTBSY.raw_os_error() => Error::SwapFile {
                files: active_swap_files(path),
            },
            _ => Error::Io(e),
        }
    })
}

fn create(
    state: &StateSubvolume,
    volume: impl AsFd,
    record: &mut Record,
) -> io::Result<PushSnapshot> {
    let name = record.snapshot_name();
    subvolume::snapshot(volume, state.snapshots(), &name, Access::ReadOnly)?; // 2
    crash::point("snapshot-made");
    let fd = durable::open_dir(state.snapshots(), &name)?;
    let info = subvolume::info(&fd)?;
    record.snapshot = Some(SnapshotId {
        uuid: info.uuid,
        otransid: info.otransid,
    });
    record.store(state.pushes())?; // 3
    crash::point("snapshot-noted");
    Ok(PushSnapshot {
        fd,
        info,
        record: record.clone(),
    })
}

/// Undoes a failed attempt; what cannot be deleted now, reconciliation deletes.
fn undo(state: &StateSubvolume, record: &Record) {
    if let Err(e) = crate::state::discard::discard(state, record) {
        tracing::warn!(push = %record.push, "an abandoned push is left to be reconciled later: {e}");
    }
}

/// The active swap files below `path`, in the user's spelling.
fn active_swap_files(path: &Path) -> Vec<PathBuf> {
    let swaps = std::fs::read(SWAPS).unwrap_or_default();
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    swap_files(&swaps)
        .filter(|file| file.starts_with(&real))
        .collect()
}

/// Parses the kernel's list: a line of titles, then one line per file, the path first.
fn swap_files(list: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    list.split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|byte| b" \t".contains(byte)).next())
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsString::from_vec(unescape(path))))
}

/// Undoes the escapes in the kernel's lists of paths: a backslash and three octal digits for a byte.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn swap_files_are_named_as_the_user_writes_them() {
        let list = b"Filename\t\t\tType\t\tSize\tUsed\tPriority\n\
            /srv/swap\\040file                 file\t\t1048572\t0\t-2\n\
            /srv/a\\134040\\011\\012b\xff\t\tfile\t\t1048572\t0\t-3\n\
            /dev/sda2                               partition\t1048572\t0\t-4\n";
        let files: Vec<PathBuf> = swap_files(list).collect();
        let odd = std::ffi::OsStr::from_bytes(b"/srv/a\\040\t\nb\xff");
        assert_eq!(
            files,
            ["/srv/swap file".as_ref(), odd, "/dev/sda2".as_ref()]
        );
    }
}
