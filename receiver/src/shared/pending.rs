//! What retention remembers between its runs: the volumes that are due, and why no copy of a volume is deleted, as it was
//! logged last.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The volumes that were pushed since the last run, as `sender/volume`.
#[derive(Debug, Default)]
pub struct DueVolumes {
    volumes: Mutex<BTreeSet<String>>,
    came: Notify,
}

impl DueVolumes {
    /// Notes a volume.
    pub fn note(&self, volume: &str) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(volume.to_owned());
        self.came.notify_one();
    }

    /// Waits for a volume.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// Takes the volumes.
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.volumes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The last reason of each volume.
#[derive(Debug, Default)]
pub struct LoggedReasons(Mutex<HashMap<String, String>>);

impl LoggedReasons {
    /// Whether this reason was not logged last for the volume. It is noted as logged.
    pub fn is_new(&self, volume: &str, why: &str) -> bool {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.insert(volume.to_owned(), why.to_owned()).as_deref() != Some(why)
    }
}
