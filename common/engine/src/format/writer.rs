//! Writes a sendshot file.

use std::io::{self, Write};

use crate::format::codec::{Context, Frame, INODE, MORE};
use crate::format::entry::{Entry, Head};
use crate::format::layout::BLOCK;
use crate::format::layout::BlockFrame;
use crate::format::layout::CHECK_LEN;
use crate::format::layout::Counts;
use crate::format::layout::TAIL;
use crate::format::layout::check;
use crate::format::layout::encode_head;

/// Compression level of zstd. Higher levels take longer than the space they save is worth.
const LEVEL: i32 = 1;
/// Length of a record in bytes after which the inode continues in another one.
const RECORD: usize = 32 * 1024;

/// Least length of a block that is ended early, so that the next one can be copied as it is stored: many short blocks would
/// compress badly.
const SHORT_BLOCK: usize = BLOCK / 4;

/// A block of another file.
#[derive(Debug)]
struct Copied {
    number: u64,
    frame: BlockFrame,
    packed: Vec<u8>,
    /// Its decoded length.
    len: usize,
}

/// Writes a sendshot.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    whole: blake3::Hasher,
    block: Vec<u8>,
    /// The block that is being copied, as it is stored in the other file, as long as `block` is its beginning.
    copied: Option<Copied>,
    counts: Counts,
    /// The current record, without its frame.
    record: Vec<u8>,
    kind: u8,
    extents: u64,
    ino: u64,
    context: Context,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub fn new(out: W, head: &Head) -> io::Result<Self> {
        let mut writer = Self {
            out,
            whole: blake3::Hasher::new(),
            block: Vec::with_capacity(BLOCK + BLOCK / 4),
            copied: None,
            counts: Counts::default(),
            record: Vec::with_capacity(2 * RECORD),
            kind: MORE,
            extents: 0,
            ino: 0,
            context: Context::default(),
        };
        writer.put(&encode_head(head))?;
        Ok(writer)
    }

    /// Adds an entry. Entries must come in the order that [`Entry`] describes.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        if let Entry::Inode(ino, inode) = entry {
            self.close()?;
            self.kind = INODE;
            self.ino = *ino;
            self.context = Context::begin(*ino, inode, &mut self.record);
            self.counts.inodes += 1;
            return Ok(());
        }
        if self.record.len() >= RECORD {
            self.close()?;
        }
        if self.record.is_empty() {
            self.kind = MORE;
            self.context = Context::go_on(self.ino, &mut self.record);
        }
        if let Entry::Extent(_) = entry {
            self.extents += 1;
        }
        self.context.encode(entry, &mut self.record);
        Ok(())
    }

    /// Adds a whole record of another sendshot unchanged. It begins at the byte `at` of the block with this number there.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub(crate) fn copy(
        &mut self,
        frame: Frame,
        record: &[u8],
        (number, at): (u64, usize),
    ) -> io::Result<()> {
        self.close()?;
        // Records before it were left out.
        let follows = |copied: &Copied| copied.number == number && at == self.block.len();
        if !self.copied.as_ref().is_some_and(follows) {
            self.copied = None;
        }
        self.counts.inodes += u64::from(frame.kind == INODE);
        self.counts.extents = self.counts.extents.saturating_add(frame.extents);
        self.block.extend_from_slice(record);
        self.flush_if_full()
    }

    /// Begins to copy a block of another file, with this number there: `packed` as it is stored, after `frame`, and decoded
    /// `len` bytes long.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub(crate) fn begin_block(
        &mut self,
        number: u64,
        frame: BlockFrame,
        packed: &[u8],
        len: usize,
    ) -> io::Result<()> {
        self.close()?;
        if self.block.len() >= SHORT_BLOCK {
            self.flush()?;
        }
        self.copied = self.block.is_empty().then(|| Copied {
            number,
            frame,
            packed: packed.to_vec(),
            len,
        });
        Ok(())
    }

    /// Ends the current record.
    fn close(&mut self) -> io::Result<()> {
        if self.record.is_empty() {
            return Ok(());
        }
        self.counts.extents += self.extents;
        self.copied = None;
        Frame::encode(self.kind, self.extents, self.record.len(), &mut self.block);
        self.block.append(&mut self.record);
        self.extents = 0;
        self.flush_if_full()
    }

    /// Completes the file and returns its output; nothing is synced.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub fn finish(mut self) -> io::Result<(W, Counts)> {
        self.close()?;
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

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        if let Some(copied) = self.copied.take()
            && copied.len == self.block.len()
        {
            self.block.clear();
            return self.block(&copied.frame, &copied.packed);
        }
        let packed = zstd::bulk::compress(&self.block, LEVEL)?;
        let mut frame = Vec::with_capacity(8 + CHECK_LEN);
        frame.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        frame.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        frame.extend_from_slice(&check(&packed));
        self.put(&frame)?;
        self.block.clear();
        self.out.write_all(&packed)
    }

    /// Writes a block as it is stored in another file.
    ///
    /// # Errors
    /// I/O errors of the output.
    pub(crate) fn block(&mut self, frame: &BlockFrame, packed: &[u8]) -> io::Result<()> {
        self.put(frame)?;
        self.out.write_all(packed)
    }

    /// Takes the counts of another file of which all blocks are copied.
    pub(crate) fn set_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Writes bytes that the final checksum covers; blocks have their own.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.out.write_all(bytes)
    }
}
