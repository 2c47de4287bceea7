//! Reads a sendshot file record by record, and inode by inode.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::codec::{self, Context, Frame, Glance, INODE, MORE, Next, Nonsense};
use crate::format::entry::Inode;
use crate::format::entry::{Entry, Extent, Head};
use crate::format::error::Error;
use crate::format::layout::BLOCK;
use crate::format::layout::BlockFrame;
use crate::format::layout::CHECK_LEN;
use crate::format::layout::Counts;
use crate::format::layout::HEAD_LEN;
use crate::format::layout::MAGIC;
use crate::format::layout::MAX_BLOCK;
use crate::format::layout::MAX_HEAD_LEN;
use crate::format::layout::TAIL;
use crate::format::layout::VERSION;
use crate::format::layout::check;
use crate::format::layout::decode_head;
use crate::format::layout::head_len;
use crate::format::layout::u32_at;
use crate::format::layout::u64_at;
use crate::format::verified::FileState;
use crate::format::writer::Writer;

/// The decoded blocks of a sendshot.
pub(crate) type Blocks = Arc<Vec<Arc<Vec<u8>>>>;

/// Reads the entries of a sendshot in order, inode by inode.
#[derive(Debug)]
pub struct Reader<R> {
    input: BufReader<R>,
    path: PathBuf,
    head: Head,
    head_len: usize,
    offset: u64,
    packed: Vec<u8>,
    /// The frame of the block in `packed`.
    packed_frame: BlockFrame,
    /// How many blocks were read from the file.
    read: usize,
    /// How many blocks were begun.
    number: u64,
    block: Arc<Vec<u8>>,
    /// All blocks, if they are in memory, and the index of the next.
    known: Option<(Blocks, usize)>,
    /// Position in the block.
    at: usize,
    /// End of the current record in the block.
    end: usize,
    /// The frame that begins there, if it was already decoded.
    ahead: Option<Frame>,
    context: Context,
    done: bool,
    /// The state in which the file was checked before.
    verified: Option<FileState>,
}

