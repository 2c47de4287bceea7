//! Decides what becomes of the record of a push that is no longer running: at start, and by the receiver's
//! inventory. [`crate::retained::reconcile`] has the table and carries it out.

use sendshot_model::SenderId;
use sendshot_proto::inventory::Inventory;

use crate::state::record::{Phase, Record};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Delete the record, with its snapshot and sendshot.
    Drop,
    /// Mark it acknowledged: the receiver has committed it.
    Acknowledge,
}

/// Whether the receiver holds the state of a record.
pub(crate) fn is_held(record: &Record, inventory: &Inventory) -> bool {
    let copies = &inventory.copies;
    record
        .snapshot
        .is_some_and(|snapshot| copies.iter().any(|copy| copy.uuid == snapshot.uuid))
}

/// Decides at start, for a record whose push is not running.
pub fn at_start(record: &Record, sender: SenderId) -> Verdict {
    match record.phase {
        Phase::Sending if record.is_resumable() => Verdict::Keep,
        Phase::Sending if record.sender == sender => Verdict::Drop,
        Phase::Sending | Phase::Unconfirmed | Phase::Acknowledged => Verdict::Keep,
    }
}

/// Decides by the receiver's inventory, for a record whose push is not running.
pub fn after_inventory(record: &Record, inventory: &Inventory) -> Verdict {
    // The inventory of one disk says nothing about another disk.
    let elsewhere = match (record.root, inventory.root) {
        (Some(sent_to), Some(here)) => sent_to != here,
        (None, _) | (_, None) => false,
    };
    match (record.phase, is_held(record, inventory)) {
        (Phase::Unconfirmed, true) => Verdict::Acknowledge,
        (Phase::Unconfirmed, false) if elsewhere => Verdict::Keep,
        // The connection broke, and the receiver has a commit pending.
        (Phase::Unconfirmed, false) if inventory.commit_pending => Verdict::Keep,
        (Phase::Unconfirmed, false) => Verdict::Drop,
        (Phase::Sending | Phase::Acknowledged, _) => Verdict::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::retention;
    use crate::state::record::{SnapshotId, Transferring};
    use sendshot_model::Engine;
    use sendshot_model::TransferId;
    use sendshot_proto::inventory::HeldCopy;
    use uuid::Uuid;

    fn record(phase: Phase) -> Record {
        let snapshot = Some(SnapshotId {
            uuid: Uuid::from_u128(7),
            otransid: 1,
        });
        Record {
            phase,
            snapshot,
            ..retention::tests::record()
        }
    }

    #[test]
    fn resumable_pushes_are_kept_at_start() {
        let never_began = record(Phase::Sending);
        assert_eq!(at_start(&never_began, never_began.sender), Verdict::Drop);
        let transfer = Some(Transferring {
            id: TransferId::generate(),
            stream_version: 2,
            parent: None,
            reason: String::new(),
            reason_code: sendshot_model::ReasonCode::NotRecorded,
        });
        let began = Record {
            transfer: transfer.clone(),
            ..never_began.clone()
        };
        assert_eq!(at_start(&began, began.sender), Verdict::Keep);
        let by_the_kernel = Record {
            engine: Engine::Kernel,
            transfer,
            ..never_began
        };
        assert_eq!(
            at_start(&by_the_kernel, by_the_kernel.sender),
            Verdict::Drop
        );
    }

    fn held(uuid: u128) -> Inventory {
        let copy = HeldCopy {
            uuid: Uuid::from_u128(uuid),
            ctransid: 1,
            name: "x".into(),
            unusable: None,
            committed_at: 0,
        };
        Inventory {
            copies: vec![copy],
            ..Inventory::default()
        }
    }

    #[test]
    fn only_uncommitted_states_are_deleted_unasked() {
        let sending = record(Phase::Sending);
        assert_eq!(at_start(&sending, sending.sender), Verdict::Drop);
        assert_eq!(at_start(&sending, SenderId::generate()), Verdict::Keep);
        for state in [Phase::Unconfirmed, Phase::Acknowledged] {
            let kept = record(state);
            assert_eq!(at_start(&kept, kept.sender), Verdict::Keep);
        }
    }

    #[test]
    fn the_receivers_report_decides_about_the_unconfirmed() {
        let unconfirmed = record(Phase::Unconfirmed);
        assert_eq!(
            after_inventory(&unconfirmed, &held(7)),
            Verdict::Acknowledge
        );
        assert_eq!(after_inventory(&unconfirmed, &held(8)), Verdict::Drop);
        assert_eq!(
            after_inventory(&record(Phase::Acknowledged), &Inventory::default()),
            Verdict::Keep
        );
    }

    #[test]
    fn pending_commits_are_not_deleted() {
        let at_work = |copies: Inventory| Inventory {
            commit_pending: true,
            ..copies
        };
        let unconfirmed = record(Phase::Unconfirmed);
        assert_eq!(
            after_inventory(&unconfirmed, &at_work(held(8))),
            Verdict::Keep
        );
        assert_eq!(
            after_inventory(&unconfirmed, &at_work(held(7))),
            Verdict::Acknowledge
        );
    }
}
