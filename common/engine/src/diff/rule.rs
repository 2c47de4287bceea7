//! The rule: what is unchanged between two sendshots, and the proof that this is safe.
//!
//! The parent `parent` is a sendshot of a long deleted snapshot, made in transaction `s` (its otransid); the
//! target `target` is the new one. Plausible rules are wrong here. The plain one, "same address, same offset, same
//! item generation", is sound only while a snapshot holds a reference on the data; here no snapshot does.
//! What breaks it: a balance moves another extent of the same generation to the freed address; a reflink
//! carries an old item generation along; a file without checksums is overwritten in place through another
//! subvolume.
//!
//! **Lineage.** Parent and target are of one lineage if they are snapshots of the same subvolume of the same
//! file system, the target later, and neither was changed since it was taken. Only then do inode numbers and
//! transactions mean the same in both. After a rollback two files can agree in inode number, generation,
//! transaction and size and differ in content.
//!
//! **Inode.** With lineage, the same number, generation and transaction means that nothing of the inode
//! changed: every change of content, names or attributes stamps the inode with the running transaction, and
//! `s` is over. Exception: an active swap file changes without a trace, so a file that looks like one never
//! counts as unchanged. (A file used for swap and wiped between two snapshots no longer looks like one; data
//! that the kernel swapped out into it may be missing in the copy.) Without lineage these numbers prove
//! nothing.
//!
//! **Extent.** In a changed inode, a range is unchanged if both items are regular, map the same address with
//! the same adjusted offset, item generation, length and compression, and the extent's own item in the extent
//! tree is not younger than `s`. Proof: space that is freed after `s` is reallocated only in a later
//! transaction, which the extent's own item then carries. So the extent at this address is the allocation
//! that the parent saw, and data with checksums is never written in place. This needs no lineage, only the
//! same file system.
//!
//! **Without checksums** (NODATASUM) data *is* written in place, sometimes even through another subvolume
//! that shares the extent while this one does not reference it. Only if the leaf that holds the mapping is
//! not younger than `s` was the extent referenced here all the time, which forces others to copy. In a
//! younger leaf the range is sent, unless [`mod@crate::format::hashes`] has equal hashes of what the parent
//! and the target hold there.
//!
//! **Clones.** The argument for extents holds between any two files: data with checksums that the target has
//! at an address which was not allocated after `s` is the data that the parent had at this address, in
//! whatever file. Within the target two files with the same address, allocated no later than the target was
//! taken, share the data: a balance that moved one of them during the capture allocated its new place later.
//!
//! **Inline and preallocated** data never equals anything. When unsure, data is sent.

use crate::format::entry::{Extent, ExtentKind, Head, InodeItem, NODATACOW, REGULAR, SYMLINK};

/// How two sendshots are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// Snapshots of one subvolume: transaction numbers prove what is unchanged.
    Lineage,
    /// Snapshots of one file system: only extents prove it.
    Filesystem,
    /// Nothing in common: everything is sent.
    None,
}

impl Kinship {
    /// Determines how `target` is related to `parent`.
    pub fn of(parent: &Head, target: &Head) -> Self {
        match Difference::between(parent, target) {
            None => Self::Lineage,
            Some(Difference::Filesystem | Difference::Later) => Self::None,
            Some(
                Difference::OriginUnknown
                | Difference::Subvolume
                | Difference::ParentChanged
                | Difference::NewChanged,
            ) => Self::Filesystem,
        }
    }
}

/// Reason why two sendshots are not of one lineage. Of several reasons, the most important one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// They are of different file systems.
    Filesystem,
    /// The parent was made in a later transaction than the target.
    Later,
    /// The subvolume of which the parent is a snapshot is unknown.
    OriginUnknown,
    /// They are snapshots of different subvolumes.
    Subvolume,
    /// The parent's snapshot changed after it was made.
    ParentChanged,
    /// The target's snapshot changed after it was made.
    NewChanged,
}

