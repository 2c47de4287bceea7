//! The sendshot file: written once, read from front to back, refused if anything is wrong.
//!
//! Layout in `docs/sendshot-file.md`: a head, blocks of compressed entries each with its
//! checksum, and a tail with counts and a checksum over everything. A file without a good tail
//! is not a sendshot.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::codec::Context;
use crate::entry::{Entry, Extent, Head, InodeItem, Name, Xattr};
use crate::hashes::Hashes;

/// First bytes of every sendshot.
const MAGIC: &[u8; 8] = b"sendshot";
/// Layout version that this code writes and reads.
pub const VERSION: u32 = 1;
/// Bytes of the head: magic, version, 4 UUIDs, 4 numbers, checksum.
const HEAD_LEN: usize = 8 + 4 + 4 * 16 + 4 * 8 + CHECK_LEN;
/// Bytes of a checksum: BLAKE3, cut; against damage, not against forgery.
const CHECK_LEN: usize = 16;
/// Raw bytes after which a block ends. Larger ones compress hardly better.
const BLOCK: usize = 256 * 1024;
/// Largest block that is read: one entry can exceed [`BLOCK`] by an attribute's value.
const MAX_BLOCK: usize = 1024 * 1024;
/// Level of zstd: the default, beyond which time grows faster than files shrink.
const LEVEL: i32 = 3;
/// Marks the tail, where a block's raw length would stand.
const TAIL: u32 = u32::MAX;

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
    #[error("{}: has layout version {version}, this program reads {VERSION}; upgrade Sendshot", path.display())]
    TooNew {
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
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut out = [0; CHECK_LEN];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    out
}

/// Writes a sendshot.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    whole: blake3::Hasher,
    context: Context,
    block: Vec<u8>,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(out: W, head: &Head) -> io::Result<Self> {
        let mut writer = Self {
            out,
            whole: blake3::Hasher::new(),
            context: Context::default(),
            block: Vec::with_capacity(BLOCK + BLOCK / 4),
            counts: Counts::default(),
        };
        writer.put(&encode_head(head))?;
        Ok(writer)
    }

    /// Adds an entry. They must come in the order that [`Entry`] describes.
    ///
    /// # Errors
    /// The writer's.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Inode(..) => self.counts.inodes += 1,
            Entry::Extent(_) => self.counts.extents += 1,
            Entry::Name(_) | Entry::Xattr(_) | Entry::Target(_) => {}
        }
        self.context.encode(entry, &mut self.block);
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the file and returns what it was written to; nothing is synced.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<(W, Counts)> {
        self.flush()?;
        let mut tail = Vec::new();
        tail.extend_from_slice(&TAIL.to_le_bytes());
        tail.extend_from_slice(&self.counts.inodes.to_le_bytes());
        tail.extend_from_slice(&self.counts.extents.to_le_bytes());
        self.put(&tail)?;
        let whole = self.whole.finalize();
        self.out.write_all(&whole.as_bytes()[..CHECK_LEN])?;
        self.out.flush()?;
        Ok((self.out, self.counts))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.block, LEVEL)?;
        let mut framed = Vec::with_capacity(packed.len() + 8 + CHECK_LEN);
        framed.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        framed.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        framed.extend_from_slice(&check(&packed));
        framed.extend_from_slice(&packed);
        self.put(&framed)?;
        self.block.clear();
        self.context = Context::default();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.out.write_all(bytes)
    }
}

fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_LEN);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    for uuid in [head.wire_uuid, head.fsid, head.uuid, head.parent_uuid] {
        out.extend_from_slice(uuid.as_bytes());
    }
    let numbers = [
        head.ctransid,
        head.otransid,
        head.generation,
        head.taken_at as u64,
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&check(&out));
    out
}

