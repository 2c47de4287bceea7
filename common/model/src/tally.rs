//! Counts by kind, each with an example.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::printable::printable_within;

/// Maximum length of an example path in bytes.
pub(crate) const MAX_EXAMPLE: usize = 200;

/// Number and example of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TallyEntry<K> {
    /// What is counted.
    pub kind: K,
    /// Number of times it was counted.
    pub count: u64,
    /// Path of one example, printable and truncated if it is long.
    pub example: String,
}

/// Counts by kind. Its size is bounded by the number of kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "Vec<TallyEntry<K>>",
    into = "Vec<TallyEntry<K>>",
    bound(
        serialize = "K: Ord + Copy + Serialize",
        deserialize = "K: Ord + Copy + Deserialize<'de>"
    )
)]
pub struct Tally<K>(BTreeMap<K, (u64, String)>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Tally<K> {
    /// Counts one of a kind, with its path.
    pub fn add(&mut self, kind: K, path: &str) {
        self.add_entry(kind, 1, path);
    }

    /// Adds the counts of another list. The examples of this list stay.
    pub fn add_all(&mut self, other: &Self) {
        for (kind, (count, example)) in &other.0 {
            self.add_entry(*kind, *count, example);
        }
    }

    fn add_entry(&mut self, kind: K, count: u64, example: &str) {
        if count == 0 {
            return;
        }
        let found = self.0.entry(kind);
        let (sum, _) = found.or_insert_with(|| (0, printable_within(example, MAX_EXAMPLE)));
        *sum = sum.saturating_add(count);
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the entries by kind, in a fixed order.
    pub fn entries(&self) -> Vec<TallyEntry<K>> {
        self.clone().into()
    }
}

impl<K: Ord + Copy> From<Vec<TallyEntry<K>>> for Tally<K> {
    fn from(entries: Vec<TallyEntry<K>>) -> Self {
        let mut found = Self::default();
        for entry in entries {
            found.add_entry(entry.kind, entry.count, &entry.example);
        }
        found
    }
}

impl<K: Ord + Copy> From<Tally<K>> for Vec<TallyEntry<K>> {
    fn from(list: Tally<K>) -> Self {
        let kinds = list.0.into_iter();
        kinds
            .map(|(kind, (count, example))| TallyEntry {
                kind,
                count,
                example,
            })
            .collect()
    }
}
