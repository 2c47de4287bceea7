//! Chooses the snapshot to capture, among those that the receiver holds.

use sendshot_engine::Head;
use sendshot_engine::diff::rule::Kinship;
use sendshot_proto::inventory::HeldCopy;

use crate::decide::parent::{self, Candidate, Lineage, LocalSnapshot, ParentChoice, Verdict};
use crate::decide::parent_snapshot;

/// Chooses the held snapshot to capture for a push of `new`: the best parent of the kernel engine, unless one of the
/// `known` sendshots is of the same lineage and as young.
pub fn choose(
    parent_choice: ParentChoice,
    new: &Head,
    lineage: &Lineage,
    mut candidates: Vec<Candidate>,
    known: &[&Head],
) -> Option<LocalSnapshot> {
    let stands_for = |copy: &HeldCopy| {
        let same =
            |head: &&&Head| head.wire_uuid == copy.uuid && head.wire_ctransid == copy.ctransid;
        copy.unusable.is_none().then(|| known.iter().find(same))?
    };
    let youngest = candidates
        .iter()
        .filter_map(|candidate| stands_for(&candidate.copy))
        .filter(|head| Kinship::of(head, new) == Kinship::Lineage)
        .map(|head| head.otransid)
        .max();
    candidates.retain(|candidate| stands_for(&candidate.copy).is_none());
    let locals: Vec<LocalSnapshot> = candidates.iter().filter_map(|c| c.local).collect();
    let plan = parent_snapshot::decide(parent_choice, lineage, candidates).ok()?;
    let parent = plan.parent?;
    let usable = plan
        .verdicts
        .iter()
        .any(|(copy, verdict)| copy.uuid == parent.uuid && *verdict == Verdict::Usable);
    let local = locals
        .into_iter()
        .find(|local| parent.local == parent::Local::Snapshot(local.id))?;
    let younger = parent_choice != ParentChoice::Auto
        || youngest.is_none_or(|youngest| local.otransid > youngest);
    (usable && younger).then_some(local)
}

#[cfg(test)]
mod tests {
    use sendshot_proto::inventory::HeldCopy;
    use uuid::Uuid;

    use super::*;
    use crate::decide::verdict::Relation;

    const VOLUME: Uuid = Uuid::from_u128(5);

    fn head(number: u128, otransid: u64) -> Head {
        Head {
            wire_uuid: Uuid::from_u128(number),
            wire_ctransid: otransid,
            ctransid: otransid,
            fsid: Uuid::from_u128(1),
            uuid: Uuid::from_u128(number),
            parent_uuid: VOLUME,
            otransid,
            generation: otransid,
            taken_at: 0,
        }
    }

    fn candidate(number: u128, otransid: u64, local: bool) -> Candidate {
        let snapshot = LocalSnapshot {
            id: number as u64,
            uuid: Uuid::from_u128(number),
            parent_uuid: VOLUME,
            ctransid: otransid,
            otransid,
            rtransid: None,
            read_only: true,
        };
        Candidate {
            copy: HeldCopy {
                uuid: snapshot.uuid,
                ctransid: otransid,
                name: "copy".into(),
                unusable: None,
                committed_at: 0,
            },
            local: local.then_some(snapshot),
            recorded: parent::Recorded::Nothing,
        }
    }

    fn chosen(
        parent_choice: ParentChoice,
        candidates: &[Candidate],
        known: &[&Head],
    ) -> Option<u64> {
        let lineage = Lineage {
            ancestors: vec![parent::Ancestor {
                uuid: VOLUME,
                until: u64::MAX,
                relation: Relation::Volume,
            }],
            cut_at: None,
        };
        let new = head(9, 90);
        choose(parent_choice, &new, &lineage, candidates.to_vec(), known).map(|local| local.id)
    }

    #[test]
    fn a_snapshot_younger_than_every_sendshot_is_captured() {
        let all = [candidate(1, 50, false), candidate(2, 60, true)];
        assert_eq!(chosen(ParentChoice::Auto, &all, &[]), Some(2));
        assert_eq!(chosen(ParentChoice::Auto, &all, &[&head(1, 50)]), Some(2));
        assert_eq!(chosen(ParentChoice::None, &all, &[]), None);
    }

    #[test]
    fn states_with_a_younger_sendshot_are_not_captured() {
        let all = [candidate(1, 50, true), candidate(2, 60, false)];
        assert_eq!(chosen(ParentChoice::Auto, &all, &[&head(2, 60)]), None);
        assert_eq!(chosen(ParentChoice::Auto, &all[..1], &[&head(1, 50)]), None);
        // A sendshot of a copy that the receiver no longer holds is of no use.
        assert_eq!(
            chosen(ParentChoice::Auto, &all[..1], &[&head(2, 60)]),
            Some(1)
        );
    }

    #[test]
    fn a_parent_named_by_hand_is_adopted_however_old() {
        let all = [candidate(1, 50, true), candidate(2, 60, false)];
        let parent_choice = ParentChoice::Uuid(Uuid::from_u128(1));
        assert_eq!(chosen(parent_choice, &all, &[&head(2, 60)]), Some(1));
    }

    #[test]
    fn changed_snapshots_are_not_captured() {
        for change in [
            |local: &mut LocalSnapshot| local.read_only = false,
            |local: &mut LocalSnapshot| local.ctransid += 1,
            |local: &mut LocalSnapshot| local.otransid -= 1,
            |local: &mut LocalSnapshot| local.parent_uuid = Uuid::from_u128(6),
        ] {
            let mut changed = candidate(1, 50, true);
            changed.local.as_mut().map(change);
            for parent_choice in [ParentChoice::Auto, ParentChoice::Uuid(Uuid::from_u128(1))] {
                assert_eq!(chosen(parent_choice, &[changed.clone()], &[]), None);
            }
        }
    }
}
