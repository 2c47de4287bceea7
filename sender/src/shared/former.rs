//! Former ids of this sender, as reported by the receivers that were paired with it under them. A system that was
//! set up again after its disk died has a new id; what it left on its data disks is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::{ReceiverId, SenderId};
use sendshot_sys::durable;

/// File in the state directory.
const FILE: &str = "former.json";

type Told = BTreeMap<ReceiverId, BTreeSet<SenderId>>;

/// The former ids that each receiver reports.
#[derive(Debug)]
pub struct FormerIds {
    path: PathBuf,
    told: Mutex<Told>,
}

impl FormerIds {
    /// Reads the list of a state directory.
    ///
    /// # Errors
    /// I/O errors, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let told = durable::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            told: Mutex::new(told),
        })
    }

    /// Stores what a receiver reports now, in place of its former report.
    ///
    /// # Errors
    /// I/O errors; nothing is stored then.
    pub fn note(&self, receiver: ReceiverId, former: &[SenderId]) -> io::Result<()> {
        let mut told = self.lock();
        let former: BTreeSet<SenderId> = former.iter().copied().collect();
        if told.get(&receiver).unwrap_or(&BTreeSet::new()) == &former {
            return Ok(());
        }
        let mut changed = told.clone();
        changed.insert(receiver, former);
        durable::write_json(&self.path, &changed)?;
        *told = changed;
        Ok(())
    }

    /// The ids reported by the `paired` receivers, each with its receiver.
    pub fn vouched(&self, paired: impl Fn(ReceiverId) -> bool) -> BTreeSet<(ReceiverId, SenderId)> {
        let told = self.lock();
        let told = told.iter().filter(|(receiver, _)| paired(**receiver));
        told.flat_map(|(receiver, former)| former.iter().map(|id| (*receiver, *id)))
            .collect()
    }

    /// The ids reported by the `paired` receivers.
    pub fn all(&self, paired: impl Fn(ReceiverId) -> bool) -> BTreeSet<SenderId> {
        let told = self.lock();
        let told = told.iter().filter(|(receiver, _)| paired(**receiver));
        told.flat_map(|(_, former)| former.iter().copied())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paired_receivers_count() {
        let dir = tempfile::tempdir().unwrap();
        let former = FormerIds::load(dir.path()).unwrap();
        let (one, two) = (ReceiverId::generate(), ReceiverId::generate());
        let (a, b) = (SenderId::generate(), SenderId::generate());
        former.note(one, &[a]).unwrap();
        former.note(two, &[a, b]).unwrap();
        let again = FormerIds::load(dir.path()).unwrap();
        assert_eq!(again.all(|id| id == one), BTreeSet::from([a]));
        again.note(two, &[]).unwrap();
        assert_eq!(again.all(|_| true), BTreeSet::from([a]));
        assert!(again.all(|_| false).is_empty());
    }
}
