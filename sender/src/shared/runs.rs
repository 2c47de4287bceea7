//! The runs by schedules: which slot of each was served last, and what failed since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sendshot_model::{PeerName, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// File in the state directory.
const FILE: &str = "runs.json";

/// A volume and a receiver.
pub type RunKey = (PeerName, VolumeName);

/// The runs of a volume to a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The slot that was served last, or the moment at which the schedule was seen first.
    pub served: Timestamp,
    /// Runs that failed since the last success.
    #[serde(default)]
    pub failed: u32,
    /// No run begins before.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// When nothing was found to be changed last, in seconds since 1970 UTC.
    #[serde(default)]
    pub unchanged_at: Option<i64>,
}

/// The runs, in memory and in the state directory.
#[derive(Debug)]
pub struct Runs {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: BTreeMap<RunKey, Run>,
    is_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    receiver: PeerName,
    volume: VolumeName,
    #[serde(flatten)]
    run: Run,
}

impl Runs {
    /// Reads the runs. A damaged file counts as empty: each schedule begins again.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let stored: Option<Vec<Stored>> = durable::recall_json(&path).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", path.display());
            None
        });
        let stored = stored.unwrap_or_default().into_iter();
        let runs = stored
            .map(|of| ((of.receiver, of.volume), of.run))
            .collect();
        Self {
            path,
            inner: Mutex::new(Inner {
                runs,
                is_changed: false,
            }),
        }
    }

    /// The runs of a volume to a receiver.
    pub fn get(&self, key: &RunKey) -> Option<Run> {
        self.lock().runs.get(key).cloned()
    }

    /// The runs of a volume to a receiver; new ones if there are none yet.
    pub fn get_or(&self, key: &RunKey, new: impl FnOnce() -> Run) -> Run {
        let mut inner = self.lock();
        if let Some(run) = inner.runs.get(key) {
            return run.clone();
        }
        let run = new();
        inner.runs.insert(key.clone(), run.clone());
        inner.is_changed = true;
        run
    }

    /// Changes the runs of a volume to a receiver, if there are any.
    pub fn change(&self, key: &RunKey, change: impl FnOnce(&mut Run)) {
        let mut inner = self.lock();
        if let Some(run) = inner.runs.get_mut(key) {
            change(run);
            inner.is_changed = true;
        }
    }

    /// Lets the runs begin at once that wait after a failure.
    pub fn try_again(&self) {
        let mut inner = self.lock();
        inner.is_changed = true;
        inner
            .runs
            .values_mut()
            .for_each(|run| run.not_before = None);
    }

    /// Forgets the runs that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&RunKey) -> bool) {
        let mut inner = self.lock();
        let before = inner.runs.len();
        inner.runs.retain(|key, _| wanted(key));
        inner.is_changed |= inner.runs.len() != before;
    }

    /// Writes what has changed. A crash before loses what it made the next start do again.
    pub fn store(&self) {
        let mut inner = self.lock();
        if !inner.is_changed {
            return;
        }
        let stored = inner.runs.iter().map(|((receiver, volume), run)| Stored {
            receiver: receiver.clone(),
            volume: volume.clone(),
            run: run.clone(),
        });
        let stored: Vec<Stored> = stored.collect();
        match durable::replace_json(&self.path, &stored) {
            Ok(()) => inner.is_changed = false,
            Err(e) => tracing::warn!("cannot write {}: {e}", self.path.display()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
