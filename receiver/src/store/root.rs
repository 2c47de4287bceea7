//! The root: the directory that holds all copies.
//!
//! A root that is not mounted must never be filled: under the mount point lies another file system, or none. So
//! the first start leaves a mark in the root and records in the state directory that it did; from then on a
//! root without this mark is refused.
//!
//! Several disks can take turns at the same path. Each has a mark with its own id, which is read whenever the
//! root is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use sendshot_apply::WriteObstacle;
use sendshot_model::{ReceiverId, RootId};
use sendshot_sys::{durable, filesystem};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::ledger;
pub use crate::store::root_errors::Error;
use crate::store::root_errors::{self, MARK};
use crate::store::volumes;

/// File in the state directory that names the root with the mark.
const REMEMBERED: &str = "root.json";
/// File in the state directory that lists the disks.
const DISKS: &str = "roots.json";
/// Seconds after which the time of the last sight of a disk is written again.
const SEEN_INTERVAL_SECONDS: i64 = 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    receiver: ReceiverId,
    /// `None` if an older version wrote it.
    #[serde(default)]
    root: Option<RootId>,
    /// Whether each volume has a ledger; from then on a missing one is damage.
    #[serde(default)]
    has_ledgers: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    root: PathBuf,
}

/// What is recorded of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Id of its file system.
    pub fsid: Uuid,
    /// When it was first seen, seconds since 1970 UTC.
    pub added_at: i64,
    /// When it was last seen, seconds since 1970 UTC, to the hour.
    pub seen_at: i64,
}

/// The recorded disks. The list is for users; the marks decide which disks are this receiver's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    /// The disks that were used.
    pub known: BTreeMap<RootId, Disk>,
    /// The removed disks, which are not to be used although their marks name this receiver.
    removed: BTreeSet<RootId>,
}

/// What all clones of the root share.
#[derive(Debug)]
struct Shared {
    /// File with the list of disks.
    file: PathBuf,
    /// File that names the root with the mark.
    memory: PathBuf,
    disks: Mutex<Disks>,
    /// Disks on which everything that a dead daemon left has been reconciled.
    reconciled: Mutex<BTreeSet<RootId>>,
}

/// What to do on a disk that this process has not seen before.
type Reconcile = fn(&OpenRoot);

/// The root of a receiver.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    receiver: ReceiverId,
    reconcile: Reconcile,
    shared: Arc<Shared>,
}

/// The owner of a root that may be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub receiver: ReceiverId,
    pub root: Option<RootId>,
    /// Id of its file system.
    pub fsid: Uuid,
    /// Names of the senders' directories there.
    pub senders: Vec<String>,
}

/// The open root, checked. It keeps the file system busy: hold it only while working.
#[derive(Debug)]
pub struct OpenRoot {
    fd: OwnedFd,
    path: PathBuf,
    id: RootId,
    has_ledgers: bool,
}

impl Root {
    /// The root of a receiver; it is checked when it is opened. `reconcile` is run on each disk when this process
    /// first sees it, before anything else is done there.
    ///
    /// # Errors
    /// [`Error::State`], for the files in the state directory.
    pub fn new(
        path: PathBuf,
        receiver: ReceiverId,
        state_dir: &Path,
        reconcile: Reconcile,
    ) -> Result<Self, Error> {
        let file = state_dir.join(DISKS);
        let disks = match durable::read_json(&file) {
            Ok(disks) => disks.unwrap_or_default(),
            Err(source) => return Err(Error::State { file, source }),
        };
        Ok(Self {
            path,
            receiver,
            reconcile,
            shared: Arc::new(Shared {
                file,
                memory: state_dir.join(REMEMBERED),
                disks: Mutex::new(disks),
                reconciled: Mutex::default(),
            }),
        })
    }

