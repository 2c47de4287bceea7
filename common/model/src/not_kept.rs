//! The data that a copy lacks because its receiver's file system cannot keep it.
//!
//! Only properties of data storage can be missing: inode flags and the compression property. Content, owners,
//! modes, access control lists and capabilities are kept, or the push fails.

use serde::{Deserialize, Serialize};

use crate::tally::{Tally, TallyEntry};

/// Maximum number of entries in a list from a peer: more than there are kinds, for future kinds.
pub const MAX_NOT_KEPT: usize = 16;

/// A kind of property that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotKeptKind {
    /// The flag `C` of `chattr`: overwriting in place could not be enabled or disabled for a file.
    NoCopyOnWrite,
    /// The flag `m` of `chattr`, or `c` where it could not be cleared.
    CompressionFlag,
    /// The attribute `btrfs.compression`.
    CompressionProperty,
    /// Another inode flag. A kind of a later version is read as this one.
    #[serde(other)]
    OtherFlag,
}

impl NotKeptKind {
    /// Returns a description for users.
    pub fn description(self) -> &'static str {
        match self {
            Self::NoCopyOnWrite => "copy-on-write flag (chattr +C)",
            Self::CompressionFlag => "compression flag (chattr +m, +c)",
            Self::CompressionProperty => "compression property (btrfs property)",
            Self::OtherFlag => "inode flag",
        }
    }
}

/// Number and example of properties of one kind that were not kept.
pub type NotKeptEntry = TallyEntry<NotKeptKind>;

/// The properties that a copy lacks, by kind. Its size is bounded.
///
/// ```
/// use sendshot_model::{NotKept, NotKeptKind};
///
/// let mut lacks = NotKept::default();
/// lacks.add(NotKeptKind::NoCopyOnWrite, "vm/disk");
/// lacks.add(NotKeptKind::NoCopyOnWrite, "vm/other");
/// let entries = lacks.entries();
/// assert_eq!((entries[0].count, entries[0].example.as_str()), (2, "vm/disk"));
/// ```
pub type NotKept = Tally<NotKeptKind>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::MAX_EXAMPLE;

    #[test]
    fn lists_add_up_and_stay_short() {
        let mut lacks = NotKept::default();
        lacks.add(NotKeptKind::CompressionProperty, &"long/".repeat(1000));
        lacks.add(NotKeptKind::CompressionProperty, "other");
        let mut more = NotKept::default();
        more.add(NotKeptKind::OtherFlag, "a\x1b[2J");
        more.add_all(&lacks);
        more.add_all(&lacks);
        let entries = more.entries();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].count, 4);
        assert!(entries[0].example.len() <= MAX_EXAMPLE + 3);
        assert_eq!(entries[1].example, "a [2J");
        assert_eq!(NotKept::from(entries), more);
    }
}
