//! Numbers of the format, as in the kernel's `fs/btrfs/send.h`.

/// First bytes of a stream.
pub(crate) const MAGIC: &[u8; 13] = b"btrfs-stream\0";

/// Length of the stream header in bytes: the magic and a 32-bit version.
pub const HEADER_LEN: usize = 17;

/// Length of a command's header in bytes: payload length, command number, CRC.
pub(crate) const COMMAND_HEADER_LEN: usize = 10;

/// Maximum accepted payload in version 1, in bytes: the kernel builds commands in a buffer of 64 KiB, and a
/// 16-bit length cannot express more data.
pub const MAX_PAYLOAD_V1: usize = 64 * 1024;

/// Maximum accepted payload in version 2, in bytes. The kernel sends at most 144 KiB; the rest is reserved
/// for future kernels, and still small enough to be allocated for every transfer at once.
pub const MAX_PAYLOAD_V2: usize = 1024 * 1024;

/// Maximum data bytes that the kernel puts into one command of version 1.
pub const MAX_DATA_V1: usize = 48 * 1024;

/// Maximum data bytes that the kernel puts into one command of version 2, and the maximum of an encoded write
/// in any case.
pub const MAX_DATA_V2: usize = 128 * 1024;

/// A supported version of the format. (Version 3 adds fs-verity and exists only in experimental kernels.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 1: Linux 3.6 and later.
    V1,
    /// Version 2: Linux 6.0 and later, with longer data, encoded writes and fallocate.
    V2,
}

impl Version {
    /// Returns the version with this number, if it is supported.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// Returns the number in the stream header.
    pub fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// Returns the maximum payload of a command in bytes.
    pub fn max_payload(self) -> usize {
        match self {
            Self::V1 => MAX_PAYLOAD_V1,
            Self::V2 => MAX_PAYLOAD_V2,
        }
    }

    /// Returns the highest attribute number of this version.
    pub(crate) fn last_attribute(self) -> u16 {
        match self {
            Self::V1 => attribute::CLONE_LEN,
            Self::V2 => attribute::ENCRYPTION,
        }
    }
}

macro_rules! kinds {
    ($($name:ident = $number:literal, $since:ident, $text:literal;)*) => {
        /// A command without its operands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($name = $number),* }

        impl Kind {
            /// Returns the command with this number, if `version` has it.
            pub(crate) fn from_number(number: u16, version: Version) -> Option<Self> {
                match number {
                    $($number if version >= Version::$since => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the first version with this command.
            pub(crate) fn since(self) -> Version {
                match self { $(Self::$name => Version::$since),* }
            }

            /// Returns its name in messages, as `btrfs receive --dump` prints it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

kinds! {
    Subvol = 1, V1, "subvol";
    Snapshot = 2, V1, "snapshot";
    Mkfile = 3, V1, "mkfile";
    Mkdir = 4, V1, "mkdir";
    Mknod = 5, V1, "mknod";
    Mkfifo = 6, V1, "mkfifo";
    Mksock = 7, V1, "mksock";
    Symlink = 8, V1, "symlink";
    Rename = 9, V1, "rename";
    Link = 10, V1, "link";
    Unlink = 11, V1, "unlink";
    Rmdir = 12, V1, "rmdir";
    SetXattr = 13, V1, "set_xattr";
    RemoveXattr = 14, V1, "remove_xattr";
    Write = 15, V1, "write";
    Clone = 16, V1, "clone";
    Truncate = 17, V1, "truncate";
    Chmod = 18, V1, "chmod";
    Chown = 19, V1, "chown";
    Utimes = 20, V1, "utimes";
    End = 21, V1, "end";
    UpdateExtent = 22, V1, "update_extent";
    Fallocate = 23, V2, "fallocate";
    Fileattr = 24, V2, "fileattr";
    EncodedWrite = 25, V2, "encoded_write";
}

impl Kind {
    /// Whether it creates an inode.
    pub(crate) fn creates_inode(self) -> bool {
        matches!(
            self,
            Self::Mkfile | Self::Mkdir | Self::Mknod | Self::Mkfifo | Self::Mksock | Self::Symlink
        )
    }
}

/// Numbers of the attributes.
pub(crate) mod attribute {
    pub(crate) const UUID: u16 = 1;
    pub(crate) const CTRANSID: u16 = 2;
    pub(crate) const INO: u16 = 3;
    pub(crate) const SIZE: u16 = 4;
    pub(crate) const MODE: u16 = 5;
    pub(crate) const UID: u16 = 6;
    pub(crate) const GID: u16 = 7;
    pub(crate) const RDEV: u16 = 8;
    pub(crate) const CTIME: u16 = 9;
    pub(crate) const MTIME: u16 = 10;
    pub(crate) const ATIME: u16 = 11;
    pub(crate) const OTIME: u16 = 12;
    pub(crate) const XATTR_NAME: u16 = 13;
    pub(crate) const XATTR_DATA: u16 = 14;
    pub(crate) const PATH: u16 = 15;
    pub(crate) const PATH_TO: u16 = 16;
    pub(crate) const PATH_LINK: u16 = 17;
    pub(crate) const FILE_OFFSET: u16 = 18;
    pub(crate) const DATA: u16 = 19;
    pub(crate) const CLONE_UUID: u16 = 20;
    pub(crate) const CLONE_CTRANSID: u16 = 21;
    pub(crate) const CLONE_PATH: u16 = 22;
    pub(crate) const CLONE_OFFSET: u16 = 23;
    pub(crate) const CLONE_LEN: u16 = 24;
    pub(crate) const FALLOCATE_MODE: u16 = 25;
    pub(crate) const FILEATTR: u16 = 26;
    pub(crate) const UNENCODED_FILE_LEN: u16 = 27;
    pub(crate) const UNENCODED_LEN: u16 = 28;
    pub(crate) const UNENCODED_OFFSET: u16 = 29;
    pub(crate) const COMPRESSION: u16 = 30;
    pub(crate) const ENCRYPTION: u16 = 31;

    /// Returns the name of the attribute in messages.
    pub(crate) fn name(number: u16) -> &'static str {
        const NAMES: [&str; 32] = [
            "(none)",
            "uuid",
            "ctransid",
            "ino",
            "size",
            "mode",
            "uid",
            "gid",
            "rdev",
            "ctime",
            "mtime",
            "atime",
            "otime",
            "xattr_name",
            "xattr_data",
            "path",
            "path_to",
            "path_link",
            "file_offset",
            "data",
            "clone_uuid",
            "clone_ctransid",
            "clone_path",
            "clone_offset",
            "clone_len",
            "fallocate_mode",
            "fileattr",
            "unencoded_file_len",
            "unencoded_len",
            "unencoded_offset",
            "compression",
            "encryption",
        ];
        NAMES.get(usize::from(number)).copied().unwrap_or("unknown")
    }
}