    /// Checks the root, and marks it if it is used for the first time.
    ///
    /// Steps: 1. mark the root; 2. record that it is marked. A crash in between leaves a root with this
    /// receiver's mark, which the next start accepts.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_up(&self) -> Result<(), Error> {
        let memory = &self.shared.memory;
        if remembers(memory, &self.path).map_err(|e| state_failed(memory, e))? {
            return self.open().map(drop);
        }
        let fd = self.open_dir()?;
        check_tested(&self.path, &fd)?;
        if self.read_mark(&fd)?.is_none() {
            self.write_mark(&fd, RootId::generate())?; // 1
        }
        self.checked(fd)?;
        let root = self.path.clone();
        durable::write_json(memory, &Remembered { root }).map_err(|e| state_failed(memory, e)) // 2
    }

    /// Whether the daemon should run although its root cannot be set up: the root is another receiver's, or was set
    /// up before and is absent now.
    pub fn may_come(&self, error: &Error) -> bool {
        match error {
            Error::Foreign { .. } | Error::Away { .. } | Error::Gone { .. } => true,
            Error::Missing { .. }
            | Error::NoDirectory { .. }
            | Error::Denied { .. }
            | Error::Open { .. }
            | Error::NotBtrfs { .. }
            | Error::Untested { .. }
            | Error::ReadOnly { .. }
            | Error::Unmarked { .. }
            | Error::Removed { .. } => self.is_known(),
            Error::Unknown { .. }
            | Error::Ambiguous { .. }
            | Error::Own { .. }
            | Error::Nobodys { .. }
            | Error::Damaged { .. }
            | Error::Full { .. }
            | Error::OverQuota { .. }
            | Error::State { .. }
            | Error::Io { .. } => false,
        }
    }

    /// Whether it was set up before. When unsure, it was not.
    fn is_known(&self) -> bool {
        remembers(&self.shared.memory, &self.path).unwrap_or(false)
    }

    /// The file systems of the recorded disks.
    fn known_fsids(&self) -> Vec<Uuid> {
        let known = self.lock();
        let fsids: BTreeSet<Uuid> = known.known.values().map(|disk| disk.fsid).collect();
        fsids.into_iter().collect()
    }

    fn open_dir(&self) -> Result<OwnedFd, Error> {
        open(&self.path, || self.is_known().then(|| self.known_fsids()))
    }

    /// Opens the root and checks that it is this receiver's and writable. A mark of this receiver without an id
    /// gets one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(&self) -> Result<OpenRoot, Error> {
        self.checked(self.open_dir()?)
    }

    /// Opens the root like [`Root::open`], also if nothing can be written to it: it is read-only or full, or the
    /// state directory is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open_to_read(&self) -> Result<OpenRoot, Error> {
        let error = match self.open() {
            Ok(root) => return Ok(root),
            Err(error) => error,
        };
        match error {
            Error::ReadOnly { .. }
            | Error::Full { .. }
            | Error::OverQuota { .. }
            | Error::State { .. } => {}
            other => return Err(other),
        }
        let path = self.path.clone();
        let fd = open_any(&path, || self.is_known().then(|| self.known_fsids()))?;
        match self.read_mark(&fd)? {
            Some(mark) if mark.receiver != self.receiver => {
                let owner = mark.receiver;
                Err(Error::Foreign { path, owner })
            }
            Some(Mark { root: Some(id), .. }) if self.lock().removed.contains(&id) => {
                Err(Error::Removed { path, root: id })
            }
            Some(Mark {
                root: Some(id),
                has_ledgers,
                ..
            }) => Ok(OpenRoot {
                fd,
                path,
                id,
                has_ledgers,
            }),
            // It has to be written to first.
            Some(Mark { root: None, .. }) => Err(error),
            None => Err(Error::Unmarked { path }),
        }
    }

    /// Marks the current disk as this receiver's; one already marked stays as it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add(&self) -> Result<RootId, Error> {
        let fd = self.open_dir()?;
        let id = match self.read_mark(&fd)? {
            None => {
                let id = RootId::generate();
                self.write_mark(&fd, id)?;
                id
            }
            Some(mark) => mark.root.unwrap_or_else(RootId::generate),
        };
        self.change(|disks| {
            disks.removed.remove(&id);
        })?;
        self.checked(fd).map(|opened| opened.id)
    }

    /// The recorded disks.
    pub fn disks(&self) -> Disks {
        self.lock().clone()
    }

    /// Removes a disk: it is no longer used. Its copies stay.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self, id: RootId) -> Result<(), Error> {
        if !self.lock().known.contains_key(&id) {
            return Err(Error::Unknown { id: id.to_string() });
        }
        self.change(|disks| {
            disks.known.remove(&id);
            disks.removed.insert(id);
        })
    }

    /// Finds the owner of the current disk, if that is another receiver.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Own`] if the disk is this receiver's, [`Error::Nobodys`] if it has no mark.
    pub fn owner(&self) -> Result<Owner, Error> {
        let (fd, path) = (self.open_dir()?, self.path.clone());
        let mark = match self.read_mark(&fd)? {
            Some(mark) if mark.receiver != self.receiver => mark,
            Some(_) => return Err(Error::Own { path }),
            None => return Err(Error::Nobodys { path }),
        };
        let all = crate::store::volumes::all(&fd).map_err(|e| self.failed(e))?;
        let mut senders: Vec<String> = all.into_iter().map(|(sender, ..)| sender).collect();
        senders.dedup();
        Ok(Owner {
            receiver: mark.receiver,
            root: mark.root,
            fsid: filesystem::fsid(&fd).map_err(|e| self.failed(e))?,
            senders,
        })
    }

    /// Makes the current disk this receiver's. Its id stays, so that states that senders have recorded as
    /// acknowledged by it remain so.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Nobodys`] if the disk has no mark, [`Error::Foreign`] if it is no longer `from`'s.
    pub fn take_over(&self, from: ReceiverId) -> Result<RootId, Error> {
        let (fd, path) = (self.open_dir()?, self.path.clone());
        match self.read_mark(&fd)? {
            None => Err(Error::Nobodys { path }),
            Some(mark) if mark.receiver != from && mark.receiver != self.receiver => {
                let owner = mark.receiver;
                Err(Error::Foreign { path, owner })
            }
            Some(mark) => {
                let id = mark.root.unwrap_or_else(RootId::generate);
                self.write_mark(&fd, id)?;
                self.checked(fd).map(|opened| opened.id)
            }
        }
    }

    /// Checks the root as far as possible without the daemon.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(path: &Path, state_dir: &Path) -> Result<(), Error> {
        let fsids = || -> Option<Vec<Uuid>> {
            let is_known = remembers(&state_dir.join(REMEMBERED), path).unwrap_or(false);
            let disks = durable::read_json::<Disks>(&state_dir.join(DISKS));
            let known = disks.ok().flatten().unwrap_or_default().known;
            is_known.then(|| known.values().map(|disk| disk.fsid).collect())
        };
        let is_known = remembers(&state_dir.join(REMEMBERED), path).unwrap_or(false);
        let fd = open(path, fsids)?;
        match is_known {
            true => Ok(()),
            false => check_tested(path, fd),
        }
    }

    /// Refuses to receive on a file system or host with sizes with which nothing is tested.
    ///
    /// # Errors
    /// [`Error::Untested`], or I/O errors.
    pub fn check_tested(&self, root: &OpenRoot) -> Result<(), Error> {
        check_tested(&self.path, root)
    }

    fn checked(&self, fd: OwnedFd) -> Result<OpenRoot, Error> {
        let path = self.path.clone();
        let mark = match self.read_mark(&fd)? {
            Some(mark) if mark.receiver == self.receiver => mark,
            Some(mark) => {
                let owner = mark.receiver;
                return Err(Error::Foreign { path, owner });
            }
            None => return Err(Error::Unmarked { path }),
        };
        let mut reconciled = self
            .shared
            .reconciled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = match mark.root {
            Some(id) => id,
            None => {
                let id = RootId::generate();
                self.write_mark(&fd, id)?;
                id
            }
        };
        if self.lock().removed.contains(&id) {
            return Err(Error::Removed { path, root: id });
        }
        let mut opened = OpenRoot {
            fd,
            path,
            id,
            has_ledgers: mark.has_ledgers,
        };
        self.note_seen(&opened)?;
        if reconciled.insert(id) {
            (self.reconcile)(&opened);
            if !opened.has_ledgers {
                opened.has_ledgers = self.make_ledgers(&opened);
            }
        }
        Ok(opened)
    }

    /// Makes the ledgers of a root from before there were any. Until that has succeeded, nothing is deleted there.
    fn make_ledgers(&self, opened: &OpenRoot) -> bool {
        let make = || -> io::Result<()> {
            for (sender, volume, dir) in volumes::all(opened)? {
                // An older version may have rewritten the mark since: what is there stays.
                if ledger::read(&dir, None)? != ledger::State::Missing {
                    continue;
                }
                ledger::adopt(&dir, volumes::with_info(&dir)?)?;
                tracing::info!(
                    "the copies of {sender}/{volume} are in a ledger now, with btrfs's times"
                );
            }
            Ok(())
        };
        let made = make().map_err(|e| self.failed(e));
        match made.and_then(|()| self.put_mark(opened, opened.id, true)) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("cannot make the ledgers of the copies: {error}");
                false
            }
        }
    }

    fn note_seen(&self, opened: &OpenRoot) -> Result<(), Error> {
        let fsid = filesystem::fsid(&opened.fd).map_err(|e| self.failed(e))?;
        let now = Timestamp::now().as_second();
        let is_noted = |disk: &Disk| {
            disk.fsid == fsid
                && (0..SEEN_INTERVAL_SECONDS).contains(&now.saturating_sub(disk.seen_at))
        };
        if self.lock().known.get(&opened.id).is_some_and(is_noted) {
            return Ok(());
        }
        self.change(|disks| {
            let disk = disks.known.entry(opened.id).or_insert(Disk {
                fsid,
                added_at: now,
                seen_at: now,
            });
            (disk.fsid, disk.seen_at) = (fsid, now);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Disks)) -> Result<(), Error> {
        let mut disks = self.lock();
        let mut changed = disks.clone();
        change(&mut changed);
        if changed != *disks {
            let file = &self.shared.file;
            durable::write_json(file, &changed).map_err(|e| state_failed(file, e))?;
            *disks = changed;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Disks> {
        let disks = self.shared.disks.lock();
        disks.unwrap_or_else(PoisonError::into_inner)
    }

    fn read_mark(&self, root: impl AsFd) -> Result<Option<Mark>, Error> {
        durable::read_json_at(root, OsStr::new(MARK)).map_err(|source| {
            let path = self.path.clone();
            match source.kind() {
                io::ErrorKind::InvalidData => Error::Damaged { path, source },
                _ => Error::Io { path, source },
            }
        })
    }

    fn write_mark(&self, root: impl AsFd, id: RootId) -> Result<(), Error> {
        let has_ledgers = self.read_mark(&root)?.is_some_and(|mark| mark.has_ledgers);
        self.put_mark(root, id, has_ledgers)
    }

    fn put_mark(&self, root: impl AsFd, id: RootId, has_ledgers: bool) -> Result<(), Error> {
        let mark = Mark {
            receiver: self.receiver,
            root: Some(id),
            has_ledgers,
        };
        let written = durable::write_json_at(&root, OsStr::new(MARK), &mark);
        written.map_err(|e| root_errors::not_marked(&self.path, root, e))
    }

    fn failed(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        Error::Io { path, source }
    }
}

/// Whether the root at `path` was marked before.
fn remembers(memory: &Path, path: &Path) -> io::Result<bool> {
    let remembered: Option<Remembered> = durable::read_json(memory)?;
    Ok(remembered.is_some_and(|known| known.root == path))
}

fn state_failed(file: &Path, source: io::Error) -> Error {
    let file = file.to_owned();
    Error::State { file, source }
}

/// Opens a directory on a writable btrfs. `known` returns the file systems of the recorded disks; `None` if the
/// root was never set up.
fn open(path: &Path, known: impl FnOnce() -> Option<Vec<Uuid>>) -> Result<OwnedFd, Error> {
    let fd = open_any(path, known)?;
    let obstacle = WriteObstacle::of(&fd).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    match obstacle {
        None => Ok(fd),
        Some(obstacle) => Err(Error::ReadOnly {
            path: path.to_owned(),
            obstacle,
        }),
    }
}

/// Refuses a file system or host with sizes with which nothing is tested. What is there already can be read all the same.
fn check_tested(path: &Path, root: impl AsFd) -> Result<(), Error> {
    match filesystem::untested(root) {
        Ok(None) => Ok(()),
        Ok(Some(sizes)) => Err(Error::Untested {
            path: path.to_owned(),
            sizes,
        }),
        Err(source) => Err(Error::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Opens a directory on a btrfs that may be read-only.
fn open_any(path: &Path, known: impl FnOnce() -> Option<Vec<Uuid>>) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno) => return Err(root_errors::not_opened(path, errno, known)),
    };
    let failed = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    if !filesystem::is_btrfs(&fd).map_err(failed)? {
        return Err(root_errors::not_btrfs(path, known()));
    }
    Ok(fd)
}

impl OpenRoot {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Id of the disk.
    pub fn id(&self) -> RootId {
        self.id
    }

    /// Whether each volume has a ledger.
    pub fn has_ledgers(&self) -> bool {
        self.has_ledgers
    }
}

impl AsFd for OpenRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
