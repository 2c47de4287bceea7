//! Inode flags: immutable, append-only, NOCOW, compression and the like.
//!
//! Two kernel calls set them. FS_IOC_SETFLAGS sets all of them, and thereby resets the property
//! `btrfs.compression`: with the compression flag to the mount's own algorithm, without it to none. So it is
//! called only to change how data is stored, and FS_IOC_FSSETXATTR sets the flags that it can.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, IFlags, OFlags, XattrFlags};
use rustix::io::Errno;
use sendshot_model::NotKeptKind;
use sendshot_sys::{filesystem, inode_attributes};

use crate::beneath::open_beneath;
use crate::commands::dirs::Dirs;
use crate::commands::inherited::{COMPRESS, NO_COMPRESS, NO_COPY_ON_WRITE, inherited};
use crate::error::Cause;
use crate::paths;

/// Names in this directory are written synchronously.
const SYNCHRONOUS_DIRECTORY: IFlags = IFlags::from_bits_retain(0x1_0000);

/// Flags that only FS_IOC_SETFLAGS sets: their values in streams and btrfs inodes, and in the kernel's calls.
const STORED: [(u64, IFlags); 4] = [
    (1 << 1, NO_COPY_ON_WRITE),
    (1 << 3, NO_COMPRESS),
    (1 << 10, SYNCHRONOUS_DIRECTORY),
    (1 << 11, COMPRESS),
];

/// The other flags: their values in streams, in the kernel's reports, and in FS_IOC_FSSETXATTR.
const OTHERS: [(u64, IFlags, u32); 5] = [
    (
        1 << 5,
        IFlags::from_bits_retain(0x8),
        inode_attributes::SYNC,
    ),
    (1 << 6, IFlags::IMMUTABLE, inode_attributes::IMMUTABLE),
    (1 << 7, IFlags::APPEND, inode_attributes::APPEND),
    (1 << 8, IFlags::NODUMP, inode_attributes::NODUMP),
    (1 << 9, IFlags::NOATIME, inode_attributes::NOATIME),
];

/// The attribute that accompanies the compression flags.
pub(crate) const COMPRESSION: &[u8] = b"btrfs.compression";

/// Maximum length in bytes of the property's value that is kept over a change of flags. Kernels have no
/// longer one than, for example, `zstd:15`.
const MAX_COMPRESSION: usize = 64;

/// Returns the flags that forbid changes.
fn guards() -> IFlags {
    IFlags::IMMUTABLE | IFlags::APPEND
}

/// Returns the flags that decide how data is stored.
fn stored() -> IFlags {
    NO_COPY_ON_WRITE | NO_COMPRESS | COMPRESS | SYNCHRONOUS_DIRECTORY
}

fn others() -> IFlags {
    let all = OTHERS.iter();
    all.fold(IFlags::empty(), |all, (_, kernels, _)| all | *kernels)
}

fn to_kernel(flags: u64) -> IFlags {
    let stored = STORED.iter().map(|(ours, kernels)| (*ours, *kernels));
    let others = OTHERS.iter().map(|(ours, kernels, _)| (*ours, *kernels));
    let set = stored.chain(others).filter(|(ours, _)| flags & ours != 0);
    set.fold(IFlags::empty(), |all, (_, kernels)| all | kernels)
}

/// Mount options of the file system that affect flags.
#[derive(Debug, Default)]
pub(crate) struct MountOptions {
    nodatacow: Option<bool>,
}

impl MountOptions {
    /// Whether every new file is overwritten in place.
    fn is_nodatacow(&mut self, fd: impl AsFd) -> bool {
        // If `/proc` cannot be read, the stream decides.
        let find = || filesystem::is_nodatacow(fd).unwrap_or(false);
        *self.nodatacow.get_or_insert_with(find)
    }
}

