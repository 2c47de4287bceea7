//! Counts of what has ended since the daemon started.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What has ended for one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Copies that were made.
    pub done: u64,
    /// How many ended without one.
    pub failed: u64,
    /// Bytes of the streams of those that ended with a copy.
    pub stream_bytes: u64,
}

/// The counts, by key.
#[derive(Debug)]
pub struct Counts<K>(Mutex<BTreeMap<K, Count>>);

impl<K: Ord + Clone> Counts<K> {
    /// Nothing has ended yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Counts copies, and the bytes of their streams together.
    pub fn done(&self, key: K, copies: usize, stream_bytes: u64) {
        self.change(key, |count| {
            count.done += copies as u64;
            count.stream_bytes = count.stream_bytes.saturating_add(stream_bytes);
        });
    }

    /// Counts one that ended without a copy.
    pub fn failed(&self, key: K) {
        self.change(key, |count| count.failed += 1);
    }

    fn change(&self, key: K, change: impl FnOnce(&mut Count)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(key).or_default());
    }

    /// All counts, by key.
    pub fn all(&self) -> Vec<(K, Count)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts.iter().map(|(key, count)| (key.clone(), *count));
        all.collect()
    }
}

impl<K: Ord + Clone> Default for Counts<K> {
    fn default() -> Self {
        Self::new()
    }
}
