//! The steps of a stream, and the sink that receives them.

use sendshot_stream::Command;

use crate::format::entry::Extent;
use crate::format::error;
use crate::format::hashes::Hash;

/// A step of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A complete command.
    Command(Command<'a>),
    /// File data, to be read from the snapshot and sent as plain writes.
    Data {
        /// Path of the file, the same in the snapshot and in the stream.
        path: &'a [u8],
        /// Offset of the first byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// How often it is read.
        reads: Reads,
    },
    /// A whole compressed extent, to be sent as it is stored if that is possible, otherwise as data.
    Encoded {
        /// Path of the file in the snapshot and in the stream.
        path: &'a [u8],
        /// The extent to read.
        extent: Extent,
        /// Length of its valid bytes, which end with the file.
        len: u64,
    },
    /// Only the hash of this block can decide whether it must be sent, and it is not known yet. See
    /// [`mod@crate::format::hashes`].
    Check {
        /// Inode number of the file.
        ino: u64,
        /// Path of the file in the snapshot.
        path: &'a [u8],
        /// Number of the block in the file.
        block: u64,
        /// Length of the block in bytes.
        len: u64,
    },
    /// The hash of this block that the next push will need.
    Hash {
        /// Inode number of the file.
        ino: u64,
        /// Path of the file in the snapshot, if the hash is not known.
        path: &'a [u8],
        /// Number of the block in the file.
        block: u64,
        /// Length of the block in bytes.
        len: u64,
        /// Hash of the block, if the parent has the same block.
        known: Option<Hash>,
    },
}

/// How often data of the snapshot is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// To be sent.
    Once,
    /// To be sent, and then for [`Step::Hash`], before another file is read.
    Twice,
}

/// Receiver of steps.
pub trait Sink {
    /// Reason why it cannot take a step.
    type Error: From<Error>;

    /// Takes the next step.
    ///
    /// # Errors
    /// An error ends the diff.
    fn step(&mut self, step: Step<'_>) -> Result<(), Self::Error>;
}

/// Reason why two sendshots cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sendshot cannot be read.
    #[error(transparent)]
    File(#[from] error::Error),
    /// An inode has a name in a directory that does not exist.
    #[error("{}: inode {ino} has a name in a missing directory", path.display())]
    Orphan {
        /// Path of the sendshot.
        path: std::path::PathBuf,
        /// Number of the inode.
        ino: u64,
    },
}

/// Version of the stream, which limits what it can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Zeros are written, compressed extents are sent decoded.
    V1,
    /// Holes are punched, compressed extents are sent as stored.
    V2,
}
