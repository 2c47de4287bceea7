//! What is kept of an interrupted push, so that it can be resumed after this daemon has died: a record and
//! checkpoints, in the staging area, which only this daemon's user can enter.
//!
//! | name in the area | what |
//! |---|---|
//! | `push-<transfer>` | staging of a push that runs or waits for its sender; useless after a restart |
//! | `checkpoint-<transfer>-<offset>-<chain>` | read-only snapshot of staging between two commands |
//! | `partial-<transfer>.json` | sender, volume and state of the transfer |
//!
//! A partial is not a copy: it is not in a volume's directory, and has no received UUID. Its staging is never
//! resumed after a restart, since it may be newer than any recorded progress; it is made again from the
//! checkpoint ([`crate::receive::incoming`]).

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_model::{PeerName, SenderId, TransferId, VolumeId, VolumeName};
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::{Begin, ParentRef};
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::{crash, durable, subvolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::root::OpenRoot;
use crate::store::volumes::{self, Caller};

/// Prefix of names of staging subvolumes; only those are ever swept.
pub const STAGING: &str = "push-";
/// Prefix of names of checkpoints.
const CHECKPOINT: &str = "checkpoint-";
/// Prefix of names of records.
const RECORD: &str = "partial-";
/// Suffix of names of records.
const RECORD_END: &str = ".json";
/// Layout version of a record.
const VERSION: u32 = 1;

/// The owner of a partial, and the state in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    pub transfer: TransferId,
    pub sender: SenderId,
    /// The sender's name, which is its directory.
    pub sender_name: PeerName,
    pub volume: VolumeId,
    pub volume_name: VolumeName,
    /// UUID of the state in the stream.
    pub uuid: Uuid,
    /// The sender's ctransid of that state.
    pub ctransid: u64,
    /// UUID and ctransid of the parent.
    parent: Option<(Uuid, u64)>,
    stream_version: u32,
    /// When it was begun, seconds since 1970 UTC.
    pub begun_at: i64,
}

/// A point in a stream up to which everything is in a snapshot of staging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    pub transfer: TransferId,
    pub point: Point,
}

/// A partial on the disk.
#[derive(Debug, Clone)]
pub struct Partial {
    pub record: Record,
    /// Its checkpoints, newest last, each with the time it was made, seconds since 1970 UTC.
    pub checkpoints: Vec<(Checkpoint, i64)>,
}

impl Record {
    /// The record of an announced transfer.
    pub fn new(caller: &Caller, begin: &Begin) -> Self {
        Self {
            version: VERSION,
            transfer: begin.transfer,
            sender: caller.id,
            sender_name: caller.name.clone(),
            volume: begin.volume.id,
            volume_name: begin.volume.name.clone(),
            uuid: begin.uuid,
            ctransid: begin.ctransid,
            parent: begin.parent.map(parent_pair),
            stream_version: begin.stream_version,
            begun_at: Timestamp::now().as_second(),
        }
    }

    /// Whether it is of the transfer being announced, by the same sender.
    pub fn is_of(&self, caller: &Caller, begin: &Begin) -> bool {
        let same = Self {
            begun_at: self.begun_at,
            volume_name: self.volume_name.clone(),
            ..Self::new(caller, begin)
        };
        *self == same
    }

    /// UUID and ctransid of the state that it builds on.
    pub fn parent(&self) -> Option<(Uuid, u64)> {
        self.parent
    }

    pub fn concerns(&self, caller: &Caller, volume: VolumeId) -> bool {
        self.sender == caller.id && self.sender_name == caller.name && self.volume == volume
    }

    fn caller(&self) -> Caller {
        Caller {
            name: self.sender_name.clone(),
            id: self.sender,
        }
    }

    fn key(&self) -> VolumeKey {
        VolumeKey {
            id: self.volume,
            name: self.volume_name.clone(),
        }
    }
}

fn parent_pair(parent: ParentRef) -> (Uuid, u64) {
    (parent.uuid, parent.ctransid)
}

