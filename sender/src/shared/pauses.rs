//! Pauses of scheduled pushes, by command.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sendshot_model::{PeerName, VolumeName};
use sendshot_proto::confirm::Paused;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// File in the state directory.
const FILE: &str = "pauses.json";

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The only receiver and volume concerned; `None` for all.
    pub target: Option<(PeerName, VolumeName)>,
    /// When it ends by itself; `None` for never.
    pub until: Option<Timestamp>,
}

impl Pause {
    /// The pause as a receiver learns of it.
    pub fn as_confirmed(&self) -> Paused {
        match self.until {
            Some(until) => Paused::Until(until.as_second()),
            None => Paused::WithoutEnd,
        }
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The pauses, kept across restarts.
#[derive(Debug)]
pub struct Pauses {
    path: PathBuf,
    pauses: Mutex<Vec<Pause>>,
}

impl Pauses {
    /// Reads the pauses.
    ///
    /// # Errors
    /// I/O errors, or `InvalidData` for a damaged file: a pause is not forgotten silently.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let pauses = durable::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            pauses: Mutex::new(pauses),
        })
    }

    /// Adds a pause, in the place of one of the same target.
    ///
    /// # Errors
    /// I/O errors; nothing is paused then.
    pub fn add(&self, pause: Pause, now: Timestamp) -> io::Result<()> {
        self.replace(|pauses| {
            pauses.retain(|other| other.target != pause.target && other.holds(now));
            pauses.push(pause);
        })
    }

    /// Ends the pauses of a target, or all; returns their number.
    ///
    /// # Errors
    /// I/O errors; nothing is continued then.
    pub fn end(
        &self,
        target: Option<&(PeerName, VolumeName)>,
        now: Timestamp,
    ) -> io::Result<usize> {
        let is_meant = |pause: &Pause| target.is_none() || pause.target.as_ref() == target;
        let ended = self.all(now).iter().filter(|pause| is_meant(pause)).count();
        self.replace(|pauses| pauses.retain(|pause| !is_meant(pause)))?;
        Ok(ended)
    }

    fn replace(&self, change: impl FnOnce(&mut Vec<Pause>)) -> io::Result<()> {
        let mut pauses = self.lock();
        let mut changed = pauses.clone();
        change(&mut changed);
        durable::write_json(&self.path, &changed)?;
        *pauses = changed;
        Ok(())
    }

    /// The pauses that hold now.
    pub fn all(&self, now: Timestamp) -> Vec<Pause> {
        let pauses = self.lock();
        pauses
            .iter()
            .filter(|pause| pause.holds(now))
            .cloned()
            .collect()
    }

    /// The pause of a receiver and volume that holds longest, if there is one.
    pub fn of(&self, receiver: &PeerName, volume: &VolumeName, now: Timestamp) -> Option<Pause> {
        let concerns = |pause: &Pause| {
            let target = pause.target.as_ref();
            target.is_none_or(|(r, v)| r == receiver && v == volume)
        };
        let all = self.all(now).into_iter().filter(concerns);
        all.max_by_key(|pause| pause.until.unwrap_or(Timestamp::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself_or_by_command_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let target = |volume: &str| ("nas2".parse().unwrap(), volume.parse().unwrap());
        let pauses = Pauses::load(dir.path()).unwrap();
        let of = |pauses: &Pauses, volume: &str, now| {
            let (receiver, volume): (PeerName, VolumeName) = target(volume);
            pauses
                .of(&receiver, &volume, at(now))
                .map(|pause| pause.until)
        };
        let photos = Some(target("photos"));
        let until = Some(at(100));
        let target = photos.clone();
        pauses.add(Pause { target, until }, at(0)).unwrap();
        assert_eq!(of(&pauses, "photos", 99), Some(until));
        assert_eq!(of(&pauses, "photos", 100), None);
        assert_eq!(of(&pauses, "mail", 0), None);
        let all = Pause {
            target: None,
            until: None,
        };
        pauses.add(all, at(0)).unwrap();
        let again = Pauses::load(dir.path()).unwrap();
        assert_eq!(of(&again, "mail", 1000), Some(None));
        assert_eq!(of(&again, "photos", 0), Some(None));
        assert_eq!(again.end(photos.as_ref(), at(0)).unwrap(), 1);
        assert_eq!(again.end(None, at(0)).unwrap(), 1);
        assert_eq!(of(&again, "photos", 0), None);
    }
}
