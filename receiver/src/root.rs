//! The directory that holds everything received.
//!
//! A root that is not mounted must never be filled: what lies under the mount point is another
//! file system, or none. So the first start leaves a mark in the root and remembers in the
//! state directory that it did; from then on a root without this mark is refused.
//!
//! Several disks can take turns at the same path. Each has a mark with an id of its own, and which one is
//! there is found out whenever the root is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use sendshot_model::{ReceiverId, RootId};
use sendshot_proto::failure::{Code, Failure};
use sendshot_sys::{durable, filesystem, subvolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The mark in the root; also the name of our memory of it in the state directory.
const MARK: &str = ".sendshot-root";
/// File in the state directory that says in which root the mark was left.
const REMEMBERED: &str = "root.json";
/// File in the state directory that lists the disks that were there.
const DISKS: &str = "roots.json";
/// How often it is written down that a disk is still there, in seconds.
const SEEN_EVERY: i64 = 3600;

/// Why the root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("root {}: cannot be opened: {source}", path.display())]
    Open {
        /// The root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It lies on another kind of file system.
    #[error("root {}: is not on btrfs", path.display())]
    NotBtrfs {
        /// The root.
        path: PathBuf,
    },
    /// It cannot be written to.
    #[error("root {}: its file system is mounted read-only", path.display())]
    ReadOnly {
        /// The root.
        path: PathBuf,
    },
    /// This process sees it through a read-only mount.
    #[error("root {}: it is mounted read-only here, though its file system is not read-only", path.display())]
    ReadOnlyMount {
        /// The root.
        path: PathBuf,
    },
    /// The subvolume that it lies in cannot be written to.
    #[error("root {}: it lies in a read-only subvolume", path.display())]
    ReadOnlySubvolume {
        /// The root.
        path: PathBuf,
    },
    /// The mark that was left in it is not there.
    #[error("root {}: this is not the directory that was set up before; is its disk mounted?", path.display())]
    Unmarked {
        /// The root.
        path: PathBuf,
    },
    /// It was set up by another receiver.
    #[error("root {}: it belongs to the receiver with id {owner}", path.display())]
    Foreign {
        /// The root.
        path: PathBuf,
        /// Who set it up.
        owner: ReceiverId,
    },
    /// The administrator has removed it from this receiver's disks.
    #[error("root {}: the disk {root} was removed from this receiver's disks", path.display())]
    Removed {
        /// The root.
        path: PathBuf,
        /// The disk.
        root: RootId,
    },
    /// There is no disk of this id to remove.
    #[error("this receiver knows no disk `{id}`, or more than one whose id begins so")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// Its mark makes no sense.
    #[error("root {}: its mark {MARK} is damaged: {source}", path.display())]
    Damaged {
        /// The root.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Reading or writing it failed.
    #[error("root {}: {source}", path.display())]
    Io {
        /// The root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// What the administrator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Open { .. } => "create the directory, or mend `root` in receiver.toml",
            Self::NotBtrfs { .. } => "`root` in receiver.toml must be a directory on btrfs",
            Self::ReadOnly { .. } => {
                "mount it read-write; if btrfs made it read-only, look into the kernel's log first"
            }
            Self::ReadOnlyMount { .. } => {
                "remount it read-write; a service of systemd writes only below its ReadWritePaths"
            }
            Self::ReadOnlySubvolume { .. } => {
                "make the subvolume writable, `btrfs property set SUBVOLUME ro false`, or choose another root"
            }
            Self::Unmarked { .. } => {
                "mount the disk; if it is a new one on purpose, `sendshotctl copy root add`"
            }
            Self::Foreign { .. } => {
                "give this receiver a root of its own; if it takes over from the other one, `sendshotctl copy root take-over`"
            }
            Self::Removed { .. } => "mount another one, or `sendshotctl copy root add`",
            Self::Unknown { .. } => "`sendshotctl copy root list` shows them",
            Self::Damaged { .. } => {
                "look into the kernel's log for what the disk says; if all is well, remove the mark, and `sendshotctl copy root add`"
            }
            Self::Io { .. } => "look into the kernel's log for what the disk says",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::ReadOnly { .. }
            | Error::ReadOnlyMount { .. }
            | Error::ReadOnlySubvolume { .. } => Code::ReadOnly,
            Error::Open { .. }
            | Error::NotBtrfs { .. }
            | Error::Unmarked { .. }
            | Error::Foreign { .. }
            | Error::Removed { .. }
            | Error::Unknown { .. }
            | Error::Damaged { .. } => Code::RootMissing,
            Error::Io { .. } => Code::Io,
        };
        Failure::new(code, error.to_string(), error.remedy())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    receiver: ReceiverId,
    /// None in what older versions wrote.
    #[serde(default)]
    root: Option<RootId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    root: PathBuf,
}

/// What is remembered of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its file system.
    pub fsid: Uuid,
    /// When it was there first, seconds since 1970 UTC.
    pub added_at: i64,
    /// When it was there last, to the hour.
    pub seen_at: i64,
}

/// All of them. The list is for people; which disks are this receiver's, their marks say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    /// Those that were there.
    pub known: BTreeMap<RootId, Disk>,
    /// Those that were removed, and are not to be used though their marks say this receiver.
    removed: BTreeSet<RootId>,
}

