//! What is kept of an interrupted restore beside its target, so that it continues after a crash.
//!
//! | name in the staging area | what |
//! |---|---|
//! | `restoring-<key>` | staging of a running restore; useless after a crash |
//! | `restore-<key>.<offset>` | read-only snapshot of staging between two commands of the stream, or of the whole tree |
//! | `restore-<key>.json` | the copy, the position of the snapshot, and the finished subvolume |
//! | `drilling-<key>`, `drill-<key>.*` | the same of a drill, which is never continued |
//!
//! The key is made of the target's name, so that the same command finds the same restore. Staging is never continued
//! after a crash, since it may be newer than any recorded position; it is made again from the snapshot.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;
use sendshot_apply::staging::Area;
use sendshot_model::{AnyPath, NotKept, ReceiverId};
use sendshot_proto::chain::Chain;
use sendshot_proto::restore::FetchPoint;
use sendshot_proto::resume::Point;
use sendshot_sys::subvolume::{self, Access};
use sendshot_sys::{crash, durable};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::store::StateSubvolume;

/// Layout version of a record.
const VERSION: u32 = 1;
/// Bytes of the hash in a key.
const KEY_BYTES: usize = 16;

/// What a restore is for. It determines the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It can be continued.
    Restore,
    /// It cannot, and a crash must leave nothing.
    Drill,
}

impl Purpose {
    /// Prefix of the name of staging.
    fn staging(self) -> &'static str {
        match self {
            Self::Restore => "restoring-",
            Self::Drill => "drilling-",
        }
    }

    /// Prefix of the names of snapshots and records.
    fn kept(self) -> &'static str {
        match self {
            Self::Restore => "restore-",
            Self::Drill => "drill-",
        }
    }
}

/// The copy that a restore brings, and its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    pub receiver: ReceiverId,
    /// Name of the volume's directory there.
    pub volume: String,
    /// Name of the copy.
    pub copy: String,
    pub uuid: Uuid,
    pub ctransid: u64,
    pub stream_version: u32,
    /// Length of the stream in bytes.
    pub length: u64,
}

impl Subject {
    /// Whether a user's choice of a copy is certainly this one; without a choice, it is the same command as before.
    pub fn is_wanted(&self, at: Option<&str>) -> bool {
        at.is_none_or(|at| self.copy == at || self.uuid.to_string() == at.to_ascii_lowercase())
    }
}

/// A snapshot of staging, and its position in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    offset: u64,
    chain: [u8; 32],
    skeleton: [u8; 32],
    /// The transaction number that the stream announced.
    announced: u64,
    /// What this file system could not keep of the stream up to here.
    #[serde(default)]
    not_kept: NotKept,
}

/// The record of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    subject: Subject,
    kept: Option<Kept>,
    /// UUID of the finished subvolume, written before it gets its final name.
    finished: Option<Uuid>,
    /// The exchange of names, if it takes the place of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swap: Option<Swap>,
}

/// An exchange of names, recorded before it begins. After a crash, the UUIDs tell how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// UUID of the restored subvolume.
    pub new: Uuid,
    /// UUID of the user's volume; `None` if there is none.
    pub old: Option<Uuid>,
    /// The directory of the volume, from the top level.
    pub dir: AnyPath,
    /// Name of the volume in it.
    pub name: AnyPath,
    /// Name in it that the user's volume gets.
    pub kept: AnyPath,
    /// Why the restored subvolume is not recorded as held by the receiver; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

/// A point from which a restore continues.
#[derive(Debug)]
pub struct Resumable {
    /// The read-only snapshot of staging.
    pub snapshot: OwnedFd,
    pub point: FetchPoint,
    /// The transaction number that the stream announced.
    pub announced: u64,
    /// What this file system could not keep of the stream up to there.
    pub not_kept: NotKept,
}

/// The files of one restore in a staging area.
#[derive(Debug)]
pub struct RestoreFiles {
    area: OwnedFd,
    purpose: Purpose,
    key: String,
    record: Option<Record>,
}

