//! The list of file systems with a state subvolume, so that a restart can reconcile there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sendshot_model::{AnyPath, Reason, ReasonCode, human};
use sendshot_sys::top_level::{self, TopLevel};
use sendshot_sys::{durable, filesystem, mounts};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::store::{self, StateSubvolume};
use sendshot_proto::problem::{JOURNAL, with_causes};

/// File in the state directory.
const FILE: &str = "filesystems.json";

/// Seconds after which the time of the last sight of a file system is written again: listing must not wear out the
/// system disk.
const SEEN_RESOLUTION: i64 = 3600;

/// File systems by id, each with the last known path on it.
#[derive(Debug)]
pub struct Filesystems {
    path: PathBuf,
    known: Mutex<BTreeMap<Uuid, Entry>>,
}

/// A file system that was not read, so that the states kept on it are not known.
#[derive(Debug)]
pub struct NotLookedAt {
    pub fsid: Uuid,
    /// The last known path on it.
    pub path: PathBuf,
    /// When it was last read or pushed from, seconds since 1970 UTC, to the hour; `None` if only an earlier version
    /// recorded it.
    pub last_seen: Option<i64>,
    pub why: Missed,
}

/// Why a file system was not read.
#[derive(Debug)]
pub enum Missed {
    /// It is not mounted now.
    NotThere(Reason),
    Failed(LookError),
}

/// Why reading a file system failed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// What is at a path cannot be determined.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The journal of pushes cannot be read or written.
    #[error("cannot {JOURNAL}: {0}")]
    Journal(io::Error),
    /// The top level cannot be reached.
    #[error(transparent)]
    TopLevel(#[from] top_level::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why a file system is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// No file system has the id.
    #[error("no file system from which volumes were pushed has an id that begins with `{id}`")]
    Unknown {
        /// The requested id.
        id: String,
    },
    /// Several have an id that begins so.
    #[error("the ids of several file systems begin with `{id}`: {}", ids(.several))]
    Several {
        /// The requested id.
        id: String,
        several: Vec<Uuid>,
    },
    /// The file system is mounted or in use.
    #[error("file system {fsid} is mounted, or still in use")]
    Mounted { fsid: Uuid },
    /// The list of mounts could not be read, or the list of file systems could not be written.
    #[error("cannot forget a file system")]
    Io(#[from] io::Error),
}

fn ids(several: &[Uuid]) -> String {
    let ids: Vec<String> = several.iter().map(Uuid::to_string).collect();
    human::few(&ids)
}

/// The file's entry for a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Layout")]
struct Entry {
    /// The last known path on it.
    path: AnyPath,
    /// When it was last there, seconds since 1970 UTC.
    seen: Option<i64>,
}

/// Layouts of an entry. Earlier versions wrote only the path.
#[derive(Deserialize)]
#[serde(untagged)]
enum Layout {
    Seen { path: AnyPath, seen: Option<i64> },
    Path(AnyPath),
}

impl From<Layout> for Entry {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Seen { path, seen } => Self { path, seen },
            Layout::Path(path) => Self { path, seen: None },
        }
    }
}

