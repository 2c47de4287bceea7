//! The generations of the ledgers that this receiver has seen last: an older ledger was rolled back, and lacks holds.
//!
//! They lie in the state directory. A receiver that has lost it, or gets a disk of another one, has seen none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::RootId;
use sendshot_sys::durable;

/// File in the state directory.
const FILE: &str = "ledgers.json";

/// The generations, by disk and directory.
#[derive(Debug)]
pub struct Generations {
    file: PathBuf,
    seen: Mutex<BTreeMap<String, u64>>,
}

impl Generations {
    /// Reads the file. One that cannot be read counts as missing.
    pub fn new(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let seen = durable::read_json(&file).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", file.display());
            None
        });
        Self {
            file,
            seen: Mutex::new(seen.unwrap_or_default()),
        }
    }

    /// The last generation of the ledger of a directory, `sender/volume`.
    pub fn seen(&self, root: RootId, dir: &str) -> Option<u64> {
        self.lock().get(&key(root, dir)).copied()
    }

    /// Notes a generation. That it cannot be written only lets a ledger be rolled back unnoticed.
    pub fn note(&self, root: RootId, dir: &str, generation: u64) {
        let mut seen = self.lock();
        if seen.insert(key(root, dir), generation) == Some(generation) {
            return;
        }
        if let Err(e) = durable::write_json(&self.file, &*seen) {
            tracing::warn!("cannot write {}: {e}", self.file.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(root: RootId, dir: &str) -> String {
    format!("{root}/{dir}")
}
