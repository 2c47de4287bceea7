//! The data that a copy lacks because its receiver's file system cannot keep it.
//!
//! Only properties of data storage can be missing: inode flags and the compression property. Content, owners,
//! modes, access control lists and capabilities are kept, or the push fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::printable::printable_within;

/// Maximum length of an example path in bytes.
const MAX_EXAMPLE: usize = 200;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotKeptEntry {
    /// Kind of the property.
    pub kind: NotKeptKind,
    /// Number of times it was not kept.
    pub count: u64,
    /// Path of one example in the copy, printable and truncated if it is long.
    pub example: String,
}

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<NotKeptEntry>", into = "Vec<NotKeptEntry>")]
pub struct NotKept(BTreeMap<NotKeptKind, (u64, String)>);

impl NotKept {
    /// Counts one property that was not kept, with its path.
    pub fn add(&mut self, kind: NotKeptKind, path: &str) {
        self.add_entry(kind, 1, path);
    }

    /// Adds the counts of another list. The examples of this list stay.
    pub fn add_all(&mut self, other: &Self) {
        for (kind, (count, example)) in &other.0 {
            self.add_entry(*kind, *count, example);
        }
    }

    fn add_entry(&mut self, kind: NotKeptKind, count: u64, example: &str) {
        if count == 0 {
            return;
        }
        let found = self.0.entry(kind);
        let (sum, _) = found.or_insert_with(|| (0, printable_within(example, MAX_EXAMPLE)));
        *sum = sum.saturating_add(count);
    }

    /// Whether everything was kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entries by kind, in a fixed order.
    pub fn entries(&self) -> Vec<NotKeptEntry> {
        self.clone().into()
    }
}

impl From<Vec<NotKeptEntry>> for NotKept {
    fn from(entries: Vec<NotKeptEntry>) -> Self {
        let mut found = Self::default();
        for entry in entries {
            found.add_entry(entry.kind, entry.count, &entry.example);
        }
        found
    }
}

impl From<NotKept> for Vec<NotKeptEntry> {
    fn from(list: NotKept) -> Self {
        let kinds = list.0.into_iter();
        kinds
            .map(|(kind, (count, example))| NotKeptEntry {
                kind,
                count,
                example,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