impl Filesystems {
    /// Reads the list of a state directory.
    ///
    /// # Errors
    /// I/O errors, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let known = Mutex::new(durable::read_json(&path)?.unwrap_or_default());
        Ok(Self { path, known })
    }

    /// Records a file system before the sender writes to it. A recorded path that still leads there stays: the new
    /// one may be a snapshot that is soon deleted.
    ///
    /// # Errors
    /// I/O errors; nothing is recorded then.
    pub fn remember(&self, fsid: Uuid, path: &Path) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let leads_there = |entry: &Entry| {
            matches!(
                on(fsid, &PathBuf::from(entry.path.clone())),
                Ok(There::Found(_))
            )
        };
        if known.get(&fsid).is_some_and(leads_there) {
            drop(known);
            self.note_seen(&[fsid], Timestamp::now());
            return Ok(());
        }
        let mut changed = known.clone();
        let entry = Entry {
            path: path.into(),
            seen: Some(Timestamp::now().as_second()),
        };
        changed.insert(fsid, entry);
        durable::write_json(&self.path, &changed)?;
        *known = changed;
        Ok(())
    }

    /// Records the file system of a path, if it has a state subvolume and is not known yet.
    ///
    /// # Errors
    /// I/O errors; nothing is recorded then.
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

    /// Forgets the file system whose id is this or begins so, if it is not mounted: nothing of it is listed any
    /// more. Returns its id and the last known path on it. The next push from it records it again.
    ///
    /// # Errors
    /// See [`ForgetError`].
    pub fn forget(&self, id: &str) -> Result<(Uuid, PathBuf), ForgetError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = id.to_ascii_lowercase();
        let begins = |fsid: &&Uuid| !id.is_empty() && fsid.to_string().starts_with(&wanted);
        let found: Vec<Uuid> = known.keys().filter(begins).copied().collect();
        let fsid = match found.as_slice() {
            [] => return Err(ForgetError::Unknown { id: id.to_owned() }),
            [fsid] => *fsid,
            several => {
                return Err(ForgetError::Several {
                    id: id.to_owned(),
                    several: several.to_vec(),
                });
            }
        };
        // A file system in use may have no path any more.
        if filesystem::shows_devices(fsid) || mounts::any_of(fsid)?.is_some() {
            return Err(ForgetError::Mounted { fsid });
        }
        let mut changed = known.clone();
        let path = changed.remove(&fsid).map(|entry| entry.path.into());
        durable::write_json(&self.path, &changed)?;
        *known = changed;
        Ok((fsid, path.unwrap_or_default()))
    }

    /// Records that file systems were there at `now`, if the recorded time is old. A failure to write it is only
    /// logged.
    fn note_seen(&self, seen: &[Uuid], now: Timestamp) {
        let now = now.as_second();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = known.clone();
        let entries = changed.iter_mut().filter(|(fsid, _)| seen.contains(fsid));
        for (_, entry) in entries {
            // A clock that went back counts as well.
            let is_recent = |at: i64| now.saturating_sub(at).saturating_abs() < SEEN_RESOLUTION;
            if !entry.seen.is_some_and(is_recent) {
                entry.seen = Some(now);
            }
        }
        if changed == *known {
            return;
        }
        if let Err(e) = durable::write_json(&self.path, &changed) {
            tracing::debug!("cannot record when file systems were last seen: {e}");
        }
        *known = changed;
    }

    /// Calls `work` with the state subvolume of each file system that is mounted now. One that is not mounted is
    /// skipped: the next push on it reconciles. Returns those that were skipped or where `work` failed, with the
    /// reason.
    pub fn each(
        &self,
        mut work: impl FnMut(&StateSubvolume) -> io::Result<()>,
    ) -> Vec<NotLookedAt> {
        let (mut seen, mut missed) = (Vec::new(), Vec::new());
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (fsid, entry) in known {
            let path = PathBuf::from(entry.path);
            let looked = match open(fsid, &path) {
                Ok(State::Found(state)) => {
                    work(&state).map_err(|e| Missed::Failed(LookError::Journal(e)))
                }
                Ok(State::Nothing) => Ok(()),
                Ok(State::NotThere(reason)) => Err(Missed::NotThere(reason)),
                Err(error) => Err(Missed::Failed(error)),
            };
            let Err(why) = looked else {
                seen.push(fsid);
                continue;
            };
            match &why {
                Missed::Failed(error) => {
                    let error = with_causes(error);
                    tracing::warn!(%fsid, path = %path.display(), "cannot look for this host's states: {error}");
                }
                Missed::NotThere(reason) => {
                    tracing::debug!(%fsid, path = %path.display(), "not there now: {reason}");
                }
            }
            missed.push(NotLookedAt {
                fsid,
                path,
                last_seen: entry.seen,
                why,
            });
        }
        self.note_seen(&seen, Timestamp::now());
        missed
    }
}

