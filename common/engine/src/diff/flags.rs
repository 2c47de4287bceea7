//! Which inode flags a copy gets.

use crate::format::entry::Inode;
use crate::format::entry::{COMPRESS, GUARDS, NOCOMPRESS, SETTABLE, Xattr};

/// The attribute that goes with the flags for compression.
pub(super) const COMPRESSION: &[u8] = b"btrfs.compression";

/// The attribute for compression of an inode.
pub(super) fn compression(inode: &Inode) -> Option<&Xattr> {
    inode.xattrs.iter().find(|xattr| xattr.name == COMPRESSION)
}

/// Flags that a copy is to have.
///
/// The flag for compression is one of them only beside its attribute. On a file system that is mounted
/// `nodatasum` things inherit the flag alone; to set it would give the copy an attribute that the source
/// has not. Where the kernel has set both flags for compression, the one against it counts.
pub(super) fn kept(inode: &Inode) -> u64 {
    let flags = inode.item.flags & SETTABLE;
    match compression(inode) {
        Some(_) if flags & NOCOMPRESS == 0 => flags,
        _ => flags & !COMPRESS,
    }
}

/// Those that are set before anything else: not those that forbid changes, nor that for compression, which
/// comes with its attribute.
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
