//! The rule: what is unchanged between two sendshots, and why that is safe to believe.
//!
//! `m` is the parent's sendshot M, taken of a snapshot made in transaction `s` (M.otransid) and
//! long deleted; `n` is the new one, N. Plausible rules are wrong here. The plain one, "same
//! address, same offset, same item generation", is sound only while a snapshot holds a reference on
//! the data; nothing does. What breaks it: a balance moves another extent of the same generation
//! to the freed address; a reflink brings an old item generation along; a file without checksums
//! is overwritten in place through another subvolume.
//!
//! **Lineage.** M and N are of one lineage if they are snapshots of the same subvolume of the
//! same file system, N later, and neither was changed since it was taken. Only then do inode
//! numbers and transactions mean the same in both. After a rollback two files can agree in inode
//! number, generation, transaction and size and differ in content.
//!
//! **Inode.** With lineage, the same number, generation and transaction means that nothing of
//! the inode changed: every change of content, names or attributes stamps the inode with the
//! running transaction, and `s` is over. Exception: an active swap file changes without a
//! trace, so what looks like one never counts as unchanged. Without lineage this says nothing.
//!
//! **Extent.** In a changed inode, a range is unchanged if both items are regular, map the same
//! address with the same adjusted offset, item generation, length and compression, and the
//! extent's own item in the extent tree is not younger than `s`. Proof: space that is freed
//! after `s` is allocated again only in a later transaction, which the extent's own item then
//! carries. So the extent at this address is the allocation that M saw, and data with checksums
//! is never written in place. This needs no lineage, only the same file system.
//!
//! **Without checksums** (NODATASUM) data *is* written in place, at times even through another
//! subvolume that shares the extent while we do not. Only if the leaf that holds the mapping is
//! not younger than `s` was the extent referenced by us all the time, which forces others to
//! copy. In a younger leaf the range is sent.
//!
//! **Inline and preallocated** data never equals anything. In doubt it is sent.

use crate::entry::{Extent, ExtentKind, Head, InodeItem, SYMLINK};

/// How two sendshots are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// Snapshots of one subvolume: transactions tell what changed.
    Lineage,
    /// Of one file system: only extents tell.
    Filesystem,
    /// Nothing in common: everything is sent.
    None,
}

impl Kinship {
    /// How `n` is related to `m`.
    pub fn of(m: &Head, n: &Head) -> Self {
        if m.fsid != n.fsid || m.otransid > n.otransid {
            return Self::None;
        }
        let same_subvolume = m.parent_uuid == n.parent_uuid && !m.parent_uuid.is_nil();
        if same_subvolume && m.is_pristine() && n.is_pristine() {
            Self::Lineage
        } else {
            Self::Filesystem
        }
    }
}

/// Decides about inodes and extents of one pair of sendshots.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    kinship: Kinship,
    /// M.otransid.
    since: u64,
}

impl Rule {
    /// The rule for a pair.
    pub fn new(m: &Head, n: &Head) -> Self {
        Self {
            kinship: Kinship::of(m, n),
            since: m.otransid,
        }
    }

    /// Whether both are the same object, whatever changed in it. What cannot be changed in
    /// place (type, device number, link target) must agree; `targets` are those of links.
    pub fn is_same_object(
        &self,
        m: &InodeItem,
        n: &InodeItem,
        targets: (Option<&Vec<u8>>, Option<&Vec<u8>>),
    ) -> bool {
        self.kinship != Kinship::None
            && m.generation == n.generation
            && m.kind() == n.kind()
            && m.rdev == n.rdev
            && (n.kind() != SYMLINK || targets.0 == targets.1)
    }

    /// Whether nothing of the same object changed.
    pub fn is_unchanged(&self, m: &InodeItem, n: &InodeItem) -> bool {
        self.kinship == Kinship::Lineage && m.transid == n.transid && !n.swap && !m.swap
    }

    /// Whether the range where two items of the same object overlap is unchanged.
    pub fn is_same_data(&self, inode: &InodeItem, m: &Extent, n: &Extent) -> bool {
        let same_mapping = m.kind == ExtentKind::Regular
            && n.kind == ExtentKind::Regular
            && m.disk_bytenr == n.disk_bytenr
            && m.disk_len == n.disk_len
            && m.disk_offset.wrapping_sub(m.offset) == n.disk_offset.wrapping_sub(n.offset)
            && m.generation == n.generation
            && m.compression == n.compression;
        let same_allocation = n.extent_generation <= self.since;
        let held =
            !inode.is_nodatasum() || (n.leaf_generation != 0 && n.leaf_generation <= self.since);
        self.kinship != Kinship::None && same_mapping && same_allocation && held && !inode.swap
    }
}
