//! Entries as bytes: small numbers, most of them as differences to the entry before.
//!
//! The layout is documented in `docs/sendshot-file.md`.

use integer_encoding::VarInt;

use crate::entry::{Entry, Extent, ExtentKind, InodeItem, Name, Time, Xattr};

const INODE: u8 = 1;
const NAME: u8 = 2;
const XATTR: u8 = 3;
const TARGET: u8 = 4;
const EXTENT: u8 = 5;

/// In an extent's first byte.
const SHARED: u8 = 0x80;

/// Longest byte string of an entry: an extended attribute's value fills at most a node.
const MAX_BYTES: u64 = 64 * 1024;

/// What the next entry is told against. Starts anew with every block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    ino: u64,
    inode: InodeItem,
    parent: u64,
    extent_end: u64,
    disk_end: u64,
    generation: u64,
}

/// An entry that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonsense;

impl Context {
    pub(crate) fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        match entry {
            Entry::Inode(ino, inode) => self.put_inode(*ino, inode, out),
            Entry::Name(name) => {
                out.push(NAME);
                put_i(name.parent.wrapping_sub(self.parent) as i64, out);
                put_bytes(&name.name, out);
                self.parent = name.parent;
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
            INODE => self.take_inode(input),
            NAME => {
                let parent = self.parent.wrapping_add(take_i(input)? as u64);
                self.parent = parent;
                let name = take_bytes(input)?;
                Ok(Entry::Name(Name { parent, name }))
            }
            XATTR => Ok(Entry::Xattr(Xattr {
                name: take_bytes(input)?,
                value: take_bytes(input)?,
            })),
            TARGET => Ok(Entry::Target(take_bytes(input)?)),
            EXTENT => self.take_extent(input),
            _ => Err(Nonsense),
        }
    }

    fn put_inode(&mut self, ino: u64, inode: &InodeItem, out: &mut Vec<u8>) {
        let before = &self.inode;
        out.push(INODE);
        put_u(ino.wrapping_sub(self.ino), out);
        put_i(inode.generation.wrapping_sub(before.generation) as i64, out);
        put_i(inode.transid.wrapping_sub(inode.generation) as i64, out);
        put_u(inode.size, out);
        put_i(i64::from(inode.uid) - i64::from(before.uid), out);
        put_i(i64::from(inode.gid) - i64::from(before.gid), out);
        put_u(u64::from(inode.mode), out);
        put_u(inode.rdev, out);
        put_u(inode.flags, out);
        put_time(inode.mtime, before.mtime, out);
        put_time(inode.atime, before.atime, out);
        out.push(u8::from(inode.swap));
        self.ino = ino;
        self.inode = inode.clone();
        self.extent_end = 0;
    }

    fn take_inode(&mut self, input: &mut &[u8]) -> Result<Entry, Nonsense> {
        let before = &self.inode;
        let ino = self.ino.wrapping_add(take_u(input)?);
        let generation = before.generation.wrapping_add(take_i(input)? as u64);
        let inode = InodeItem {
            generation,
            transid: generation.wrapping_add(take_i(input)? as u64),
            size: take_u(input)?,
            uid: moved(before.uid, take_i(input)?)?,
            gid: moved(before.gid, take_i(input)?)?,
            mode: u32::try_from(take_u(input)?).map_err(|_| Nonsense)?,
            rdev: take_u(input)?,
            flags: take_u(input)?,
            mtime: take_time(before.mtime, input)?,
            atime: take_time(before.atime, input)?,
            swap: take_u8(input)? != 0,
        };
        self.ino = ino;
        self.inode = inode.clone();
        self.extent_end = 0;
        Ok(Entry::Inode(ino, inode))
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

    fn take_extent(&mut self, input: &mut &[u8]) -> Result<Entry, Nonsense> {
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
        self.after_extent(&extent);
        Ok(Entry::Extent(extent))
    }

    fn after_extent(&mut self, extent: &Extent) {
        self.extent_end = extent.offset.wrapping_add(extent.len);
        if extent.disk_bytenr != 0 {
            self.disk_end = extent.disk_bytenr.wrapping_add(extent.disk_len);
        }
        self.generation = extent.generation;
    }
}

fn moved(before: u32, by: i64) -> Result<u32, Nonsense> {
    let now = i64::from(before).checked_add(by).ok_or(Nonsense)?;
    u32::try_from(now).map_err(|_| Nonsense)
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

fn put_time(time: Time, before: Time, out: &mut Vec<u8>) {
    put_i(time.sec.wrapping_sub(before.sec), out);
    put_u(u64::from(time.nsec), out);
}

fn take_u8(input: &mut &[u8]) -> Result<u8, Nonsense> {
    let (first, rest) = input.split_first().ok_or(Nonsense)?;
    *input = rest;
    Ok(*first)
}

fn take_u(input: &mut &[u8]) -> Result<u64, Nonsense> {
    let (value, len) = u64::decode_var(input).ok_or(Nonsense)?;
    *input = input.get(len..).ok_or(Nonsense)?;
    Ok(value)
}

fn take_i(input: &mut &[u8]) -> Result<i64, Nonsense> {
    let (value, len) = i64::decode_var(input).ok_or(Nonsense)?;
    *input = input.get(len..).ok_or(Nonsense)?;
    Ok(value)
}

fn take_bytes(input: &mut &[u8]) -> Result<Vec<u8>, Nonsense> {
    let len = take_u(input)?;
    if len > MAX_BYTES || len > input.len() as u64 {
        return Err(Nonsense);
    }
    let (bytes, rest) = input.split_at(len as usize);
    *input = rest;
    Ok(bytes.to_vec())
}

fn take_time(before: Time, input: &mut &[u8]) -> Result<Time, Nonsense> {
    Ok(Time {
        sec: before.sec.wrapping_add(take_i(input)?),
        nsec: u32::try_from(take_u(input)?).map_err(|_| Nonsense)?,
    })
}
