//! The steps of a stream, and where they go.

use sendshot_stream::Command;

use crate::format::entry::Extent;
use crate::format::error;
use crate::format::hashes::Hash;

/// A step of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A command that is complete.
    Command(Command<'a>),
    /// File data, to be read from the snapshot and sent as plain writes.
    Data {
        /// The file, in the snapshot as in the stream.
        path: &'a [u8],
        /// First byte.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A whole compressed extent, to be sent as it is stored if that is possible, else as data.
    Encoded {
        /// The file.
        path: &'a [u8],
        /// The extent.
        extent: Extent,
        /// How many of its bytes count, at the end of the file.
        len: u64,
    },
    /// The hash of this block would tell whether it has to be sent; nobody knows it yet. See
    /// [`mod@crate::format::hashes`].
    Check {
        /// The file.
        ino: u64,
        /// The file in the snapshot.
        path: &'a [u8],
        /// Which block.
        block: u64,
        /// Its length.
        len: u64,
    },
    /// The hash of this block will be wanted by the next push.
    Hash {
        /// The file.
        ino: u64,
        /// The file in the snapshot, if its hash is not known.
        path: &'a [u8],
        /// Which block.
        block: u64,
        /// Its length.
        len: u64,
        /// Its hash, if it is the same block that M has.
        known: Option<Hash>,
    },
}

/// Where steps go.
pub trait Sink {
    /// Why it cannot take a step.
    type Error: From<Error>;

    /// Takes the next step.
    ///
    /// # Errors
    /// Ends the diff.
    fn step(&mut self, step: Step<'_>) -> Result<(), Self::Error>;
}

/// Why two sendshots cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] error::Error),
    /// A name leads nowhere.
    #[error("{}: inode {ino} has a name in a directory that is not there", path.display())]
    Orphan {
        /// The file.
        path: std::path::PathBuf,
        /// The inode.
        ino: u64,
    },
}

/// Versions of the stream differ in what they can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Zeros are written, compressed extents are sent decoded.
    V1,
    /// Holes are punched, compressed extents are sent as they are.
    V2,
}
