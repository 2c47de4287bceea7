//! The sendshot file: written once by a [`crate::Writer`], read from front to back by a [`Reader`], rejected
//! if anything is wrong.
//!
//! Layout in `docs/sendshot-file.md`: a head, blocks of compressed entries each with its checksum, and a tail
//! with counts and a checksum over everything. A file without a valid tail is not a sendshot.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::entry::Head;
use crate::format::error::Error;
use crate::format::hashes::Hashes;
use crate::format::layout::{Counts, TAIL_LEN, encode_head};
use crate::format::read_from::ReadFrom;
use crate::format::reader::Blocks;
use crate::format::reader::Reader;
use crate::format::verified::{FileState, Verified};
use crate::format::writer::Writer;

/// Maximum decoded bytes of one file kept in memory for the next pass: at most 32 MiB for two files. Larger
/// files are read again.
const KEPT: u64 = 16 << 20;

/// A sendshot file that was read once and checked: it is not damaged, and every name is in a directory.
#[derive(Debug)]
pub struct Sendshot {
    file: File,
    path: PathBuf,
    head: Head,
    counts: Counts,
    hashes: Option<Hashes>,
    /// Decoded length of all blocks in bytes, and the blocks if they are few.
    decoded: u64,
    blocks: Arc<Mutex<Option<Blocks>>>,
    unsummed: bool,
    /// Number of directories; too high if they were not counted.
    directories: u64,
    /// The state in which the file was checked.
    state: Option<FileState>,
}

/// Why a sendshot could not be copied.
#[derive(Debug)]
pub(crate) enum Copying {
    /// It cannot be read.
    Read(Error),
    /// The copy cannot be written.
    Write(io::Error),
}

impl From<Error> for Copying {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Copying {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Keeps only the tail at the end of what is written.
#[derive(Debug)]
struct End {
    bytes: [u8; TAIL_LEN],
    /// Length of everything in bytes.
    len: u64,
}

impl End {
    fn new() -> Self {
        Self {
            bytes: [0; TAIL_LEN],
            len: 0,
        }
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let last = &bytes[bytes.len().saturating_sub(TAIL_LEN)..];
        self.bytes.copy_within(last.len().., 0);
        self.bytes[TAIL_LEN - last.len()..].copy_from_slice(last);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sendshot {
    /// Opens a file and checks all of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        Self::from_file(file, path)
    }

    /// Checks an opened file; `path` is only for messages.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn from_file(file: File, path: &Path) -> Result<Self, Error> {
        let state = Self::state(&file, path)?;
        if let Some(verified) = state.verified() {
            let head = Reader::new(ReadFrom::new(&file, 0), path)?.head().clone();
            let found = (head, verified.counts, verified.decoded);
            return Ok(Self {
                unsummed: verified.unsummed,
                directories: verified.directories,
                state: Some(state),
                ..Self::new(file, path, found)
            });
        }
        let mut sendshot = Self::undamaged(file, path)?;
        let survey = sendshot.reader()?.survey()?;
        sendshot.unsummed = survey.unsummed;
        sendshot.directories = survey.directories;
        match survey.orphan {
            None => sendshot.remembered(state),
            Some(ino) => Err(Error::Orphan {
                path: sendshot.path,
                ino,
            }),
        }
    }

    /// Checks the checksums of a file into which all blocks of this one were copied. It shares their decoded form.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn same_content(&self, file: File, path: &Path) -> Result<Self, Error> {
        let state = Self::state(&file, path)?;
        let copy = Self::undamaged(file, path)?;
        if (copy.counts, copy.decoded) != (self.counts, self.decoded) {
            let (path, offset) = (copy.path, 0);
            return Err(Error::Damaged { path, offset });
        }
        let copy = Self {
            blocks: Arc::clone(&self.blocks),
            unsummed: self.unsummed,
            directories: self.directories,
            ..copy
        };
        copy.remembered(state)
    }

