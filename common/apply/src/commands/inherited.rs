//! Flags that what is made in a directory takes over from it.

use std::os::fd::OwnedFd;

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::proc_path;
use crate::error::Cause;

/// Overwritten in place.
pub(crate) const NO_COPY_ON_WRITE: IFlags = IFlags::NOCOW;
/// Compressed when it is written. The flag goes with the property `btrfs.compression`, which sets it.
pub(crate) const COMPRESS: IFlags = IFlags::COMPRESSED;
/// Not compressed.
pub(crate) const NO_COMPRESS: IFlags = IFlags::from_bits_retain(0x400);

/// What new files and directories have from their directory.
pub(crate) fn inherited() -> IFlags {
    NO_COPY_ON_WRITE | NO_COMPRESS | COMPRESS
}

/// Whether what is made in a directory takes over flags of it. A directory that cannot be read is taken for
/// one without: its owner has made it so.
pub(crate) fn are_inherited(dir: &OwnedFd) -> Result<bool, Cause> {
    // Descriptors for resolution only have no flags to ask for.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(proc_path(dir), flags, Mode::empty()) {
        Ok(dir) => Ok(rustix::fs::ioctl_getflags(dir)?.intersects(inherited())),
        Err(Errno::ACCESS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
