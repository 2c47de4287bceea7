//! Reads data of a snapshot, file by file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};

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

/// A snapshot whose files are read one after the other.
#[derive(Debug)]
pub(crate) struct Snapshot {
    root: OwnedFd,
    /// The last file read: the steps of one file are consecutive.
    open: Option<(Vec<u8>, File)>,
    block: Vec<u8>,
}

impl Snapshot {
    pub(crate) fn new(root: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            root: root.as_fd().try_clone_to_owned()?,
            open: None,
            block: Vec::new(),
        })
    }

    /// Opens a file by its path in the snapshot.
    pub(crate) fn file(&mut self, path: &[u8]) -> Result<&File, Error> {
        let file = match self.open.take() {
            Some((open, file)) if open == path => (open, file),
            _ => {
                let file = open(&self.root, path).map_err(|source| Error::Read {
                    path: path.to_vec(),
                    source,
                })?;
                (path.to_vec(), file)
            }
        };
        Ok(&self.open.insert(file).1)
    }

    /// Fills `buffer` with the file's data from `offset` on.
    pub(crate) fn read(
        &mut self,
        path: &[u8],
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let file = self.file(path)?;
        file.read_exact_at(buffer, offset).map_err(|source| {
            let path = path.to_vec();
            match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Short { path, offset },
                _ => Error::Read { path, source },
            }
        })
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
