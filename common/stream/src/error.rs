//! What can be wrong with a stream.

/// A stream that cannot be read on, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad send stream at byte {offset}: {fault}")]
pub struct DecodeError {
    /// Where the item that is wrong begins, in bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is not a single byte.
    #[error("it is empty; did the sending side fail?")]
    Empty,
    /// It does not begin with the magic.
    #[error("this is not a btrfs send stream")]
    BadMagic,
    /// Its version is not spoken here.
    #[error("version {0} of the format is not supported (1 and 2 are)")]
    UnsupportedVersion(u32),
    /// A stream header where a command must be.
    #[error(
        "a second stream header inside the stream: the sender's send call was interrupted by a \
         signal and started over; send again"
    )]
    SecondHeader,
    /// It ends inside a header or command.
    #[error("it ends inside a command; was the transfer cut off?")]
    Truncated,
    /// It ends between commands, but before the end command.
    #[error("it ends without an end command; was the transfer cut off?")]
    MissingEnd,
    /// A command follows the end command that does not begin another subvolume.
    #[error("{0} follows the end command")]
    AfterEnd(&'static str),
    /// A command is longer than its version's limit, in bytes.
    #[error("a command of {len} bytes is longer than the limit of {limit} bytes")]
    TooLong {
        /// Its payload's length.
        len: u64,
        /// The longest that is accepted.
        limit: u64,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum {found:08x} instead of {stored:08x}: the stream was damaged on its way")]
    WrongCrc {
        /// The checksum in the command.
        stored: u32,
        /// The checksum of the bytes that came.
        found: u32,
    },
    /// The version does not have a command with this number.
    #[error("unknown command {0}")]
    UnknownCommand(u16),
    /// The version does not have an attribute with this number.
    #[error("{command} has an unknown attribute {attribute}")]
    UnknownAttribute {
        /// The command.
        command: &'static str,
        /// The attribute's number.
        attribute: u16,
    },
    /// The payload ends inside an attribute.
    #[error("the payload of {command} ends inside an attribute")]
    TruncatedAttribute {
        /// The command.
        command: &'static str,
    },
    /// An attribute comes twice.
    #[error("{command} has attribute {attribute} twice")]
    DuplicateAttribute {
        /// The command.
        command: &'static str,
        /// The attribute.
        attribute: &'static str,
    },
    /// An attribute that the command needs is not there.
    #[error("{command} lacks attribute {attribute}")]
    MissingAttribute {
        /// The command.
        command: &'static str,
        /// The attribute.
        attribute: &'static str,
    },
    /// An attribute of fixed size has another size, in bytes.
    #[error("attribute {attribute} of {command} has {found} bytes instead of {expected}")]
    WrongSize {
        /// The command.
        command: &'static str,
        /// The attribute.
        attribute: &'static str,
        /// Its size by the format.
        expected: usize,
        /// Its size in the stream.
        found: usize,
    },
}

impl Fault {
    /// This fault in the item that begins at `offset`.
    pub(crate) fn at(self, offset: u64) -> DecodeError {
        DecodeError {
            offset,
            fault: self,
        }
    }
}
