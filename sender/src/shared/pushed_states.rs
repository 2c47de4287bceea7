//! The state of each volume that was pushed last to each receiver, so that a scheduled run can tell without a snapshot, and
//! without reading the volume's disk, that nothing has changed since.
//!
//! btrfs numbers its transactions, and the root of a subvolume carries the number of its last change. A snapshot has the
//! number that its source had in the moment of the snapshot. So a volume of the same number is unchanged, but for what is
//! still only in memory; that goes with the next run.
//!
//! One thing changes a subvolume without that number: the replay of the log of fsynced files, at the first mount after a power
//! loss (seen on Linux 6.18). It changes the generation of the subvolume's root, as other harmless things do. So in another
//! mount than the one in which the volume was seen last, the generation has to be the same, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::{ReceiverId, VolumeName};
use sendshot_sys::{clock, durable};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::volume::live_state::{LiveState, SeenState};

/// File in the state directory.
const FILE: &str = "pushed-states.json";

/// The state that a receiver holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedState {
    /// The volume when the push snapshot was taken.
    pub live: LiveState,
    /// How the volume was seen last in that state.
    #[serde(default)]
    pub seen: Option<Seen>,
    /// Identity of the copy.
    pub uuid: Uuid,
    pub ctransid: u64,
    /// When the receiver last reported to hold it, in seconds since 1970 UTC.
    pub reported_at: i64,
}

/// How a volume was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Transaction of its last change of any kind.
    pub generation: u64,
    /// The boot of this host, and the mount of the file system; `None` if they are not known.
    pub mount: Option<(String, u64)>,
}

impl Seen {
    /// What is noted of a state that is seen now.
    pub fn of(state: &SeenState) -> Self {
        Self {
            generation: state.generation,
            mount: clock::boot_id().zip(state.mount),
        }
    }

    /// Whether no log can have been replayed since: it is the same mount, or nothing at all has changed.
    pub fn excludes_replay(&self, now: &Self) -> bool {
        let is_same_mount = self.mount.is_some() && self.mount == now.mount;
        is_same_mount || self.generation == now.generation
    }
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
        let states = durable::recall_json(&path).unwrap_or_else(|e| {
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
        self.lock().get(&key(receiver, volume)).cloned()
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

    /// Notes how an unchanged volume is seen now.
    pub fn see(&self, receiver: ReceiverId, volume: &VolumeName, seen: Seen) {
        let Some(state) = self.get(receiver, volume) else {
            return;
        };
        if state.seen.as_ref() != Some(&seen) {
            let seen = Some(seen);
            self.note(receiver, volume, Some(PushedState { seen, ..state }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PushedState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(receiver: ReceiverId, volume: &VolumeName) -> String {
    format!("{receiver}:{volume}")
}