impl Difference {
    /// Reason why `parent` and `target` are not of one lineage; `None` if they are.
    pub fn between(parent: &Head, target: &Head) -> Option<Self> {
        if parent.fsid != target.fsid {
            Some(Self::Filesystem)
        } else if parent.otransid > target.otransid {
            Some(Self::Later)
        } else if parent.parent_uuid.is_nil() {
            Some(Self::OriginUnknown)
        } else if parent.parent_uuid != target.parent_uuid {
            Some(Self::Subvolume)
        } else if !parent.is_pristine() {
            Some(Self::ParentChanged)
        } else if !target.is_pristine() {
            Some(Self::NewChanged)
        } else {
            None
        }
    }
}

/// Decides about inodes and extents of one pair of sendshots.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    kinship: Kinship,
    /// otransid of the parent.
    since: u64,
}

impl Rule {
    /// Makes the rule for a pair.
    pub fn new(parent: &Head, target: &Head) -> Self {
        Self {
            kinship: Kinship::of(parent, target),
            since: parent.otransid,
        }
    }

    /// Whether transaction numbers prove what is unchanged.
    pub fn has_lineage(&self) -> bool {
        self.kinship == Kinship::Lineage
    }

    /// Whether both are the same object, whatever changed in it. What cannot change in place (type, device
    /// number, link target, and whether a file is overwritten in place, which the kernel lets only an empty
    /// file change) must agree; `targets` are those of links.
    pub fn is_same_object(
        &self,
        parent: &InodeItem,
        target: &InodeItem,
        targets: (Option<&Vec<u8>>, Option<&Vec<u8>>),
    ) -> bool {
        self.kinship != Kinship::None
            && parent.generation == target.generation
            && parent.kind() == target.kind()
            && parent.rdev == target.rdev
            && (target.kind() != REGULAR || parent.flags & NODATACOW == target.flags & NODATACOW)
            && (target.kind() != SYMLINK || targets.0 == targets.1)
    }

    /// Whether the same object is unchanged.
    pub fn is_unchanged(&self, parent: &InodeItem, target: &InodeItem) -> bool {
        self.kinship == Kinship::Lineage
            && parent.transid == target.transid
            && !target.swap
            && !parent.swap
    }

    /// Whether the overlapping range of two items of the same object is unchanged.
    pub fn is_same_data(&self, inode: &InodeItem, parent: &Extent, target: &Extent) -> bool {
        let held = !inode.is_nodatasum()
            || (target.leaf_generation != 0 && target.leaf_generation <= self.since);
        self.is_same_extent(inode, parent, target) && held
    }

    /// Whether the range would be unchanged except that its leaf is too young. Then equal hashes of parent
    /// and target decide.
    pub fn is_same_if_hashed(&self, inode: &InodeItem, parent: &Extent, target: &Extent) -> bool {
        self.is_same_extent(inode, parent, target) && !self.is_same_data(inode, parent, target)
    }

    fn is_same_extent(&self, inode: &InodeItem, parent: &Extent, target: &Extent) -> bool {
        let same_mapping = parent.kind == ExtentKind::Regular
            && target.kind == ExtentKind::Regular
            && parent.disk_bytenr == target.disk_bytenr
            && parent.disk_len == target.disk_len
            && parent.disk_offset.wrapping_sub(parent.offset)
                == target.disk_offset.wrapping_sub(target.offset)
            && parent.generation == target.generation
            && parent.compression == target.compression;
        same_mapping && self.is_same_allocation(target) && !inode.swap
    }