impl Checkpoint {
    /// Name in the staging area.
    pub fn name(&self) -> OsString {
        let mut name = format!("{CHECKPOINT}{}-{}-", self.transfer, self.point.offset);
        for byte in self.point.chain.0 {
            let _ = write!(name, "{byte:02x}"); // cannot fail for a String
        }
        name.into()
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let rest = name.to_str()?.strip_prefix(CHECKPOINT)?;
        let (transfer, rest) = (rest.get(..36)?, rest.get(36..)?.strip_prefix('-')?);
        let (offset, chain) = rest.split_once('-')?;
        if chain.len() != 64 || !chain.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&chain[2 * i..2 * i + 2], 16).ok()?;
        }
        let found = Self {
            transfer: transfer.parse().ok()?,
            point: Point {
                offset: offset.parse().ok()?,
                chain: Chain(bytes),
            },
        };
        // A name in another spelling was not made by this daemon.
        (found.name() == name).then_some(found)
    }
}

impl Partial {
    /// When its last checkpoint was taken, or it was begun; seconds since 1970 UTC.
    pub fn since(&self) -> i64 {
        let newest = self.checkpoints.iter().map(|(_, made_at)| *made_at).max();
        newest.unwrap_or(self.record.begun_at)
    }

    /// Whether it has expired. A clock that went back makes it young.
    pub fn is_over(&self, now: Timestamp, keep: Duration) -> bool {
        now.as_second().saturating_sub(self.since())
            > i64::try_from(keep.as_secs()).unwrap_or(i64::MAX)
    }
}

fn record_name(transfer: TransferId) -> OsString {
    format!("{RECORD}{transfer}{RECORD_END}").into()
}

/// Name of the staging subvolume of a transfer.
pub fn staging_name(transfer: TransferId) -> OsString {
    format!("{STAGING}{transfer}").into()
}

/// Writes the record of a transfer, durably.
///
/// # Errors
/// I/O errors.
pub fn note(area: impl AsFd, record: &Record) -> io::Result<()> {
    durable::write_json_at(area, &record_name(record.transfer), record)?;
    crash::point("partial-noted");
    Ok(())
}

/// Reads all partials on the disk. An unreadable record is logged and left alone.
///
/// # Errors
/// I/O errors.
pub fn all(area: impl AsFd) -> io::Result<Vec<Partial>> {
    let (mut partials, mut checkpoints) = (Vec::new(), Vec::new());
    for name in durable::names(&area)? {
        if let Some(checkpoint) = Checkpoint::parse(&name) {
            match made_at(&area, &name) {
                Ok(made_at) => checkpoints.extend(made_at.map(|made_at| (checkpoint, made_at))),
                // A damaged checkpoint must not affect other partials.
                Err(e) => tracing::warn!(name = %name.display(), "a checkpoint is not used: {e}"),
            }
        } else if name.to_string_lossy().starts_with(RECORD) {
            match durable::read_json_at::<Record>(&area, &name) {
                Ok(Some(record)) if record_name(record.transfer) == name => {
                    partials.push(Partial {
                        record,
                        checkpoints: Vec::new(),
                    })
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(name = %name.display(), "record of a partial cannot be read: {e}")
                }
            }
        }
    }
    for partial in &mut partials {
        let own = checkpoints
            .iter()
            .filter(|(c, _)| c.transfer == partial.record.transfer);
        partial.checkpoints = own.copied().collect();
        partial
            .checkpoints
            .sort_by_key(|(checkpoint, _)| checkpoint.point.offset);
    }
    Ok(partials)
}

/// When a checkpoint was made; `None` if it is not a valid checkpoint.
fn made_at(area: impl AsFd, name: &OsStr) -> io::Result<Option<i64>> {
    Ok(pristine(area, name)?.map(|(_, made_at)| made_at))
}

/// Opens a checkpoint, unless it is gone or was changed since it was made.
fn pristine(area: impl AsFd, name: &OsStr) -> io::Result<Option<(OwnedFd, i64)>> {
    let opened = durable::open_dir(area, name).and_then(|root| {
        let info = match subvolume::is_subvolume(&root)? {
            true => Some(subvolume::info(&root)?),
            false => None,
        };
        Ok((root, info))
    });
    match opened {
        // Its transfer may have deleted it since its name was read.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok((root, info)) => Ok(info
            .filter(sendshot_sys::subvolume::Info::is_pristine)
            .map(|info| (root, info.otime))),
    }
}

/// Opens the checkpoint of a transfer at exactly this point.
///
/// # Errors
/// I/O errors.
pub fn open(area: impl AsFd, checkpoint: Checkpoint) -> io::Result<Option<OwnedFd>> {
    Ok(pristine(area, &checkpoint.name())?.map(|(root, _)| root))
}

