//! What senders reported of unchanged volumes: when, and of which copy. It is shown, and keeps the alarm on silence quiet; no
//! copy is kept or deleted by it.

use std::path::Path;

use sendshot_proto::confirm::Paused;
use sendshot_service::{Keeping, KeptMap};
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

/// The confirmations, by the directories of the volumes. If they are lost, the alarm is rather too early.
#[derive(Debug)]
pub struct Confirmations(KeptMap<Confirmed>);

impl Confirmations {
    /// Reads the confirmations.
    pub fn load(state_dir: &Path) -> Self {
        Self(KeptMap::load(state_dir.join(FILE), Keeping::Recoverable))
    }

    /// The last confirmation of a volume, given by its directory.
    pub fn of(&self, dir: &str) -> Option<Confirmed> {
        self.0.get(dir)
    }

    /// Notes one. Only volumes that exist get here, so that their number is limited.
    pub fn note(&self, dir: &str, new: Confirmed) {
        self.0.set(dir, Some(new));
    }
}
