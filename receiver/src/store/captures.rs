//! The sendshots of copies that are being fetched. Each is a file that outlives a broken fetch, so that the next one
//! continues without reading the whole metadata again.
//!
//! A file lies in the staging area of the root, or, if nothing can be written there, in the receiver's state
//! directory. It is named by the copy's own UUID on this file system, so that it is never taken for another copy's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_sys::durable;
use uuid::Uuid;

use crate::store::root::OpenRoot;

/// Prefix of the names of captures.
const PREFIX: &str = "fetch-";
/// Directory in the receiver's state directory for captures that the root cannot take.
const DIR: &str = "captures";

/// The captures that are in use, by the UUID of their copies.
#[derive(Debug, Clone)]
pub struct Captures {
    in_use: Arc<Mutex<HashMap<Uuid, Use>>>,
    /// In the receiver's state directory.
    spare: PathBuf,
}

/// The use of one capture.
#[derive(Debug, Default)]
struct Use {
    fetches: usize,
    /// One capture at a time; further fetches of the copy wait for it.
    making: Arc<Mutex<()>>,
}

/// The right to use the capture of a copy: it is not deleted meanwhile. While a lease exists, the copy is in use.
#[derive(Debug)]
pub struct Lease {
    captures: Captures,
    copy: Uuid,
}

/// A directory for captures.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    /// Its path, for messages.
    pub(crate) path: PathBuf,
}

