//! Encodes entries as records of one inode each, whose numbers are relative to the same record only. So a
//! record can be skipped, compared and copied without being decoded.
//!
//! The layout is documented in `docs/sendshot-file.md`.

use integer_encoding::VarInt;

use crate::format::entry::{
    Entry, Extent, ExtentKind, InodeItem, NODATASUM, Name, TYPE_MASK, Time, Xattr,
};

/// Kind of a record that begins an inode.
pub(crate) const INODE: u8 = 1;
/// Kind of a record that continues the previous record's inode.
pub(crate) const MORE: u8 = 6;

const NAME: u8 = 2;
const XATTR: u8 = 3;
const TARGET: u8 = 4;
const EXTENT: u8 = 5;

/// Flag in an extent's first byte.
const SHARED: u8 = 0x80;

/// Maximum length of a byte string: an extended attribute's value fills at most one node of the tree.
const MAX_BYTES: u64 = 64 * 1024;

/// An entry is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonsense;

/// The values to which the numbers of a record are relative.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    ino: u64,
    extent_end: u64,
    disk_end: u64,
    generation: u64,
}

/// Kind of the next entry in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// An extent.
    Extent,
    /// A name, an attribute or a target.
    Other,
}

/// Returns the kind of the next entry of a record.
pub(crate) fn next(input: &[u8]) -> Option<Next> {
    match input.first()? {
        &EXTENT => Some(Next::Extent),
        _ => Some(Next::Other),
    }
}

/// Whether the next entry of a record is a name.
pub(crate) fn begins_with_name(input: &[u8]) -> bool {
    input.first() == Some(&NAME)
}

/// The fields that decide whether an inode must be decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Glance {
    pub(crate) ino: u64,
    mode: u32,
    pub(crate) flags: u64,
    pub(crate) swap: bool,
}

impl Glance {
    /// Whether it is a file whose data have no checksums, or a swap file.
    pub(crate) fn is_unsummed(&self) -> bool {
        !self.is_dir() && (self.swap || self.flags & NODATASUM != 0)
    }

    /// Decodes the start of the body of a record that begins an inode.
    pub(crate) fn at(mut body: &[u8]) -> Result<Self, Nonsense> {
        Self::take(&mut body)
    }

    fn take(input: &mut &[u8]) -> Result<Self, Nonsense> {
        Ok(Self {
            ino: take_u(input)?,
            mode: u32::try_from(take_u(input)?).map_err(|_| Nonsense)?,
            flags: take_u(input)?,
            swap: take_u8(input)? != 0,
        })
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & TYPE_MASK == crate::format::entry::DIRECTORY
    }
}

/// The frame of a record: its kind, its number of extents and the position of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) extents: u64,
    /// Length in bytes before the body.
    pub(crate) head: usize,
    /// Length of the body in bytes.
    pub(crate) body: usize,
}

impl Frame {
    pub(crate) fn encode(kind: u8, extents: u64, body: usize, out: &mut Vec<u8>) {
        out.push(kind);
        put_u(body as u64, out);
        put_u(extents, out);
    }

