//! Reads data of a snapshot, file by file.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_sys::filesystem;

use crate::diff::Reads;
use crate::format::hashes::{self, BLOCK, Hash};

/// Reason why data cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {} of the snapshot", sendshot_stream::dump::escaped(path))]
    Read {
        /// Path of the file in the snapshot.
        path: Vec<u8>,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// A file is shorter than its sendshot says.
    #[error(
        "{} of the snapshot ends at byte {offset}, which its sendshot does not record",
        sendshot_stream::dump::escaped(path)
    )]
    Short {
        /// Path of the file in the snapshot.
        path: Vec<u8>,
        /// Offset of the read that reached the end, in bytes.
        offset: u64,
    },
}

/// What becomes of data of the snapshot in the page cache after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// It stays: others may read the same snapshot.
    Keep,
    /// It is removed: there may be more of it than memory, and it is not expected that a program reads it soon.
    Forget,
}

/// Bytes of a file that are removed from the page cache together.
const FORGET: u64 = 1 << 20;

/// A snapshot whose files are read one after the other.
#[derive(Debug)]
pub(crate) struct Snapshot {
    root: OwnedFd,
    pages: Pages,
    /// The last file read: the steps of one file are consecutive.
    open: Option<OpenFile>,
    block: Vec<u8>,
    /// How often what is read now is read.
    reads: Reads,
}

#[derive(Debug)]
struct OpenFile {
    path: Vec<u8>,
    file: File,
    pages: Pages,
    /// Offset after the last byte that was read.
    read_to: u64,
    /// Offset up to which it was removed from the page cache.
    forgotten: u64,
}

impl OpenFile {
    fn new(root: &OwnedFd, path: &[u8], pages: Pages) -> Result<Self, Error> {
        let file = open(root, path).map_err(|source| Error::Read {
            path: path.to_vec(),
            source,
        })?;
        Ok(Self {
            path: path.to_vec(),
            file,
            pages,
            read_to: 0,
            forgotten: 0,
        })
    }

    /// Removes what was read from the page cache, if it is enough to be worth a call.
    fn forget(&mut self) {
        if self.pages == Pages::Keep {
            return;
        }
        let end = self.read_to / FORGET * FORGET;
        if let Some(len) = end.checked_sub(self.forgotten).and_then(NonZeroU64::new) {
            filesystem::forget_pages(&self.file, self.forgotten, Some(len));
            self.forgotten = end;
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.pages == Pages::Forget && self.read_to > self.forgotten {
            filesystem::forget_pages(&self.file, self.forgotten, None);
        }
    }
}

impl Snapshot {
    pub(crate) fn new(root: impl AsFd, pages: Pages) -> io::Result<Self> {
        Ok(Self {
            root: root.as_fd().try_clone_to_owned()?,
            pages,
            open: None,
            block: Vec::new(),
            reads: Reads::Once,
        })
    }

    /// Says how often what is read from now on is read.
    pub(crate) fn begin_run(&mut self, reads: Reads) {
        self.reads = reads;
    }

    /// Opens a file by its path in the snapshot.
    pub(crate) fn file(&mut self, path: &[u8]) -> Result<&File, Error> {
        Ok(&self.open(path)?.file)
    }

    fn open(&mut self, path: &[u8]) -> Result<&mut OpenFile, Error> {
        let open = match self.open.take() {
            Some(open) if open.path == path => open,
            _ => OpenFile::new(&self.root, path, self.pages)?,
        };
        Ok(self.open.insert(open))
    }

    /// Fills `buffer` with the file's data from `offset` on.
    pub(crate) fn read(
        &mut self,
        path: &[u8],
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let reads = self.reads;
        let open = self.open(path)?;
        let done = open.file.read_exact_at(buffer, offset);
        done.map_err(|source| {
            let path = path.to_vec();
            match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Short { path, offset },
                _ => Error::Read { path, source },
            }
        })?;
        open.read_to = offset + buffer.len() as u64;
        if reads == Reads::Once {
            open.forget();
        }
        Ok(())
    }

    /// Hashes a block of `len` bytes.
    pub(crate) fn hash(&mut self, path: &[u8], block: u64, len: u64) -> Result<Hash, Error> {
        let mut buffer = std::mem::take(&mut self.block);
        buffer.resize(len.min(BLOCK) as usize, 0);
        let read = self.read(path, block * BLOCK, &mut buffer);
        let hash = hashes::hash(&buffer);
        self.block = buffer;
        read.map(|()| hash)
    }
}

fn open(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOATIME;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), beneath)?;
    Ok(File::from(file))
}
