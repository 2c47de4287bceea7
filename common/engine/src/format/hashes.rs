//! Hashes of the blocks of files without checksums (NODATASUM, NOCOW).
//!
//! Their data can change in place, so the extent map alone does not prove what is unchanged: see
//! [`mod@crate::diff::rule`]. A companion file beside the sendshot holds the hashes of the data that was
//! sent, as far as it was read anyway. It is optional: without it, or with fewer hashes than blocks, more is
//! sent. Layout in `docs/sendshot-file.md`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use integer_encoding::{VarInt, VarIntReader};
use sendshot_sys::durable;
use uuid::Uuid;

use crate::format::error::Error;
use crate::format::read_from::ReadFrom;

/// Length of a block in bytes; the last one of a file may be shorter. A single changed page resends its whole
/// block, and 64 KiB of data cost 18 bytes here.
pub const BLOCK: u64 = 64 * 1024;
/// Maximum number of hashes in a companion: 256 GiB of data in 72 MiB. Data beyond that is sent again.
pub const MOST: u64 = 4 << 20;

/// First bytes of every companion.
const MAGIC: &[u8; 8] = b"sendhash";
/// Layout version.
const VERSION: u32 = 1;
const HEAD_LEN: usize = 8 + 4 + 16;
/// End of the list, in place of the difference to the next inode number.
const END: u64 = u64::MAX;
const CHECK_LEN: usize = 16;

/// BLAKE3, truncated to 128 bits.
pub type Hash = [u8; 16];

/// Hashes a block.
pub fn hash(block: &[u8]) -> Hash {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(block).as_bytes()[..16]);
    out
}

/// Returns the name of a sendshot's companion.
pub fn companion(sendshot: &OsStr) -> OsString {
    let mut name = sendshot.to_owned();
    name.push(".hashes");
    name
}

/// Writes a companion. Errors are reported at the end: they must not fail the stream that is generated.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: io::Result<W>,
    whole: blake3::Hasher,
    last: (u64, u64),
    count: u64,
    scratch: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins the companion of the sendshot of the snapshot with this UUID.
    pub fn new(out: W, snapshot: Uuid) -> Self {
        let mut writer = Self::on(Ok(out));
        writer.scratch.extend_from_slice(MAGIC);
        writer.scratch.extend_from_slice(&VERSION.to_le_bytes());
        writer.scratch.extend_from_slice(snapshot.as_bytes());
        writer.put();
        writer
    }

    fn on(out: io::Result<W>) -> Self {
        Self {
            out,
            whole: blake3::Hasher::new(),
            last: (0, 0),
            count: 0,
            scratch: Vec::new(),
        }
    }

    /// Adds a hash. Hashes must come by inode number, then by block. Those beyond [`MOST`] are dropped.
    pub fn add(&mut self, ino: u64, block: u64, hash: &Hash) {
        if self.count == MOST || (self.count > 0 && (ino, block) <= self.last) {
            return;
        }
        let (last_ino, last_block) = self.last;
        let before = if ino == last_ino { last_block } else { 0 };
        self.number(ino - last_ino);
        self.number(block - before);
        self.scratch.extend_from_slice(hash);
        self.last = (ino, block);
        self.count += 1;
        self.put();
    }

    /// Completes the file and returns its output and the number of hashes; nothing is synced.
    ///
    /// # Errors
    /// The first I/O error of the output.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.number(END);
        self.scratch.extend_from_slice(&self.count.to_le_bytes());
        self.put();
        let whole = self.whole.finalize();
        let mut out = self.out?;
        out.write_all(&whole.as_bytes()[..CHECK_LEN])?;
        out.flush()?;
        Ok((out, self.count))
    }

    fn number(&mut self, number: u64) {
        let mut buffer = [0; 10];
        let len = number.encode_var(&mut buffer);
        self.scratch.extend_from_slice(&buffer[..len]);
    }

    fn put(&mut self) {
        self.whole.update(&self.scratch);
        if let Ok(out) = &mut self.out
            && let Err(e) = out.write_all(&self.scratch)
        {
            self.out = Err(e);
        }
        self.scratch.clear();
    }
}

/// A companion that was read once and checked.
#[derive(Debug, Clone)]
pub struct Hashes {
    file: Arc<File>,
    path: PathBuf,
    count: u64,
}