impl Captures {
    /// The captures of a receiver with this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            in_use: Arc::default(),
            spare: state_dir.join(DIR),
        }
    }

    /// Takes a lease on the capture of a copy, given by its UUID on this file system.
    pub fn lease(&self, copy: Uuid) -> Lease {
        self.lock().entry(copy).or_default().fetches += 1;
        Lease {
            captures: self.clone(),
            copy,
        }
    }

    /// Whether a fetch of the copy is running.
    pub fn is_leased(&self, copy: Uuid) -> bool {
        self.lock().contains_key(&copy)
    }

    /// The place on the disk with the copies, made if it does not exist.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn place_at(&self, root: &OpenRoot) -> io::Result<Place> {
        let area = Area::new(root)?;
        let path = root.path().join(sendshot_apply::staging::AREA);
        let dir = area.dir().map_err(io::Error::other)?;
        Ok(Place { dir, path })
    }

    /// The places for captures in the order of preference, made if they do not exist.
    pub(crate) fn places<'a>(
        &'a self,
        root: &'a OpenRoot,
    ) -> impl Iterator<Item = io::Result<Place>> + 'a {
        let spare = move || {
            std::fs::create_dir_all(&self.spare)?;
            let dir = open_dir(&self.spare)?;
            let path = self.spare.clone();
            Ok(Place { dir, path })
        };
        [true, false].into_iter().map(move |first| match first {
            true => self.place_at(root),
            false => spare(),
        })
    }

    /// Deletes the captures that no fetch has used for longer than `keep`. Blocks.
    pub fn expire(&self, root: Option<&OpenRoot>, keep: Duration, now: Timestamp) {
        let at_root = root.and_then(|root| Area::new(root).ok());
        let at_root = at_root
            .filter(Area::exists)
            .and_then(|area| area.dir().ok());
        let dirs = at_root.into_iter().chain(open_dir(&self.spare).ok());
        for dir in dirs {
            if let Err(e) = self.expire_in(&dir, keep, now) {
                tracing::warn!("cannot look for old captures of copies: {e}");
            }
        }
    }

    fn expire_in(&self, dir: &OwnedFd, keep: Duration, now: Timestamp) -> io::Result<()> {
        for name in durable::names(dir)? {
            let Some(copy) = parse(&name) else { continue };
            let stat = rustix::fs::statat(dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            let age = now.as_second().saturating_sub(stat.st_mtime);
            let is_old = age > i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
            let in_use = self.lock();
            if is_old && !in_use.contains_key(&copy) {
                durable::remove_at(dir, &name)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Use>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Deletes a sendshot that is used by its descriptor only. What cannot be deleted expires.
    pub(crate) fn forget(&self, name: &OsStr) {
        if let Err(e) = durable::remove_at(&self.dir, name) {
            tracing::debug!("a sendshot of some paths stays until it expires: {e}");
        }
    }
}

impl Lease {
    /// Name of the capture.
    pub(crate) fn name(&self) -> OsString {
        name(self.copy)
    }

    /// Runs `make` while no other fetch of the copy makes its capture.
    pub(crate) fn alone<T>(&self, make: impl FnOnce() -> T) -> T {
        let making = Arc::clone(&self.captures.lock().entry(self.copy).or_default().making);
        let _alone = making.lock().unwrap_or_else(PoisonError::into_inner);
        make()
    }

    /// Ends a fetch that is complete: its capture is deleted, unless another fetch uses it. Blocks.
    pub fn complete(self, root: Option<&OpenRoot>) {
        let captures = self.captures.clone();
        let in_use = captures.lock();
        let is_last = in_use.get(&self.copy).is_none_or(|used| used.fetches <= 1);
        if !is_last {
            return;
        }
        let at_root = root.and_then(|root| Area::new(root).ok());
        let at_root = at_root
            .filter(Area::exists)
            .and_then(|area| area.dir().ok());
        for dir in at_root.into_iter().chain(open_dir(&captures.spare).ok()) {
            // What cannot be deleted expires later.
            if let Err(e) = durable::remove_at(&dir, &self.name()) {
                tracing::debug!("a capture of a copy stays until it expires: {e}");
            }
        }
        drop(in_use);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut in_use = self.captures.lock();
        if let Some(used) = in_use.get_mut(&self.copy) {
            used.fetches = used.fetches.saturating_sub(1);
            if used.fetches == 0 {
                in_use.remove(&self.copy);
            }
        }
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::DIRECTORY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// Name of the capture of a copy, given by its UUID on this file system.
pub(crate) fn name(copy: Uuid) -> OsString {
    format!("{PREFIX}{copy}").into()
}

fn parse(found: &OsStr) -> Option<Uuid> {
    let copy = found.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    (name(copy) == found).then_some(copy)
}

/// Marks a capture as used now.
pub(crate) fn touch(place: &Place, name: &OsStr) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    // Without it the capture expires earlier, and is made again.
    let _ = rustix::fs::utimensat(place.dir.as_fd(), name, &times, flags);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_in_use_does_not_expire() {
        let state = tempfile::tempdir().unwrap();
        let captures = Captures::new(state.path());
        let dir = state.path().join(DIR);
        std::fs::create_dir(&dir).unwrap();
        let (used, unused) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for copy in [used, unused] {
            std::fs::write(dir.join(name(copy)), "x").unwrap();
        }
        std::fs::write(dir.join("fetch-notes.txt"), "x").unwrap();
        let lease = captures.lease(used);
        let keep = Duration::from_secs(60);
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(61 + 60);
        captures.expire(None, keep, Timestamp::now());
        assert!(dir.join(name(unused)).exists(), "it is young");
        captures.expire(None, keep, later);
        assert!(dir.join(name(used)).exists() && !dir.join(name(unused)).exists());
        drop(lease);
        assert!(!captures.is_leased(used));
        captures.expire(None, keep, later);
        assert!(!dir.join(name(used)).exists());
        assert!(dir.join("fetch-notes.txt").exists());
    }

    #[test]
    fn a_complete_fetch_deletes_its_capture_unless_another_uses_it() {
        let state = tempfile::tempdir().unwrap();
        let captures = Captures::new(state.path());
        let dir = state.path().join(DIR);
        std::fs::create_dir(&dir).unwrap();
        let copy = Uuid::from_u128(1);
        std::fs::write(dir.join(name(copy)), "x").unwrap();
        let (first, second) = (captures.lease(copy), captures.lease(copy));
        first.complete(None);
        assert!(dir.join(name(copy)).exists());
        second.complete(None);
        assert!(!dir.join(name(copy)).exists());
    }
}