/// The state subvolume of a file system, or why there is none.
enum State {
    Found(StateSubvolume),
    /// The file system is there, without a state subvolume.
    Nothing,
    NotThere(Reason),
}

/// Opens the state subvolume by `path`, or if that leads elsewhere, by any other mount.
fn open(fsid: Uuid, path: &Path) -> Result<State, LookError> {
    let fd = match on(fsid, path)? {
        There::Found(fd) => fd,
        There::Not(reason) => match mounts::any_of(fsid)? {
            Some(fd) => fd,
            None => return Ok(State::NotThere(reason)),
        },
    };
    Ok(match StateSubvolume::open(TopLevel::of(&fd)?)? {
        Some(state) => State::Found(state),
        None => State::Nothing,
    })
}

/// Whether a path leads to the file system.
enum There {
    Found(OwnedFd),
    Not(Reason),
}

/// Opens `path` if it is on the file system `fsid` now.
fn on(fsid: Uuid, path: &Path) -> io::Result<There> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => {
            let text = match errno {
                Errno::NOENT => "it is not mounted: there is no such directory",
                _ => "it is not mounted: its path, or a part of its path, is not a directory",
            };
            return Ok(There::Not(Reason::new(ReasonCode::NotMounted, text)));
        }
        Err(e) => return Err(e.into()),
    };
    if !filesystem::is_btrfs(&fd)? {
        let text = "it is not mounted: its path is not on btrfs";
        return Ok(There::Not(Reason::new(ReasonCode::NotMounted, text)));
    }
    let found = filesystem::fsid(&fd)?;
    if found != fsid {
        let text = format!("it is not mounted: another file system is there, {found}");
        let reason = Reason::new(ReasonCode::OtherFilesystemThere, text);
        return Ok(There::Not(reason));
    }
    Ok(There::Found(fd))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

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
            .map(|entry| PathBuf::from(entry.path))
            .collect();
        assert_eq!(found, paths);
    }

    #[test]
    fn an_earlier_versions_list_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let [gone, bytes] = [1, 2].map(Uuid::from_u128);
        let old = format!(r#"{{"{gone}": "/srv/gone", "{bytes}": [47, 255]}}"#);
        std::fs::write(dir.path().join(FILE), old).unwrap();
        let filesystems = Filesystems::load(dir.path()).unwrap();
        let missed = filesystems.each(|_| Ok(()));
        let of = |fsid| missed.iter().find(|missed| missed.fsid == fsid).unwrap();
        assert_eq!(of(gone).path, Path::new("/srv/gone"));
        assert_eq!(of(gone).last_seen, None);
        let Missed::NotThere(reason) = &of(gone).why else {
            panic!("it is not there");
        };
        assert_eq!(reason.code, ReasonCode::NotMounted);
        assert_eq!(of(bytes).path.as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn the_seen_time_is_written_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let filesystems = Filesystems::load(dir.path()).unwrap();
        let fsid = Uuid::from_u128(1);
        filesystems.remember(fsid, Path::new("/srv/x")).unwrap();
        let file = dir.path().join(FILE);
        let written = |at: i64| {
            let at = Timestamp::from_second(at).unwrap();
            let _ = std::fs::remove_file(&file);
            filesystems.note_seen(&[fsid], at);
            file.exists()
        };
        let seen = || filesystems.known.lock().unwrap()[&fsid].seen.unwrap();
        let start = seen();
        assert!(!written(start + SEEN_RESOLUTION - 1));
        assert!(written(start + SEEN_RESOLUTION));
        assert_eq!(seen(), start + SEEN_RESOLUTION);
        assert!(written(start), "the clock went back");
        let again = Filesystems::load(dir.path()).unwrap().known;
        assert_eq!(again.into_inner().unwrap()[&fsid].seen, Some(start));
        drop(dir);
        assert!(!written(start + 2 * SEEN_RESOLUTION));
        assert_eq!(seen(), start + 2 * SEEN_RESOLUTION);
    }
}
