//! The inode flags that FS_IOC_FSSETXATTR sets: those that do not affect how data is stored.
//!
//! FS_IOC_SETFLAGS sets all flags at once. btrfs then resets the compression property of the inode, and enables
//! checksums for an empty file on a file system that is mounted without them. FS_IOC_FSSETXATTR does neither.

use std::io;
use std::os::fd::AsFd;

use crate::raw::{self, Args};

/// The inode cannot be changed.
pub const IMMUTABLE: u32 = 0x8;
/// Data may only be appended.
pub const APPEND: u32 = 0x10;
/// Writes are synchronous.
pub const SYNC: u32 = 0x20;
/// Access times are not updated.
pub const NOATIME: u32 = 0x40;
/// `dump` skips the inode.
pub const NODUMP: u32 = 0x80;

/// Sets the flags of `wanted` that `mask` selects, and leaves the others unchanged.
///
/// # Errors
/// I/O errors; `EPERM` without the privilege to set immutable and append-only.
pub fn set(fd: impl AsFd, wanted: u32, mask: u32) -> io::Result<()> {
    let mut args = Args::<28>::new();
    raw::get_attributes(&fd, &mut args)?;
    let before = args.u32(0);
    let after = (before & !mask) | (wanted & mask);
    if before == after {
        return Ok(());
    }
    args.put_u32(0, after);
    raw::set_attributes(fd, &mut args)
}
