//! Reasons why a command could not be applied.

use std::error::Error;
use std::io;

use rustix::io::Errno;
use sendshot_stream::dump::escaped;
use uuid::Uuid;

use crate::compression::decompress::DataError;
use crate::paths::PathError;

/// A command that could not be applied: its name, path, position in the stream, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{command} {} (byte {offset} of the stream)", escaped(path))]
pub struct ApplyError {
    /// Name of the command.
    pub command: &'static str,
    /// Path that the command changes, as in the stream.
    pub path: Vec<u8>,
    /// Offset of the command in bytes from the start of the stream.
    pub offset: u64,
    /// Reason for the failure.
    #[source]
    pub cause: Cause,
}

impl ApplyError {
    /// Returns the kernel's error, if that is the cause: `ENOSPC`, `EDQUOT`, `EROFS` and `EIO` concern the
    /// receiving file system, all others the stream.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }
}

/// Reason why a command could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The path of the command is invalid.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Another path that the command names is invalid.
    #[error("{}", escaped(path))]
    OtherPath {
        /// The invalid path, as in the stream.
        path: Vec<u8>,
        /// Reason why it is invalid.
        #[source]
        source: PathError,
    },
    /// The kernel returned an error.
    #[error("{}", io::Error::from(*.0))]
    System(Errno),
    /// A command for a regular file names another type of file.
    #[error("not a regular file")]
    NotRegular,
    /// The command is a chmod of a symbolic link.
    #[error("a symbolic link has no mode to set")]
    ModeOfSymlink,
    /// The node is neither a device nor a pipe nor a socket.
    #[error("mode {0:o} is not that of a device, a pipe or a socket")]
    NodeMode(u64),
    /// A mode has more than 16 bits.
    #[error("mode {0:#o} does not exist")]
    Mode(u64),
    /// A device number is longer than 32 bits.
    #[error("device number {0:#x} does not exist")]
    DeviceNumber(u64),
    /// A user or group ID is not valid for a file.
    #[error("user or group id {0} does not exist")]
    OwnerId(u64),
    /// A time has more nanoseconds than a second; some such values have other meanings in system calls.
    #[error("a time has {0} nanoseconds")]
    Nanoseconds(u32),
    /// This file system cannot store the attribute, regardless of free space: it must fit into one leaf.
    #[error(
        "an attribute of {len} bytes with its name is larger than the {limit} that this file system holds; \
         one made with larger nodes holds more (`mkfs.btrfs --nodesize`)"
    )]
    AttributeTooLarge {
        /// Length of its name and value in bytes.
        len: usize,
        /// Maximum length of both in a leaf.
        limit: usize,
    },
    /// A name or link target has a NUL byte.
    #[error("a NUL byte in the {0}")]
    Nul(&'static str),
    /// A range exceeds the maximum file size.
    #[error("the range of {len} bytes at {offset} is beyond any file")]
    Range {
        /// Offset of its first byte.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// No send stream has this fallocate mode.
    #[error("fallocate mode {0:#x} is not supported")]
    FallocateMode(u32),
    /// The stream was generated without data.
    #[error("the stream was made without file data; a copy cannot be made of it")]
    NoData,
    /// The subvolume to clone from does not exist or is not permitted.
    #[error("cannot clone from subvolume {uuid}")]
    CloneSource {
        /// UUID of the subvolume.
        uuid: Uuid,
        /// Reason for the refusal.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file to clone from cannot be opened, or is not a regular file.
    #[error("cannot clone from {} of subvolume {uuid}", escaped(path))]
    CloneFile {
        /// UUID of the subvolume.
        uuid: Uuid,
        /// Path of the file in it.
        path: Vec<u8>,
        /// Reason why it cannot be opened.
        #[source]
        source: Box<Cause>,
    },
    /// A clone exceeds the size of its source.
    #[error("the clone ends at byte {end} of a source of {size} bytes")]
    ClonePastEnd {
        /// Offset of the end of the range.
        end: u64,
        /// Size of the source in bytes.
        size: u64,
    },
    /// A clone's source and target overlap in one file.
    #[error("the clone's source and target overlap in one file")]
    CloneOverlap,
    /// The sizes of an encoded write contradict each other.
    #[error("the sizes of the encoded write do not fit each other")]
    EncodedSizes,
    /// An encoded write has an unsupported encoding.
    #[error("compression {compression} with encryption {encryption} is not supported")]
    Encoding {
        /// Number of the compression.
        compression: u32,
        /// Number of the encryption.
        encryption: u32,
    },
    /// The data of an encoded write cannot be decoded.
    #[error("cannot decode the data")]
    Data(#[from] DataError),
    /// The stream allocates more than the limit.
    #[error("it makes more than the {most} bytes that are allowed")]
    TooMuch {
        /// The limit in bytes.
        most: u64,
    },
    /// The stream renames or removes an entry that was left out.
    #[error("the stream changes an entry that this file system cannot hold")]
    ChangesLeftOut,
    /// More entries are left out than can be remembered.
    #[error(
        "this file system cannot hold a large part of the entries of the stream; choose another target"
    )]
    TooMuchLeftOut,
    /// The command is not valid inside a subvolume.
    #[error("it does not belong inside a subvolume")]
    Misplaced,
}

impl Cause {
    /// Returns the kernel's error, if that is the cause.
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
    /// Converts errors of system calls, which always have a number.
    fn from(e: io::Error) -> Self {
        Self::System(Errno::from_io_error(&e).unwrap_or(Errno::IO))
    }
}
