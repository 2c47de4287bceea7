//! The file systems that hold something of ours, so that a restart can settle there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{durable, filesystem};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state_subvolume::StateSubvolume;

/// File in the state directory.
const FILE: &str = "filesystems.json";

/// File systems by id, each with a path that was on it last.
#[derive(Debug)]
pub struct Filesystems {
    path: PathBuf,
    known: Mutex<BTreeMap<Uuid, Place>>,
}

/// A path as it stands in the file: any bytes, readable where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Place {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<Place> for PathBuf {
    fn from(place: Place) -> Self {
        match place {
            Place::Text(text) => text.into(),
            Place::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
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

    /// Notes that something of ours is about to be made on a file system. A path that still
    /// leads there stays: the new one may be a snapshot that is soon gone.
    ///
    /// # Errors
    /// The kernel's; nothing is noted then.
    pub fn remember(&self, fsid: Uuid, path: &Path) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let leads_there =
            |place: &Place| matches!(on(fsid, &PathBuf::from(place.clone())), Ok(Some(_)));
        if known.get(&fsid).is_some_and(leads_there) {
            return Ok(());
        }
        let mut changed = known.clone();
        changed.insert(fsid, path.into());
        durable::write_json(&self.path, &changed)?;
        *known = changed;
        Ok(())
    }

    /// Notes the file system of a path, if it has a state subvolume and is not known yet.
    ///
    /// # Errors
    /// The kernel's; nothing is noted then.
    pub fn remember_if_ours(&self, path: &Path) -> anyhow::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        if !filesystem::is_btrfs(&fd)? {
            return Ok(());
        }
        let fsid = filesystem::fsid(&fd)?;
        let is_known = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.contains_key(&fsid)
        };
        if !is_known && StateSubvolume::open(TopLevel::of(&fd)?)?.is_some() {
            self.remember(fsid, path)?;
        }
        Ok(())
    }

    /// Each file system that is there now, by its state subvolume. One that is not mounted is
    /// passed over: the next push on it settles. Returns how many were passed over.
    pub fn each(&self, mut work: impl FnMut(&StateSubvolume)) -> usize {
        let mut absent = 0;
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (fsid, place) in known {
            let path = PathBuf::from(place);
            match open(fsid, &path) {
                Ok(Some(state)) => work(&state),
                Ok(None) => {
                    absent += 1;
                    tracing::debug!(%fsid, path = %path.display(), "not mounted now");
                }
                Err(e) => {
                    absent += 1;
                    tracing::warn!(%fsid, path = %path.display(), "look for what is ours: {e:#}");
                }
            }
        }
        absent
    }
}

fn open(fsid: Uuid, path: &Path) -> anyhow::Result<Option<StateSubvolume>> {
    match on(fsid, path)? {
        Some(fd) => Ok(StateSubvolume::open(TopLevel::of(&fd)?)?),
        None => Ok(None),
    }
}

/// Opens `path` if it is on the file system `fsid` now.
fn on(fsid: Uuid, path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Ok(None);
    };
    let there = filesystem::is_btrfs(&fd)? && filesystem::fsid(&fd)? == fsid;
    Ok(there.then_some(fd))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn any_path_is_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let filesystems = Filesystems::load(dir.path()).unwrap();
        let paths = [OsStr::new("/srv/ä"), OsStr::from_bytes(b"/srv/\xff")].map(Path::new);
        for (id, path) in (1..).zip(paths) {
            filesystems.remember(Uuid::from_u128(id), path).unwrap();
        }
        let known = Filesystems::load(dir.path()).unwrap().known;
        let found: Vec<PathBuf> = known
            .into_inner()
            .unwrap()
            .into_values()
            .map(PathBuf::from)
            .collect();
        assert_eq!(found, paths);
    }
}
