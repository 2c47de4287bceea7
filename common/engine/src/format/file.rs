//! The sendshot file: written once by a [`Writer`], read from front to back by a [`Reader`],
//! refused if anything is wrong.
//!
//! Layout in `docs/sendshot-file.md`: a head, blocks of compressed entries each with its
//! checksum, and a tail with counts and a checksum over everything. A file without a good tail
//! is not a sendshot.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use crate::format::entry::{Head, InodeItem, Name, Xattr};
use crate::format::hashes::Hashes;
use crate::format::reader::Blocks;
pub use crate::format::reader::Reader;
pub use crate::format::writer::Writer;

/// First bytes of every sendshot.
pub(crate) const MAGIC: &[u8; 8] = b"sendshot";
/// Newest layout version that this code reads. It is written only where it is needed: for a
/// snapshot whose transaction number on the wire is not its own. Version 2 has one number for both,
/// so that files of earlier programs and those that only they can read stay the rule.
pub const VERSION: u32 = 3;
/// Oldest layout version that this code reads, and the one it usually writes.
pub const OLDEST_VERSION: u32 = 2;
/// Bytes of the head in version 2: magic, version, 4 UUIDs, 4 numbers, checksum.
pub(crate) const HEAD_LEN: usize = 8 + 4 + 4 * 16 + 4 * 8 + CHECK_LEN;
/// Bytes of the longest head: version 3 has one more number.
pub(crate) const MAX_HEAD_LEN: usize = HEAD_LEN + 8;
/// Bytes of a checksum: BLAKE3, cut; against damage, not against forgery.
pub(crate) const CHECK_LEN: usize = 16;
/// Raw bytes after which a block ends. Larger ones compress hardly better.
pub(crate) const BLOCK: usize = 256 * 1024;
/// Largest block that is read: a record can exceed [`BLOCK`] by an attribute's value.
pub(crate) const MAX_BLOCK: usize = 1024 * 1024;
/// Most decoded bytes that are kept in memory for the next pass over a file: with two files no more
/// than 32 MiB. Larger files are read anew.
const KEPT: u64 = 16 << 20;
/// Marks the tail, where a block's raw length would stand.
pub(crate) const TAIL: u32 = u32::MAX;

/// Counts of a sendshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inodes.
    pub inodes: u64,
    /// Extents.
    pub extents: u64,
}

/// Why a file is no sendshot that could be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{}: is not a sendshot", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("{}: has layout version {version}, this program reads up to {VERSION}; upgrade Sendshot", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An earlier program wrote it.
    #[error("{}: has layout version {version}, of an earlier program, this one reads {OLDEST_VERSION} and later; the next push has to do without it", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is cut off or was changed.
    #[error("{}: is damaged at byte {offset}; the next push has to do without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// It has an inode that is in no directory: it is what is left of a deleted one.
    #[error("{}: inode {ino} has a name in no directory; the next push has to do without it", path.display())]
    Orphan {
        /// The file.
        path: PathBuf,
        /// The inode.
        ino: u64,
    },
}

pub(crate) fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0; CHECK_LEN];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    out
}

pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    let has_two_numbers = head.wire_ctransid != head.ctransid;
    let version = match has_two_numbers {
        true => VERSION,
        false => OLDEST_VERSION,
    };
    let mut out = Vec::with_capacity(MAX_HEAD_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
    for uuid in [head.wire_uuid, head.fsid, head.uuid, head.parent_uuid] {
        out.extend_from_slice(uuid.as_bytes());
    }
    let numbers = [
        head.wire_ctransid,
        head.otransid,
        head.generation,
        head.taken_at as u64,
    ];
    let local = has_two_numbers.then_some(head.ctransid);
    for number in numbers.into_iter().chain(local) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&check(&out));
    out
}

/// Bytes of a head; `None` for a version that is not read.
pub(crate) fn head_len(version: u32) -> Option<usize> {
    match version {
        OLDEST_VERSION => Some(HEAD_LEN),
        VERSION => Some(MAX_HEAD_LEN),
        _ => None,
    }
}

/// Decodes a head without its checksum, whose length was told by [`head_len`].
pub(crate) fn decode_head(bytes: &[u8]) -> Head {
    let uuid = |at: usize| {
        let mut raw = [0; 16];
        raw.copy_from_slice(&bytes[12 + at * 16..28 + at * 16]);
        Uuid::from_bytes(raw)
    };
    let number = |at: usize| u64_at(bytes, 76 + at * 8);
    let has_two_numbers = bytes.len() > HEAD_LEN - CHECK_LEN;
    Head {
        wire_uuid: uuid(0),
        fsid: uuid(1),
        uuid: uuid(2),
        parent_uuid: uuid(3),
        wire_ctransid: number(0),
        ctransid: number(if has_two_numbers { 4 } else { 0 }),
        otransid: number(1),
        generation: number(2),
        taken_at: number(3) as i64,
    }
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

/// A sendshot file that was read through once and found whole: nothing is damaged, and every name is in
/// a directory.
#[derive(Debug)]
pub struct Sendshot {
    file: File,
    path: PathBuf,
    head: Head,
    counts: Counts,
    hashes: Option<Hashes>,
    /// Bytes of all decoded blocks, and the blocks if they are few.
    decoded: u64,
    blocks: OnceLock<Blocks>,
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

    /// Checks an opened file; `path` is for messages.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn from_file(file: File, path: &Path) -> Result<Self, Error> {
        let sendshot = Self::undamaged(file, path)?;
        match sendshot.reader()?.orphan()? {
            None => Ok(sendshot),
            Some(ino) => Err(Error::Orphan {
                path: sendshot.path,
                ino,
            }),
        }
    }

    /// Checks that a file is what was written, whatever that says.
    fn undamaged(file: File, path: &Path) -> Result<Self, Error> {
        let (head, counts, decoded) = Reader::new(&file, path)?.check()?;
        Ok(Self {
            file,
            path: path.to_owned(),
            head,
            counts,
            hashes: None,
            decoded,
            blocks: OnceLock::new(),
        })
    }

    /// The same with the hashes of its blocks.
    #[must_use]
    pub fn with_hashes(self, hashes: Option<Hashes>) -> Self {
        Self { hashes, ..self }
    }

    /// Hashes of its files without checksums, as far as they are known.
    pub fn hashes(&self) -> Option<&Hashes> {
        self.hashes.as_ref()
    }

    /// What it is the sendshot of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from its beginning. One reader at a time.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn reader(&self) -> Result<Reader<&File>, Error> {
        let reader = || Reader::new(&self.file, &self.path);
        if self.decoded > KEPT {
            return reader();
        }
        let blocks = match self.blocks.get() {
            Some(blocks) => Arc::clone(blocks),
            None => {
                let blocks = reader()?.blocks()?;
                Arc::clone(self.blocks.get_or_init(|| blocks))
            }
        };
        Ok(reader()?.with(blocks))
    }
}

/// An inode with everything but its extents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub ino: u64,
    /// The inode itself.
    pub item: InodeItem,
    /// Its names, sorted.
    pub names: Vec<Name>,
    /// Its attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Where it leads, if it is a symbolic link.
    pub target: Option<Vec<u8>>,
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
