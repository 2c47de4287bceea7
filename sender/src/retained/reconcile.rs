//! Reconciles the records of earlier pushes, after a crash or a lost acknowledgement.
//!
//! | record | at start, and before a push | when the receiver reports what it holds |
//! |---|---|---|
//! | `sending`, push not running | keep one that can be resumed ([`crate::retained::expire`] says how long), else delete snapshot and record: nothing was committed | – |
//! | `unconfirmed` | keep: the receiver may have committed | held: acknowledged; else, unless the receiver has a commit pending or this is the push being resumed, delete |
//! | `acknowledged` | keep: parent of the next push; if it has a sendshot, delete the snapshot | – |

use std::collections::BTreeSet;
use std::io;

use sendshot_model::{PeerName, PushId, ReceiverId, SenderId, VolumeId};
use sendshot_proto::inventory::Inventory;
use sendshot_sys::durable;

use crate::decide::reconcile::{Verdict, after_inventory, at_start, is_held};
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal;
use crate::state::record::{Phase, Record};
use crate::state::restores;
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// The purpose of an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A push: states that prove useless are deleted.
    Push,
    /// A dry run: nothing is deleted.
    DryRun,
}

/// Deletes what unfinished pushes of this sender left that are no longer running; returns how many there were.
///
/// # Errors
/// I/O errors of the journal. What cannot be deleted is logged and stays.
pub fn leftovers(
    state: &StateSubvolume,
    sender: SenderId,
    running: impl Fn(PushId) -> bool,
) -> io::Result<usize> {
    let mut reconciled = 0;
    for listed in journal::records(state.pushes())? {
        if running(listed.push) {
            continue;
        }
        // Read again: a push to another receiver may have completed since the journal was read, and a push that
        // is no longer running writes nothing more.
        let Some(record) = journal::find(state.pushes(), listed.push)? else {
            continue;
        };
        release_what_has_a_sendshot(state, &record, sender);
        if at_start(&record, sender) != Verdict::Drop && !is_half_gone(state, &record, sender) {
            continue;
        }
        match discard::discard(state, &record) {
            Ok(()) => reconciled += 1,
            Err(e) => {
                tracing::warn!(push = %record.push, "cannot reconcile an unfinished push: {e}")
            }
        }
    }
    for dir in [state.pushes(), state.sendshots()] {
        durable::sweep_temporaries(dir)?;
    }
    if reconciled > 0 {
        tracing::info!(
            reconciled,
            "unfinished pushes of an earlier run were cleaned up"
        );
    }
    Ok(reconciled)
}

/// A receiver's report, and which receiver it is.
#[derive(Debug)]
pub struct ReceiverReport<'a> {
    pub inventory: &'a Inventory,
    pub receiver: ReceiverId,
    /// The receiver's name on this host.
    pub name: &'a PeerName,
    /// The receivers that are paired now.
    pub paired: &'a BTreeSet<ReceiverId>,
}

impl ReceiverReport<'_> {
    /// Adds to the record of an acknowledged state the disk that the receiver has just reported to hold it. Returns
    /// whether that is new.
    ///
    /// A receiver that was set up again has taken over the disk of one that is no longer paired: then the state is
    /// common with the new one.
    fn places(&self, record: &mut Record) -> bool {
        let Some(root) = self.inventory.root else {
            return false;
        };
        if record.phase != Phase::Acknowledged {
            return false;
        }
        let is_new = if record.receiver == self.receiver {
            record.root.is_none()
        } else {
            let same_disk = record.root.is_none_or(|known| known == root);
            let same_name = record.root.is_some() || record.receiver_name == *self.name;
            same_disk && same_name && !self.paired.contains(&record.receiver)
        };
        if is_new {
            record.root = Some(root);
            record.receiver = self.receiver;
            record.receiver_name = self.name.clone();
        }
        is_new
    }
}

/// Detects lost acknowledgements by the receiver's inventory of the volume.
///
/// # Errors
/// I/O errors.
pub fn acknowledgements(
    state: &StateSubvolume,
    volume: VolumeId,
    from: &ReceiverReport<'_>,
    purpose: Purpose,
    running: impl Fn(PushId) -> bool,
) -> io::Result<()> {
    let inventory = from.inventory;
    for mut record in journal::records(state.pushes())? {
        if record.volume != volume || running(record.push) {
            continue;
        }
        if purpose == Purpose::Push && is_held(&record, inventory) && from.places(&mut record) {
            record.store(state.pushes())?;
        }
        if record.receiver != from.receiver {
            continue;
        }
        match after_inventory(&record, inventory) {
            Verdict::Keep => {}
            Verdict::Drop if purpose == Purpose::DryRun => {}
            Verdict::Drop => discard::discard(state, &record)?,
            Verdict::Acknowledge => {
                tracing::info!(push = %record.push, receiver = %record.receiver_name,
                    volume = %record.volume_name, "a lost acknowledgement was detected");
                record.phase = Phase::Acknowledged;
                record.acknowledged_at = Some(jiff::Timestamp::now().as_second());
                record.store(state.pushes())?;
                if record.engine == Engine::Sendshot {
                    discard::delete_snapshot(state, &record)?;
                }
            }
        }
    }
    Ok(())
}

/// Deletes a snapshot that its sendshot replaces: a crash between acknowledgement and deletion leaves it.
fn release_what_has_a_sendshot(state: &StateSubvolume, record: &Record, sender: SenderId) {
    let over = record.phase == Phase::Acknowledged && record.engine == Engine::Sendshot;
    if !over || record.sender != sender {
        return;
    }
    let there = durable::open_dir(state.snapshots(), &record.snapshot_name()).is_ok();
    let released = match there {
        true => discard::delete_snapshot(state, record),
        false => discard::marks(state, record),
    };
    if let Err(e) = released {
        tracing::warn!(push = %record.push, "cannot delete a snapshot that has its sendshot: {e}");
    }
}

/// Whether a record cannot be resumed because its snapshot is gone: a crash while the push was discarded leaves it.
fn is_half_gone(state: &StateSubvolume, record: &Record, sender: SenderId) -> bool {
    let snapshot = durable::open_dir(state.snapshots(), &record.snapshot_name());
    let gone = matches!(snapshot, Err(e) if e.kind() == io::ErrorKind::NotFound);
    record.phase == Phase::Sending && record.sender == sender && gone
}

impl Sender {
    /// Reconciles at start what a crash left. Blocks.
    pub fn reconcile(&self) {
        match std::fs::remove_dir_all(self.temporary_dir()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(
                    "cannot delete the records of pushes from read-only file systems: {e}"
                );
            }
            _ => {}
        }
        self.remember_configured();
        self.filesystems().each(|state| {
            let reconciled = self
                .take_over_former(state)
                .and_then(|()| leftovers(state, self.id(), |_| false))
                .and_then(|_| restores::sweep(state));
            if let Err(e) = reconciled {
                tracing::warn!("cannot reconcile unfinished pushes: {e}");
            }
            Ok(())
        });
    }
}