/// What is shared by all who open the root.
#[derive(Debug)]
struct Shared {
    /// Where the list of disks is kept.
    file: PathBuf,
    disks: Mutex<Disks>,
    /// Disks on which everything that a dead daemon left has been settled.
    settled: Mutex<BTreeSet<RootId>>,
}

/// What is to be done on a disk that this process has not seen before.
type Settle = fn(&OpenRoot);

/// Where the root is and whose.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    receiver: ReceiverId,
    settle: Settle,
    shared: Arc<Shared>,
}

/// Whose a root is that is to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The receiver that its mark names.
    pub receiver: ReceiverId,
    /// The disk, if the mark has an id.
    pub root: Option<RootId>,
    /// Its file system.
    pub fsid: Uuid,
    /// Names of senders that have directories there.
    pub senders: Vec<String>,
}

/// The root, opened and found good. Keeps the file system busy: hold it only while working.
#[derive(Debug)]
pub struct OpenRoot {
    fd: OwnedFd,
    path: PathBuf,
    id: RootId,
}

impl Root {
    /// The root of a receiver; it is looked at when it is opened. `settle` is run on each disk when it is
    /// seen for the first time, before anything else is done there.
    ///
    /// # Errors
    /// The kernel's, for reading what is remembered in the state directory.
    pub fn new(
        path: PathBuf,
        receiver: ReceiverId,
        state_dir: &Path,
        settle: Settle,
    ) -> io::Result<Self> {
        let file = state_dir.join(DISKS);
        let disks = durable::read_json(&file)?.unwrap_or_default();
        Ok(Self {
            path,
            receiver,
            settle,
            shared: Arc::new(Shared {
                file,
                disks: Mutex::new(disks),
                settled: Mutex::default(),
            }),
        })
    }

