//! Path resolution that never leaves a directory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Resolution flags of every path: it must not leave the subvolume or follow a link.
pub(crate) const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Returns the magic link to a descriptor's file, for calls that do not accept descriptors opened with
/// O_PATH.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Resolves a checked path beneath `root` to a file with [`CONFINED`] and opens it.
pub(crate) fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(root, path, flags, Mode::empty(), CONFINED)
}
