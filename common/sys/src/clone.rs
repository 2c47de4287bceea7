//! Reflinks of byte ranges.

use std::io;
use std::os::fd::AsFd;

use crate::raw;

/// Makes `dest` share `length` bytes of `source` (0 means up to its end).
///
/// # Errors
/// `EINVAL` for unaligned ranges, for ranges beyond the source's end and when only one side is NODATASUM,
/// `EXDEV` across file systems, `EFBIG` beyond RLIMIT_FSIZE.
pub fn clone_range(
    dest: impl AsFd,
    source: impl AsFd,
    source_offset: u64,
    length: u64,
    dest_offset: u64,
) -> io::Result<()> {
    raw::clone_range(dest, source.as_fd(), source_offset, length, dest_offset)
}