    /// Marks a root that is used for the first time, and checks it.
    ///
    /// Steps: 1. mark the root; 2. remember that it is marked. A crash between leaves a marked
    /// root of ours, which the next start takes.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_up(&self, state_dir: &Path) -> Result<(), Error> {
        let memory = state_dir.join(REMEMBERED);
        let remembered: Option<Remembered> =
            durable::read_json(&memory).map_err(|e| self.failed(e))?;
        if remembered.is_some_and(|known| known.root == self.path) {
            return self.open().map(drop);
        }
        let fd = open(&self.path)?;
        if self.read_mark(&fd)?.is_none() {
            self.write_mark(&fd, RootId::generate())?; // 1
        }
        self.checked(fd)?;
        let root = self.path.clone();
        durable::write_json(&memory, &Remembered { root }).map_err(|e| self.failed(e)) // 2
    }

    /// Whether a daemon whose root cannot be set up is of use all the same: if it is another receiver's, or
    /// was set up before and is not there now.
    pub fn may_come(&self, state_dir: &Path, error: &Error) -> bool {
        let is_known = || -> bool {
            let remembered = durable::read_json::<Remembered>(&state_dir.join(REMEMBERED));
            matches!(remembered, Ok(Some(known)) if known.root == self.path)
        };
        match error {
            Error::Foreign { .. } => true,
            Error::Open { .. }
            | Error::NotBtrfs { .. }
            | Error::ReadOnly { .. }
            | Error::ReadOnlyMount { .. }
            | Error::ReadOnlySubvolume { .. }
            | Error::Unmarked { .. }
            | Error::Removed { .. } => is_known(),
            Error::Unknown { .. } | Error::Damaged { .. } | Error::Io { .. } => false,
        }
    }

    /// Opens the root and checks that it is the right one and can be written to. One of ours whose mark has
    /// no id gets one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(&self) -> Result<OpenRoot, Error> {
        self.checked(open(&self.path)?)
    }

    /// Marks the disk that is there now as one of this receiver's; one that is already stays as it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add(&self) -> Result<RootId, Error> {
        let fd = open(&self.path)?;
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

    /// The disks that were there.
    pub fn disks(&self) -> Disks {
        self.lock().clone()
    }

    /// Removes a disk: it is not used any more. Its copies stay.
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

    /// Whose the disk is that is there now; `None` if it is nobody's.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn owner(&self) -> Result<Option<Owner>, Error> {
        let fd = open(&self.path)?;
        let Some(mark) = self.read_mark(&fd)? else {
            return Ok(None);
        };
        let all = crate::holdings::all(&fd).map_err(|e| self.failed(e))?;
        let mut senders: Vec<String> = all.into_iter().map(|(sender, ..)| sender).collect();
        senders.dedup();
        Ok(Some(Owner {
            receiver: mark.receiver,
            root: mark.root,
            fsid: filesystem::fsid(&fd).map_err(|e| self.failed(e))?,
            senders,
        }))
    }

    /// Makes the disk that is there now this receiver's. Its id stays, so that what senders have
    /// acknowledged for it still holds.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unmarked`] if it was nobody's, [`Error::Foreign`] if it is not `from`'s any
    /// more.
    pub fn take_over(&self, from: ReceiverId) -> Result<RootId, Error> {
        let (fd, path) = (open(&self.path)?, self.path.clone());
        match self.read_mark(&fd)? {
            None => Err(Error::Unmarked { path }),
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

    /// Checks what can be checked before the first start.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(path: &Path) -> Result<(), Error> {
        open(path).map(drop)
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
        let mut settled = self
            .shared
            .settled
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
        let opened = OpenRoot { fd, path, id };
        self.note_seen(&opened)?;
        if settled.insert(id) {
            (self.settle)(&opened);
        }
        Ok(opened)
    }

    fn note_seen(&self, opened: &OpenRoot) -> Result<(), Error> {
        let fsid = filesystem::fsid(&opened.fd).map_err(|e| self.failed(e))?;
        let now = Timestamp::now().as_second();
        let is_noted = |disk: &Disk| {
            disk.fsid == fsid && (0..SEEN_EVERY).contains(&now.saturating_sub(disk.seen_at))
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
            durable::write_json(&self.shared.file, &changed).map_err(|e| self.failed(e))?;
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
        let mark = Mark {
            receiver: self.receiver,
            root: Some(id),
        };
        durable::write_json_at(root, OsStr::new(MARK), &mark).map_err(|e| self.failed(e))
    }

    fn failed(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        Error::Io { path, source }
    }
}

/// Opens a directory on a btrfs that can be written to.
fn open(path: &Path) -> Result<OwnedFd, Error> {
    let path = path.to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) => {
            let source = e.into();
            return Err(Error::Open { path, source });
        }
    };
    match filesystem::is_btrfs(&fd) {
        Ok(true) => {}
        Ok(false) => return Err(Error::NotBtrfs { path }),
        Err(source) => return Err(Error::Io { path, source }),
    }
    match write_obstacle(&fd) {
        Ok(None) => Ok(fd),
        Ok(Some(obstacle)) => Err(obstacle(path)),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// An error that needs the root's path only.
type AtPath = fn(PathBuf) -> Error;

/// What keeps everything from being written below `fd`; `None` if nothing does.
fn write_obstacle(fd: &OwnedFd) -> io::Result<Option<AtPath>> {
    Ok(if filesystem::is_read_only_everywhere(fd)? {
        Some(|path| Error::ReadOnly { path })
    } else if filesystem::is_read_only(fd)? {
        Some(|path| Error::ReadOnlyMount { path })
    } else if subvolume::info(fd)?.read_only {
        Some(|path| Error::ReadOnlySubvolume { path })
    } else {
        None
    })
}

impl OpenRoot {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which disk it is.
    pub fn id(&self) -> RootId {
        self.id
    }
}

impl AsFd for OpenRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
