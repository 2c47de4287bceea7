//! Files that this process has checked already and that were not changed since. A push opens every sendshot of its volume,
//! and checking one means to decode all of it.
//!
//! Damage on the disk that leaves the file's metadata as they were is not overlooked: each block is checked again when it is
//! decoded. A file with a fault is then forgotten: the next one who opens it checks all of it, and finds the fault.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, PoisonError};

use crate::format::layout::{CHECK_LEN, Counts};

/// Maximum number of files that are remembered.
const MOST: usize = 4096;

static FILES: Mutex<Option<HashMap<FileState, Verified>>> = Mutex::new(None);

/// A file, and the state of its content: every change sets its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// The checksum at its end, of everything before. A new file may have the number and, within one tick of the clock, the
    /// times of a deleted one.
    whole: [u8; CHECK_LEN],
}

/// What was found in a file without faults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verified {
    pub(super) counts: Counts,
    /// Decoded length of all blocks in bytes.
    pub(super) decoded: u64,
    /// Number of directories.
    pub(super) directories: u64,
    /// Whether it has files without checksums.
    pub(super) unsummed: bool,
}

impl FileState {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let mut whole = [0; CHECK_LEN];
        // A shorter file is no sendshot, which is found when it is checked.
        if let Some(at) = found.len().checked_sub(CHECK_LEN as u64) {
            file.read_exact_at(&mut whole, at)?;
        }
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            whole,
        })
    }

    /// What was found in it, if it was checked in this state.
    pub(super) fn verified(&self) -> Option<Verified> {
        let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        files.as_ref()?.get(self).copied()
    }

    /// Forgets that it was checked.
    pub(super) fn forget(&self) {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = files.as_mut() {
            files.remove(self);
        }
    }

    /// Remembers that it was checked in this state.
    pub(super) fn remember(self, verified: Verified) {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_default();
        if files.len() >= MOST {
            files.clear();
        }
        files.insert(self, verified);
    }
}
