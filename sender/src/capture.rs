//! Stage *capture* (our engine): the push snapshot's metadata, durable before any byte of it
//! leaves. It reads only what changed since the newest sendshot of the volume, if that is of the
//! same lineage.

use std::io;

use sendshot_engine::recapture::Effort;
use sendshot_engine::{Sendshot, save};
use sendshot_model::VolumeId;

use crate::engine::Engine;
use crate::journal::{self, Record, State};
use crate::snapshot::PushSnapshot;
use crate::state_subvolume::StateSubvolume;

/// Captures the snapshot of a push into the state subvolume.
///
/// # Errors
/// See [`save::Error`](sendshot_engine::save::Error).
pub fn capture(
    state: &StateSubvolume,
    taken: &PushSnapshot,
) -> Result<(Sendshot, Effort), sendshot_engine::save::Error> {
    let before = newest(state, taken.record.volume)?;
    let name = taken.record.sendshot_name();
    save(&taken.fd, before.as_ref(), state.sendshots(), &name)
}

/// The newest sendshot of a volume that can be read.
fn newest(state: &StateSubvolume, volume: VolumeId) -> io::Result<Option<Sendshot>> {
    let mut found = acknowledged(state, volume)?;
    found.sort_by_key(|(_, sendshot)| sendshot.head().otransid);
    Ok(found.pop().map(|(_, sendshot)| sendshot))
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
            Err(e) => tracing::warn!(push = %record.push, "a sendshot is not used: {e}"),
        }
    }
    Ok(found)
}
