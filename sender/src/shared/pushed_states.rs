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

use std::path::Path;

use sendshot_model::{ReceiverId, VolumeName};
use sendshot_service::{Keeping, KeptMap};
use sendshot_sys::clock;
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

/// The states, by receiver and volume. If they are lost, the next push of each volume goes to the receiver.
#[derive(Debug)]
pub struct PushedStates(KeptMap<PushedState>);

impl PushedStates {
    /// Reads the states.
    pub fn load(state_dir: &Path) -> Self {
        Self(KeptMap::load(state_dir.join(FILE), Keeping::Recoverable))
    }

    /// The state of a volume that a receiver holds.
    pub fn get(&self, receiver: ReceiverId, volume: &VolumeName) -> Option<PushedState> {
        self.0.get(&key(receiver, volume))
    }

    /// Notes a state that a receiver has reported to hold; `None` if it is not known what it holds.
    pub fn note(&self, receiver: ReceiverId, volume: &VolumeName, state: Option<PushedState>) {
        self.0.set(&key(receiver, volume), state);
    }

    /// Notes how a volume is seen that is still in a state.
    pub fn see(&self, receiver: ReceiverId, volume: &VolumeName, of: &PushedState, seen: Seen) {
        self.0.change(&key(receiver, volume), |state| {
            state.map(|state| match state.live == of.live {
                true => PushedState {
                    seen: Some(seen),
                    ..state
                },
                // A push has noted another one meanwhile.
                false => state,
            })
        });
    }
}

fn key(receiver: ReceiverId, volume: &VolumeName) -> String {
    format!("{receiver}:{volume}")
}
