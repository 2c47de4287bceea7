//! The file systems that hold something of ours, so that a restart can settle there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sendshot_model::SenderId;
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{durable, filesystem};
use uuid::Uuid;

use crate::settle;
use crate::state_subvolume::StateSubvolume;

/// File in the state directory.
const FILE: &str = "filesystems.json";

/// File systems by id, each with a path that was on it last.
#[derive(Debug)]
pub struct Filesystems {
    path: PathBuf,
    known: Mutex<BTreeMap<Uuid, PathBuf>>,
}

impl Filesystems {
    /// Reads the list of a state directory.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let known = Mutex::new(durable::read_json(&path)?.unwrap_or_default());
        Ok(Self { path, known })
    }

    /// Notes that something of ours is about to be made on a file system.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remember(&self, fsid: Uuid, path: &Path) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&fsid).is_some_and(|known| known == path) {
            return Ok(());
        }
        known.insert(fsid, path.to_owned());
        durable::write_json(&self.path, &*known)
    }

    /// Each file system that is there now, by its state subvolume. One that is not mounted is
    /// passed over: the next push on it settles.
    pub fn each(&self, mut work: impl FnMut(&StateSubvolume)) {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (fsid, path) in known {
            match open(fsid, &path) {
                Ok(Some(state)) => work(&state),
                Ok(None) => tracing::debug!(%fsid, path = %path.display(), "not mounted now"),
                Err(e) => {
                    tracing::warn!(%fsid, path = %path.display(), "look for what is ours: {e:#}")
                }
            }
        }
    }

    /// Settles what a crash left, at start.
    pub fn settle(&self, sender: SenderId) {
        self.each(|state| {
            if let Err(e) = settle::leftovers(state, sender, |_| false) {
                tracing::warn!("settle unfinished pushes: {e}");
            }
        });
    }
}

fn open(fsid: Uuid, path: &Path) -> anyhow::Result<Option<StateSubvolume>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Ok(None);
    };
    if !filesystem::is_btrfs(&fd)? || filesystem::fsid(&fd)? != fsid {
        return Ok(None);
    }
    Ok(StateSubvolume::open(TopLevel::of(&fd)?)?)
}
