//! Decides which inode flags a copy gets.

use crate::format::entry::Inode;
use crate::format::entry::{COMPRESS, GUARDS, NOCOMPRESS, SETTABLE, Xattr};

/// The attribute that accompanies the compression flags.
pub(super) const COMPRESSION: &[u8] = b"btrfs.compression";

/// Returns the compression attribute of an inode.
pub(super) fn compression(inode: &Inode) -> Option<&Xattr> {
    inode.xattrs.iter().find(|xattr| xattr.name == COMPRESSION)
}

/// Returns the flags that a copy must have.
///
/// The compression flag is one of them only with its attribute. On a file system mounted `nodatasum`, inodes
/// inherit the flag alone; setting it would give the copy an attribute that the source does not have. Where
/// the kernel has set both compression flags, the one against compression applies.
pub(super) fn kept(inode: &Inode) -> u64 {
    let flags = inode.item.flags & SETTABLE;
    match compression(inode) {
        Some(_) if flags & NOCOMPRESS == 0 => flags,
        _ => flags & !COMPRESS,
    }
}

/// Returns the flags that are set first: without those that forbid changes, and without the compression flag,
/// which its attribute sets.
pub(super) fn stored(inode: &Inode) -> u64 {
    kept(inode) & !GUARDS & !COMPRESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{InodeItem, NODATACOW};

    fn inode(flags: u64, compression: &[u8]) -> Inode {
        let xattr = Xattr {
            name: COMPRESSION.to_vec(),
            value: compression.to_vec(),
        };
        Inode {
            ino: 300,
            item: InodeItem {
                flags,
                ..InodeItem::default()
            },
            names: Vec::new(),
            xattrs: Some(xattr)
                .filter(|xattr| !xattr.value.is_empty())
                .into_iter()
                .collect(),
            target: None,
        }
    }

    #[test]
    fn the_flag_for_compression_goes_with_its_attribute() {
        assert_eq!(kept(&inode(COMPRESS | 0x40, b"zstd")), COMPRESS | 0x40);
        assert_eq!(stored(&inode(COMPRESS | 0x40, b"zstd")), 0);
        assert_eq!(kept(&inode(COMPRESS | NODATACOW, b"")), NODATACOW);
        assert_eq!(kept(&inode(COMPRESS | NOCOMPRESS, b"")), NOCOMPRESS);
        assert_eq!(kept(&inode(NOCOMPRESS, b"none")), NOCOMPRESS);
    }
}
