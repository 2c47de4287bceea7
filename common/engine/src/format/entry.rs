//! The content of a sendshot.

use uuid::Uuid;

/// Inode number of a subvolume's root directory.
pub const ROOT: u64 = 256;

/// Inode flag: data without checksums, which can be overwritten in place.
pub const NODATASUM: u64 = 1;

/// Inode flag: data that is overwritten in place.
pub const NODATACOW: u64 = 2;
/// Inode flag: data is not compressed.
pub const NOCOMPRESS: u64 = 8;
/// Inode flag: new data is compressed.
pub const COMPRESS: u64 = 0x800;
/// Inode flags that forbid changes: immutable, append-only.
pub const GUARDS: u64 = 0x40 | 0x80;
/// Inode flags that new entries inherit from their directory.
pub const INHERITED: u64 = NODATACOW | NOCOMPRESS | COMPRESS;
/// Inode flags that a user can set, including those for synchronous writes, `nodump`, `noatime` and
/// synchronous directories.
pub const SETTABLE: u64 = INHERITED | GUARDS | 0x20 | 0x100 | 0x200 | 0x400;

/// Mask of the type in the mode.
pub const TYPE_MASK: u32 = 0o170_000;
/// Type of a directory.
pub const DIRECTORY: u32 = 0o040_000;
/// Type of a regular file.
pub const REGULAR: u32 = 0o100_000;
/// Type of a symbolic link.
pub const SYMLINK: u32 = 0o120_000;
/// Type of a character device.
pub const CHARACTER: u32 = 0o020_000;
/// Type of a block device.
pub const BLOCK: u32 = 0o060_000;
/// Type of a pipe.
pub const FIFO: u32 = 0o010_000;
/// Type of a socket.
pub const SOCKET: u32 = 0o140_000;

/// Identities and times of the snapshot as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// *Wire identity*: the UUID under which a receiver knows the snapshot.
    pub wire_uuid: Uuid,
    /// *Wire identity*: the transaction number that its stream carries, and under which a receiver knows it.
    /// See [`WireNumber`].
    pub wire_ctransid: u64,
    /// *Local lineage*: the UUID of the file system.
    pub fsid: Uuid,
    /// *Local lineage*: the snapshot's own UUID.
    pub uuid: Uuid,
    /// *Local lineage*: the UUID of the subvolume of which it is a snapshot.
    pub parent_uuid: Uuid,
    /// *Local lineage*: the transaction of the last change of its content.
    pub ctransid: u64,
    /// *Local lineage*: the transaction in which it was taken.
    pub otransid: u64,
    /// Generation of the file system when the snapshot was captured.
    pub generation: u64,
    /// When the snapshot was taken, in seconds since 1970 UTC.
    pub taken_at: i64,
}

impl Head {
    /// Whether the snapshot was never changed since it was taken. A changed one (once writable, or
    /// deduplicated) counts as without lineage.
    pub fn is_pristine(&self) -> bool {
        self.ctransid <= self.otransid
    }
}

/// The transaction number that a stream announces for a snapshot that was received and never changed since.
/// For every other snapshot both are the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireNumber {
    /// The number on this file system, which the kernel's send announces. Receivers with streams of the
    /// kernel's send know their copies by it.
    Local,
    /// The number that the snapshot's origin announced, so that every host of a chain knows the
    /// state under one identity.
    Origin,
    /// The identity of a state whose content was restored into the snapshot's origin, as a receiver knows it.
    Restored {
        /// UUID of the state.
        uuid: Uuid,
        /// Its transaction number.
        ctransid: u64,
    },
}

/// A timestamp of an inode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970 UTC.
    pub sec: i64,
    /// Nanoseconds of the second.
    pub nsec: u32,
}

/// An inode. Change and creation time are left out, because they cannot be set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InodeItem {
    /// Transaction in which it was created; distinguishes reuses of a number.
    pub generation: u64,
    /// Transaction of its last change.
    pub transid: u64,
    /// Size in bytes.
    pub size: u64,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Device number in the encoding of the send stream, for devices.
    pub rdev: u64,
    /// btrfs inode flags.
    pub flags: u64,
    /// Time of the last access.
    pub atime: Time,
    /// Time of the last change of data.
    pub mtime: Time,
    /// Whether it is a file without checksums that looks like a swap file: its data can change without a
    /// trace.
    pub swap: bool,
}

impl InodeItem {
    /// Returns the type bits of its mode.
    pub fn kind(&self) -> u32 {
        self.mode & TYPE_MASK
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == DIRECTORY
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind() == REGULAR
    }

    /// Whether its data may have been overwritten in place.
    pub fn is_nodatasum(&self) -> bool {
        self.flags & NODATASUM != 0
    }
}

/// One name of an inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Inode number of the directory.
    pub parent: u64,
    /// The name in that directory.
    pub name: Vec<u8>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its name, including the namespace.
    pub name: Vec<u8>,
    /// Its value as raw bytes.
    pub value: Vec<u8>,
}

/// Storage of the bytes of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Stored inline in the metadata.
    Inline,
    /// Stored in an extent of its own.
    Regular,
    /// Reserved but not written.
    Prealloc,
}

/// A range of a file. Ranges without one are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in the file, in bytes.
    pub len: u64,
    /// Storage of its bytes.
    pub kind: ExtentKind,
    /// Compression: 0 none, 1 zlib, 2 lzo, 3 zstd.
    pub compression: u8,
    /// Length of the whole decoded extent in bytes.
    pub ram_bytes: u64,
    /// Logical address on disk; 0 unless regular or prealloc.
    pub disk_bytenr: u64,
    /// Length on disk in bytes.
    pub disk_len: u64,
    /// Offset in the decoded extent at which the file's bytes begin.
    pub disk_offset: u64,
    /// Generation of the item that maps it.
    pub generation: u64,
    /// Generation of the extent's own item in the extent tree: when this address was last allocated.
    /// `u64::MAX` if unknown, which equals nothing.
    pub extent_generation: u64,
    /// Generation of the leaf that held the mapping, for files without checksums; else 0.
    pub leaf_generation: u64,
    /// Whether the extent had more than one reference when it was captured. It suggests where to look for
    /// clones, and proves nothing about what is unchanged.
    pub is_shared: bool,
}

impl Extent {
    /// Offset after its last byte in the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// One entry of a sendshot. An inode is followed by its names, attributes, link target and
/// extents, in this order; inodes come by number, extents by offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An inode and its number.
    Inode(u64, InodeItem),
    /// A name of the inode.
    Name(Name),
    /// An extended attribute of the inode.
    Xattr(Xattr),
    /// The target of a symbolic link.
    Target(Vec<u8>),
    /// A range of the file.
    Extent(Extent),
}

/// An inode with everything but its extents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inode {
    /// Inode number.
    pub ino: u64,
    /// Its metadata.
    pub item: InodeItem,
    /// Its names, sorted.
    pub names: Vec<Name>,
    /// Its extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The target of a symbolic link.
    pub target: Option<Vec<u8>>,
}
