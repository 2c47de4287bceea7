//! What senders reported of unchanged volumes: when, and of which copy. It is shown, and keeps the alarm on silence quiet; no
//! copy is kept or deleted by it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_proto::confirm::Paused;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// File in the state directory.
const FILE: &str = "confirmed.json";

/// A volume that was unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// When the sender reported it, in seconds since 1970 UTC by the receiver's clock.
    pub at: i64,
    /// Name of the copy whose state it had.
    pub copy: String,
    /// The pause of the sender's schedule at that time.
    pub paused: Option<PausedThen>,
}

/// A pause of a sender's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PausedThen {
    Until(i64),
    WithoutEnd,
}

impl From<Paused> for PausedThen {
    fn from(paused: Paused) -> Self {
        match paused {
            Paused::Until(until) => Self::Until(until),
            Paused::WithoutEnd => Self::WithoutEnd,
        }
    }
}

/// The confirmations, by the directories of the volumes.
#[derive(Debug)]
pub struct Confirmations {
    path: PathBuf,
    confirmed: Mutex<BTreeMap<String, Confirmed>>,
}

impl Confirmations {
    /// Reads the confirmations. A damaged file counts as empty: the alarm is then rather too early.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let confirmed = durable::recall_json(&path).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", path.display());
            None
        });
        Self {
            path,
            confirmed: Mutex::new(confirmed.unwrap_or_default()),
        }
    }

    /// The last confirmation of a volume, given by its directory.
    pub fn of(&self, dir: &str) -> Option<Confirmed> {
        self.lock().get(dir).cloned()
    }

    /// Notes one. Only volumes that exist get here, so that their number is limited.
    pub fn note(&self, dir: &str, new: Confirmed) {
        let mut confirmed = self.lock();
        confirmed.insert(dir.to_owned(), new);
        if let Err(e) = durable::replace_json(&self.path, &*confirmed) {
            tracing::warn!("cannot write {}: {e}", self.path.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Confirmed>> {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
