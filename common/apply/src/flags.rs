//! Inode flags: immutable, append-only, NOCOW, compression and the like.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, IFlags, OFlags};
use rustix::io::Errno;

use crate::dirs::{Dirs, open_beneath};
use crate::error::Cause;
use crate::paths;

/// Flags as streams and btrfs inodes have them, and as the kernel's calls have them.
const FLAGS: [(u64, u32); 9] = [
    (1 << 1, 0x0080_0000), // no copy on write
    (1 << 3, 0x0000_0400), // do not compress
    (1 << 5, 0x0000_0008), // write synchronously
    (IMMUTABLE, 0x10),
    (APPEND, 0x20),
    (1 << 8, 0x0000_0040),  // not for dump
    (1 << 9, 0x0000_0080),  // no access times
    (1 << 10, 0x0001_0000), // synchronous directory
    (1 << 11, 0x0000_0004), // compress
];
const IMMUTABLE: u64 = 1 << 6;
const APPEND: u64 = 1 << 7;

fn to_kernel(flags: u64) -> IFlags {
    let bits = FLAGS
        .iter()
        .filter(|(ours, _)| flags & ours != 0)
        .fold(0, |bits, (_, kernels)| bits | kernels);
    IFlags::from_bits_retain(bits)
}

fn guards() -> IFlags {
    to_kernel(IMMUTABLE | APPEND)
}

/// Gives the file or directory with this path the flags of a stream. What this file system
/// cannot do is left out: flags are about how data is stored and who may change it, not about
/// what it is.
pub(crate) fn set(path: &[u8], flags: u64, dirs: &mut Dirs) -> Result<(), Cause> {
    let Some(fd) = open(path, dirs)? else {
        return Ok(());
    };
    let mut wanted = to_kernel(flags);
    if path.is_empty() {
        // An immutable copy could not be deleted.
        wanted.remove(guards());
    }
    let before = rustix::fs::ioctl_getflags(&fd)?;
    let after = (before - to_kernel(u64::MAX)) | wanted;
    if before == after {
        return Ok(());
    }
    match rustix::fs::ioctl_setflags(&fd, after) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

/// Takes from a file or directory what forbids changes; returns whether there was anything.
///
/// Our own streams do that themselves. The kernel's do not know of it.
pub(crate) fn unguard(path: &[u8], dirs: &mut Dirs) -> Result<bool, Cause> {
    let Some(fd) = open(path, dirs)? else {
        return Ok(false);
    };
    let before = rustix::fs::ioctl_getflags(&fd)?;
    if !before.intersects(guards()) {
        return Ok(false);
    }
    rustix::fs::ioctl_setflags(&fd, before - guards())?;
    Ok(true)
}

/// Only regular files and directories have flags; opening others could set something off.
fn open(path: &[u8], dirs: &Dirs) -> Result<Option<OwnedFd>, Cause> {
    let root = dirs.root();
    if path.is_empty() {
        return Ok(Some(root.try_clone()?));
    }
    paths::split(path)?;
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stat = rustix::fs::fstat(open_beneath(root, path, look)?)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => {}
        _ => return Ok(None),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(open_beneath(root, path, flags)?))
}