    /// Whether the target's data at this address is what the parent had there, if the parent had any.
    pub fn is_same_allocation(&self, target: &Extent) -> bool {
        self.kinship != Kinship::None && target.extent_generation <= self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{NODATASUM, REGULAR};
    use uuid::Uuid;

    /// Transaction of the parent.
    const SINCE: u64 = 100;

    fn head(otransid: u64) -> Head {
        Head {
            wire_uuid: Uuid::from_u128(1),
            wire_ctransid: otransid,
            ctransid: otransid,
            fsid: Uuid::from_u128(2),
            uuid: Uuid::from_u128(3),
            parent_uuid: Uuid::from_u128(4),
            otransid,
            generation: otransid,
            taken_at: 0,
        }
    }

    fn rule() -> Rule {
        Rule::new(&head(SINCE), &head(200))
    }

    fn file(transid: u64) -> InodeItem {
        InodeItem {
            generation: 38,
            transid,
            size: 8192,
            mode: REGULAR | 0o644,
            ..InodeItem::default()
        }
    }

    fn extent() -> Extent {
        Extent {
            offset: 0,
            len: 8192,
            kind: ExtentKind::Regular,
            compression: 0,
            ram_bytes: 8192,
            disk_bytenr: 92_340_224,
            disk_len: 8192,
            disk_offset: 0,
            generation: 23,
            extent_generation: 23,
            leaf_generation: 0,
            is_shared: false,
        }
    }

    #[test]
    fn snapshots_of_one_subvolume_are_of_one_lineage() {
        assert_eq!(Kinship::of(&head(1), &head(2)), Kinship::Lineage);
    }

    #[test]
    fn rolled_back_or_older_snapshots_are_not_captured() {
        let (parent, target) = (head(1), head(2));
        let other = Uuid::from_u128(9);
        let rolled_back = Head {
            parent_uuid: other,
            ..target.clone()
        };
        assert_eq!(Kinship::of(&parent, &rolled_back), Kinship::Filesystem);
        let orphan = |head: &Head| Head {
            parent_uuid: Uuid::nil(),
            ..head.clone()
        };
        assert_eq!(
            Kinship::of(&orphan(&parent), &orphan(&target)),
            Kinship::Filesystem
        );
        for (parent, target) in [
            (
                Head {
                    ctransid: 2,
                    ..parent.clone()
                },
                target.clone(),
            ),
            (
                parent.clone(),
                Head {
                    ctransid: 3,
                    ..target.clone()
                },
            ),
        ] {
            assert_eq!(
                Kinship::of(&parent, &target),
                Kinship::Filesystem,
                "deduplicated"
            );
        }
        let foreign = Head {
            fsid: other,
            ..target.clone()
        };
        assert_eq!(Kinship::of(&parent, &foreign), Kinship::None);
        assert_eq!(
            Kinship::of(&target, &parent),
            Kinship::None,
            "transactions went backwards"
        );
    }

    #[test]
    fn with_lineage_an_equal_transaction_means_unchanged() {
        assert!(rule().is_unchanged(&file(50), &file(50)));
        assert!(!rule().is_unchanged(&file(50), &file(150)));
    }

    #[test]
    fn after_a_rollback_equal_transactions_mean_nothing() {
        let rolled_back = Head {
            parent_uuid: Uuid::from_u128(9),
            ..head(200)
        };
        let rule = Rule::new(&head(SINCE), &rolled_back);
        assert!(!rule.is_unchanged(&file(38), &file(38)));
    }

    #[test]
    fn a_swap_file_never_counts_as_unchanged() {
        let swap = InodeItem {
            swap: true,
            flags: NODATASUM,
            ..file(50)
        };
        assert!(!rule().is_unchanged(&swap, &swap));
        // It was formatted as swap, or reused for something else, between the snapshots.
        let plain = InodeItem {
            swap: false,
            ..swap.clone()
        };
        assert!(!rule().is_unchanged(&swap, &plain));
        assert!(!rule().is_unchanged(&plain, &swap));
        let held = Extent {
            leaf_generation: SINCE,
            ..extent()
        };
        assert!(rule().is_same_data(&plain, &extent(), &held));
        assert!(!rule().is_same_data(&swap, &extent(), &held));
    }

    #[test]
    fn nothing_is_the_same_on_another_file_system() {
        let foreign = Head {
            fsid: Uuid::from_u128(9),
            ..head(200)
        };
        let rule = Rule::new(&head(SINCE), &foreign);
        assert!(!rule.is_same_object(&file(50), &file(50), (None, None)));
        assert!(!rule.is_unchanged(&file(50), &file(50)));
        assert!(!rule.is_same_data(&file(50), &extent(), &extent()));
    }

    #[test]
    fn an_old_extent_at_the_same_place_is_unchanged() {
        assert!(rule().is_same_data(&file(150), &extent(), &extent()));
    }

    #[test]
    fn a_split_extent_keeps_its_mapping() {
        let tail = Extent {
            offset: 4096,
            len: 4096,
            disk_offset: 4096,
            ..extent()
        };
        assert!(rule().is_same_data(&file(150), &extent(), &tail));
    }

    #[test]
    fn an_address_that_was_allocated_again_is_not_the_same_extent() {
        // A balance moved another extent of the same generation to the freed place.
        for generation in [SINCE + 1, u64::MAX] {
            let moved = Extent {
                extent_generation: generation,
                ..extent()
            };
            assert!(!rule().is_same_data(&file(150), &extent(), &moved));
        }
    }

    #[test]
    fn every_part_of_the_mapping_counts() {
        let base = extent();
        let others = [
            Extent {
                disk_bytenr: base.disk_bytenr + 4096,
                ..base
            },
            Extent {
                disk_len: 4096,
                ..base
            },
            Extent {
                disk_offset: 4096,
                ..base
            },
            Extent {
                generation: 24,
                ..base
            },
            Extent {
                compression: 3,
                ..base
            },
            Extent {
                kind: ExtentKind::Prealloc,
                ..base
            },
            Extent {
                kind: ExtentKind::Inline,
                ..base
            },
        ];
        for other in others {
            assert!(!rule().is_same_data(&file(150), &base, &other), "{other:?}");
            assert!(!rule().is_same_data(&file(150), &other, &base), "{other:?}");
        }
        let prealloc = Extent {
            kind: ExtentKind::Prealloc,
            ..base
        };
        assert!(!rule().is_same_data(&file(150), &prealloc, &prealloc));
    }

    #[test]
    fn without_checksums_the_leafs_age_counts() {
        // It was truncated here, overwritten in place through another subvolume, and cloned back.
        let nocow = InodeItem {
            flags: NODATASUM,
            ..file(150)
        };
        let leaf = |generation| Extent {
            leaf_generation: generation,
            ..extent()
        };
        assert!(rule().is_same_data(&nocow, &extent(), &leaf(SINCE)));
        assert!(!rule().is_same_data(&nocow, &extent(), &leaf(SINCE + 1)));
        assert!(!rule().is_same_data(&nocow, &extent(), &leaf(0)), "unknown");
    }

    #[test]
    fn another_kind_under_the_same_number_is_new() {
        let rule = rule();
        let same = |parent: &InodeItem, target: &InodeItem| {
            rule.is_same_object(parent, target, (None, None))
        };
        assert!(same(&file(1), &file(2)));
        assert!(!same(
            &file(1),
            &InodeItem {
                generation: 39,
                ..file(1)
            }
        ));
        assert!(!same(
            &file(1),
            &InodeItem {
                mode: SYMLINK | 0o777,
                ..file(1)
            }
        ));
        assert!(!same(&file(1), &InodeItem { rdev: 1, ..file(1) }));
        let link = InodeItem {
            mode: SYMLINK | 0o777,
            ..file(1)
        };
        let (a, b) = (b"a".to_vec(), b"b".to_vec());
        assert!(rule.is_same_object(&link, &link, (Some(&a), Some(&a))));
        assert!(!rule.is_same_object(&link, &link, (Some(&a), Some(&b))));
    }
}
