//! Clones: data that the receiver already holds is not sent again but shared by a clone command.
//!
//! Only extents that had more than one reference when they were captured, or that are older than their file,
//! can be shared; so only their addresses are collected while names are compared. Data of such an address is
//! then searched for in two places: in the parent, of which the receiver has a copy, and in what this stream
//! has already put into the target. Two mappings of one address hold the same data if the address was not
//! reallocated in between; see [`crate::diff::rule`].
//!
//! Memory is bounded: at most [`EXTENTS`] shared extents and [`NAMES`] bytes of names are kept. What exceeds
//! that is sent as data.

use std::collections::HashMap;

use sendshot_stream::Command;

use super::pair::FileReader;
use super::pair::Pair;
use super::step::Error;
use crate::diff::paths::Tree;
use crate::format::entry::Inode;
use crate::format::entry::{Extent, ExtentKind, InodeItem, Name};
use crate::format::file::Sendshot;

/// Maximum number of shared extents kept in memory, about 50 bytes each.
const EXTENTS: usize = 1 << 20;
/// Maximum bytes of names kept for the files that hold them.
const NAMES: usize = 16 << 20;
/// Alignment of a clone's bounds, except where both files end.
const BLOCK: u64 = 4096;

/// The tree that holds a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Parent,
    New,
}

/// Location of a range of an extent in the receiver's trees.
#[derive(Debug, Clone, Copy)]
struct ExtentLocation {
    side: Side,
    ino: u64,
    /// Offset in the file.
    offset: u64,
    /// Offset in the decoded extent.
    start: u32,
    len: u32,
    /// Generation of the item that maps it.
    generation: u64,
    /// Whether the range ends where its file ends.
    to_end: bool,
}

impl ExtentLocation {
    fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

/// The shared extents of a stream.
#[derive(Debug, Default)]
pub(super) struct Clones {
    /// Addresses of the shared extents, sorted.
    wanted: Vec<u64>,
    places: Vec<Option<ExtentLocation>>,
    names: HashMap<(Side, u64), Name>,
    names_len: usize,
    /// otransid of the target.
    taken: u64,
    /// Whether any wanted extent may be the parent's.
    is_old: bool,
}

/// Whether two items map the same extent at the same place.
fn is_in_place(parent: &Extent, target: &Extent) -> bool {
    parent.disk_bytenr == target.disk_bytenr
        && parent.disk_offset.wrapping_sub(parent.offset)
            == target.disk_offset.wrapping_sub(target.offset)
}

/// A range of a file that can be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloneRange {
    /// Offset of its first byte in the new file.
    pub(super) from: u64,
    /// Offset after its last byte.
    pub(super) to: u64,
    side: Side,
    source: Vec<u8>,
    source_offset: u64,
}

impl CloneRange {
    /// Builds its clone command.
    pub(super) fn command<'a>(&'a self, path: &'a [u8], pair: &Heads) -> Command<'a> {
        let (clone_uuid, clone_ctransid) = match self.side {
            Side::Parent => pair.parent,
            Side::New => pair.new,
        };
        Command::Clone {
            path,
            offset: self.from,
            len: self.to - self.from,
            clone_uuid,
            clone_ctransid,
            clone_path: &self.source,
            clone_offset: self.source_offset,
        }
    }
}

/// Identity of the two trees in streams: UUID and ctransid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    parent: (uuid::Uuid, u64),
    new: (uuid::Uuid, u64),
}

impl Heads {
    pub(super) fn of(pair: &Pair<'_>) -> Self {
        let of = |head: &crate::format::entry::Head| (head.wire_uuid, head.wire_ctransid);
        let new = of(pair.target.head());
        Self {
            parent: pair.parent.map_or(new, |parent| of(parent.head())),
            new,
        }
    }
}

impl Clones {
    /// Starts with no extents, for a snapshot taken in transaction `taken`.
    pub(super) fn new(taken: u64) -> Self {
        Self {
            taken,
            ..Self::default()
        }
    }

    /// Notes the shared extents of a new or changed file. An extent older than the parent is not new data,
    /// even if it has only one reference left.
    ///
    /// `parent` yields the extents of the same file in the parent: an extent in place there needs no source.
    pub(super) fn want(
        &mut self,
        since: Option<u64>,
        mut parent: Option<&mut FileReader<'_>>,
        target: &mut FileReader<'_>,
    ) -> Result<(), Error> {
        let mut old: Option<Extent> = None;
        while let Some(extent) = target.next_extent()? {
            let is_old = since.is_some_and(|since| extent.extent_generation <= since);
            if extent.kind != ExtentKind::Regular || !(extent.is_shared || is_old) {
                continue;
            }
            while let Some(parent) = &mut parent
                && old.is_none_or(|old| old.end() <= extent.offset)
            {
                old = parent.next_extent()?;
                if old.is_none() {
                    break;
                }
            }
            if !old.is_some_and(|old| is_in_place(&old, &extent)) {
                self.note(extent.disk_bytenr);
                self.is_old |= is_old;
            }
        }
        Ok(())
    }

