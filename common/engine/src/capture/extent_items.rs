//! Looks up the extents' own items in the extent tree, adjacent ones with one call.

use std::io;
use std::os::fd::AsFd;

use sendshot_sys::search::{self, Key, Lookup, Range};

/// Maximum number of items per query: one answer has no room for more.
const MOST: u32 = 64;
/// Minimum number of items per query.
const LEAST: u32 = 2;

/// Content of an extent's own item in the extent tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtentItem {
    /// Transaction in which its address was allocated; `u64::MAX` if unknown.
    pub(crate) generation: u64,
    /// Whether it has more than one reference.
    pub(crate) is_shared: bool,
}

/// Item not found: a balance is moving the extent at this moment.
const UNKNOWN: ExtentItem = ExtentItem {
    generation: u64::MAX,
    is_shared: false,
};

/// A window on the extent tree. Extents of files that were written together are adjacent.
#[derive(Debug)]
pub(crate) struct ExtentItems {
    lookup: Lookup,
    /// Address, length and item of each extent found, sorted by address.
    window: Vec<(u64, u64, ExtentItem)>,
    /// The search call that the window answers; everything in it was read after that call.
    batch: u64,
    /// Number of items to query; it grows while adjacent ones are used.
    wanted: u32,
    /// Number of answers taken from the window.
    used: u32,
}

impl ExtentItems {
    pub(crate) fn new() -> Self {
        Self {
            lookup: Lookup::new(),
            window: Vec::new(),
            batch: 0,
            wanted: LEAST,
            used: 0,
        }
    }

    /// Returns the item of the extent at an address, read after `batch`, the call that found the reference to
    /// it: only then does an old generation prove that the reference means this extent.
    pub(crate) fn find(
        &mut self,
        fd: impl AsFd,
        batch: u64,
        bytenr: u64,
        len: u64,
    ) -> io::Result<ExtentItem> {
        if batch != self.batch {
            self.window.clear();
            self.batch = batch;
        }
        let covered = match (self.window.first(), self.window.last()) {
            (Some(first), Some(last)) => first.0 <= bytenr && bytenr <= last.0,
            _ => false,
        };
        if !covered {
            self.wanted = match self.used * 2 >= self.wanted {
                true => (self.wanted * 2).min(MOST),
                false => (self.wanted / 2).max(LEAST),
            };
            self.used = 0;
            self.read(fd, bytenr)?;
        }
        self.used += 1;
        let at = self.window.binary_search_by_key(&bytenr, |found| found.0);
        let found = at.ok().map(|at| self.window[at]);
        Ok(found
            .filter(|found| found.1 == len)
            .map_or(UNKNOWN, |found| found.2))
    }

    fn read(&mut self, fd: impl AsFd, from: u64) -> io::Result<()> {
        let key = |objectid| Key {
            objectid,
            kind: search::EXTENT_ITEM,
            offset: 0,
        };
        let range = Range {
            tree: search::EXTENT_TREE,
            min: key(from),
            max: key(u64::MAX),
            min_transid: 0,
        };
        self.window.clear();
        let window = &mut self.window;
        self.lookup.some(fd, range, self.wanted, |item| {
            if item.key.kind == search::EXTENT_ITEM {
                window.push((item.key.objectid, item.key.offset, extent_item(item.data)));
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Parses the reference count and the generation, the first two numbers.
fn extent_item(data: &[u8]) -> ExtentItem {
    let number = |at: usize| {
        let bytes = data.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    match (number(0), number(8)) {
        (Some(refs), Some(generation)) => ExtentItem {
            generation,
            is_shared: refs > 1,
        },
        _ => UNKNOWN,
    }
}
