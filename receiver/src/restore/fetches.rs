//! The running fetches, by sender.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sendshot_model::PeerName;

/// A copy: its volume's directory and its name.
type CopyKey = (String, String);

type Table = HashMap<PeerName, Vec<CopyKey>>;

/// The table of running fetches.
#[derive(Debug, Clone, Default)]
pub struct Fetches(Arc<Mutex<Table>>);

/// A place in the table, freed on drop.
#[derive(Debug)]
pub struct Slot {
    table: Fetches,
    sender: PeerName,
    copy: CopyKey,
}

impl Fetches {
    /// Takes a place for a sender and one of its copies; `None` if it has as many as it may.
    pub fn enter(
        &self,
        sender: &PeerName,
        (volume, name): (&str, &str),
        max_fetches: NonZeroU32,
    ) -> Option<Slot> {
        let mut table = self.lock();
        let running = table.entry(sender.clone()).or_default();
        if running.len() >= max_fetches.get() as usize {
            return None;
        }
        let copy = (volume.to_owned(), name.to_owned());
        running.push(copy.clone());
        Some(Slot {
            table: self.clone(),
            sender: sender.clone(),
            copy,
        })
    }

    /// The names of the copies in a volume's directory that are being fetched.
    pub fn copies_of(&self, sender: &str, volume: &str) -> Vec<String> {
        let table = self.lock();
        let of_sender = table.iter().filter(|(name, _)| name.as_str() == sender);
        let copies = of_sender.flat_map(|(_, copies)| copies);
        let of_volume = copies.filter(|(of, _)| of == volume);
        of_volume.map(|(_, name)| name.clone()).collect()
    }

    /// Does something while a copy is not fetched, and no fetch can begin; `None` if it is fetched.
    pub fn unless_fetched<T>(
        &self,
        sender: &str,
        volume: &str,
        name: &str,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let table = self.lock();
        let mut of_sender = table.iter().filter(|(of, _)| of.as_str() == sender);
        let is_it = |copy: &CopyKey| copy.0 == volume && copy.1 == name;
        let is_fetched = of_sender.any(|(_, copies)| copies.iter().any(is_it));
        (!is_fetched).then(work)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        if let Some(running) = table.get_mut(&self.sender) {
            if let Some(at) = running.iter().position(|copy| *copy == self.copy) {
                running.swap_remove(at);
            }
            if running.is_empty() {
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
        let copy = ("photos", "1");
        let first = fetches.enter(&nas1, copy, two);
        let second = fetches.enter(&nas1, ("photos", "2"), two);
        assert!(first.is_some() && second.is_some());
        assert!(fetches.enter(&nas1, copy, two).is_none());
        assert!(fetches.enter(&nas2, copy, two).is_some());
        assert_eq!(fetches.unless_fetched("nas1", "photos", "1", || ()), None);
        assert_eq!(fetches.copies_of("nas1", "photos"), ["1", "2"]);
        drop(first);
        assert_eq!(
            fetches.unless_fetched("nas1", "photos", "1", || ()),
            Some(())
        );
        assert!(fetches.enter(&nas1, copy, two).is_some());
        drop(second);
        assert!(fetches.0.lock().unwrap().is_empty());
    }
}