    fn note(&mut self, bytenr: u64) {
        if self.wanted.last() == Some(&bytenr) {
            return;
        }
        self.wanted.push(bytenr);
        if self.wanted.len() >= 2 * EXTENTS {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.wanted.sort_unstable();
        self.wanted.dedup();
        self.wanted.truncate(EXTENTS);
    }

    /// Searches the parent for the wanted extents.
    pub(super) fn look_in_parent(&mut self, pair: &Pair<'_>) -> Result<(), Error> {
        self.sort();
        self.places = vec![None; self.wanted.len()];
        self.read_parent(pair)
    }

    fn read_parent(&mut self, pair: &Pair<'_>) -> Result<(), Error> {
        // With equal UUIDs a clone command could not distinguish the two trees.
        let is_distinct =
            |parent: &&Sendshot| parent.head().wire_uuid != pair.target.head().wire_uuid;
        let Some(parent) = pair.parent.filter(|_| self.is_old).filter(is_distinct) else {
            return Ok(());
        };
        let mut reader = parent.reader()?;
        while let Some(inode) = reader.next_inode()? {
            // Without checksums its data may have changed since the parent was deleted.
            if inode.item.is_nodatasum() || !inode.item.is_regular() {
                continue;
            }
            while let Some(extent) = reader.next_extent()? {
                self.holds(Side::Parent, &inode, &extent);
            }
        }
        Ok(())
    }

    /// Whether the whole stream has nothing to clone.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Notes that the stream has given a file of the target this extent.
    pub(super) fn sent(&mut self, inode: &Inode, extent: &Extent) {
        let certain = extent.extent_generation <= self.taken && !inode.item.swap;
        if !self.is_idle() && certain {
            self.holds(Side::New, inode, extent);
        }
    }

    fn holds(&mut self, side: Side, inode: &Inode, extent: &Extent) {
        if extent.kind != ExtentKind::Regular {
            return;
        }
        let Ok(at) = self.wanted.binary_search(&extent.disk_bytenr) else {
            return;
        };
        let end = extent.end().min(inode.item.size);
        let len = end.saturating_sub(extent.offset);
        let (Ok(start), Ok(len)) = (u32::try_from(extent.disk_offset), u32::try_from(len)) else {
            return;
        };
        if self.places[at].is_some_and(|known| known.len >= len) || len == 0 {
            return;
        }
        if self.remember(side, inode) {
            self.places[at] = Some(ExtentLocation {
                side,
                ino: inode.ino,
                offset: extent.offset,
                start,
                len,
                generation: extent.generation,
                to_end: end == inode.item.size,
            });
        }
    }

    fn remember(&mut self, side: Side, inode: &Inode) -> bool {
        let Some(name) = inode.names.first() else {
            return false;
        };
        if self.names.contains_key(&(side, inode.ino)) {
            return true;
        }
        let len = name.name.len() + 64;
        if self.names_len + len > NAMES {
            return false;
        }
        self.names_len += len;
        self.names.insert((side, inode.ino), name.clone());
        true
    }

    /// Whether the extent is the one that the other file had at this address.
    fn allows(&self, target: &Target<'_>, side: Side, extent: &Extent) -> bool {
        match (side, target.rule) {
            (Side::Parent, Some(rule)) => {
                !target.inode.is_nodatasum() && rule.is_same_allocation(extent)
            }
            (Side::Parent, None) => false,
            (Side::New, _) => extent.extent_generation <= self.taken,
        }
    }

    /// Finds the receiver's location of bytes `from` to `to` of a file, which `extent` maps: the largest part
    /// that can be cloned.
    pub(super) fn find(
        &self,
        target: &Target<'_>,
        extent: &Extent,
        from: u64,
        to: u64,
    ) -> Option<CloneRange> {
        let at = self.wanted.binary_search(&extent.disk_bytenr).ok()?;
        let place = self.places[at]?;
        if place.generation != extent.generation || !self.allows(target, place.side, extent) {
            return None;
        }
        let within = |byte: u64| extent.disk_offset + (byte - extent.offset);
        let start = within(from.next_multiple_of(BLOCK)).max(u64::from(place.start));
        let mut end = within(to).min(place.end());
        let both_end = end == place.end() && place.to_end && to == target.inode.size;
        let itself = place.side == Side::New && place.ino == target.ino;
        let aligned = end.is_multiple_of(BLOCK) || (both_end && end == within(to) && !itself);
        if !aligned {
            end -= end % BLOCK;
        }
        if end <= start {
            return None;
        }
        let from = extent.offset + (start - extent.disk_offset);
        let source_offset = place.offset + (start - u64::from(place.start));
        // The receiver may have stored so little data inline in its metadata.
        if end - start <= BLOCK && (from == 0 || source_offset == 0) {
            return None;
        }
        let name = self.names.get(&(place.side, place.ino))?;
        let dirs = match place.side {
            Side::Parent => target.m_dirs,
            Side::New => target.n_dirs,
        };
        Some(CloneRange {
            from,
            to: from + (end - start),
            side: place.side,
            source: dirs.path(&dirs.place_of(name)?)?,
            source_offset,
        })
    }
}

/// The file that is being sent.
pub(super) struct Target<'a> {
    pub(super) ino: u64,
    pub(super) inode: &'a InodeItem,
    pub(super) rule: Option<crate::diff::rule::Rule>,
    pub(super) m_dirs: &'a Tree,
    pub(super) n_dirs: &'a Tree,
}
