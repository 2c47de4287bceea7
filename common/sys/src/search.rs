//! Tree search: reads items of a btrfs tree in key order (BTRFS_IOC_TREE_SEARCH_V2). Needs CAP_SYS_ADMIN.

use std::io;
use std::os::fd::AsFd;

use crate::raw;

/// ID of the tree that lists all trees.
pub const ROOT_TREE: u64 = 1;
/// ID of the tree that maps UUIDs to subvolumes.
pub const UUID_TREE: u64 = 9;
/// Key type of a subvolume's reference to its parent.
pub const ROOT_BACKREF: u8 = 144;
/// Key type of a subvolume's references to its children.
pub const ROOT_REF: u8 = 156;
/// Key type in the UUID tree of a subvolume's own UUID.
pub const UUID_SUBVOL: u8 = 251;
/// Key type in the UUID tree of a received UUID.
pub const UUID_RECEIVED: u8 = 252;

/// Bytes of results per call: large enough to make the number of calls irrelevant, small enough for the heap.
const BUFFER: usize = 256 * 1024;
/// Length of `struct btrfs_ioctl_search_header` in bytes.
const HEADER: usize = 32;

/// A key of a btrfs tree; compared field by field in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Object ID (an inode number, subvolume ID, etc.).
    pub objectid: u64,
    /// Type of the item.
    pub kind: u8,
    /// Offset; its meaning depends on the item type.
    pub offset: u64,
}

impl Key {
    /// Returns the next key, or `None` after the last possible one.
    fn next(self) -> Option<Key> {
        let Key {
            objectid,
            kind,
            offset,
        } = self;
        if let Some(offset) = offset.checked_add(1) {
            return Some(Key {
                objectid,
                kind,
                offset,
            });
        }
        if let Some(kind) = kind.checked_add(1) {
            return Some(Key {
                objectid,
                kind,
                offset: 0,
            });
        }
        let objectid = objectid.checked_add(1)?;
        Some(Key {
            objectid,
            kind: 0,
            offset: 0,
        })
    }
}

/// The tree and keys of a search.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// ID of the tree; 0 means the subvolume of the descriptor.
    pub tree: u64,
    /// First key wanted. Keys are compared as a whole, so the type is not a filter.
    pub min: Key,
    /// Last key wanted.
    pub max: Key,
    /// The transaction from which on leaves are read; older ones are skipped.
    pub min_transid: u64,
}

impl Range {
    /// Selects all items of one object and type.
    pub fn of_object(tree: u64, objectid: u64, kind: u8) -> Self {
        Self {
            tree,
            min: Key {
                objectid,
                kind,
                offset: 0,
            },
            max: Key {
                objectid,
                kind,
                offset: u64::MAX,
            },
            min_transid: 0,
        }
    }
}

/// An item that was found.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Key of the item.
    pub key: Key,
    /// Generation of the leaf that contains it.
    pub transid: u64,
    /// Number of the call that found it: answers to later calls are younger than the item.
    pub batch: u64,
    /// Content of the item, little endian as on disk.
    pub data: &'a [u8],
}

/// Maximum size of an item with its header, in bytes: an item does not exceed a node.
const LARGEST: usize = HEADER + 64 * 1024;

/// Searches for many items per call.
#[derive(Debug)]
pub struct Search {
    block: Vec<u8>,
    batch: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self::new()
    }
}

impl Search {
    /// Makes a search with its buffer.
    pub fn new() -> Self {
        Self {
            block: vec![0; raw::SEARCH_HEAD + BUFFER],
            batch: 0,
        }
    }

