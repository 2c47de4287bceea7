//! Flags that new entries inherit from their directory.

use std::os::fd::OwnedFd;

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Cause;
use sendshot_sys::durable::proc_path;

/// Data is overwritten in place.
pub(crate) const NO_COPY_ON_WRITE: IFlags = IFlags::NOCOW;
/// Data is compressed when written. The flag accompanies the property `btrfs.compression`, which sets it.
pub(crate) const COMPRESS: IFlags = IFlags::COMPRESSED;
/// Data is not compressed.
pub(crate) const NO_COMPRESS: IFlags = IFlags::from_bits_retain(0x400);

/// Returns the flags that new files and directories inherit from their directory.
pub(crate) fn inherited() -> IFlags {
    NO_COPY_ON_WRITE | NO_COMPRESS | COMPRESS
}

/// Whether new entries of a directory inherit any of its flags. A directory that cannot be read counts as one
/// without: its owner made it so.
pub(crate) fn are_inherited(dir: &OwnedFd) -> Result<bool, Cause> {
    // Flags cannot be read through descriptors for resolution only.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(proc_path(dir), flags, Mode::empty()) {
        Ok(dir) => match rustix::fs::ioctl_getflags(dir) {
            Ok(flags) => Ok(flags.intersects(inherited())),
            // Its file system has no inode flags.
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e.into()),
        },
        Err(Errno::ACCESS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
