//! Decides by the volume's `keep` what is kept between pushes and what is deleted. Pure.
//!
//! For each volume and receiver instance the newest acknowledged state is the parent of the next
//! push, the *last common* one: no policy deletes it. Older sendshots are spares, and `keep` is the number of
//! states in all; older snapshots are deleted, since they pin data. What the receiver may have committed stays
//! until the receiver has reported.
//!
//! Disks of one receiver that take turns count separately: one need not hold what another does.
//!
//! This decides for pruning after a push, `sendshotctl prune` and the reasons in `sendshotctl list`.

use std::num::NonZeroU32;

use sendshot_model::{Reason, ReasonCode, VolumeName};

use crate::state::record::{Item, Phase, Presence, Record, Standing};
use sendshot_model::Engine;

/// What becomes of a record, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    LastCommon,
    /// An older sendshot, in case the receiver loses its newest copy.
    Spare,
    /// The receiver may have committed it.
    Unconfirmed,
    /// A running push uses it, or may use it.
    InUse,
    /// Delete: an older snapshot, which pins data.
    PinsData,
    /// Delete: an older sendshot beyond this `keep`.
    Surplus(NonZeroU32),
    /// An interrupted push; the next one resumes it.
    Interrupted,
    /// Delete: left over from an interrupted push.
    LeftOver,
    /// Delete: what it names no longer exists.
    Gone,
}

impl Verdict {
    /// Whether the record is to be deleted.
    pub fn deletes(self) -> bool {
        match self {
            Self::LastCommon
            | Self::Spare
            | Self::Unconfirmed
            | Self::InUse
            | Self::Interrupted => false,
            Self::PinsData | Self::Surplus(_) | Self::LeftOver | Self::Gone => true,
        }
    }

    pub fn reason(self, record: &Record) -> Reason {
        use ReasonCode as Code;
        let receiver = &record.receiver_name;
        let (code, text) = match self {
            Self::LastCommon if record.standing == Standing::Rejected => (
                Code::LastRefused,
                format!(
                    "the last state that {receiver} acknowledged; no stream is built on it any more, as \
                     a receiver could not apply one"
                ),
            ),
            Self::LastCommon if !record.origin.is_sent() => (
                Code::NextParentReported,
                format!("parent of the next push to {receiver}, which reports that it holds it"),
            ),
            Self::LastCommon => (
                Code::NextParent,
                format!("parent of the next push to {receiver}"),
            ),
            Self::Spare => (
                Code::Spare,
                format!("in case {receiver} loses its newest copy; see `keep`"),
            ),
            Self::Unconfirmed => (
                Code::Unconfirmed,
                format!("{receiver} may have committed it; the next push finds out"),
            ),
            Self::InUse if record.phase == Phase::Sending => {
                (Code::BeingPushed, "it is being pushed".to_owned())
            }
            Self::InUse => (
                Code::MayBeUsed,
                "a push of the volume is running, and may use it".to_owned(),
            ),
            Self::PinsData => (
                Code::PinsData,
                "a newer state was acknowledged, and a snapshot pins data".to_owned(),
            ),
            Self::Surplus(keep) => (
                Code::MoreThanKeep,
                format!("older than the {keep} that `keep` allows for this volume and receiver"),
            ),
            Self::Interrupted => (
                Code::Interrupted,
                "interrupted; the next push resumes it".to_owned(),
            ),
            Self::LeftOver => (Code::LeftOver, "left by an interrupted push".to_owned()),
            Self::Gone => (
                Code::DeletedElsewhere,
                "its sendshot or snapshot was deleted by another program".to_owned(),
            ),
        };
        Reason::new(code, text)
    }
}

/// Decides about every record, in the same order. `keep` is how many sendshots of a volume stay for each
/// receiver; `in_use` returns whether a record is not to be touched.
pub fn decide(
    items: &[Item],
    keep: impl Fn(&VolumeName) -> NonZeroU32,
    in_use: impl Fn(&Record) -> bool,
) -> Vec<Verdict> {
    items
        .iter()
        .map(|item| {
            if in_use(&item.record) {
                return Verdict::InUse;
            }
            match (item.record.phase, item.presence) {
                (Phase::Sending, Presence::Here) if item.record.is_resumable() => {
                    Verdict::Interrupted
                }
                (Phase::Sending, _) => Verdict::LeftOver,
                (Phase::Unconfirmed, _) => Verdict::Unconfirmed,
                (Phase::Acknowledged, Presence::Gone) => Verdict::Gone,
                (Phase::Acknowledged, Presence::Here) => {
                    acknowledged(&item.record, items, keep(&item.record.volume_name))
                }
            }
        })
        .collect()
}