    fn state(file: &File, path: &Path) -> Result<FileState, Error> {
        FileState::of(file).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Remembers that it was checked, unless it was changed meanwhile.
    fn remembered(mut self, before: FileState) -> Result<Self, Error> {
        self.state = Some(before);
        if Self::state(&self.file, &self.path)? == before {
            before.remember(Verified {
                counts: self.counts,
                decoded: self.decoded,
                unsummed: self.unsummed,
                directories: self.directories,
            });
        }
        Ok(self)
    }

    fn new(file: File, path: &Path, (head, counts, decoded): (Head, Counts, u64)) -> Self {
        Self {
            file,
            path: path.to_owned(),
            head,
            counts,
            hashes: None,
            decoded,
            blocks: Arc::default(),
            unsummed: true,
            directories: u64::MAX,
            state: None,
        }
    }

    /// Whether its blocks were copied from the other one, or the other way round.
    pub(crate) fn has_content_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.blocks, &other.blocks)
    }

    /// Whether it has files without checksums, or swap files.
    pub(crate) fn has_unsummed(&self) -> bool {
        self.unsummed
    }

    /// Reads the file itself, though its blocks may be in memory.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn stored(&self) -> Result<Reader<ReadFrom<&File>>, Error> {
        Ok(Reader::new(ReadFrom::new(&self.file, 0), &self.path)?.verified(self.state))
    }

    /// Writes the same content with another head to `out`. Blocks are checked, and copied as they are stored.
    ///
    /// # Errors
    /// See [`Copying`].
    pub(crate) fn copy<W: Write>(&self, head: &Head, out: W) -> Result<(W, Counts), Copying> {
        let mut writer = Writer::new(out, head)?;
        self.stored()?.copy_blocks(&mut writer)??;
        writer.set_counts(self.counts);
        Ok(writer.finish()?)
    }

    /// Makes the empty `file` what [`Self::copy`] writes, but lets it share the stored blocks with this one. Returns
    /// whether that was possible; if not, the file is empty again.
    ///
    /// # Errors
    /// See [`Copying`].
    pub(crate) fn share(&self, head: &Head, file: &File) -> Result<bool, Copying> {
        let (end, _) = self.copy(head, End::new())?;
        // A head of another length would move the blocks.
        if end.len != self.file.metadata()?.len() {
            return Ok(false);
        }
        let share = || {
            rustix::fs::ioctl_ficlone(file, &self.file)?;
            file.write_all_at(&encode_head(head), 0)?;
            file.write_all_at(&end.bytes, end.len - TAIL_LEN as u64)
        };
        // A page around what is written is read from the disk, where it may be damaged: not so in a copy.
        let is_shared = share().is_ok();
        if !is_shared {
            file.set_len(0)?;
        }
        Ok(is_shared)
    }

    /// Checks the checksums of a file, not the meaning of its entries.
    fn undamaged(file: File, path: &Path) -> Result<Self, Error> {
        let found = Reader::new(ReadFrom::new(&file, 0), path)?.check()?;
        Ok(Self::new(file, path, found))
    }

    /// Adds the hashes of its blocks.
    #[must_use]
    pub fn with_hashes(self, hashes: Option<Hashes>) -> Self {
        Self { hashes, ..self }
    }

    /// Returns the known hashes of its files without checksums.
    pub fn hashes(&self) -> Option<&Hashes> {
        self.hashes.as_ref()
    }

    /// Returns the identity of its snapshot.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the number of its inodes and extents.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the number of its directories.
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// Returns the path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from its beginning. Readers have positions of their own.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn reader(&self) -> Result<Reader<ReadFrom<&File>>, Error> {
        let reader = || self.stored();
        if self.decoded > KEPT {
            return reader();
        }
        // A second reader waits for the first to decode them.
        let mut known = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = match &*known {
            Some(blocks) => Arc::clone(blocks),
            None => Arc::clone(known.insert(reader()?.blocks()?)),
        };
        drop(known);
        Ok(reader()?.with(blocks))
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