impl<R: Read + Seek> Reader<R> {
    pub(crate) fn new(mut input: R, path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        input.rewind().map_err(io)?;
        let mut input = BufReader::with_capacity(BLOCK, input);
        let mut bytes = [0; MAX_HEAD_LEN];
        let foreign = || Error::Foreign {
            path: path.to_owned(),
        };
        let shortest = &mut bytes[..HEAD_LEN];
        input.read_exact(shortest).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::IsADirectory => foreign(),
            _ => io(e),
        })?;
        if &bytes[..8] != MAGIC {
            return Err(foreign());
        }
        let (path, version) = (path.to_owned(), u32_at(&bytes, 8));
        let Some(len) = head_len(version) else {
            return Err(match version > VERSION {
                true => Error::TooNew { path, version },
                false => Error::TooOld { path, version },
            });
        };
        let rest = input.read_exact(&mut bytes[HEAD_LEN..len]);
        let rest = match rest {
            Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(Error::Io { path, source });
            }
            rest => rest,
        };
        let (head, sum) = bytes[..len].split_at(len - CHECK_LEN);
        if rest.is_err() || check(head) != *sum {
            return Err(Error::Damaged { path, offset: 0 });
        }
        Ok(Self {
            input,
            path,
            head: decode_head(head),
            head_len: len,
            offset: len as u64,
            packed: Vec::new(),
            packed_frame: [0; 8 + CHECK_LEN],
            read: 0,
            number: 0,
            block: Arc::default(),
            known: None,
            at: 0,
            end: 0,
            ahead: None,
            context: Context::default(),
            done: false,
            verified: None,
        })
    }

    /// Forgets that the file was checked in this state if it has a fault all the same.
    pub(super) fn verified(self, state: Option<FileState>) -> Self {
        Self {
            verified: state,
            ..self
        }
    }

    /// Takes blocks from memory instead of the file.
    pub(crate) fn with(self, blocks: Blocks) -> Self {
        Self {
            known: Some((blocks, 0)),
            ..self
        }
    }

    /// Decodes all blocks.
    pub(crate) fn blocks(mut self) -> Result<Blocks, Error> {
        let mut blocks = Vec::new();
        while self.next_block()? {
            blocks.push(std::mem::take(&mut self.block));
        }
        Ok(Arc::new(blocks))
    }

    /// Reads all of the file and checks that it is whole. Also returns the total length of its decoded blocks
    /// in bytes.
    pub(crate) fn check(mut self) -> Result<(Head, Counts, u64), Error> {
        let mut whole = blake3::Hasher::new();
        self.input.rewind().map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        let mut head = [0; MAX_HEAD_LEN];
        let head = &mut head[..self.head_len];
        self.take(head)?;
        whole.update(head);
        self.offset = self.head_len as u64;
        let mut decoded = 0;
        while let Some((frame, raw_len)) = self.frame()? {
            whole.update(&frame);
            decoded += raw_len as u64;
        }
        whole.update(&TAIL.to_le_bytes());
        let mut counts = [0; 16];
        self.take(&mut counts)?;
        whole.update(&counts);
        let mut check = [0; CHECK_LEN];
        self.take(&mut check)?;
        let mut beyond = [0];
        let is_whole = check == whole.finalize().as_bytes()[..CHECK_LEN];
        if !is_whole || self.input.read(&mut beyond).unwrap_or(1) != 0 {
            return Err(self.damaged());
        }
        let counts = Counts {
            inodes: u64_at(&counts, 0),
            extents: u64_at(&counts, 8),
        };
        Ok((self.head, counts, decoded))
    }

    /// Returns the next inode, without its extents; the previous inode's remaining ones are skipped.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_inode(&mut self) -> Result<Option<Inode>, Error> {
        if !self.seek_inode()? {
            return Ok(None);
        }
        let Some(Entry::Inode(ino, item)) = self.open()? else {
            return Err(self.damaged());
        };
        let mut inode = Inode {
            ino,
            item,
            ..Inode::default()
        };
        while self.next_of_inode()? == Some(Next::Other) {
            match self.decode(Context::decode)? {
                Entry::Name(name) => inode.names.push(name),
                Entry::Xattr(xattr) => inode.xattrs.push(xattr),
                Entry::Target(target) => inode.target = Some(target),
                Entry::Inode(..) | Entry::Extent(_) => return Err(self.damaged()),
            }
        }
        Ok(Some(inode))
    }

    /// Returns the next extent of the inode last returned.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_extent(&mut self) -> Result<Option<Extent>, Error> {
        match self.next_of_inode()? {
            Some(Next::Extent) => self.decode(Context::decode_extent).map(Some),
            Some(Next::Other) | None => Ok(None),
        }
    }

    /// Returns the next entry of any kind.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        while self.at == self.end {
            if self.frame_ahead()?.is_none() {
                return Ok(None);
            }
            if let Some(entry) = self.open()? {
                return Ok(Some(entry));
            }
        }
        self.decode(Context::decode).map(Some)
    }

    /// Returns the kind of the current inode's next entry, in this record or the next.
    fn next_of_inode(&mut self) -> Result<Option<Next>, Error> {
        while self.at == self.end {
            match self.frame_ahead()? {
                Some(frame) if frame.kind == MORE => self.open()?,
                _ => return Ok(None),
            };
        }
        Ok(codec::next(&self.block[self.at..self.end]))
    }

    fn decode<T>(
        &mut self,
        take: impl FnOnce(&mut Context, &mut &[u8]) -> Result<T, Nonsense>,
    ) -> Result<T, Error> {
        let mut input = &self.block[self.at..self.end];
        let taken = take(&mut self.context, &mut input);
        self.at = self.end - input.len();
        taken.map_err(|Nonsense| self.damaged())
    }

    /// Skips to the next record that begins an inode; false at the end.
    fn seek_inode(&mut self) -> Result<bool, Error> {
        self.at = self.end;
        while let Some(frame) = self.frame_ahead()? {
            if frame.kind == INODE {
                return Ok(true);
            }
            self.skip(frame);
        }
        Ok(false)
    }

    /// Returns the frame of the next record, after the current one was read completely.
    #[inline]
    fn frame_ahead(&mut self) -> Result<Option<Frame>, Error> {
        match self.ahead {
            Some(frame) => Ok(Some(frame)),
            None => self.find_frame(),
        }
    }

    fn find_frame(&mut self) -> Result<Option<Frame>, Error> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(None);
            }
        }
        match Frame::decode(&self.block[self.at..]) {
            Ok(frame) => {
                self.ahead = Some(frame);
                Ok(self.ahead)
            }
            Err(Nonsense) => Err(self.damaged()),
        }
    }

    fn skip(&mut self, frame: Frame) {
        self.at += frame.len();
        self.end = self.at;
        self.ahead = None;
    }

    /// Opens the next record, which [`Self::frame_ahead`] has found; returns the inode that it begins.
    fn open(&mut self) -> Result<Option<Entry>, Error> {
        let Some(frame) = self.frame_ahead()? else {
            return Ok(None);
        };
        self.end = self.at + frame.len();
        self.at += frame.head;
        self.ahead = None;
        if frame.kind == INODE {
            let begun = self.decode(|context, input| {
                let (begun, ino, item) = Context::begun(input)?;
                *context = begun;
                Ok(Entry::Inode(ino, item))
            });
            return begun.map(Some);
        }
        self.decode(|context, input| {
            *context = Context::gone_on(input)?;
            Ok(())
        })?;
        Ok(None)
    }

    /// Returns the deciding fields of the next inode without consuming it.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn glance(&mut self) -> Result<Option<Glance>, Error> {
        if !self.seek_inode()? {
            return Ok(None);
        }
        let record = self.record_ahead()?.1;
        let glance = Glance::at(record);
        glance.map(Some).map_err(|Nonsense| self.damaged())
    }

    /// Skips the next inode's record.
    pub(crate) fn skip_inode(&mut self) -> Result<(), Error> {
        let (frame, _) = self.record_ahead()?;
        self.skip(frame);
        Ok(())
    }

    /// Returns frame and body of the next record.
    fn record_ahead(&mut self) -> Result<(Frame, &[u8]), Error> {
        match self.frame_ahead()? {
            Some(frame) => {
                let (from, to) = (self.at + frame.head, self.at + frame.len());
                Ok((frame, &self.block[from..to]))
            }
            None => Err(self.damaged()),
        }
    }

    /// Passes the directories that name the next inode to `each` and returns the inode's generation. Of an
    /// inode with very many names not all may be listed.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn parents_ahead(&mut self, each: impl FnMut(u64)) -> Result<u64, Error> {
        let mut body = self.record_ahead()?.1;
        match Context::begun(&mut body) {
            Ok((context, _, item)) => {
                context.parents(body, each);
                Ok(item.generation)
            }
            Err(Nonsense) => Err(self.damaged()),
        }
    }

    /// Passes directory and text of the next inode's names to `each` without consuming them. Returns false if
    /// there may be further names in another record.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn peek_names(&mut self, each: impl FnMut(u64, &[u8])) -> Result<bool, Error> {
        let mut body = self.record_ahead()?.1;
        let names = Context::begun(&mut body).and_then(|(context, ..)| context.names(body, each));
        names.map_err(|Nonsense| self.damaged())
    }

    /// Passes the directories of all names of the next inode to `each`, and skips its names.
    fn names_ahead(&mut self, mut each: impl FnMut(u64)) -> Result<(), Error> {
        self.parents_ahead(&mut each)?;
        self.skip_inode()?;
        while let Some(frame) = self.frame_ahead()?.filter(|frame| frame.kind == MORE) {
            let mut body = self.record_ahead()?.1;
            match Context::gone_on(&mut body) {
                Ok(context) if codec::begins_with_name(body) => context.parents(body, &mut each),
                // Names precede the other entries.
                Ok(_) => break,
                Err(Nonsense) => return Err(self.damaged()),
            }
            self.skip(frame);
        }
        Ok(())
    }

    /// Looks at all inodes.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn survey(mut self) -> Result<Survey, Error> {
        let (mut dirs, mut unsummed) = (DirectoriesSeen::default(), false);
        while let Some(glance) = self.glance()? {
            match glance.is_dir() {
                true => dirs.add(glance.ino),
                false => unsummed |= glance.is_unsummed(),
            }
            self.names_ahead(|parent| dirs.named(parent, glance.ino))?;
        }
        Ok(Survey {
            directories: dirs.dirs.len() as u64,
            orphan: dirs.missing(),
            unsummed,
        })
    }

    /// Copies all blocks as they are stored.
    ///
    /// # Errors
    /// See [`Error`]; the inner result has the writer's I/O errors.
    pub(crate) fn copy_blocks<W: Write>(
        &mut self,
        to: &mut Writer<W>,
    ) -> Result<io::Result<()>, Error> {
        while let Some((frame, _)) = self.frame()? {
            if let Err(e) = to.block(&frame, &self.packed) {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    /// Whether the next record is the first of its block.
    #[cfg(test)]
    pub(crate) fn begins_block(&self) -> bool {
        self.at == 0
    }

    /// The identity of the snapshot.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the current block as it is stored.
    fn packed(&mut self) -> Result<(BlockFrame, &[u8]), Error> {
        // Blocks that are in memory were not read from the file, which is at an earlier one.
        while let Some((_, next)) = &self.known
            && self.read < *next
        {
            if self.frame()?.is_none() {
                return Err(self.damaged());
            }
        }
        Ok((self.packed_frame, &self.packed))
    }

    /// Copies the next inode with all its records. A block that is copied completely is not compressed again.
    ///
    /// # Errors
    /// See [`Error`]; the inner result has the writer's I/O errors.
    pub(crate) fn copy<W: Write>(&mut self, to: &mut Writer<W>) -> Result<io::Result<()>, Error> {
        loop {
            let Some(frame) = self.frame_ahead()? else {
                return Ok(Ok(()));
            };
            if self.at == 0 {
                let (number, len) = (self.number, self.block.len());
                let (frame, packed) = self.packed()?;
                if let Err(e) = to.begin_block(number, frame, packed, len) {
                    return Ok(Err(e));
                }
            }
            let record = &self.block[self.at..self.at + frame.len()];
            if let Err(e) = to.copy(frame, record, (self.number, self.at)) {
                return Ok(Err(e));
            }
            self.skip(frame);
            match self.frame_ahead()? {
                Some(frame) if frame.kind == MORE => {}
                _ => return Ok(Ok(())),
            }
        }
    }

    /// Reads the next block; false after the last.
    fn next_block(&mut self) -> Result<bool, Error> {
        let next = match &mut self.known {
            Some((blocks, next)) => {
                let block = blocks.get(*next).cloned();
                *next += 1;
                block
            }
            None if self.done => None,
            None => self.decode_block()?,
        };
        (self.at, self.end) = (0, 0);
        self.number += 1;
        self.done = next.is_none();
        self.block = next.unwrap_or_default();
        Ok(!self.done)
    }

    fn decode_block(&mut self) -> Result<Option<Arc<Vec<u8>>>, Error> {
        let Some((_, raw_len)) = self.frame()? else {
            return Ok(None);
        };
        let mut block = std::mem::take(&mut self.block);
        // This is the only reference, unless the block was handed out.
        let bytes = Arc::make_mut(&mut block);
        bytes.resize(raw_len, 0);
        let decoded = zstd::bulk::decompress_to_buffer(&self.packed, &mut bytes[..]);
        if decoded.ok() != Some(raw_len) {
            return Err(self.damaged());
        }
        Ok(Some(block))
    }

    /// Reads the next block as it is stored, and its raw length; `None` at the tail.
    pub(crate) fn frame(&mut self) -> Result<Option<(BlockFrame, usize)>, Error> {
        let mut frame = [0; 8 + CHECK_LEN];
        self.take(&mut frame[..4])?;
        let raw_len = u32_at(&frame, 0);
        if raw_len == TAIL {
            return Ok(None);
        }
        self.take(&mut frame[4..])?;
        let (raw_len, packed_len) = (raw_len as usize, u32_at(&frame, 4) as usize);
        if raw_len > MAX_BLOCK || packed_len > MAX_BLOCK {
            return Err(self.damaged());
        }
        let mut packed = std::mem::take(&mut self.packed);
        packed.resize(packed_len, 0);
        let taken = self.take(&mut packed);
        let is_whole = check(&packed) == frame[8..];
        self.packed = packed;
        taken?;
        if !is_whole {
            return Err(self.damaged());
        }
        self.packed_frame = frame;
        self.read += 1;
        Ok(Some((frame, raw_len)))
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged()),
            Err(source) => {
                self.doubt();
                Err(Error::Io {
                    path: self.path.clone(),
                    source,
                })
            }
        }
    }

    fn doubt(&self) {
        if let Some(state) = &self.verified {
            state.forget();
        }
    }

    fn damaged(&self) -> Error {
        self.doubt();
        Error::Damaged {
            path: self.path.clone(),
            offset: self.offset,
        }
    }
}

