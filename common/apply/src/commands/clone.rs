//! Shares a range of another file, or copies it where sharing is not possible.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use uuid::Uuid;

use crate::commands::budget::Budget;
use crate::commands::data;
use crate::commands::files;
use crate::error::Cause;

/// Bytes copied at a time when a range cannot be shared.
const CHUNK: usize = 256 * 1024;

/// Number of subvolumes, and of files, to clone from that stay open.
const KEPT: usize = 8;

/// Subvolumes from which a stream may clone, besides the one that it makes.
pub trait CloneSources {
    /// Opens the root directory of the read-only subvolume that was received as `uuid`, or is `uuid`, in the
    /// state of `ctransid`. The stream's sender may read everything in the returned subvolume, so it must be
    /// the sender's own.
    ///
    /// # Errors
    /// Reason why the subvolume must not be used, or does not exist.
    fn open(&mut self, uuid: Uuid, ctransid: u64) -> Result<OwnedFd, Box<dyn Error + Send + Sync>>;
}

/// Whether the kernel is asked to share ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClonePolicy {
    /// Share, and copy if the kernel refuses.
    #[default]
    Share,
    /// Always copy.
    Copy,
}

/// A range to clone; all fields in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) len: u64,
}

/// Open subvolumes and files to clone from. The subvolumes are read-only, so an open file stays the file of
/// its path.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    roots: Vec<Kept<(Uuid, u64)>>,
    files: Vec<Kept<(Uuid, u64, Vec<u8>)>>,
}

/// An open descriptor and its key.
type Kept<K> = (K, Arc<OwnedFd>);

impl Foreign {
    /// Opens a file to clone from.
    pub(crate) fn file(
        &mut self,
        uuid: Uuid,
        ctransid: u64,
        path: &[u8],
        sources: &mut dyn CloneSources,
    ) -> Result<Arc<OwnedFd>, Cause> {
        let known = |((u, c, p), _): &&Kept<(Uuid, u64, Vec<u8>)>| {
            (*u, *c) == (uuid, ctransid) && p == path
        };
        if let Some((_, fd)) = self.files.iter().find(known) {
            return Ok(fd.clone());
        }
        let root = self.root(uuid, ctransid, sources)?;
        let fd = files::open_foreign(&root, path)?;
        Ok(keep(&mut self.files, (uuid, ctransid, path.to_vec()), fd))
    }

    fn root(
        &mut self,
        uuid: Uuid,
        ctransid: u64,
        sources: &mut dyn CloneSources,
    ) -> Result<Arc<OwnedFd>, Cause> {
        let key = (uuid, ctransid);
        if let Some((_, fd)) = self.roots.iter().find(|(known, _)| *known == key) {
            return Ok(fd.clone());
        }
        let fd = sources
            .open(uuid, ctransid)
            .map_err(|source| Cause::CloneSource { uuid, source })?;
        Ok(keep(&mut self.roots, key, fd))
    }
}

fn keep<K>(kept: &mut Vec<Kept<K>>, key: K, fd: OwnedFd) -> Arc<OwnedFd> {
    if kept.len() == KEPT {
        kept.remove(0);
    }
    let fd = Arc::new(fd);
    kept.push((key, fd.clone()));
    fd
}

/// How a range was cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// Both files share the data.
    Shared,
    /// The data was copied, because the kernel refused to share it.
    Copied,
}

/// Makes a range of `target` equal to a range of `source`.
pub(crate) fn range(
    policy: ClonePolicy,
    source: impl AsFd,
    target: impl AsFd,
    range: Range,
    budget: &mut Budget,
) -> Result<Cloned, Cause> {
    data::check_range(range.to, range.len)?;
    let end = data::check_range(range.from, range.len)?;
    // To the kernel a length of 0 means "to the end"; no sender uses that.
    if range.len == 0 {
        return Err(Cause::Range {
            offset: range.from,
            len: 0,
        });
    }
    match policy {
        ClonePolicy::Share => match share(&source, &target, range) {
            Err(e) if can_copy_instead(e) => copy(source, target, range, end, budget)?,
            other => {
                other?;
                return Ok(Cloned::Shared);
            }
        },
        ClonePolicy::Copy => copy(source, target, range, end, budget)?,
    }
    Ok(Cloned::Copied)
}

fn share(source: impl AsFd, target: impl AsFd, range: Range) -> Result<(), Errno> {
    sendshot_sys::clone::clone_range(target, source, range.from, range.len, range.to)
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Whether an error concerns only sharing: one side without checksums, unaligned ranges, different file
/// systems or mounts, or an active swap file.
fn can_copy_instead(e: Errno) -> bool {
    [
        Errno::INVAL,
        Errno::XDEV,
        Errno::OPNOTSUPP,
        Errno::TXTBSY,
        Errno::NOTTY,
        Errno::PERM,
    ]
    .contains(&e)
}

fn copy(
    source: impl AsFd,
    target: impl AsFd,
    range: Range,
    end: u64,
    budget: &mut Budget,
) -> Result<(), Cause> {
    let (from, to) = (rustix::fs::fstat(&source)?, rustix::fs::fstat(&target)?);
    let size = from.st_size as u64;
    if end > size {
        return Err(Cause::ClonePastEnd { end, size });
    }
    let same = (from.st_dev, from.st_ino) == (to.st_dev, to.st_ino);
    if same && range.from.abs_diff(range.to) < range.len {
        return Err(Cause::CloneOverlap);
    }
    let mut at = range.from;
    while at < end {
        let (data, data_end) = next_data(&source, at, end)?;
        let target_at = |at: u64| range.to + (at - range.from);
        budget.charge(data_end - data)?;
        clear(&target, target_at(at), data - at, to.st_size as u64)?;
        copy_data(&source, &target, (data, target_at(data)), data_end - data)?;
        at = data_end;
    }
    // A target that ends in a hole has not grown yet.
    let target_end = range.to + range.len;
    if rustix::fs::fstat(&target)?.st_size as u64 >= target_end {
        return Ok(());
    }
    data::truncate(target, target_end)
}

/// Finds the next data of a file from `at` on, up to `end`. Holes of any length are free, and must not be
/// written out.
fn next_data(file: impl AsFd, at: u64, end: u64) -> Result<(u64, u64), Cause> {
    let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
        Ok(data) => data.min(end),
        Err(Errno::NXIO) => end,
        Err(e) => return Err(e.into()),
    };
    if data == end {
        return Ok((end, end));
    }
    let hole = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
    Ok((data, hole.min(end)))
}

/// Clears a range; bytes after the end of the file are zero already.
fn clear(file: impl AsFd, offset: u64, len: u64, size: u64) -> Result<(), Cause> {
    let len = len.min(size.saturating_sub(offset));
    if len == 0 {
        return Ok(());
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, punch, offset, len) {
        // The file system has no holes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => data::write_zeros(file, offset, len),
        other => Ok(other?),
    }
}

fn copy_data(
    source: impl AsFd,
    target: impl AsFd,
    (from, to): (u64, u64),
    len: u64,
) -> Result<(), Cause> {
    let mut buffer = vec![0; len.min(CHUNK as u64) as usize];
    let mut done = 0;
    while done < len {
        let wanted = (len - done).min(CHUNK as u64) as usize;
        let chunk = &mut buffer[..wanted];
        read_exact(&source, from + done, chunk)?;
        data::write(&target, to + done, chunk)?;
        done += wanted as u64;
    }
    Ok(())
}

fn read_exact(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> Result<(), Cause> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[done..], offset + done as u64) {
            // The size was checked, and no other process writes to the file.
            Ok(0) => return Err(Errno::IO.into()),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