/// Deletes a checkpoint, if it exists.
///
/// # Errors
/// I/O errors.
pub fn delete(area: impl AsFd, checkpoint: Checkpoint) -> io::Result<()> {
    match subvolume::destroy(area, &checkpoint.name()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Deletes all of a partial except its staging. A crash in between leaves a record, or a checkpoint without
/// one; the next start deletes both.
///
/// # Errors
/// I/O errors.
pub fn forget(area: impl AsFd, transfer: TransferId) -> io::Result<()> {
    for name in durable::names(&area)? {
        // Checkpoints that were changed are deleted, too.
        if let Some(found) = Checkpoint::parse(&name).filter(|found| found.transfer == transfer) {
            delete(&area, found)?;
        }
    }
    durable::remove_at(&area, &record_name(transfer))?;
    crash::point("partial-forgotten");
    Ok(())
}

/// Whether the area has anything of a transfer. Ids are generated, so a sender that announces an existing one means
/// to take over another's transfer.
///
/// # Errors
/// I/O errors.
pub fn is_taken(area: impl AsFd, transfer: TransferId) -> io::Result<bool> {
    let is_of = |name: &OsString| {
        [record_name(transfer), staging_name(transfer)].contains(name)
            || Checkpoint::parse(name).is_some_and(|found| found.transfer == transfer)
    };
    Ok(durable::names(&area)?.iter().any(is_of))
}

/// Deletes the partials that `is_expired` selects; returns their number.
///
/// # Errors
/// I/O errors.
pub fn forget_those(
    area: impl AsFd,
    mut is_expired: impl FnMut(&Partial) -> bool,
) -> io::Result<usize> {
    let mut forgotten = 0;
    for partial in all(&area)? {
        if is_expired(&partial) {
            forget(&area, partial.record.transfer)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

/// Reconciles what a dead daemon left.
///
/// 1. All staging is deleted: it may hold commands that are not recorded.
/// 2. Checkpoints without a record are deleted, and all but the newest of each transfer.
/// 3. Records without a checkpoint are deleted, and partials whose copy was committed.
///
/// A crash in between leaves less to reconcile.
///
/// # Errors
/// I/O errors.
pub fn reconcile(root: &OpenRoot) -> anyhow::Result<()> {
    let area = Area::new(root)?;
    let swept = area.sweep(STAGING)?; // 1
    let dir = area.dir()?;
    durable::sweep_temporaries(&dir)?;
    let partials = all(&dir)?;
    let newest: Vec<Checkpoint> = partials
        .iter()
        .filter_map(|partial| partial.checkpoints.last())
        .map(|(checkpoint, _)| *checkpoint)
        .collect();
    for name in durable::names(&dir)? {
        if let Some(stale) = Checkpoint::parse(&name).filter(|found| !newest.contains(found)) {
            delete(&dir, stale)?; // 2
        }
    }
    let mut kept = 0;
    for partial in partials {
        if partial.checkpoints.is_empty() || is_committed(root, &partial.record)? {
            forget(&dir, partial.record.transfer)?; // 3
        } else {
            kept += 1;
        }
    }
    drop(dir);
    area.remove_if_empty()?;
    if swept > 0 || kept > 0 {
        tracing::info!(
            swept,
            kept,
            "partials of an earlier run: staging was deleted, checkpoints stay"
        );
    }
    Ok(())
}

fn is_committed(root: &OpenRoot, record: &Record) -> io::Result<bool> {
    let Some(dir) = volumes::find(root, &record.caller(), &record.key())? else {
        return Ok(false);
    };
    let copies = volumes::copies(&dir.fd)?;
    Ok(copies
        .iter()
        .any(|copy| (copy.uuid, copy.ctransid) == (record.uuid, record.ctransid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_name_says_all_that_is_to_be_known_of_it() {
        let checkpoint = Checkpoint {
            transfer: TransferId::generate(),
            point: Point {
                offset: 67_108_864,
                chain: Chain([0xab; 32]),
            },
        };
        let name = checkpoint.name();
        assert_eq!(Checkpoint::parse(&name), Some(checkpoint));
        assert!(name.len() < 255, "longer than a name can be");
        let text = name.to_str().unwrap();
        for other in [
            text.replace("checkpoint", "push"),
            text.replace("-67108864-", "-067108864-"),
            text.replace("abab", "ABab"),
            text[..text.len() - 1].to_owned(),
            format!("{text}0"),
            text.replace("ab", "é"),
        ] {
            assert_eq!(Checkpoint::parse(other.as_ref()), None, "{other}");
        }
    }
}
