//! Stage *capture* (our engine): the push snapshot's metadata, durable before any byte of it
//! leaves. It reads only what changed since the newest sendshot of the volume, if that is of the
//! same lineage.

use std::io;
use std::os::fd::AsFd;

use sendshot_engine::recapture::Effort;
use sendshot_engine::save::Error;
use sendshot_engine::{Sendshot, file, save};
use sendshot_model::VolumeId;
use sendshot_sys::subvolume;

use crate::engine::Engine;
use crate::journal::{self, Record, State};
use crate::state_subvolume::StateSubvolume;

/// Captures a read-only snapshot into the state subvolume, as the sendshot of `record`. `known` are
/// sendshots of the same volume.
///
/// # Errors
/// See [`Error`].
pub fn capture(
    state: &StateSubvolume,
    snapshot: impl AsFd,
    record: &Record,
    known: &[(Record, Sendshot)],
) -> Result<(Sendshot, Effort), Error> {
    let newest = known.iter().max_by_key(|(_, s)| s.head().otransid);
    let before = newest.map(|(_, sendshot)| sendshot);
    let name = record.sendshot_name();
    let captured = save(&snapshot, before, state.sendshots(), &name)?;
    sendshot_sys::crash::point("capture-saved");
    if subvolume::info(&snapshot)?.ctransid == captured.0.head().ctransid {
        return Ok(captured);
    }
    // Deduplicated while it was read: inodes may carry transactions after the snapshot's own, which
    // a head that says "never changed" must not stand for. The second one says "changed".
    save(&snapshot, before, state.sendshots(), &name)
}

/// The sendshots of a volume's acknowledged pushes, to whatever receiver. One that cannot be
/// read is reported and left out.
///
/// # Errors
/// The kernel's, for reading the journal.
pub fn acknowledged(
    state: &StateSubvolume,
    volume: VolumeId,
) -> io::Result<Vec<(Record, Sendshot)>> {
    let mut found = Vec::new();
    for record in journal::records(state.pushes())? {
        let wanted = record.volume == volume && record.state == State::Acknowledged;
        if !wanted || record.engine != Engine::Sendshot {
            continue;
        }
        match sendshot_engine::open_at(state.sendshots(), &record.sendshot_name()) {
            Ok(sendshot) => found.push((record, sendshot)),
            // A push to another receiver has pruned it since it was listed.
            Err(_) if journal::find(state.pushes(), record.push)?.is_none() => {}
            // A crash while it was let go, or somebody deleted it: retention lets go of the rest.
            Err(file::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::info!(push = %record.push, "a sendshot is gone");
            }
            Err(e) => tracing::warn!(push = %record.push, "a sendshot is not used: {e}"),
        }
    }
    Ok(found)
}