fn decode_head(bytes: &[u8; HEAD_LEN]) -> Head {
    let uuid = |at: usize| {
        let mut raw = [0; 16];
        raw.copy_from_slice(&bytes[12 + at * 16..28 + at * 16]);
        Uuid::from_bytes(raw)
    };
    let number = |at: usize| u64_at(bytes, 76 + at * 8);
    Head {
        wire_uuid: uuid(0),
        fsid: uuid(1),
        uuid: uuid(2),
        parent_uuid: uuid(3),
        ctransid: number(0),
        otransid: number(1),
        generation: number(2),
        taken_at: number(3) as i64,
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

/// A sendshot file that was read through once and found whole.
#[derive(Debug)]
pub struct Sendshot {
    file: File,
    path: PathBuf,
    head: Head,
    counts: Counts,
    hashes: Option<Hashes>,
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
        let mut reader = Reader::new(&file, path)?;
        while reader.block()? {}
        let (head, counts) = (reader.head.clone(), reader.counts);
        drop(reader);
        Ok(Self {
            file,
            path: path.to_owned(),
            head,
            counts,
            hashes: None,
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
        Reader::new(&self.file, &self.path)
    }
}

/// Reads the entries of a sendshot in order, inode by inode.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<R>,
    path: PathBuf,
    head: Head,
    offset: u64,
    whole: blake3::Hasher,
    counts: Counts,
    context: Context,
    block: Vec<u8>,
    at: usize,
    done: bool,
    pending: Option<Entry>,
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

impl<R: Read + Seek> Reader<R> {
    fn new(mut input: R, path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        input.rewind().map_err(io)?;
        let mut input = BufReader::with_capacity(BLOCK, input);
        let mut bytes = [0; HEAD_LEN];
        let foreign = || Error::Foreign {
            path: path.to_owned(),
        };
        input.read_exact(&mut bytes).map_err(|_| foreign())?;
        if &bytes[..8] != MAGIC {
            return Err(foreign());
        }
        let version = u32_at(&bytes, 8);
        if version != VERSION {
            return Err(Error::TooNew {
                path: path.to_owned(),
                version,
            });
        }
        if check(&bytes[..HEAD_LEN - CHECK_LEN]) != bytes[HEAD_LEN - CHECK_LEN..] {
            return Err(Error::Damaged {
                path: path.to_owned(),
                offset: 0,
            });
        }
        let mut whole = blake3::Hasher::new();
        whole.update(&bytes);
        Ok(Self {
            input,
            path: path.to_owned(),
            head: decode_head(&bytes),
            offset: HEAD_LEN as u64,
            whole,
            counts: Counts::default(),
            context: Context::default(),
            block: Vec::new(),
            at: 0,
            done: false,
            pending: None,
        })
    }

    /// The next inode, without its extents; those of the one before are skipped.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_inode(&mut self) -> Result<Option<Inode>, Error> {
        let (ino, item) = loop {
            match self.next_entry()? {
                None => return Ok(None),
                Some(Entry::Inode(ino, item)) => break (ino, item),
                Some(_) => {}
            }
        };
        let mut inode = Inode {
            ino,
            item,
            ..Inode::default()
        };
        loop {
            match self.next_entry()? {
                Some(Entry::Name(name)) => inode.names.push(name),
                Some(Entry::Xattr(xattr)) => inode.xattrs.push(xattr),
                Some(Entry::Target(target)) => inode.target = Some(target),
                other => {
                    self.pending = other;
                    inode.names.sort();
                    inode.xattrs.sort();
                    return Ok(Some(inode));
                }
            }
        }
    }

    /// The next extent of the inode last returned.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_extent(&mut self) -> Result<Option<Extent>, Error> {
        match self.next_entry()? {
            Some(Entry::Extent(extent)) => Ok(Some(extent)),
            other => {
                self.pending = other;
                Ok(None)
            }
        }
    }

    /// The next entry, whatever it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if let Some(entry) = self.pending.take() {
            return Ok(Some(entry));
        }
        while self.at == self.block.len() {
            if !self.block()? {
                return Ok(None);
            }
        }
        let mut input = &self.block[self.at..];
        let before = input.len();
        let entry = self.context.decode(&mut input);
        self.at += before - input.len();
        entry.map(Some).map_err(|_| self.damaged())
    }

    /// Reads the next block; false after the tail.
    fn block(&mut self) -> Result<bool, Error> {
        if self.done {
            return Ok(false);
        }
        let mut frame = [0; 8 + CHECK_LEN];
        self.take(&mut frame[..4])?;
        let raw_len = u32_at(&frame, 0);
        if raw_len == TAIL {
            return self.tail().map(|()| false);
        }
        self.take(&mut frame[4..])?;
        let packed_len = u32_at(&frame, 4) as usize;
        if raw_len as usize > MAX_BLOCK || packed_len > MAX_BLOCK {
            return Err(self.damaged());
        }
        let mut packed = vec![0; packed_len];
        self.take(&mut packed)?;
        if check(&packed) != frame[8..] {
            return Err(self.damaged());
        }
        let block = zstd::bulk::decompress(&packed, raw_len as usize);
        self.block = block.map_err(|_| self.damaged())?;
        if self.block.len() != raw_len as usize {
            return Err(self.damaged());
        }
        self.at = 0;
        self.context = Context::default();
        Ok(true)
    }

    fn tail(&mut self) -> Result<(), Error> {
        let mut counts = [0; 16];
        self.take(&mut counts)?;
        let whole = self.whole.finalize();
        let mut check = [0; CHECK_LEN];
        self.take(&mut check)?;
        if check != whole.as_bytes()[..CHECK_LEN] {
            return Err(self.damaged());
        }
        let mut beyond = [0];
        if self.input.read(&mut beyond).unwrap_or(1) != 0 {
            return Err(self.damaged());
        }
        self.counts = Counts {
            inodes: u64_at(&counts, 0),
            extents: u64_at(&counts, 8),
        };
        self.done = true;
        self.block.clear();
        self.at = 0;
        Ok(())
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.whole.update(bytes);
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged()),
            Err(source) => Err(Error::Io {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn damaged(&self) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            offset: self.offset,
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
