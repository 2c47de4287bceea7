//! Reasons why a file is not a usable sendshot.

use std::io;
use std::path::PathBuf;

use crate::format::layout::{OLDEST_VERSION, VERSION};

/// Reason why a file is not a usable sendshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
    /// The file is not a sendshot.
    #[error("{}: is not a sendshot", path.display())]
    Foreign {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file was written by a later version of the program.
    #[error("{}: has layout version {version}, this program reads up to {VERSION}; upgrade Sendshot", path.display())]
    TooNew {
        /// Path of the file.
        path: PathBuf,
        /// Layout version of the file.
        version: u32,
    },
    /// The file was written by an earlier version of the program.
    #[error("{}: has layout version {version}, of an earlier program, this one reads {OLDEST_VERSION} and later; the next push cannot use it", path.display())]
    TooOld {
        /// Path of the file.
        path: PathBuf,
        /// Layout version of the file.
        version: u32,
    },
    /// The file is truncated or was changed.
    #[error("{}: is damaged at byte {offset}; the next push cannot use it", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Offset in bytes at which the damage was detected.
        offset: u64,
    },
    /// An inode of the file has a name in no directory: it is a remnant of a deleted one.
    #[error("{}: inode {ino} has a name in no directory; the next push cannot use it", path.display())]
    Orphan {
        /// Path of the file.
        path: PathBuf,
        /// Number of the inode.
        ino: u64,
    },
}