    /// Calls `each` for every item of the range, in key order.
    ///
    /// # Errors
    /// I/O errors, and `InvalidData` for an invalid answer.
    pub fn items(
        &mut self,
        fd: impl AsFd,
        range: Range,
        mut each: impl FnMut(Item<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut from = range.min;
        loop {
            fill_key(&mut self.block, &range, from);
            raw::tree_search(&fd, &mut self.block)?;
            let found = u32_at(&self.block, 64);
            if found == 0 {
                return Ok(());
            }
            self.batch += 1;
            let results = &self.block[raw::SEARCH_HEAD..];
            let (last, used) = visit(results, found, self.batch, range.max, &mut each)?;
            // With enough room for any item, the kernel stopped because there is no further one.
            let ended = BUFFER - used >= LARGEST;
            match last.next() {
                Some(next) if next <= range.max && !ended => from = next,
                _ => return Ok(()),
            }
        }
    }
}

/// Runs a single [`Search`].
///
/// # Errors
/// See [`Search::items`].
pub fn items(
    fd: impl AsFd,
    range: Range,
    each: impl FnMut(Item<'_>) -> io::Result<()>,
) -> io::Result<()> {
    Search::new().items(fd, range, each)
}

/// Writes `struct btrfs_ioctl_search_key`: seven u64, two u32 types, the u32 count, padding.
fn fill_key(block: &mut [u8], range: &Range, from: Key) {
    let words = [
        range.tree,
        from.objectid,
        range.max.objectid,
        from.offset,
        range.max.offset,
        range.min_transid,
        u64::MAX,
    ];
    for (at, word) in words.into_iter().enumerate() {
        block[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
    }
    for (at, half) in [u32::from(from.kind), u32::from(range.max.kind), u32::MAX]
        .into_iter()
        .enumerate()
    {
        block[56 + at * 4..60 + at * 4].copy_from_slice(&half.to_ne_bytes());
    }
}

/// Passes the items of one answer to `each`; returns the key of the last, and their total length in bytes.
fn visit(
    results: &[u8],
    found: u32,
    batch: u64,
    max: Key,
    each: &mut impl FnMut(Item<'_>) -> io::Result<()>,
) -> io::Result<(Key, usize)> {
    let mut at = 0;
    let mut last = max;
    for _ in 0..found {
        let header = results.get(at..at + HEADER).ok_or_else(nonsense)?;
        let key = Key {
            objectid: u64_at(header, 8),
            offset: u64_at(header, 16),
            kind: u32_at(header, 24) as u8,
        };
        let len = u32_at(header, 28) as usize;
        let data = results
            .get(at + HEADER..at + HEADER + len)
            .ok_or_else(nonsense)?;
        each(Item {
            key,
            transid: u64_at(header, 0),
            batch,
            data,
        })?;
        last = key;
        at += HEADER + len;
    }
    Ok((last, at))
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "tree search returned a broken item",
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(out)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(out)
}

/// Looks up single items without a large buffer.
#[derive(Debug)]
pub struct Lookup {
    block: Vec<u8>,
}

impl Default for Lookup {
    fn default() -> Self {
        Self::new()
    }
}

impl Lookup {
    /// Bytes of results: enough for most single items with their header, or some dozens of small ones.
    const BUFFER: usize = 8192;

    /// Makes a lookup with its buffer.
    pub fn new() -> Self {
        Self {
            block: vec![0; raw::SEARCH_HEAD + Self::BUFFER],
        }
    }

    /// Passes the first item of the range to `each`; returns whether there was one.
    ///
    /// # Errors
    /// I/O errors, and `InvalidData` for an invalid answer.
    pub fn first(
        &mut self,
        fd: impl AsFd,
        range: Range,
        each: impl FnMut(Item<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        Ok(self.some(fd, range, 1, each)? > 0)
    }

    /// Passes the first items of the range to `each`: up to `wanted`, as far as they exist and fit into one
    /// answer, but at least one if there is any; returns their number.
    ///
    /// # Errors
    /// I/O errors, and `InvalidData` for an invalid answer.
    pub fn some(
        &mut self,
        fd: impl AsFd,
        range: Range,
        wanted: u32,
        mut each: impl FnMut(Item<'_>) -> io::Result<()>,
    ) -> io::Result<u32> {
        fill_key(&mut self.block, &range, range.min);
        self.block[64..68].copy_from_slice(&wanted.to_ne_bytes());
        raw::tree_search(fd, &mut self.block)?;
        let found = u32_at(&self.block, 64);
        if found > 0 {
            visit(
                &self.block[raw::SEARCH_HEAD..],
                found,
                0,
                range.max,
                &mut each,
            )?;
        }
        Ok(found)
    }
}

/// ID of the extent tree.
pub const EXTENT_TREE: u64 = 2;
/// Key type of an inode.
pub const INODE_ITEM: u8 = 1;
/// Key type of an inode's names in one directory.
pub const INODE_REF: u8 = 12;
/// Key type of an inode's additional names.
pub const INODE_EXTREF: u8 = 13;
/// Key type of an extended attribute.
pub const XATTR_ITEM: u8 = 24;
/// Key type of a directory's entry, in order of creation.
pub const DIR_INDEX: u8 = 96;
/// Key type of a file's extent.
pub const EXTENT_DATA: u8 = 108;
/// Key type of a data extent in the extent tree.
pub const EXTENT_ITEM: u8 = 168;
