//! The running fetches, counted by sender.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use sendshot_model::PeerName;

/// The table of running fetches.
#[derive(Debug, Clone, Default)]
pub struct Fetches(Arc<Mutex<HashMap<PeerName, u32>>>);

/// A place in the table, freed on drop.
#[derive(Debug)]
pub struct Slot {
    table: Fetches,
    sender: PeerName,
}

impl Fetches {
    /// Takes a place for a sender; `None` if it has as many as it may.
    pub fn enter(&self, sender: &PeerName, max_fetches: NonZeroU32) -> Option<Slot> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = table.entry(sender.clone()).or_default();
        if *running >= max_fetches.get() {
            return None;
        }
        *running += 1;
        Some(Slot {
            table: self.clone(),
            sender: sender.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let table = &self.table.0;
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = table.get_mut(&self.sender) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                table.remove(&self.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_has_its_own_places() {
        let fetches = Fetches::default();
        let two = NonZeroU32::new(2).unwrap();
        let (nas1, nas2): (PeerName, PeerName) = ("nas1".parse().unwrap(), "nas2".parse().unwrap());
        let first = fetches.enter(&nas1, two);
        let second = fetches.enter(&nas1, two);
        assert!(first.is_some() && second.is_some());
        assert!(fetches.enter(&nas1, two).is_none());
        assert!(fetches.enter(&nas2, two).is_some());
        drop(first);
        assert!(fetches.enter(&nas1, two).is_some());
        drop(second);
        assert!(fetches.0.lock().unwrap().is_empty());
    }
}
