//! Why a file is no sendshot that could be used.

use std::io;
use std::path::PathBuf;

use crate::format::layout::{OLDEST_VERSION, VERSION};

/// Why a file is no sendshot that could be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{}: is not a sendshot", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("{}: has layout version {version}, this program reads up to {VERSION}; upgrade Sendshot", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An earlier program wrote it.
    #[error("{}: has layout version {version}, of an earlier program, this one reads {OLDEST_VERSION} and later; the next push has to do without it", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is cut off or was changed.
    #[error("{}: is damaged at byte {offset}; the next push has to do without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// It has an inode that is in no directory: it is what is left of a deleted one.
    #[error("{}: inode {ino} has a name in no directory; the next push has to do without it", path.display())]
    Orphan {
        /// The file.
        path: PathBuf,
        /// The inode.
        ino: u64,
    },
}
