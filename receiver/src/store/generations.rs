//! The generations of the ledgers that this receiver has seen last: an older ledger was rolled back, and lacks holds.
//!
//! They lie in the state directory. A receiver that has lost it, or gets a disk of another one, has seen none.

use std::path::Path;

use sendshot_model::RootId;
use sendshot_service::{Keeping, KeptMap};

/// File in the state directory.
const FILE: &str = "ledgers.json";

/// The generations, by disk and directory. That one cannot be written only lets a ledger be rolled back unnoticed.
#[derive(Debug)]
pub struct Generations(KeptMap<u64>);

impl Generations {
    /// Reads the file. One that cannot be read counts as missing.
    pub fn new(state_dir: &Path) -> Self {
        Self(KeptMap::load(state_dir.join(FILE), Keeping::Durable))
    }

    /// The last generation of the ledger of a directory, `sender/volume`.
    pub fn seen(&self, root: RootId, dir: &str) -> Option<u64> {
        self.0.get(&key(root, dir))
    }

    /// Notes a generation.
    pub fn note(&self, root: RootId, dir: &str, generation: u64) {
        self.0.set(&key(root, dir), Some(generation));
    }
}

fn key(root: RootId, dir: &str) -> String {
    format!("{root}/{dir}")
}