fn acknowledged(record: &Record, items: &[Item], keep: NonZeroU32) -> Verdict {
    let newer: Vec<&Record> = items
        .iter()
        .filter(|other| other.presence == Presence::Here)
        .map(|other| &other.record)
        .filter(|other| other.phase == Phase::Acknowledged && succeeds(other, record))
        // Otherwise a lying receiver could have this host delete states that it really holds.
        .filter(|other| other.origin.is_sent())
        .filter(|other| other.age_order() > record.age_order())
        .collect();
    if newer.is_empty() {
        return Verdict::LastCommon;
    }
    if record.engine == Engine::Kernel {
        return Verdict::PinsData;
    }
    // The newest counts whatever it is; older snapshots are deleted and do not count.
    let newest = newer.iter().max_by_key(|other| other.age_order());
    let spares = newer.iter().filter(|other| {
        newest.is_some_and(|n| n.push != other.push) && other.engine == Engine::Sendshot
    });
    if spares.count() + 1 < keep.get() as usize {
        Verdict::Spare
    } else {
        Verdict::Surplus(keep)
    }
}

/// Whether a state is on the same disk of the same chain as another. A state acknowledged before receivers
/// reported their disks may be on any disk, until the receiver reports that it holds it.
pub fn succeeds(newer: &Record, record: &Record) -> bool {
    newer.replication_key() == record.replication_key() && newer.root == record.root
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::record::Origin;
    use crate::state::record::{Intent, SnapshotId};
    use sendshot_model::{PushId, ReceiverId, SenderId, VolumeId};
    use uuid::Uuid;

    pub(crate) fn record() -> Record {
        Record {
            phase: Phase::Acknowledged,
            ..Record::new(Intent {
                sender: SenderId::generate(),
                volume: VolumeId::generate(),
                volume_name: "photos".parse().unwrap(),
                receiver: ReceiverId::generate(),
                receiver_name: "nas2".parse().unwrap(),
                push: PushId::generate(),
                taken_at: 0,
                engine: Engine::Sendshot,
            })
        }
    }

    pub(crate) fn at(chain: &Record, otransid: u64) -> Record {
        let snapshot = SnapshotId {
            uuid: Uuid::from_u128(u128::from(otransid)),
            otransid,
        };
        Record {
            push: PushId::generate(),
            snapshot: Some(snapshot),
            ..chain.clone()
        }
    }

    pub(crate) fn here(record: &Record) -> Item {
        Item {
            record: record.clone(),
            presence: Presence::Here,
        }
    }

    fn decided(items: &[Item], keep: u32) -> Vec<Verdict> {
        let keep = NonZeroU32::new(keep).unwrap();
        decide(items, |_| keep, |_| false)
    }

    fn surplus(keep: u32) -> Verdict {
        Verdict::Surplus(NonZeroU32::new(keep).unwrap())
    }

    #[test]
    fn keep_counts_the_newest_sendshot() {
        let chain = record();
        let items: Vec<Item> = [3, 1, 4, 2].map(|n| here(&at(&chain, n))).to_vec();
        use Verdict::{LastCommon, Spare};
        assert_eq!(
            decided(&items, 1),
            [surplus(1), surplus(1), LastCommon, surplus(1)]
        );
        assert_eq!(decided(&items, 3), [Spare, surplus(3), LastCommon, Spare]);
        assert_eq!(decided(&items, 4), [Spare, Spare, LastCommon, Spare]);
    }

    #[test]
    fn every_last_common_state_stays() {
        let chain = record();
        let newest = at(&chain, 9);
        let reinstalled = Record {
            receiver: ReceiverId::generate(),
            ..at(&chain, 1)
        };
        let other_volume = Record {
            volume: VolumeId::generate(),
            ..at(&chain, 1)
        };
        let other_sender = Record {
            sender: SenderId::generate(),
            ..at(&chain, 1)
        };
        let items = [newest, reinstalled, other_volume, other_sender].map(|r| here(&r));
        assert_eq!(decided(&items, 1), [Verdict::LastCommon; 4]);
    }

    #[test]
    fn an_older_snapshot_goes_and_does_not_count_as_a_spare() {
        let chain = record();
        let snapshot = |n| Record {
            engine: Engine::Kernel,
            ..at(&chain, n)
        };
        let items = [snapshot(1), at(&chain, 2), snapshot(3), at(&chain, 4)].map(|r| here(&r));
        use Verdict::{LastCommon, PinsData, Spare};
        assert_eq!(decided(&items, 2), [PinsData, Spare, PinsData, LastCommon]);
        let newest_pins = [at(&chain, 2), snapshot(5)].map(|r| here(&r));
        assert_eq!(decided(&newest_pins, 2), [Spare, LastCommon]);
        assert_eq!(decided(&newest_pins, 1), [surplus(1), LastCommon]);
    }

    #[test]
    fn reported_states_supersede_nothing() {
        let chain = record();
        let told = |n| Record {
            origin: Origin::Reported,
            ..at(&chain, n)
        };
        use Verdict::LastCommon;
        let items = [here(&at(&chain, 1)), here(&told(2)), here(&told(3))];
        assert_eq!(decided(&items, 1), [LastCommon; 3]);
        let sent = [here(&at(&chain, 1)), here(&told(2)), here(&at(&chain, 3))];
        assert_eq!(decided(&sent, 1), [surplus(1), surplus(1), LastCommon]);
    }

    #[test]
    fn a_deleted_sendshot_is_no_parent() {
        let chain = record();
        let gone = Item {
            presence: Presence::Gone,
            ..here(&at(&chain, 9))
        };
        let items = [here(&at(&chain, 1)), gone];
        assert_eq!(decided(&items, 1), [Verdict::LastCommon, Verdict::Gone]);
    }

    #[test]
    fn unconfirmed_pushes_stay_and_unsent_ones_go() {
        let chain = record();
        let in_state = |state, presence| Item {
            record: Record {
                phase: state,
                ..at(&chain, 1)
            },
            presence,
        };
        let items = [
            in_state(Phase::Unconfirmed, Presence::Here),
            in_state(Phase::Unconfirmed, Presence::Gone),
            in_state(Phase::Sending, Presence::Here),
        ];
        use Verdict::{LeftOver, Unconfirmed};
        assert_eq!(decided(&items, 1), [Unconfirmed, Unconfirmed, LeftOver]);
    }

    #[test]
    fn an_unconfirmed_state_is_not_the_last_common_one() {
        let chain = record();
        let unconfirmed = Record {
            phase: Phase::Unconfirmed,
            ..at(&chain, 9)
        };
        let items = [here(&at(&chain, 1)), here(&unconfirmed)];
        assert_eq!(
            decided(&items, 1),
            [Verdict::LastCommon, Verdict::Unconfirmed]
        );
    }

    #[test]
    fn states_in_use_are_never_deleted() {
        let chain = record();
        let sending = Record {
            phase: Phase::Sending,
            ..at(&chain, 3)
        };
        let items = [here(&at(&chain, 1)), here(&at(&chain, 2)), here(&sending)];
        let verdicts = decide(&items, |_| NonZeroU32::MIN, |r| r.volume == chain.volume);
        assert_eq!(verdicts, [Verdict::InUse; 3]);
    }

    #[test]
    fn each_disk_of_a_receiver_keeps_its_own_newest_state() {
        let chain = record();
        let on = |root: u8, otransid| Record {
            root: Some(sendshot_model::RootId::from_bytes([root; 16])),
            ..at(&chain, otransid)
        };
        let before = at(&chain, 1);
        let items = [before, on(1, 2), on(2, 3), on(2, 4), on(2, 5), on(2, 6)].map(|r| here(&r));
        use Verdict::{LastCommon, Spare};
        let kept = [
            LastCommon,
            LastCommon,
            surplus(2),
            surplus(2),
            Spare,
            LastCommon,
        ];
        assert_eq!(decided(&items, 2), kept);
    }

    #[test]
    fn each_verdict_has_a_code() {
        use ReasonCode as Code;
        let good = record();
        let rejected = Record {
            standing: Standing::Rejected,
            ..record()
        };
        let told = Record {
            origin: Origin::Reported,
            ..record()
        };
        let sending = Record {
            phase: Phase::Sending,
            ..record()
        };
        for (verdict, record, code) in [
            (Verdict::LastCommon, &good, Code::NextParent),
            (Verdict::LastCommon, &rejected, Code::LastRefused),
            (Verdict::LastCommon, &told, Code::NextParentReported),
            (Verdict::Spare, &good, Code::Spare),
            (Verdict::Unconfirmed, &good, Code::Unconfirmed),
            (Verdict::InUse, &good, Code::MayBeUsed),
            (Verdict::InUse, &sending, Code::BeingPushed),
            (Verdict::PinsData, &good, Code::PinsData),
            (surplus(2), &good, Code::MoreThanKeep),
            (Verdict::Interrupted, &sending, Code::Interrupted),
            (Verdict::LeftOver, &sending, Code::LeftOver),
            (Verdict::Gone, &good, Code::DeletedElsewhere),
        ] {
            assert_eq!(verdict.reason(record).code, code);
        }
    }

    #[test]
    fn two_states_of_one_transaction_are_distinguished() {
        let chain = record();
        let items = [here(&at(&chain, 5)), here(&at(&chain, 5))];
        let verdicts = decided(&items, 1);
        assert!(verdicts.contains(&Verdict::LastCommon) && verdicts.contains(&surplus(1)));
    }
}
