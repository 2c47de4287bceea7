//! One writer at a time for the ledger of a volume: a push that commits, a run that deletes, and the administrator.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The locked volumes, by their directories.
#[derive(Debug, Clone, Default)]
pub struct VolumeLocks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    locked: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// A locked volume, until this is dropped.
#[derive(Debug)]
pub struct VolumeLock {
    locks: VolumeLocks,
    dir: String,
}

impl VolumeLocks {
    /// Locks the volume in a directory, `sender/volume`; waits until no other has it. Blocks.
    pub fn lock(&self, dir: &str) -> VolumeLock {
        let mut locked = self.locked();
        while !locked.insert(dir.to_owned()) {
            let waited = self.0.freed.wait(locked);
            locked = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(locked);
        VolumeLock {
            locks: self.clone(),
            dir: dir.to_owned(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        self.locks.locked().remove(&self.dir);
        self.locks.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_writer_at_a_time() {
        let locks = VolumeLocks::default();
        let other = locks.lock("nas1/music");
        let counter = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _lock = locks.lock("nas1/photos");
                        let here = {
                            let mut counter = counter.lock().unwrap();
                            counter.0 += 1;
                            counter.0
                        };
                        assert_eq!(here, 1, "two at a time");
                        std::thread::yield_now();
                        let mut counter = counter.lock().unwrap();
                        *counter = (0, counter.1 + 1);
                    }
                });
            }
        });
        assert_eq!(counter.into_inner().unwrap().1, 400);
        drop(other);
    }
}
