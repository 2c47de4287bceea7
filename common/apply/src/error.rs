//! Why a command could not be applied.

use std::error::Error;
use std::io;

use rustix::io::Errno;
use sendshot_stream::dump::escaped;
use uuid::Uuid;

use crate::compression::decompress::DataError;
use crate::paths::PathError;

/// A command that could not be applied: which, on what, where in the stream, and why.
#[derive(Debug, thiserror::Error)]
#[error("{command} {} (byte {offset} of the stream)", escaped(path))]
pub struct ApplyError {
    /// The command's name.
    pub command: &'static str,
    /// The path it works on, as in the stream.
    pub path: Vec<u8>,
    /// Where the command begins, in bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub cause: Cause,
}

impl ApplyError {
    /// What the kernel said, if it was the kernel: `ENOSPC`, `EDQUOT`, `EROFS` and `EIO` are
    /// about the receiving file system, everything else about the stream.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }
}

/// Why a command could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The path of the command.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Another path that the command names.
    #[error("{}", escaped(path))]
    OtherPath {
        /// The path.
        path: Vec<u8>,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// The kernel refused.
    #[error("{}", io::Error::from(*.0))]
    System(Errno),
    /// A command that needs a regular file names something else.
    #[error("not a regular file")]
    NotRegular,
    /// A chmod of a symbolic link.
    #[error("a symbolic link has no mode to set")]
    ModeOfSymlink,
    /// A node that is neither a device nor a pipe nor a socket.
    #[error("mode {0:o} is not that of a device, a pipe or a socket")]
    NodeMode(u64),
    /// More than a mode has bits.
    #[error("mode {0:#o} does not exist")]
    Mode(u64),
    /// A device number beyond 32 bits.
    #[error("device number {0:#x} does not exist")]
    DeviceNumber(u64),
    /// A user or group id that no file can have.
    #[error("user or group id {0} does not exist")]
    OwnerId(u64),
    /// Nanoseconds beyond a second; some such values have other meanings in system calls.
    #[error("a time has {0} nanoseconds")]
    Nanoseconds(u32),
    /// An attribute that this file system cannot hold, whatever is free: it lies in one leaf.
    #[error(
        "an attribute of {len} bytes with its name is larger than the {limit} that this file system holds; \
         one made with larger nodes holds more (`mkfs.btrfs --nodesize`)"
    )]
    AttributeTooLarge {
        /// Bytes of its name and value.
        len: usize,
        /// The most that a leaf holds of both.
        limit: usize,
    },
    /// A name or link target with a NUL byte.
    #[error("a NUL byte in the {0}")]
    Nul(&'static str),
    /// A range that no file can have.
    #[error("the range of {len} bytes at {offset} is beyond any file")]
    Range {
        /// Its first byte.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// A fallocate mode that no send stream has.
    #[error("fallocate mode {0:#x} is not supported")]
    FallocateMode(u32),
    /// A stream made without data.
    #[error("the stream was made without file data; a copy cannot be made of it")]
    NoData,
    /// A clone from a subvolume that this stream may not use, or that is not there.
    #[error("clone from subvolume {uuid}")]
    CloneSource {
        /// The subvolume.
        uuid: Uuid,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file to clone from cannot be opened, or is no regular file.
    #[error("clone from {} of subvolume {uuid}", escaped(path))]
    CloneFile {
        /// The subvolume.
        uuid: Uuid,
        /// The path in it.
        path: Vec<u8>,
        /// What is wrong.
        #[source]
        source: Box<Cause>,
    },
    /// A clone of more than the source holds.
    #[error("the clone ends at byte {end} of a source of {size} bytes")]
    ClonePastEnd {
        /// Where the range ends.
        end: u64,
        /// The size of the source in bytes.
        size: u64,
    },
    /// A clone of a range into itself.
    #[error("the clone's source and target overlap in one file")]
    CloneOverlap,
    /// An encoded write whose sizes contradict each other.
    #[error("the sizes of the encoded write do not fit each other")]
    EncodedSizes,
    /// An encoded write with an encoding that does not exist.
    #[error("compression {compression} with encryption {encryption} is not supported")]
    Encoding {
        /// The compression's number.
        compression: u32,
        /// The encryption's number.
        encryption: u32,
    },
    /// The data of an encoded write does not decode.
    #[error("decode the data")]
    Data(#[from] DataError),
    /// More than was to be made.
    #[error("it makes more than the {most} bytes that may be made")]
    TooMuch {
        /// How many.
        most: u64,
    },
    /// A command that has no place inside a subvolume.
    #[error("it does not belong inside a subvolume")]
    Misplaced,
}

impl Cause {
    /// What the kernel said, if it was the kernel.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System(e) => Some(*e),
            Self::CloneFile { source, .. } => source.errno(),
            _ => None,
        }
    }
}

impl From<Errno> for Cause {
    fn from(e: Errno) -> Self {
        Self::System(e)
    }
}

impl From<io::Error> for Cause {
    /// For errors of calls, which always carry a number.
    fn from(e: io::Error) -> Self {
        Self::System(Errno::from_io_error(&e).unwrap_or(Errno::IO))
    }
}