    pub(crate) fn decode(input: &[u8]) -> Result<Self, Nonsense> {
        let mut rest = input;
        let kind = take_u8(&mut rest)?;
        let body = usize::try_from(take_u(&mut rest)?).map_err(|_| Nonsense)?;
        let extents = take_u(&mut rest)?;
        if body > rest.len() || (kind != INODE && kind != MORE) {
            return Err(Nonsense);
        }
        Ok(Self {
            kind,
            extents,
            head: input.len() - rest.len(),
            body,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.head + self.body
    }
}

impl Context {
    /// Begins a record with an inode.
    pub(crate) fn begin(ino: u64, inode: &InodeItem, out: &mut Vec<u8>) -> Self {
        put_u(ino, out);
        put_u(u64::from(inode.mode), out);
        put_u(inode.flags, out);
        out.push(u8::from(inode.swap));
        put_u(inode.generation, out);
        put_i(inode.transid.wrapping_sub(inode.generation) as i64, out);
        put_u(inode.size, out);
        put_u(u64::from(inode.uid), out);
        put_u(u64::from(inode.gid), out);
        put_u(inode.rdev, out);
        put_time(inode.mtime, 0, out);
        put_time(inode.atime, inode.mtime.sec, out);
        Self {
            ino,
            generation: inode.generation,
            ..Self::default()
        }
    }

    /// Decodes what [`Context::begin`] wrote.
    pub(crate) fn begun(input: &mut &[u8]) -> Result<(Self, u64, InodeItem), Nonsense> {
        let Glance {
            ino,
            mode,
            flags,
            swap,
        } = Glance::take(input)?;
        let generation = take_u(input)?;
        let transid = generation.wrapping_add(take_i(input)? as u64);
        let size = within_files(take_u(input)?, 0)?;
        let (uid, gid) = (take_u32(input)?, take_u32(input)?);
        let rdev = take_u(input)?;
        let mtime = take_time(0, input)?;
        let atime = take_time(mtime.sec, input)?;
        let inode = InodeItem {
            generation,
            transid,
            size,
            uid,
            gid,
            mode,
            rdev,
            flags,
            atime,
            mtime,
            swap,
        };
        let context = Self {
            ino,
            generation,
            ..Self::default()
        };
        Ok((context, ino, inode))
    }

    /// Begins a record that continues an inode.
    pub(crate) fn go_on(ino: u64, out: &mut Vec<u8>) -> Self {
        put_u(ino, out);
        Self {
            ino,
            ..Self::default()
        }
    }

    /// Decodes what [`Context::go_on`] wrote.
    pub(crate) fn gone_on(input: &mut &[u8]) -> Result<Self, Nonsense> {
        Ok(Self {
            ino: take_u(input)?,
            ..Self::default()
        })
    }

    /// Encodes an entry of the inode; inodes themselves begin a record.
    pub(crate) fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        match entry {
            Entry::Inode(..) => {}
            Entry::Name(name) => {
                out.push(NAME);
                put_i(name.parent.wrapping_sub(self.ino) as i64, out);
                put_bytes(&name.name, out);
            }
            Entry::Xattr(xattr) => {
                out.push(XATTR);
                put_bytes(&xattr.name, out);
                put_bytes(&xattr.value, out);
            }
            Entry::Target(target) => {
                out.push(TARGET);
                put_bytes(target, out);
            }
            Entry::Extent(extent) => self.put_extent(extent, out),
        }
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8]) -> Result<Entry, Nonsense> {
        match take_u8(input)? {
            NAME => {
                let parent = self.ino.wrapping_add(take_i(input)? as u64);
                let name = take_bytes(input)?.to_vec();
                Ok(Entry::Name(Name { parent, name }))
            }
            XATTR => Ok(Entry::Xattr(Xattr {
                name: take_bytes(input)?.to_vec(),
                value: take_bytes(input)?.to_vec(),
            })),
            TARGET => Ok(Entry::Target(take_bytes(input)?.to_vec())),
            EXTENT => self.take_extent(input).map(Entry::Extent),
            _ => Err(Nonsense),
        }
    }

    /// Decodes an extent, whose kind byte is next.
    pub(crate) fn decode_extent(&mut self, input: &mut &[u8]) -> Result<Extent, Nonsense> {
        match take_u8(input)? {
            EXTENT => self.take_extent(input),
            _ => Err(Nonsense),
        }
    }

    /// Passes the directories that name the inode to `each`, as far as this record lists them.
    pub(crate) fn parents(mut self, mut input: &[u8], mut each: impl FnMut(u64)) {
        while begins_with_name(input) {
            match self.decode(&mut input) {
                Ok(Entry::Name(name)) => each(name.parent),
                _ => return,
            }
        }
    }

