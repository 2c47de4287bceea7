//! Faults of a stream.

/// The stream cannot be decoded, with the position of the fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad send stream at byte {offset}: {fault}")]
pub struct DecodeError {
    /// Offset of the faulty item in bytes from the start of the stream.
    pub offset: u64,
    /// The fault of the item.
    pub fault: Fault,
}

/// A fault of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The stream has no bytes.
    #[error("it is empty; did the sending side fail?")]
    Empty,
    /// The stream does not begin with the magic.
    #[error("this is not a btrfs send stream")]
    BadMagic,
    /// The version is not supported.
    #[error("version {0} of the format is not supported (1 and 2 are)")]
    UnsupportedVersion(u32),
    /// There is a stream header in place of a command.
    #[error(
        "a second stream header inside the stream: the sender's send call was interrupted by a \
         signal and started over; send again"
    )]
    SecondHeader,
    /// The stream ends inside a header or command.
    #[error("it ends inside a command; was the transfer cut off?")]
    Truncated,
    /// The stream ends between commands, but without an end command.
    #[error("it ends without an end command; was the transfer cut off?")]
    MissingEnd,
    /// After the end command, a command follows that does not begin another subvolume.
    #[error("{0} follows the end command")]
    AfterEnd(&'static str),
    /// The command is longer than its version's limit.
    #[error("a command of {len} bytes is longer than the limit of {limit} bytes")]
    TooLong {
        /// Length of its payload in bytes.
        len: u64,
        /// Maximum accepted length in bytes.
        limit: u64,
    },
    /// The checksum does not match the bytes.
    #[error("checksum {found:08x} instead of {stored:08x}: the stream was damaged in transit")]
    WrongCrc {
        /// Checksum stored in the command.
        stored: u32,
        /// Checksum of the received bytes.
        found: u32,
    },
    /// The version has no command with this number.
    #[error("unknown command {0}")]
    UnknownCommand(u16),
    /// The version has no attribute with this number.
    #[error("{command} has an unknown attribute {attribute}")]
    UnknownAttribute {
        /// Name of the command.
        command: &'static str,
        /// Number of the attribute.
        attribute: u16,
    },
    /// The payload ends inside an attribute.
    #[error("the payload of {command} ends inside an attribute")]
    TruncatedAttribute {
        /// Name of the command.
        command: &'static str,
    },
    /// An attribute occurs twice.
    #[error("{command} has attribute {attribute} twice")]
    DuplicateAttribute {
        /// Name of the command.
        command: &'static str,
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// A required attribute of the command is missing.
    #[error("{command} lacks attribute {attribute}")]
    MissingAttribute {
        /// Name of the command.
        command: &'static str,
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// An attribute of fixed size has another size.
    #[error("attribute {attribute} of {command} has {found} bytes instead of {expected}")]
    WrongSize {
        /// Name of the command.
        command: &'static str,
        /// Name of the attribute.
        attribute: &'static str,
        /// Required size in bytes.
        expected: usize,
        /// Size in the stream in bytes.
        found: usize,
    },
}

impl Fault {
    /// Adds the position of the faulty item to the fault.
    pub(crate) fn at(self, offset: u64) -> DecodeError {
        DecodeError {
            offset,
            fault: self,
        }
    }
}
