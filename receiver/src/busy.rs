//! Which volumes are being pushed now: one push of a volume at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use sendshot_model::{PeerName, VolumeId};
use sendshot_proto::transfer::Begin;

use crate::holdings::Caller;

type Key = (PeerName, VolumeId);

/// The set of them.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<Mutex<HashSet<Key>>>);

/// A volume that is being pushed; given up when dropped.
#[derive(Debug)]
pub struct Place {
    busy: Busy,
    key: Key,
}

impl Busy {
    /// Takes the place of a volume, unless it is taken.
    pub fn enter(&self, caller: &Caller, begin: &Begin) -> Option<Place> {
        let key = (caller.name.clone(), begin.volume.id);
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.insert(key.clone()).then(|| Place {
            busy: self.clone(),
            key,
        })
    }

    /// Whether a push of a volume is running.
    pub fn has(&self, caller: &Caller, volume: VolumeId) -> bool {
        let set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.contains(&(caller.name.clone(), volume))
    }

    /// Whether no push is running.
    pub fn is_idle(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut set = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.remove(&self.key);
    }
}