impl RestoreFiles {
    /// Opens the files of the restore to a target of this name.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for a record of another version.
    pub fn open(area: OwnedFd, target: &OsStr, purpose: Purpose) -> io::Result<Self> {
        let hash = blake3::hash(target.as_bytes());
        let hex = hash.to_hex();
        let key = hex.as_str()[..2 * KEY_BYTES].to_owned();
        let record = durable::read_json_at::<Record>(&area, &record_name(purpose, &key))?;
        if record
            .as_ref()
            .is_some_and(|found| found.version != VERSION)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the record of an interrupted restore has another version",
            ));
        }
        Ok(Self {
            area,
            purpose,
            key,
            record,
        })
    }

    fn of_key(
        area: &OwnedFd,
        purpose: Purpose,
        key: String,
        record: Option<Record>,
    ) -> io::Result<Self> {
        Ok(Self {
            area: area.try_clone()?,
            purpose,
            key,
            record,
        })
    }

    /// Name of staging.
    pub fn staging_name(&self) -> OsString {
        format!("{}{}", self.purpose.staging(), self.key).into()
    }

    /// Whether there is a staging subvolume.
    ///
    /// # Errors
    /// I/O errors.
    pub fn is_staged(&self) -> io::Result<bool> {
        match durable::open_dir(&self.area, &self.staging_name()) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The copy of the interrupted restore, if there is one.
    pub fn subject(&self) -> Option<&Subject> {
        self.record.as_ref().map(|record| &record.subject)
    }

    /// UUID of the subvolume that was finished before the crash.
    pub fn finished(&self) -> Option<Uuid> {
        self.record.as_ref().and_then(|record| record.finished)
    }

    /// Opens the snapshot from which the restore of this copy can continue.
    ///
    /// # Errors
    /// I/O errors.
    pub fn resumable(&self) -> io::Result<Option<Resumable>> {
        let record = self.record.as_ref();
        let Some(kept) = record.and_then(|record| record.kept.as_ref()) else {
            return Ok(None);
        };
        let snapshot = match durable::open_dir(&self.area, &self.snapshot_name(kept.offset)) {
            Ok(snapshot) => snapshot,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        // One that was written to is not what was recorded.
        if !subvolume::is_subvolume(&snapshot)? || !subvolume::info(&snapshot)?.is_pristine() {
            return Ok(None);
        }
        Ok(Some(Resumable {
            snapshot,
            point: FetchPoint {
                point: Point {
                    offset: kept.offset,
                    chain: Chain(kept.chain),
                },
                skeleton: kept.skeleton,
            },
            announced: kept.announced,
            not_kept: kept.not_kept.clone(),
        }))
    }

    /// Whether nothing can be continued from these files, and no crash has left an exchange of names or a finished
    /// subvolume. They belong to another process if staging exists.
    ///
    /// # Errors
    /// I/O errors.
    pub fn are_useless(&self) -> io::Result<bool> {
        let is_begun = |record: &Record| record.finished.is_some() || record.swap.is_some();
        if self.record.as_ref().is_some_and(is_begun) || self.resumable()?.is_some() {
            return Ok(false);
        }
        Ok(!durable::names(&self.area)?.contains(&self.staging_name()))
    }

    /// Records that a restore begins; everything of an earlier one is deleted.
    ///
    /// # Errors
    /// I/O errors.
    pub fn begin(&mut self, subject: Subject) -> io::Result<()> {
        self.discard()?;
        self.write(Record {
            version: VERSION,
            subject,
            kept: None,
            finished: None,
            swap: None,
        })
    }

    /// Keeps a snapshot of staging, whose data is on disk already, as the point from which to continue.
    ///
    /// Steps, and what a crash after each leaves:
    ///
    /// 1. Make the snapshot. — A snapshot that no record names, which the next restore to the target deletes.
    /// 2. Record it. — Two snapshots; the record names the new one.
    /// 3. Delete the earlier one. — The new one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn keep(
        &mut self,
        staging: impl AsFd,
        point: FetchPoint,
        announced: u64,
        not_kept: NotKept,
    ) -> io::Result<()> {
        let Some(record) = self.record.clone() else {
            return Ok(());
        };
        let offset = point.point.offset;
        let name = self.snapshot_name(offset);
        subvolume::snapshot(staging, &self.area, &name, Access::ReadOnly)?; // 1
        crash::point("restore-kept");
        let kept = Kept {
            offset,
            chain: point.point.chain.0,
            skeleton: point.skeleton,
            announced,
            not_kept,
        };
        let before = record.kept.clone();
        self.write(Record {
            kept: Some(kept),
            ..record
        })?; // 2
        crash::point("restore-noted");
        if let Some(before) = before {
            self.delete(&self.snapshot_name(before.offset))?; // 3
        }
        Ok(())
    }

    /// Makes a read-only snapshot of a complete tree, whose data is on disk, and opens it. Reading the tree itself would
    /// change its access times.
    ///
    /// # Errors
    /// I/O errors.
    pub fn freeze(&self, staging: impl AsFd, length: u64) -> io::Result<OwnedFd> {
        let name = self.frozen_name(length);
        self.delete(&name)?;
        subvolume::snapshot(staging, &self.area, &name, Access::ReadOnly)?;
        durable::open_dir(&self.area, &name)
    }

    /// Name of the snapshot of a complete tree whose stream had this length.
    pub fn frozen_name(&self, length: u64) -> OsString {
        self.snapshot_name(length)
    }

    /// Records the finished subvolume before it gets its final name.
    ///
    /// # Errors
    /// I/O errors.
    pub fn finish(&mut self, subvolume: Uuid) -> io::Result<()> {
        match self.record.clone() {
            Some(record) => self.write(Record {
                finished: Some(subvolume),
                ..record
            }),
            None => Ok(()),
        }
    }

    /// The exchange of names that was begun, if any.
    pub fn swap(&self) -> Option<&Swap> {
        self.record.as_ref().and_then(|record| record.swap.as_ref())
    }

    /// Records an exchange of names before it begins.
    ///
    /// # Errors
    /// I/O errors.
    pub fn begin_swap(&mut self, swap: Swap) -> io::Result<()> {
        match self.record.clone() {
            Some(record) => self.write(Record {
                finished: Some(swap.new),
                swap: Some(swap),
                ..record
            }),
            None => Ok(()),
        }
    }

    /// Records that the exchange of names is not to be: nothing was renamed, and the subvolume is gone.
    ///
    /// # Errors
    /// I/O errors.
    pub fn end_swap(&mut self) -> io::Result<()> {
        match self.record.clone() {
            Some(record) => self.write(Record {
                finished: None,
                swap: None,
                ..record
            }),
            None => Ok(()),
        }
    }

    /// Deletes everything of the restore, except staging: the snapshots, then the record.
    ///
    /// # Errors
    /// I/O errors.
    pub fn discard(&mut self) -> io::Result<()> {
        self.sweep(None)?;
        durable::remove_at(&self.area, &record_name(self.purpose, &self.key))?;
        self.record = None;
        Ok(())
    }

    /// Deletes the snapshots that a crash has left beside the recorded one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn tidy(&self) -> io::Result<()> {
        let record = self.record.as_ref();
        let kept = record.and_then(|record| record.kept.as_ref());
        self.sweep(kept.map(|kept| kept.offset))
    }

    fn sweep(&self, except: Option<u64>) -> io::Result<()> {
        let prefix = format!("{}{}.", self.purpose.kept(), self.key);
        for name in durable::names(&self.area)? {
            let offset = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok());
            if offset.is_some_and(|offset| Some(offset) != except) {
                self.delete(&name)?;
            }
        }
        Ok(())
    }

    fn delete(&self, name: &OsStr) -> io::Result<()> {
        match subvolume::destroy(&self.area, name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn write(&mut self, record: Record) -> io::Result<()> {
        durable::write_json_at(&self.area, &record_name(self.purpose, &self.key), &record)?;
        self.record = Some(record);
        Ok(())
    }

    fn snapshot_name(&self, offset: u64) -> OsString {
        format!("{}{}.{offset}", self.purpose.kept(), self.key).into()
    }
}

/// Deletes the staging subvolumes of restores whose processes are dead, and everything of drills whose processes are.
///
/// # Errors
/// I/O errors.
pub fn sweep(state: &StateSubvolume) -> io::Result<()> {
    let area = Area::new(state.root())?;
    if !area.exists() {
        return Ok(());
    }
    for purpose in [Purpose::Restore, Purpose::Drill] {
        area.sweep(purpose.staging()).map_err(io::Error::other)?;
    }
    let dir = area.dir().map_err(io::Error::other)?;
    for key in keys(&dir, Purpose::Drill)? {
        let mut files = RestoreFiles::of_key(&dir, Purpose::Drill, key, None)?;
        if !files.is_staged()? {
            files.discard()?;
        }
    }
    area.remove_if_empty().map_err(io::Error::other)
}

/// Deletes what is kept of interrupted restores that made no progress for longer than `keep`; returns how many stay. An
/// exchange of names that was begun stays recorded, without the snapshots.
///
/// # Errors
/// I/O errors.
pub fn expire(state: &StateSubvolume, keep: Duration, now: SystemTime) -> io::Result<usize> {
    let area = Area::new(state.root())?;
    if !area.exists() {
        return Ok(0);
    }
    let dir = area.dir().map_err(io::Error::other)?;
    let mut stay = 0;
    for key in keys(&dir, Purpose::Restore)? {
        let name = record_name(Purpose::Restore, &key);
        let Some(changed) = changed_at(&dir, &name)? else {
            continue;
        };
        // A clock that was set back makes it younger.
        let age = now.duration_since(changed).unwrap_or_default();
        let record = match durable::read_json_at::<Record>(&dir, &name) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => None,
            record => record?,
        };
        let mut files = RestoreFiles::of_key(&dir, Purpose::Restore, key, record)?;
        if age <= keep || files.is_staged()? {
            stay += 1;
            continue;
        }
        match files.subject() {
            Some(subject) => tracing::warn!(volume = %subject.volume, copy = %subject.copy,
                "the interrupted restore of {}/{} is discarded: it made no progress for {}, more than `resume_keep` \
                 allows", subject.volume, subject.copy, sendshot_model::human::duration(age)),
            None => {
                tracing::warn!("an old interrupted restore is discarded: its record cannot be read")
            }
        }
        match files.swap().is_some() {
            true => files.sweep(None)?,
            false => files.discard()?,
        }
    }
    area.remove_if_empty().map_err(io::Error::other)?;
    Ok(stay)
}

/// The keys that occur in the names of records and snapshots.
fn keys(area: &OwnedFd, purpose: Purpose) -> io::Result<BTreeSet<String>> {
    let key = |name: OsString| {
        let (key, _) = name
            .to_str()?
            .strip_prefix(purpose.kept())?
            .split_once('.')?;
        Some(key.to_owned())
    };
    Ok(durable::names(area)?.into_iter().filter_map(key).collect())
}

/// When a file was written; `None` if there is none.
fn changed_at(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<SystemTime>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
            Ok(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn record_name(purpose: Purpose, key: &str) -> OsString {
    format!("{}{key}.json", purpose.kept()).into()
}
