//! Writes, allocates and truncates file data.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::Cause;
use sendshot_sys::filesystem;

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

/// Bytes of a file that are written one after the other before they are on their way to the disk.
const WRITE_BACK: u64 = 8 << 20;

/// Has large files written to disk while they are made, and then removed from memory. Otherwise all of it waits for the next
/// flush, and a process that has written much more than the disk is slowed down by the kernel.
#[derive(Debug, Default)]
pub(crate) struct WriteBehind {
    /// The file that was written last, with what is not on its way yet: from where, and to where.
    last: Option<(Weak<OwnedFd>, u64, u64)>,
}

impl WriteBehind {
    /// Notes that `len` bytes of a file were written at `offset`.
    pub(crate) fn wrote(
        &mut self,
        file: &Arc<OwnedFd>,
        offset: u64,
        len: u64,
    ) -> Result<(), Cause> {
        let end = offset.saturating_add(len);
        let begin = match self.last.take() {
            Some((last, begin, to)) if to == offset && is_same(&last, file) => begin,
            Some(_) | None => offset,
        };
        if end - begin < WRITE_BACK {
            self.last = Some((Arc::downgrade(file), begin, end));
            return Ok(());
        }
        let started = filesystem::start_write_back(file, begin, end - begin);
        // The part before it is on the disk by now, or nearly. No program reads it here: a copy has its own inodes.
        if let Some(before) = begin.checked_sub(WRITE_BACK) {
            filesystem::forget_pages(file, before, NonZeroU64::new(WRITE_BACK));
        }
        self.last = Some((Arc::downgrade(file), end, end));
        match started.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)) {
            // A file system without it writes when it wants to.
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn is_same(last: &Weak<OwnedFd>, file: &Arc<OwnedFd>) -> bool {
    last.upgrade().is_some_and(|last| Arc::ptr_eq(&last, file))
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
    fn what_is_on_the_disk_is_removed_from_memory() {
        // On a disk: a file system in memory keeps everything.
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let fd = Arc::new(OwnedFd::from(file.reopen().unwrap()));
        let mut behind = WriteBehind::default();
        let part = vec![7; WRITE_BACK as usize / 8];
        for n in 0..16 {
            let offset = n * part.len() as u64;
            write(&fd, offset, &part).unwrap();
            behind.wrote(&fd, offset, part.len() as u64).unwrap();
            rustix::fs::fdatasync(&fd).unwrap();
        }
        let mut fincore = std::process::Command::new("fincore");
        let shown = fincore.args(["-bno", "RES"]).arg(file.path()).output();
        let cached = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert_eq!(cached.trim(), WRITE_BACK.to_string(), "the second half");
    }

    #[test]
    fn only_what_follows_in_the_same_file_is_written_back_together() {
        let open = || Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let (one, other) = (open(), open());
        let mut behind = WriteBehind::default();
        let begin = |behind: &WriteBehind| behind.last.as_ref().map(|(_, begin, _)| *begin);
        let part = WRITE_BACK / 4;
        for n in 0..3 {
            behind.wrote(&one, n * part, part).unwrap();
            assert_eq!(begin(&behind), Some(0));
        }
        // The fourth is enough.
        behind.wrote(&one, 3 * part, part).unwrap();
        assert_eq!(begin(&behind), Some(WRITE_BACK));
        behind.wrote(&other, WRITE_BACK, part).unwrap();
        behind.wrote(&one, WRITE_BACK, part).unwrap();
        behind.wrote(&one, 10 * WRITE_BACK, part).unwrap();
        assert_eq!(begin(&behind), Some(10 * WRITE_BACK));
        drop(one);
        // Its number may be used by the next file.
        let next = open();
        behind.wrote(&next, 10 * WRITE_BACK + part, part).unwrap();
        assert_eq!(begin(&behind), Some(10 * WRITE_BACK + part));
    }

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
