//! Writes, allocates and truncates file data.

use std::os::fd::AsFd;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::Cause;

/// Writes all of `data` at `offset`.
pub(crate) fn write(file: impl AsFd, offset: u64, data: &[u8]) -> Result<(), Cause> {
    check_range(offset, data.len() as u64)?;
    let (mut rest, mut at) = (data, offset);
    while !rest.is_empty() {
        match rustix::io::pwrite(&file, rest, at) {
            Ok(0) => return Err(Errno::IO.into()),
            Ok(written) => {
                rest = &rest[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sets the size of a file.
pub(crate) fn truncate(file: impl AsFd, size: u64) -> Result<(), Cause> {
    check_range(size, 0)?;
    Ok(rustix::fs::ftruncate(file, size)?)
}

/// Allocates, punches or zeroes a range.
pub(crate) fn fallocate(file: impl AsFd, mode: u32, offset: u64, len: u64) -> Result<(), Cause> {
    check_range(offset, len)?;
    let flags = fallocate_flags(mode).ok_or(Cause::FallocateMode(mode))?;
    Ok(rustix::fs::fallocate(file, flags, offset, len)?)
}

/// Does what [`fallocate`] does to the content of a file, by writing, on a file system without it. No space is
/// reserved.
pub(crate) fn fallocate_by_writing(
    file: impl AsFd,
    mode: u32,
    offset: u64,
    len: u64,
) -> Result<(), Cause> {
    let end = check_range(offset, len)?;
    let flags = fallocate_flags(mode).ok_or(Cause::FallocateMode(mode))?;
    let size = rustix::fs::fstat(&file)?.st_size as u64;
    if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) && offset < size {
        write_zeros(&file, offset, end.min(size) - offset)?;
    }
    match end > size && !flags.contains(FallocateFlags::KEEP_SIZE) {
        true => truncate(file, end),
        false => Ok(()),
    }
}

/// Writes `len` zeros at `offset`.
pub(crate) fn write_zeros(file: impl AsFd, offset: u64, len: u64) -> Result<(), Cause> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(ZEROS.len() as u64);
        write(&file, offset + done, &ZEROS[..part as usize])?;
        done += part;
    }
    Ok(())
}

/// The modes that are valid in a stream. Modes that move data (collapse, insert) or affect only the layout
/// (unshare) are no changes between two snapshots.
fn fallocate_flags(mode: u32) -> Option<FallocateFlags> {
    let keep = FallocateFlags::KEEP_SIZE;
    let known = [
        FallocateFlags::empty(),
        keep,
        FallocateFlags::PUNCH_HOLE | keep,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE | keep,
    ];
    known.into_iter().find(|flags| flags.bits() == mode)
}

/// Checks that a file can have this range, as the kernel's offsets are signed; returns its end.
pub(crate) fn check_range(offset: u64, len: u64) -> Result<u64, Cause> {
    offset
        .checked_add(len)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or(Cause::Range { offset, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_kernel_s_offsets_do() {
        let max = i64::MAX as u64;
        assert_eq!(check_range(max - 1, 1).ok(), Some(max));
        assert!(check_range(max, 1).is_err());
        assert!(check_range(u64::MAX, 1).is_err());
        assert!(check_range(1, u64::MAX).is_err());
    }

    #[test]
    fn only_modes_of_streams_are_known() {
        for mode in [0, 1, 3, 0x10, 0x11] {
            assert!(fallocate_flags(mode).is_some(), "{mode:#x}");
        }
        for mode in [2, 4, 8, 0x20, 0x40, 0x12, 0x13, 0x8000_0000] {
            assert!(fallocate_flags(mode).is_none(), "{mode:#x}");
        }
    }
}
