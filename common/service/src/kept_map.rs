//! A map that a daemon keeps in a file of its state directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_sys::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a power loss may take from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing that was noted.
    Durable,
    /// What was noted last, or all: it can be found out again.
    Recoverable,
}

/// The map, in memory and in its file.
#[derive(Debug)]
pub struct KeptMap<V> {
    file: PathBuf,
    keeping: Keeping,
    map: Mutex<BTreeMap<String, V>>,
}

impl<V: Clone + PartialEq + Serialize + DeserializeOwned> KeptMap<V> {
    /// Reads the file. One that cannot be read, or is damaged, counts as empty.
    pub fn load(file: PathBuf, keeping: Keeping) -> Self {
        let read = match keeping {
            Keeping::Durable => durable::read_json(&file),
            Keeping::Recoverable => durable::recall_json(&file),
        };
        let map = read.unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", file.display());
            None
        });
        Self {
            file,
            keeping,
            map: Mutex::new(map.unwrap_or_default()),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<V> {
        self.lock().get(key).cloned()
    }

    /// Sets the value of a key, or removes it.
    pub fn set(&self, key: &str, value: Option<V>) {
        self.change(key, |_| value);
    }

    /// Replaces the value of a key by what `change` makes of it. The file is written only if that is another value; a failure
    /// to write it is logged.
    pub fn change(&self, key: &str, change: impl FnOnce(Option<V>) -> Option<V>) {
        let mut map = self.lock();
        let before = map.get(key).cloned();
        let after = change(before.clone());
        if before == after {
            return;
        }
        match after {
            Some(value) => drop(map.insert(key.to_owned(), value)),
            None => drop(map.remove(key)),
        }
        let written = match self.keeping {
            Keeping::Durable => durable::write_json(&self.file, &*map),
            Keeping::Recoverable => durable::replace_json(&self.file, &*map),
        };
        if let Err(e) = written {
            tracing::warn!("cannot write {}: {e}", self.file.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_restart_and_a_damaged_file_is_empty() {
        for keeping in [Keeping::Durable, Keeping::Recoverable] {
            let dir = tempfile::tempdir().unwrap();
            let load = || KeptMap::<u64>::load(dir.path().join("map.json"), keeping);
            let map = load();
            map.set("a", Some(1));
            map.change("a", |before| before.map(|before| before + 1));
            map.set("b", Some(3));
            map.set("b", None);
            let again = load();
            assert_eq!((again.get("a"), again.get("b")), (Some(2), None));
            std::fs::write(dir.path().join("map.json"), "{\"a\":").unwrap();
            assert_eq!(load().get("a"), None);
        }
    }
}