impl Hashes {
    /// Checks an opened file, which must belong to the snapshot with this UUID.
    ///
    /// # Errors
    /// [`Error`] for read errors and invalid files.
    pub fn from_file(file: File, path: &Path, snapshot: Uuid) -> Result<Self, Error> {
        let hashes = Self {
            file: Arc::new(file),
            path: path.to_owned(),
            count: 0,
        };
        let damaged = || Error::Damaged {
            path: path.to_owned(),
            offset: 0,
        };
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let mut head = [0; HEAD_LEN];
        hashes
            .file
            .read_exact_at(&mut head, 0)
            .map_err(|_| Error::Foreign {
                path: path.to_owned(),
            })?;
        if head[..8] != *MAGIC || head[12..] != *snapshot.as_bytes() {
            return Err(Error::Foreign {
                path: path.to_owned(),
            });
        }
        if head[8..12] != VERSION.to_le_bytes() {
            return Err(damaged());
        }
        let len = hashes.file.metadata().map_err(io)?.len();
        let body = len.checked_sub(CHECK_LEN as u64).ok_or_else(damaged)?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(hashes.reader(0).take(body))
            .map_err(io)?;
        let mut check = [0; CHECK_LEN];
        hashes.file.read_exact_at(&mut check, body).map_err(io)?;
        if check != hasher.finalize().as_bytes()[..CHECK_LEN] {
            return Err(damaged());
        }
        let mut count = [0; 8];
        let at = body.checked_sub(8).ok_or_else(damaged)?;
        hashes.file.read_exact_at(&mut count, at).map_err(io)?;
        Ok(Self {
            count: u64::from_le_bytes(count),
            ..hashes
        })
    }