/// Gives the file or directory with this path the flags of a stream, and returns the kinds that this file
/// system could not keep. That is no error: flags affect how data is stored and who may change it, not the
/// data. The administrator's mount options take precedence.
pub(crate) fn set(
    path: &[u8],
    flags: u64,
    dirs: &mut Dirs,
    mount: &mut MountOptions,
) -> Result<Vec<NotKeptKind>, Cause> {
    let Some((fd, kind)) = open(path, dirs)? else {
        return Ok(Vec::new());
    };
    if kind == FileType::Directory {
        dirs.inheritable_changed();
    }
    let mut wanted = to_kernel(flags);
    if path.is_empty() {
        // An immutable copy could not be deleted.
        wanted.remove(guards());
    }
    let before = rustix::fs::ioctl_getflags(&fd)?;
    if wanted.intersects(NO_COPY_ON_WRITE | NO_COMPRESS) || !before.intersects(COMPRESS) {
        // The kernel allows only one of them, and the property itself sets the compression flag.
        wanted.remove(COMPRESS);
    }
    if kind == FileType::RegularFile
        && (before - wanted).intersects(NO_COPY_ON_WRITE)
        && mount.is_nodatacow(&fd)
    {
        wanted.insert(NO_COPY_ON_WRITE);
    }
    let changes = before.symmetric_difference(wanted);
    if !changes.intersects(stored() | others()) {
        return Ok(Vec::new());
    }
    if changes.intersects(stored()) {
        set_stored(&fd, before, wanted)?;
    }
    set_others(&fd, wanted, others())?;
    Ok(missing(rustix::fs::ioctl_getflags(&fd)?, wanted))
}

/// Clears the flags that a new file or directory inherited from its directory: a stream sets all flags
/// itself. Flags that result from mount options stay.
pub(crate) fn disinherit(
    path: &[u8],
    dirs: &mut Dirs,
    mount: &mut MountOptions,
) -> Result<(), Cause> {
    let Some((fd, kind)) = open(path, dirs)? else {
        return Ok(());
    };
    let before = match rustix::fs::ioctl_getflags(&fd) {
        // The file system has no inode flags.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => return Ok(()),
        read => read?,
    };
    let mut after = before - inherited();
    if kind == FileType::RegularFile && mount.is_nodatacow(&fd) {
        after |= before.intersection(NO_COPY_ON_WRITE);
    }
    if before != after {
        set_all(&fd, after)?;
    }
    Ok(())
}

