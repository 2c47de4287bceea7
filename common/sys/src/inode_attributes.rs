//! The inode flags that FS_IOC_FSSETXATTR sets: those that are not about how data is stored.
//!
//! FS_IOC_SETFLAGS sets all flags at once. btrfs then resets the compression property of the inode, and
//! gives checksums to an empty file of a file system that is mounted without. This call does neither.

use std::io;
use std::os::fd::AsFd;

use crate::raw::{self, Args};

/// Nothing may change.
pub const IMMUTABLE: u32 = 0x8;
/// Data may only be appended.
pub const APPEND: u32 = 0x10;
/// Writes are synchronous.
pub const SYNC: u32 = 0x20;
/// Access times are not updated.
pub const NOATIME: u32 = 0x40;
/// `dump` leaves it out.
pub const NODUMP: u32 = 0x80;

/// Sets the flags of `wanted` that `mask` selects, and leaves the others as they are.
///
/// # Errors
/// The kernel's; `EPERM` without the right to set immutable and append-only.
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
