//! Stage *capture* (sendshot engine): the push snapshot's metadata, durable before any byte of it leaves. It reads
//! only what changed since the newest sendshot of the volume, if that is of the same lineage.

use std::io;

use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::capture::save;
use sendshot_engine::format::error;
use sendshot_engine::{Frozen, Sendshot, WireNumber};
use sendshot_model::{ReceiverId, RootId, VolumeId};
use sendshot_sys::subvolume;
use uuid::Uuid;

use crate::push::stages::standing::CapturedFrom;
use crate::state::journal;
use crate::state::record::{Phase, Record, Standing};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// The sendshots of a volume: of its acknowledged pushes to any receiver, and of captured held snapshots.
#[derive(Debug, Default)]
pub struct KnownSendshots {
    /// The readable ones.
    pub sendshots: Vec<(Record, Sendshot)>,
    /// The unreadable ones, and why.
    pub unusable: Vec<(Record, error::Error)>,
    /// The records of those whose files were deleted.
    pub gone: Vec<Record>,
    /// The snapshot that could not be captured for this push, and why.
    pub not_made: Option<(Uuid, String)>,
}

impl KnownSendshots {
    /// Those that can be parents of a stream to a receiver with this disk.
    pub fn usable_for(
        &self,
        to: (ReceiverId, Option<RootId>),
    ) -> impl Iterator<Item = &(Record, Sendshot)> {
        let may = move |known: &&(Record, Sendshot)| known.0.may_be_parent_at(to);
        self.sendshots.iter().filter(may)
    }

    /// The sendshot to capture from: the newest, unless one of them has a fault that may have spread to others.
    /// Then everything is read.
    fn source(&self) -> Option<&(Record, Sendshot)> {
        let is_orphan =
            |(_, why): &(Record, error::Error)| matches!(why, error::Error::Orphan { .. });
        let mut standings = self.sendshots.iter().map(|(record, _)| record.standing);
        if self.unusable.iter().any(is_orphan) || standings.any(|s| s == Standing::Suspect) {
            return None;
        }
        let newest = self.sendshots.iter().max_by_key(|(_, s)| s.head().otransid);
        newest.filter(|(record, _)| record.standing == Standing::Good)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] save::Error);

impl Error {
    /// What the user can do, if more than the kernel's error says; empty if nothing is known.
    pub fn remedy(&self) -> &'static str {
        self.0.remedy()
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}

/// The result of a capture.
#[derive(Debug)]
pub struct Captured {
    pub sendshot: Sendshot,
    /// How much metadata was read for it.
    pub effort: Effort,
    /// The source of the rest.
    pub from: CapturedFrom,
}

/// A push announces the numbers that the kernel's send would: the receiver may hold a held snapshot from a
/// push by the kernel engine.
pub const NUMBER: WireNumber = WireNumber::Local;

/// Captures a read-only snapshot into the state subvolume, as the sendshot of `record`. `known` are
/// sendshots of the same volume.
///
/// # Errors
/// See [`Error`].
pub fn capture(
    state: &StateSubvolume,
    snapshot: Frozen<'_>,
    record: &Record,
    known: &KnownSendshots,
) -> Result<Captured, Error> {
    let source = known.source();
    let before = source.map(|(_, sendshot)| sendshot);
    let name = record.sendshot_name();
    let mut captured = sendshot_engine::save(snapshot, NUMBER, before, state.sendshots(), &name)?;
    sendshot_sys::crash::point("capture-saved");
    if subvolume::info(snapshot)?.ctransid != captured.0.head().ctransid {
        // The snapshot was deduplicated during the capture: inodes may carry transactions after the snapshot's own,
        // which a head that says "never changed" must not describe. The second capture says "changed".
        captured = sendshot_engine::save(snapshot, NUMBER, before, state.sendshots(), &name)?;
    }
    let (sendshot, effort) = captured;
    let from = match (effort, source) {
        (Effort::Changes(_), Some((source, _))) => CapturedFrom::Sendshot(source.push),
        (Effort::Changes(_) | Effort::Full, _) => CapturedFrom::Snapshot,
    };
    Ok(Captured {
        sendshot,
        effort,
        from,
    })
}

/// Reads the sendshots of a volume's acknowledged pushes to any receiver. Unreadable ones are logged and listed
/// apart.
///
/// # Errors
/// I/O errors of the journal.
pub fn acknowledged(state: &StateSubvolume, volume: VolumeId) -> io::Result<KnownSendshots> {
    let mut known = KnownSendshots::default();
    for record in journal::records(state.pushes())? {
        let wanted = record.volume == volume && record.phase == Phase::Acknowledged;
        if !wanted || record.engine != Engine::Sendshot {
            continue;
        }
        match sendshot_engine::open_at(state.sendshots(), &record.sendshot_name()) {
            Ok(sendshot) => known.sendshots.push((record, sendshot)),
            // A push to another receiver has pruned it since the journal was read.
            Err(_) if journal::find(state.pushes(), record.push)?.is_none() => {}
            // A crash during its deletion, or a deletion by the user: retention deletes the rest.
            Err(error::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!(push = %record.push, "a sendshot is missing");
                known.gone.push(record);
            }
            Err(e) => {
                tracing::warn!(push = %record.push, "a sendshot is not used: {e}");
                known.unusable.push((record, e));
            }
        }
    }
    Ok(known)
}