/// What was found in all inodes of a file.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Number of directories.
    pub(crate) directories: u64,
    /// The first inode with a name in no directory.
    pub(crate) orphan: Option<u64>,
    /// Whether there are files without checksums, or swap files.
    pub(crate) unsummed: bool,
}

/// The directories of a file, and those that its names need. Inodes are in the order of their numbers, so a
/// needed directory was either seen before or comes later.
#[derive(Debug, Default)]
struct DirectoriesSeen {
    /// Numbers of directories, ascending.
    dirs: Vec<u64>,
    /// The directory last found: adjacent inodes often share theirs.
    last: Option<u64>,
    /// Directories that must still come, each with an inode that needs it.
    wanted: BTreeMap<u64, u64>,
    /// An inode whose directory did not come.
    orphan: Option<u64>,
}

impl DirectoriesSeen {
    fn add(&mut self, ino: u64) {
        self.dirs.push(ino);
    }

    fn named(&mut self, parent: u64, ino: u64) {
        if self.last == Some(parent) {
            return;
        }
        if parent > ino {
            self.wanted.entry(parent).or_insert(ino);
        } else if self.dirs.binary_search(&parent).is_ok() {
            self.last = Some(parent);
        } else {
            self.orphan.get_or_insert(ino);
        }
    }

    fn missing(self) -> Option<u64> {
        let is_missing = |(dir, ino): (&u64, &u64)| match self.dirs.binary_search(dir) {
            Ok(_) => None,
            Err(_) => Some(*ino),
        };
        let later = self.wanted.iter().filter_map(is_missing).min();
        self.orphan.into_iter().chain(later).min()
    }
}

/// Skips inodes with byte-identical records in both files, unless they are of interest by themselves. The
/// rest of the current inodes is skipped first.
///
/// # Errors
/// See [`Error`].
pub(crate) fn skip_same<A: Read + Seek, B: Read + Seek>(
    a: &mut Reader<A>,
    b: &mut Reader<B>,
    is_of_interest: impl Fn(&Glance) -> bool,
) -> Result<(), Error> {
    while a.seek_inode()? && b.seek_inode()? {
        let (a_frame, record) = a.record_ahead()?;
        let (b_frame, other) = b.record_ahead()?;
        if record != other {
            break;
        }
        match Glance::at(record) {
            Ok(glance) if is_of_interest(&glance) => break,
            Ok(_) => {}
            Err(Nonsense) => return Err(a.damaged()),
        }
        a.skip(a_frame);
        b.skip(b_frame);
    }
    Ok(())
}
