//! The state of each volume that was pushed last to each receiver, so that a scheduled run can tell without a snapshot, and
//! without reading the volume's disk, that nothing has changed since.
//!
//! btrfs numbers its transactions, and the root of a subvolume carries the number of its last change. A snapshot has the
//! number that its source had in the moment of the snapshot. So a volume of the same number is unchanged, but for what is
//! still only in memory; that goes with the next run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::{ReceiverId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::volume::live_state::LiveState;

/// File in the state directory.
const FILE: &str = "pushed-states.json";

/// The state that a receiver holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedState {
    /// The volume when the push snapshot was taken.
    pub live: LiveState,
    /// Identity of the copy.
    pub uuid: Uuid,
    pub ctransid: u64,
    /// When the receiver last reported to hold it, in seconds since 1970 UTC.
    pub reported_at: i64,
}

/// The states, by receiver and volume.
#[derive(Debug)]
pub struct PushedStates {
    path: PathBuf,
    states: Mutex<BTreeMap<String, PushedState>>,
}

impl PushedStates {
    /// Reads the states. A damaged file counts as empty: the next push of each volume goes to the receiver.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let states = durable::read_json(&path).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", path.display());
            None
        });
        Self {
            path,
            states: Mutex::new(states.unwrap_or_default()),
        }
    }

    /// The state of a volume that a receiver holds.
    pub fn get(&self, receiver: ReceiverId, volume: &VolumeName) -> Option<PushedState> {
        self.lock().get(&key(receiver, volume)).copied()
    }

    /// Notes a state that a receiver has reported to hold; `None` if it is not known what it holds.
    pub fn note(&self, receiver: ReceiverId, volume: &VolumeName, state: Option<PushedState>) {
        let mut states = self.lock();
        let key = key(receiver, volume);
        match state {
            Some(state) => drop(states.insert(key, state)),
            None => drop(states.remove(&key)),
        }
        // What a crash loses is asked for again.
        if let Err(e) = durable::replace_json(&self.path, &*states) {
            tracing::warn!("cannot write {}: {e}", self.path.display());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PushedState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(receiver: ReceiverId, volume: &VolumeName) -> String {
    format!("{receiver}:{volume}")
}
