//! The last push of every volume to every receiver, kept across restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sendshot_model::{PeerName, ReasonCode, RootId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

use sendshot_proto::report::Report;

/// File in the state directory.
const FILE: &str = "history.json";

/// Most disks of a receiver that are remembered.
const MAX_DISKS: usize = 32;

/// How a push ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver has acknowledged it.
    Done(Box<Report>),
    /// The error in one sentence.
    Failed(String),
}

/// The last push of a volume to a receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub volume: VolumeName,
    pub receiver: PeerName,
    /// When it ended, seconds since 1970 UTC.
    pub ended_at: i64,
    pub outcome: Outcome,
    /// When a push last succeeded, seconds since 1970 UTC.
    pub last_success: Option<i64>,
    /// The same for each of the receiver's disks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<RootId, i64>,
}

/// The last pushes, by receiver and volume.
#[derive(Debug)]
pub struct LastPushes {
    path: PathBuf,
    last: Mutex<BTreeMap<String, Last>>,
}

impl LastPushes {
    /// Reads the last pushes from a state directory.
    ///
    /// # Errors
    /// I/O errors, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let last = Mutex::new(durable::read_json(&path)?.unwrap_or_default());
        Ok(Self { path, last })
    }

    /// Adds a push that has ended.
    ///
    /// # Errors
    /// I/O errors; the list in memory has the push all the same.
    pub fn add(
        &self,
        volume: VolumeName,
        receiver: PeerName,
        ended_at: i64,
        outcome: Outcome,
    ) -> io::Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{receiver}:{volume}");
        let before = last.get(&key).and_then(|before| before.last_success);
        let last_success = match &outcome {
            // A series without a new snapshot: its newest copy is as old as before.
            Outcome::Done(report) if report.parent_reason_code == ReasonCode::AllAcknowledged => {
                before.or(Some(ended_at))
            }
            Outcome::Done(_) => Some(ended_at),
            Outcome::Failed(_) => before,
        };
        let mut disks = last.get(&key).map(|before| before.disks.clone());
        let disks = disks.get_or_insert_default();
        if let Outcome::Done(report) = &outcome
            && let Some(root) = report.root
        {
            disks.insert(root, ended_at);
        }
        // A lying receiver must not fill the file.
        while disks.len() > MAX_DISKS {
            let oldest = disks.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id);
            oldest.and_then(|id| disks.remove(&id));
        }
        let disks = std::mem::take(disks);
        last.insert(
            key,
            Last {
                volume,
                receiver,
                ended_at,
                outcome,
                last_success,
                disks,
            },
        );
        durable::write_json(&self.path, &*last)
    }

    /// The nested subvolumes that the last pushes of a volume, to any receiver, left out.
    pub fn left_out(&self, volume: &VolumeName) -> BTreeSet<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let of_volume = last.values().filter(|last| last.volume == *volume);
        let reports = of_volume.filter_map(|last| match &last.outcome {
            Outcome::Done(report) => Some(report),
            Outcome::Failed(_) => None,
        });
        reports
            .flat_map(|report| report.skipped.iter().cloned())
            .collect()
    }

    /// All last pushes, sorted by receiver and volume.
    pub fn all(&self) -> Vec<Last> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.values().cloned().collect()
    }
}
