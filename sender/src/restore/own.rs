//! This host's own sendshot of a state, with which a restored tree is compared.

use std::path::Path;

use sendshot_engine::Sendshot;
use uuid::Uuid;

use crate::state::filesystems::Filesystems;
use crate::state::journal;
use crate::state::record::Origin;

/// Finds a sendshot of this state on the file systems that are mounted now. What cannot be read is passed over: then
/// there is nothing to compare with. Blocks.
pub(super) fn sendshot(state_dir: &Path, uuid: Uuid, ctransid: u64) -> Option<Sendshot> {
    let filesystems = Filesystems::load(state_dir).ok()?;
    let mut found = None;
    filesystems.each(|state| {
        for record in journal::records(state.pushes())? {
            // The sendshot of a restored volume only repeats what a receiver has sent.
            let is_it = record.origin != Origin::Restored
                && record
                    .snapshot
                    .is_some_and(|snapshot| snapshot.uuid == uuid);
            if found.is_some() || !is_it {
                continue;
            }
            let opened = sendshot_engine::open_at(state.sendshots(), &record.sendshot_name());
            found = opened
                .ok()
                .filter(|own| (own.head().wire_uuid, own.head().wire_ctransid) == (uuid, ctransid));
        }
        Ok(())
    });
    found
}
