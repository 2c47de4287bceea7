//! Records a volume that was restored in place as held by the receiver, so that the next push is incremental.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Bind the volume's name to the restored subvolume, in the lists of this host and of the disk. — The next push from
//!    the old subvolume binds it back, as after a rollback.
//! 2. Write a record, state `sending`. — A record without snapshot; reconciliation deletes it.
//! 3. Make a read-only snapshot of the restored subvolume, unchanged since it was checked. — Both;
//!    reconciliation deletes them.
//! 4. Capture it with the identity of the receiver's copy. — The same, with a sendshot.
//! 5. Mark the record acknowledged. — A sendshot like that of any acknowledged push, and a snapshot that reconciliation
//!    deletes.
//! 6. Delete the snapshot.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_engine::capture::save;
use sendshot_engine::{Frozen, WireNumber};
use sendshot_model::{CopyName, Engine, PeerName, PushId, ReceiverId, RootId, VolumeName};
use sendshot_sys::subvolume::{self, Access};
use sendshot_sys::top_level::{self, TopLevel};
use sendshot_sys::{crash, durable, mounts};
use uuid::Uuid;

use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::record::{Intent, Origin, Phase, Record, SnapshotId};
use crate::state::store::{self, StateSubvolume};
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
    /// Something wrote into the restored subvolume.
    #[error("the restored subvolume was changed before it was recorded")]
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
    let binding = sender.find(|finder| resolve::bind_restored(finder, &restored.volume, &tree))?; // 1
    if let Some(volume) = sender.config().volumes.get(&restored.volume) {
        sender.filesystems().remember(restored.fsid, &volume.path)?;
    }
    sender.register(&state, &binding)?;
    let push = sender.table().protect(PushId::generate());
    let taken_at = CopyName::parse(&restored.copy).map_or(0, |name| name.time().as_second());
    let mut record = Record::new(Intent {
        sender: sender.id(),
        volume: binding.id,
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
    let captured = capture(&state, &tree, restored, &mut record);
    if let Err(error) = captured {
        if let Err(e) = discard::discard(&state, &record) {
            tracing::warn!(push = %record.push, "an unfinished record is left to be reconciled: {e}");
        }
        return Err(error);
    }
    (record.phase, record.origin) = (Phase::Acknowledged, Origin::Reported);
    record.store(state.pushes())?; // 5
    crash::point("restore-recorded");
    discard::delete_snapshot(&state, &record)?; // 6
    tracing::info!(volume = %restored.volume, receiver = %restored.receiver, uuid = %restored.uuid,
        "the restored volume is recorded: its next push builds on copy {}", restored.copy);
    Ok(())
}

fn open(state: &StateSubvolume, staging: &PathBuf) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = rustix::fs::openat2(state.top(), staging, flags, Mode::empty(), resolve);
    let tree = opened.map_err(io::Error::from)?;
    let is_subvolume = subvolume::is_subvolume(&tree)? && !subvolume::info(&tree)?.read_only;
    match is_subvolume {
        true => Ok(tree),
        false => Err(Error::Changed),
    }
}

fn capture(
    state: &StateSubvolume,
    tree: &OwnedFd,
    restored: &Restored,
    record: &mut Record,
) -> Result<(), Error> {
    let name = record.snapshot_name();
    subvolume::snapshot(tree, state.snapshots(), &name, Access::ReadOnly)?; // 3
    crash::point("restore-snapshot");
    let snapshot = durable::open_dir(state.snapshots(), &name)?;
    let info = subvolume::info(&snapshot)?;
    record.snapshot = Some(SnapshotId {
        uuid: restored.uuid,
        otransid: info.otransid,
    });
    let number = WireNumber::Restored {
        uuid: restored.uuid,
        ctransid: restored.ctransid,
    };
    let frozen = Frozen::snapshot(&snapshot);
    let name = record.sendshot_name();
    let (sendshot, _) = sendshot_engine::save(frozen, number, None, state.sendshots(), &name)?; // 4
    crash::point("restore-captured");
    let is_same = sendshot.head().ctransid == info.ctransid && info.is_pristine();
    match is_same {
        true => Ok(()),
        false => Err(Error::Changed),
    }
}
