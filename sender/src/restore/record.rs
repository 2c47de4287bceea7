//! Records a volume that was restored in place as held by the receiver, so that the next push is incremental.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Find the volume's id, or bind its name to the restored subvolume if the volume is not known. A known one stays bound
//!    to the subvolume that has its name until the names are exchanged: its next push binds it to the restored one, as
//!    after a rollback. — A binding that the next push of the volume changes.
//! 2. Write a record, state `sending`. — A record without snapshot; reconciliation deletes it.
//! 3. Capture the read-only snapshot that was checked, with the identity of the receiver's copy. — The same, with a
//!    sendshot.
//! 4. Mark the record acknowledged, and restored. — A sendshot like that of any acknowledged push, which is a parent only
//!    for pushes to this receiver.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_engine::capture::save;
use sendshot_engine::{Frozen, WireNumber};
use sendshot_model::{
    CopyName, Engine, PeerName, PushId, ReceiverId, RootId, VolumeId, VolumeName,
};
use sendshot_sys::subvolume;
use sendshot_sys::top_level::{self, TopLevel};
use sendshot_sys::{crash, mounts};
use uuid::Uuid;

use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::record::{Intent, Origin, Phase, Record, SnapshotId};
use crate::state::store::{self, StateSubvolume};
use crate::volume::ids::Naming;
use crate::volume::resolve;

/// A subvolume that was restored and is about to take the place of its volume.
#[derive(Debug, Clone)]
pub struct Restored {
    pub volume: VolumeName,
    pub receiver: PeerName,
    pub receiver_id: ReceiverId,
    /// The receiver's disk.
    pub root: Option<RootId>,
    /// Identity of the receiver's copy.
    pub uuid: Uuid,
    pub ctransid: u64,
    /// Name of the copy.
    pub copy: String,
    /// Its file system.
    pub fsid: Uuid,
    /// The device, if the file system is not mounted.
    pub device: Option<PathBuf>,
    /// Path of the restored subvolume from the top level.
    pub staging: PathBuf,
    /// Path of the snapshot of it that was checked.
    pub snapshot: PathBuf,
}

/// Why a restored volume was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("file system {0} is not mounted")]
    NotMounted(Uuid),
    #[error(transparent)]
    Top(#[from] top_level::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    #[error("cannot make a sendshot of the restored volume")]
    Capture(#[from] save::Error),
    /// Something wrote into the snapshot, or replaced it.
    #[error("the snapshot of the restored subvolume that was checked is not there unchanged")]
    Changed,
    #[error("cannot record the restored volume")]
    Io(#[from] io::Error),
}

/// Opens the top level of a file system: by its device, or by any mount of it.
///
/// # Errors
/// See [`Error`].
pub fn top(fsid: Uuid, device: Option<&PathBuf>) -> Result<TopLevel, Error> {
    if let Some(device) = device {
        return Ok(TopLevel::of_device(device)?);
    }
    match mounts::any_of(fsid)? {
        Some(mount) => Ok(TopLevel::of(&mount)?),
        None => Err(Error::NotMounted(fsid)),
    }
}

/// Records a restored volume. Blocks.
///
/// # Errors
/// See [`Error`]; nothing is left then but what reconciliation deletes.
pub fn record(sender: &Sender, restored: &Restored) -> Result<(), Error> {
    let state = StateSubvolume::open_or_create(top(restored.fsid, restored.device.as_ref())?)?;
    let tree = open(&state, &restored.staging)?;
    let snapshot = open(&state, &restored.snapshot)?;
    let is_checked = subvolume::info(&snapshot)?;
    if !is_checked.is_pristine() || is_checked.parent_uuid != subvolume::info(&tree)?.uuid {
        return Err(Error::Changed);
    }
    let volume = volume_id(sender, &state, restored, &tree)?; // 1
    if let Some(volume) = sender.config().volumes.get(&restored.volume) {
        sender.filesystems().remember(restored.fsid, &volume.path)?;
    }
    let push = sender.table().protect(PushId::generate());
    let taken_at = CopyName::parse(&restored.copy).map_or(0, |name| name.time().as_second());
    let mut record = Record::new(Intent {
        sender: sender.id(),
        volume,
        volume_name: restored.volume.clone(),
        receiver: restored.receiver_id,
        receiver_name: restored.receiver.clone(),
        push: push.push,
        taken_at,
        engine: Engine::Sendshot,
    });
    record.root = restored.root;
    record.store(state.pushes())?; // 2
    crash::point("restore-intent");
    let captured = capture(&state, &snapshot, restored, &mut record);
    if let Err(error) = captured {
        if let Err(e) = discard::discard(&state, &record) {
            tracing::warn!(push = %record.push, "an unfinished record is left to be reconciled: {e}");
        }
        return Err(error);
    }
    (record.phase, record.origin) = (Phase::Acknowledged, Origin::Restored);
    record.store(state.pushes())?; // 4
    crash::point("restore-recorded");
    tracing::info!(volume = %restored.volume, receiver = %restored.receiver, uuid = %restored.uuid,
        "the restored volume is recorded: its next push builds on copy {}", restored.copy);
    Ok(())
}

/// The id of the volume; a new one if neither the disk nor this host knows it.
fn volume_id(
    sender: &Sender,
    state: &StateSubvolume,
    restored: &Restored,
    tree: &OwnedFd,
) -> Result<VolumeId, Error> {
    let naming = Naming::Configured(restored.volume.clone());
    let known = sender.find(|finder| resolve::known_by_naming(finder, &naming, tree))?;
    if let Some(known) = known {
        return Ok(known);
    }
    let binding = sender.find(|finder| resolve::bind_restored(finder, &restored.volume, tree))?;
    sender.register(state, &binding)?;
    Ok(binding.id)
}

/// Opens a subvolume of a restore by its path from the top level.
fn open(state: &StateSubvolume, path: &PathBuf) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = rustix::fs::openat2(state.top(), path, flags, Mode::empty(), resolve);
    let opened = opened.map_err(io::Error::from)?;
    match subvolume::is_subvolume(&opened)? {
        true => Ok(opened),
        false => Err(Error::Changed),
    }
}

fn capture(
    state: &StateSubvolume,
    snapshot: &OwnedFd,
    restored: &Restored,
    record: &mut Record,
) -> Result<(), Error> {
    let info = subvolume::info(snapshot)?;
    record.snapshot = Some(SnapshotId {
        uuid: restored.uuid,
        otransid: info.otransid,
    });
    let number = WireNumber::Restored {
        uuid: restored.uuid,
        ctransid: restored.ctransid,
    };
    let frozen = Frozen::snapshot(snapshot);
    let name = record.sendshot_name();
    let (sendshot, _) = sendshot_engine::save(frozen, number, None, state.sendshots(), &name)?; // 3
    crash::point("restore-captured");
    let is_same =
        sendshot.head().ctransid == info.ctransid && subvolume::info(snapshot)?.is_pristine();
    match is_same {
        true => Ok(()),
        false => Err(Error::Changed),
    }
}