/// Sets how data is stored, and clears flags that forbid changes if there are any.
fn set_stored(fd: &OwnedFd, before: IFlags, wanted: IFlags) -> Result<(), Cause> {
    let before = before - guards();
    set_others(fd, IFlags::empty(), guards())?;
    let compression = NO_COMPRESS | COMPRESS;
    let property = if before.intersection(compression) == wanted.intersection(compression) {
        property(fd)?
    } else {
        None
    };
    let plain = before - stored();
    let after = plain | wanted.intersection(stored());
    if !set_all(fd, after)? {
        // The kernel cannot change between mutually exclusive flags in one call.
        set_all(fd, plain)?;
        set_all(fd, after)?;
    }
    let Some(property) = property else {
        return Ok(());
    };
    match rustix::fs::fsetxattr(fd, COMPRESSION, &property, XattrFlags::empty()) {
        // It was set before the file lost its checksums; then the flag is missing, too.
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Sets all flags; returns whether the kernel accepts them.
fn set_all(fd: &OwnedFd, flags: IFlags) -> Result<bool, Cause> {
    match rustix::fs::ioctl_setflags(fd, flags) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Reads the compression property, if there is one.
fn property(fd: &OwnedFd) -> Result<Option<Vec<u8>>, Cause> {
    let mut value = vec![0; MAX_COMPRESSION];
    match rustix::fs::fgetxattr(fd, COMPRESSION, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Sets those of the other flags that are in `among`. Flags that the kernel rejects stay unchanged.
fn set_others(fd: &OwnedFd, wanted: IFlags, among: IFlags) -> Result<(), Cause> {
    let select = |flags: IFlags| {
        let set = OTHERS
            .iter()
            .filter(|(_, kernels, _)| flags.contains(*kernels));
        set.fold(0, |all, (_, _, attribute)| all | attribute)
    };
    match inode_attributes::set(fd, select(wanted), select(among)) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {
            let before = rustix::fs::ioctl_getflags(fd)?;
            set_beside_both(fd, (before - among) | wanted.intersection(among))
        }
        other => Ok(other?),
    }
}

/// Sets the flags of an inode that is neither copied on write nor compressed. The kernel rejects each change
/// of an inode with both flags (`check_fsflags` of its `fs/btrfs/ioctl.c` compares the new ones with the old
/// ones), unless both are cleared, and sets both at once only if neither is set. A file with data keeps one.
fn set_beside_both(fd: &OwnedFd, wanted: IFlags) -> Result<(), Cause> {
    set_all(fd, wanted - NO_COPY_ON_WRITE - NO_COMPRESS)?;
    if !set_all(fd, wanted)? {
        set_all(fd, wanted - NO_COMPRESS)?;
    }
    Ok(())
}

/// Returns the kinds of flags that differ from the wanted ones.
fn missing(found: IFlags, wanted: IFlags) -> Vec<NotKeptKind> {
    let differs = found.symmetric_difference(wanted);
    let mut kinds = Vec::new();
    if differs.intersects(NO_COPY_ON_WRITE) {
        kinds.push(NotKeptKind::NoCopyOnWrite);
    }
    if differs.intersects(NO_COMPRESS | COMPRESS) {
        kinds.push(NotKeptKind::CompressionFlag);
    }
    if differs.intersects(others() | SYNCHRONOUS_DIRECTORY) {
        kinds.push(NotKeptKind::OtherFlag);
    }
    kinds
}

/// Returns the kinds of the flags of a stream that the file or directory with this path does not have.
pub(crate) fn lost(path: &[u8], flags: u64, dirs: &Dirs) -> Result<Vec<NotKeptKind>, Cause> {
    let mut wanted = to_kernel(flags);
    if path.is_empty() {
        wanted.remove(guards());
    }
    let found = match open(path, dirs)? {
        // A file system without flags has none set.
        Some((fd, _)) => rustix::fs::ioctl_getflags(&fd).unwrap_or(IFlags::empty()),
        None => wanted,
    };
    Ok(missing(found, wanted | found.intersection(COMPRESS)))
}

/// Clears the flags of a file or directory that forbid changes; returns whether there were any.
///
/// Streams of the sendshot engine do that themselves; the kernel's streams do not contain these flags.
pub(crate) fn unguard(path: &[u8], dirs: &mut Dirs) -> Result<bool, Cause> {
    let Some((fd, _)) = open(path, dirs)? else {
        return Ok(false);
    };
    let before = rustix::fs::ioctl_getflags(&fd)?;
    if !before.intersects(guards()) {
        return Ok(false);
    }
    set_others(&fd, IFlags::empty(), guards())?;
    Ok(true)
}

/// Whether a kernel accepts this as the compression property of a file that can be compressed: btrfs checks
/// only the beginning of the value, or for one of two words.
pub(crate) fn is_compression(name: &[u8], value: &[u8]) -> bool {
    let begins = |algorithm: &&[u8]| value.starts_with(algorithm);
    name == COMPRESSION
        && ([&b"zlib"[..], b"lzo", b"zstd"].iter().any(begins)
            || [&b"no"[..], b"none"].contains(&value))
}

/// Opens a regular file or directory. No others have flags, and opening them could have side effects.
fn open(path: &[u8], dirs: &Dirs) -> Result<Option<(OwnedFd, FileType)>, Cause> {
    let root = dirs.root();
    if path.is_empty() {
        return Ok(Some((root.try_clone()?, FileType::Directory)));
    }
    paths::split(path)?;
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stat = rustix::fs::fstat(open_beneath(root, path, look)?)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile | FileType::Directory => {}
        _ => return Ok(None),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some((open_beneath(root, path, flags)?, kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernel_names_are_compressions() {
        for known in ["zlib", "zlib:9", "lzo", "zstd:15", "no", "none"] {
            assert!(is_compression(COMPRESSION, known.as_bytes()), "{known}");
        }
        for other in ["", "ZSTD", "nonex", "none:1", "bogus"] {
            assert!(!is_compression(COMPRESSION, other.as_bytes()), "{other}");
        }
        assert!(!is_compression(b"user.compression", b"zstd"));
    }

    #[test]
    fn differences_are_reported_by_kind() {
        let wanted = to_kernel(1 << 1 | 1 << 3 | 1 << 6);
        assert_eq!(missing(wanted, wanted), []);
        let all = [
            NotKeptKind::NoCopyOnWrite,
            NotKeptKind::CompressionFlag,
            NotKeptKind::OtherFlag,
        ];
        assert_eq!(missing(IFlags::empty(), wanted), all);
    }
}