    /// Returns the number of hashes.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads from the beginning.
    ///
    /// # Errors
    /// [`Error::Io`] for read errors.
    pub(crate) fn cursor(&self) -> Result<Cursor, Error> {
        let mut cursor = Cursor {
            input: BufReader::with_capacity(1 << 16, self.reader(HEAD_LEN as u64)),
            path: self.path.clone(),
            last: (0, 0),
            next: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    fn reader(&self, at: u64) -> ReadFrom<Arc<File>> {
        ReadFrom::new(Arc::clone(&self.file), at)
    }
}

/// Finds hashes in ascending order.
#[derive(Debug)]
pub(crate) struct Cursor {
    input: BufReader<ReadFrom<Arc<File>>>,
    path: PathBuf,
    last: (u64, u64),
    next: Option<((u64, u64), Hash)>,
}

impl Cursor {
    /// Returns the hash of a block. Queries must be in ascending order.
    pub(crate) fn find(&mut self, ino: u64, block: u64) -> Result<Option<Hash>, Error> {
        while let Some((at, hash)) = self.next {
            if at >= (ino, block) {
                return Ok((at == (ino, block)).then_some(hash));
            }
            self.advance()?;
        }
        Ok(None)
    }

    /// Returns the next block of this inode.
    pub(crate) fn next_of(&mut self, ino: u64) -> Result<Option<(u64, Hash)>, Error> {
        self.find(ino, 0)?;
        match self.next {
            Some(((at, block), hash)) if at == ino => {
                self.advance()?;
                Ok(Some((block, hash)))
            }
            _ => Ok(None),
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.next = self.read().map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok(())
    }

    fn read(&mut self) -> io::Result<Option<((u64, u64), Hash)>> {
        let inos: u64 = self.input.read_varint()?;
        if inos == END {
            return Ok(None);
        }
        let blocks: u64 = self.input.read_varint()?;
        let (ino, block) = self.last;
        let before = if inos == 0 { block } else { 0 };
        let overflow = || io::Error::from(io::ErrorKind::InvalidData);
        let ino = ino.checked_add(inos).ok_or_else(overflow)?;
        let block = before.checked_add(blocks).ok_or_else(overflow)?;
        let mut hash = [0; 16];
        self.input.read_exact(&mut hash)?;
        self.last = (ino, block);
        Ok(Some((self.last, hash)))
    }
}

/// Lets `fill` write the companion of the sendshot `name` in `dir`, which is whole or absent and replaces the
/// existing one. If there is nothing to write, the existing one stays.
///
/// # Errors
/// The outer one is that of `fill`. The inner one is an I/O error: `fill` has completed its work then, but
/// its hashes are not saved.
pub fn save<E>(
    dir: impl AsFd,
    sendshot: &OsStr,
    snapshot: Uuid,
    fill: impl FnOnce(&mut Writer<BufWriter<File>>) -> Result<(), E>,
) -> Result<io::Result<()>, E> {
    let mut fill = Some(fill);
    let mut filled = None;
    let saved = durable::stream_at(&dir, &companion(sendshot), durable::PRIVATE, |file| {
        let mut writer = Writer::new(BufWriter::new(file), snapshot);
        filled = fill.take().map(|fill| fill(&mut writer));
        let (out, count) = writer.finish()?;
        if count == 0 || !matches!(filled, Some(Ok(()))) {
            return Err(Unsaved::Unwanted);
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, ()))
    });
    let saved = match saved {
        Ok(()) | Err(Unsaved::Unwanted) => Ok(()),
        Err(Unsaved::Io(error)) => Err(error),
    };
    match (filled, fill, saved) {
        (Some(filled), _, saved) => filled.map(|()| saved),
        (None, Some(fill), Err(error)) => {
            let mut nowhere = Writer::on(Err(io::Error::from(error.kind())));
            fill(&mut nowhere).map(|()| Err(error))
        }
        (None, _, saved) => Ok(saved),
    }
}

/// Reason why there is no new companion.
enum Unsaved {
    Unwanted,
    Io(io::Error),
}

impl From<io::Error> for Unsaved {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens the companion of the sendshot `name` in `dir`, if it has a valid one. A companion that is damaged or
/// belongs to another snapshot counts as none: it only avoids sending data.
pub fn open_at(dir: impl AsFd, sendshot: &OsStr, snapshot: Uuid) -> Option<Hashes> {
    let name = companion(sendshot);
    let file = durable::open_file(dir, &name).ok()??;
    Hashes::from_file(file, Path::new(&name), snapshot).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: Uuid = Uuid::from_u128(7);

    fn add_three(hashes: &mut Writer<BufWriter<File>>) -> io::Result<()> {
        for (ino, block) in [(300, 1), (300, 2), (301, 0)] {
            hashes.add(ino, block, &hash(&[block as u8]));
        }
        Ok(())
    }

    #[test]
    fn saved_hashes_are_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, name) = (File::open(dir.path()).unwrap(), OsStr::new("s"));
        save(&fd, name, SNAPSHOT, add_three).unwrap().unwrap();
        let hashes = open_at(&fd, name, SNAPSHOT).unwrap();
        assert_eq!(hashes.count(), 3);
        let mut cursor = hashes.cursor().unwrap();
        assert_eq!(cursor.find(300, 0).unwrap(), None);
        assert_eq!(cursor.find(300, 2).unwrap(), Some(hash(&[2])));
        assert_eq!(cursor.next_of(301).unwrap(), Some((0, hash(&[0]))));
        assert!(open_at(&fd, name, Uuid::from_u128(8)).is_none());
    }

    #[test]
    fn a_damaged_companion_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, name) = (File::open(dir.path()).unwrap(), OsStr::new("s"));
        save(&fd, name, SNAPSHOT, add_three).unwrap().unwrap();
        let path = dir.path().join("s.hashes");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(open_at(&fd, name, SNAPSHOT).is_none(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(open_at(&fd, name, SNAPSHOT).is_none(), "cut at {at}");
        }
    }

    /// A full disk must not fail a push whose stream is complete.
    #[test]
    fn a_save_error_does_not_stop_the_caller() {
        let nowhere = File::open("/proc").unwrap();
        let mut filled = false;
        let saved = save(nowhere, OsStr::new("s"), SNAPSHOT, |hashes| {
            filled = true;
            add_three(hashes)
        });
        assert!(saved.unwrap().is_err() && filled);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = Writer::new(full, SNAPSHOT);
        writer.add(300, 1, &hash(b"x"));
        assert!(writer.finish().is_err());
    }

    #[test]
    fn a_failed_stream_leaves_the_known_states() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, name) = (File::open(dir.path()).unwrap(), OsStr::new("s"));
        save(&fd, name, SNAPSHOT, add_three).unwrap().unwrap();
        let failed = save(&fd, name, SNAPSHOT, |hashes| {
            hashes.add(400, 1, &hash(b"y"));
            Err("the connection broke")
        });
        assert_eq!(failed.unwrap_err(), "the connection broke");
        assert_eq!(open_at(&fd, name, SNAPSHOT).unwrap().count(), 3);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