    /// Passes directory and text of the inode's names to `each`, as far as this record lists them; returns whether
    /// another entry follows the names in this record.
    pub(crate) fn names(
        &self,
        mut input: &[u8],
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<bool, Nonsense> {
        while begins_with_name(input) {
            take_u8(&mut input)?;
            let parent = self.ino.wrapping_add(take_i(&mut input)? as u64);
            each(parent, take_bytes(&mut input)?);
        }
        Ok(!input.is_empty())
    }

    fn put_extent(&mut self, extent: &Extent, out: &mut Vec<u8>) {
        out.push(EXTENT);
        let kind = match extent.kind {
            ExtentKind::Inline => 0,
            ExtentKind::Regular => 1,
            ExtentKind::Prealloc => 2,
        };
        let shared = if extent.is_shared { SHARED } else { 0 };
        out.push(kind | (extent.compression << 2) | shared);
        put_u(extent.offset.wrapping_sub(self.extent_end), out);
        put_u(extent.len, out);
        put_u(extent.ram_bytes.wrapping_sub(extent.len), out);
        put_i(extent.disk_bytenr.wrapping_sub(self.disk_end) as i64, out);
        put_u(extent.disk_len.wrapping_sub(extent.ram_bytes), out);
        put_u(extent.disk_offset, out);
        put_i(extent.generation.wrapping_sub(self.generation) as i64, out);
        put_i(
            extent.extent_generation.wrapping_sub(extent.generation) as i64,
            out,
        );
        put_u(extent.leaf_generation, out);
        self.after_extent(extent);
    }

    fn take_extent(&mut self, input: &mut &[u8]) -> Result<Extent, Nonsense> {
        let flags = take_u8(input)?;
        let kind = match flags & 3 {
            0 => ExtentKind::Inline,
            1 => ExtentKind::Regular,
            2 => ExtentKind::Prealloc,
            _ => return Err(Nonsense),
        };
        let offset = self.extent_end.wrapping_add(take_u(input)?);
        let len = take_u(input)?;
        let ram_bytes = len.wrapping_add(take_u(input)?);
        let disk_bytenr = self.disk_end.wrapping_add(take_i(input)? as u64);
        let disk_len = ram_bytes.wrapping_add(take_u(input)?);
        let disk_offset = take_u(input)?;
        let generation = self.generation.wrapping_add(take_i(input)? as u64);
        let extent = Extent {
            offset,
            len,
            kind,
            compression: (flags & !SHARED) >> 2,
            ram_bytes,
            disk_bytenr,
            disk_len,
            disk_offset,
            generation,
            extent_generation: generation.wrapping_add(take_i(input)? as u64),
            leaf_generation: take_u(input)?,
            is_shared: flags & SHARED != 0,
        };
        within_files(extent.offset, extent.len)?;
        within_files(extent.disk_offset, extent.len)?;
        self.after_extent(&extent);
        Ok(extent)
    }

    fn after_extent(&mut self, extent: &Extent) {
        self.extent_end = extent.offset.wrapping_add(extent.len);
        if extent.disk_bytenr != 0 {
            self.disk_end = extent.disk_bytenr.wrapping_add(extent.disk_len);
        }
        self.generation = extent.generation;
    }
}

/// Checks that a range is within the maximum file size, so that sums cannot overflow.
fn within_files(offset: u64, len: u64) -> Result<u64, Nonsense> {
    const END: u64 = i64::MAX as u64;
    match offset.checked_add(len) {
        Some(end) if end <= END => Ok(offset),
        _ => Err(Nonsense),
    }
}

fn put_u(value: u64, out: &mut Vec<u8>) {
    let mut buffer = [0; 10];
    let len = value.encode_var(&mut buffer);
    out.extend_from_slice(&buffer[..len]);
}

fn put_i(value: i64, out: &mut Vec<u8>) {
    let mut buffer = [0; 10];
    let len = value.encode_var(&mut buffer);
    out.extend_from_slice(&buffer[..len]);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_u(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_time(time: Time, from: i64, out: &mut Vec<u8>) {
    put_i(time.sec.wrapping_sub(from), out);
    put_u(u64::from(time.nsec), out);
}

fn take_u8(input: &mut &[u8]) -> Result<u8, Nonsense> {
    let (first, rest) = input.split_first().ok_or(Nonsense)?;
    *input = rest;
    Ok(*first)
}

fn take_u(input: &mut &[u8]) -> Result<u64, Nonsense> {
    match input.split_first() {
        // Fast path: most numbers are small.
        Some((first, rest)) if *first < 0x80 => {
            *input = rest;
            Ok(u64::from(*first))
        }
        _ => {
            let (value, len) = u64::decode_var(input).ok_or(Nonsense)?;
            *input = input.get(len..).ok_or(Nonsense)?;
            Ok(value)
        }
    }
}

fn take_u32(input: &mut &[u8]) -> Result<u32, Nonsense> {
    u32::try_from(take_u(input)?).map_err(|_| Nonsense)
}

fn take_i(input: &mut &[u8]) -> Result<i64, Nonsense> {
    let (value, len) = i64::decode_var(input).ok_or(Nonsense)?;
    *input = input.get(len..).ok_or(Nonsense)?;
    Ok(value)
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Nonsense> {
    let len = take_u(input)?;
    if len > MAX_BYTES || len > input.len() as u64 {
        return Err(Nonsense);
    }
    let (bytes, rest) = input.split_at(len as usize);
    *input = rest;
    Ok(bytes)
}

fn take_time(from: i64, input: &mut &[u8]) -> Result<Time, Nonsense> {
    Ok(Time {
        sec: from.wrapping_add(take_i(input)?),
        nsec: take_u32(input)?,
    })
}
