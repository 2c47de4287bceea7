//! What is kept of an interrupted restore beside its target, so that it continues after a crash.
//!
//! | name in the staging area | what |
//! |---|---|
//! | `restoring-<key>` | staging of a running restore; useless after a crash |
//! | `restore-<key>.<offset>` | read-only snapshot of staging between two commands of the stream |
//! | `restore-<key>.json` | the copy, the position of the snapshot, and the finished subvolume |
//!
//! The key is made of the target's name, so that the same command finds the same restore. Staging is never continued
//! after a crash, since it may be newer than any recorded position; it is made again from the snapshot.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use sendshot_apply::staging::Area;
use sendshot_model::{AnyPath, ReceiverId};
use sendshot_proto::chain::Chain;
use sendshot_proto::restore::FetchPoint;
use sendshot_proto::resume::Point;
use sendshot_sys::subvolume::{self, Access};
use sendshot_sys::{crash, durable};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::store::StateSubvolume;

/// Prefix of the name of staging.
const STAGING: &str = "restoring-";
/// Prefix of the names of snapshots and records.
const KEPT: &str = "restore-";
/// Layout version of a record.
const VERSION: u32 = 1;
/// Bytes of the hash in a key.
const KEY_BYTES: usize = 16;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    offset: u64,
    chain: [u8; 32],
    skeleton: [u8; 32],
    /// The transaction number that the stream announced.
    announced: u64,
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
}

/// A point from which a restore continues.
#[derive(Debug)]
pub struct Resumable {
    /// The read-only snapshot of staging.
    pub snapshot: OwnedFd,
    pub point: FetchPoint,
    /// The transaction number that the stream announced.
    pub announced: u64,
}

/// The files of one restore in a staging area.
#[derive(Debug)]
pub struct RestoreFiles {
    area: OwnedFd,
    key: String,
    record: Option<Record>,
}

impl RestoreFiles {
    /// Opens the files of the restore to a target of this name.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for a record of another version.
    pub fn open(area: OwnedFd, target: &OsStr) -> io::Result<Self> {
        let hash = blake3::hash(target.as_bytes());
        let hex = hash.to_hex();
        let key = hex.as_str()[..2 * KEY_BYTES].to_owned();
        let record = durable::read_json_at::<Record>(&area, &record_name(&key))?;
        if record
            .as_ref()
            .is_some_and(|found| found.version != VERSION)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the record of an interrupted restore has another version",
            ));
        }
        Ok(Self { area, key, record })
    }

    /// Name of staging.
    pub fn staging_name(&self) -> OsString {
        format!("{STAGING}{}", self.key).into()
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
        let Some(kept) = self.record.as_ref().and_then(|record| record.kept) else {
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
        };
        let before = record.kept;
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
        let name = self.snapshot_name(length);
        self.delete(&name)?;
        subvolume::snapshot(staging, &self.area, &name, Access::ReadOnly)?;
        durable::open_dir(&self.area, &name)
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

    /// Deletes everything of the restore, except staging: the snapshots, then the record.
    ///
    /// # Errors
    /// I/O errors.
    pub fn discard(&mut self) -> io::Result<()> {
        self.sweep(None)?;
        durable::remove_at(&self.area, &record_name(&self.key))?;
        self.record = None;
        Ok(())
    }

    /// Deletes the snapshots that a crash has left beside the recorded one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn tidy(&self) -> io::Result<()> {
        let kept = self.record.as_ref().and_then(|record| record.kept);
        self.sweep(kept.map(|kept| kept.offset))
    }

    fn sweep(&self, except: Option<u64>) -> io::Result<()> {
        let prefix = format!("{KEPT}{}.", self.key);
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
        durable::write_json_at(&self.area, &record_name(&self.key), &record)?;
        self.record = Some(record);
        Ok(())
    }

    fn snapshot_name(&self, offset: u64) -> OsString {
        format!("{KEPT}{}.{offset}", self.key).into()
    }
}

/// Deletes the staging subvolumes of restores and drills whose processes are dead.
///
/// # Errors
/// I/O errors.
pub fn sweep(state: &StateSubvolume) -> io::Result<()> {
    let area = Area::new(state.root())?;
    if area.exists() {
        area.sweep(STAGING).map_err(io::Error::other)?;
        area.remove_if_empty().map_err(io::Error::other)?;
    }
    Ok(())
}

fn record_name(key: &str) -> OsString {
    format!("{KEPT}{key}.json").into()
}
