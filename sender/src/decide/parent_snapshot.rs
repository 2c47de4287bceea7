//! Stage *plan* for the kernel engine: chooses a snapshot as parent, or a full send, with the reason. Pure.
//!
//! A copy can be the parent of an increment made by the kernel's send when all of this holds:
//!
//! 1. The receiver reported it in this push and calls it usable.
//! 2. Its snapshot is still on this host, read-only, and unchanged since it was sent (equal ctransid).
//! 3. It was never writable nor deduplicated (ctransid ≤ otransid), and it is an *ancestor*: a snapshot of a
//!    subvolume from which the pushed state descends, taken at a time in that state's past.
//!
//! The third point prevents wrong streams: the kernel compares any two trees it is given, and two trees that
//! have diverged use the same inode numbers and generations for different files. It is waived for a parent that
//! the user names. Names and clocks decide nothing.

use sendshot_model::{Reason, ReasonCode};
use uuid::Uuid;

use crate::decide::parent::{
    Candidate, Error, Lineage, Local, LocalSnapshot, Parent, ParentChoice, Plan, Recorded, Verdict,
    chosen_by_hand, full_asked_for, newer_unusable, why_full,
};

/// Decides on the parent.
///
/// # Errors
/// Only for a parent chosen by the user; otherwise a full send is always possible.
pub fn decide(
    parent_choice: ParentChoice,
    lineage: &Lineage,
    candidates: Vec<Candidate>,
) -> Result<Plan, Error> {
    let judged: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, lineage);
            (candidate, verdict)
        })
        .collect();
    let (parent, reason) = match parent_choice {
        ParentChoice::None => (None, full_asked_for()),
        ParentChoice::Uuid(uuid) => by_hand(uuid, &judged)?,
        ParentChoice::Auto => automatic(lineage, &judged),
    };
    Ok(Plan {
        parent,
        reason,
        verdicts: judged
            .into_iter()
            .map(|(candidate, verdict)| (candidate.copy, verdict))
            .collect(),
    })
}

fn judge(candidate: &Candidate, lineage: &Lineage) -> Verdict {
    if let Some(unusable) = &candidate.copy.unusable {
        return Verdict::UnusableThere(unusable.clone());
    }
    let local = match (&candidate.local, candidate.recorded) {
        (Some(local), _) => local,
        (None, Recorded::Sendshot) => return Verdict::OnlySendshot,
        (None, Recorded::Snapshot) => return Verdict::Deleted,
        (None, Recorded::Nothing) => return Verdict::Gone,
    };
    if !local.read_only {
        return Verdict::Writable;
    }
    let (sent, now) = (candidate.copy.ctransid, local.ctransid);
    if now > sent {
        return Verdict::Changed { sent, now };
    }
    if now < sent {
        return Verdict::OtherState { sent, now };
    }
    if local.ctransid > local.otransid {
        return match local.rtransid {
            Some(received) if local.otransid <= received => Verdict::ReceivedByOtherTool,
            Some(_) | None => Verdict::OnceChanged {
                changed: local.ctransid,
                created: local.otransid,
            },
        };
    }
    match (distance(local, lineage), lineage.cut_at) {
        (Some(_), _) => Verdict::Usable,
        (None, cut_at) => later(local, lineage)
            .or(cut_at.map(Verdict::AncestryCut))
            .unwrap_or(Verdict::Unrelated),
    }
}

/// How many steps up the lineage the snapshot was taken; `None` if it is not an ancestor.
fn distance(local: &LocalSnapshot, lineage: &Lineage) -> Option<usize> {
    lineage.ancestors.iter().position(|ancestor| {
        local.uuid == ancestor.uuid
            || (local.parent_uuid == ancestor.uuid && local.otransid <= ancestor.until)
    })
}

/// Whether it is a snapshot of an ancestor, but taken after the pushed state's past.
fn later(local: &LocalSnapshot, lineage: &Lineage) -> Option<Verdict> {
    let mut ancestors = lineage.ancestors.iter();
    let ancestor = ancestors.find(|ancestor| local.parent_uuid == ancestor.uuid)?;
    Some(Verdict::Later {
        of: ancestor.relation,
        taken: local.otransid,
        until: ancestor.until,
    })
}

fn by_hand(uuid: Uuid, judged: &[(Candidate, Verdict)]) -> Result<(Option<Parent>, Reason), Error> {
    let mut refused = Error::NotHeld(uuid);
    for (candidate, verdict) in judged.iter().filter(|(c, _)| c.copy.uuid == uuid) {
        let is_waived = matches!(
            verdict,
            Verdict::OnceChanged { .. }
                | Verdict::ReceivedByOtherTool
                | Verdict::Later { .. }
                | Verdict::AncestryCut(_)
                | Verdict::Unrelated
        );
        match &candidate.local {
            Some(local) if is_waived || verdict.is_usable() => {
                let mut reason = chosen_by_hand(&candidate.copy);
                if is_waived {
                    reason = reason.and(&format!("otherwise it would not be: {verdict}"));
                }
                return Ok((Some(parent(candidate, local)), reason));
            }
            _ => {
                refused = Error::Unusable {
                    uuid,
                    verdict: verdict.clone(),
                }
            }
        }
    }
    Err(refused)
}

fn automatic(lineage: &Lineage, judged: &[(Candidate, Verdict)]) -> (Option<Parent>, Reason) {
    let best = judged
        .iter()
        .filter(|(_, verdict)| verdict.is_usable())
        .filter_map(|(candidate, _)| Some((candidate, candidate.local.as_ref()?)))
        .min_by_key(|(_, local)| {
            (
                distance(local, lineage).unwrap_or(usize::MAX),
                std::cmp::Reverse(local.otransid),
                local.id,
            )
        });
    let all = judged.iter().map(|(c, verdict)| (&c.copy, verdict));
    let Some((candidate, local)) = best else {
        return (None, why_full(all));
    };
    let name = &candidate.copy.name;
    let ages = judged.iter().map(|(c, verdict)| {
        let taken = c.local.as_ref().map(|local| local.otransid);
        (&c.copy, taken, verdict)
    });
    let reason = match newer_unusable(&candidate.copy, local.otransid, ages) {
        None => Reason::new(
            ReasonCode::NewestCommonSnapshot,
            format!("copy {name} is the newest state of this volume that both sides hold"),
        ),
        Some((newer, verdict)) => Reason::new(
            ReasonCode::NewestUsableSnapshot,
            format!(
                "copy {name} is the newest state that both sides hold and that can be the parent; the \
                 newer copy {newer} cannot: {verdict}"
            ),
        ),
    };
    (Some(parent(candidate, local)), reason)
}

fn parent(candidate: &Candidate, local: &LocalSnapshot) -> Parent {
    Parent {
        uuid: candidate.copy.uuid,
        ctransid: candidate.copy.ctransid,
        local: Local::Snapshot(local.id),
    }
}

#[cfg(test)]
mod tests {
    use sendshot_model::ReceiverId;
    use sendshot_proto::inventory::{HeldCopy, Unusable};

    use super::*;
    use crate::decide::parent::{Acknowledged, Ancestor, Recorded, Relation};

    const VOLUME: Uuid = Uuid::from_u128(1);
    const PAST: Uuid = Uuid::from_u128(2);

    fn copy(uuid: u128, ctransid: u64) -> HeldCopy {
        HeldCopy {
            uuid: Uuid::from_u128(uuid),
            ctransid,
            name: format!("copy-{uuid}").into(),
            unusable: None,
            committed_at: ctransid as i64,
        }
    }

    fn candidate(uuid: u128, of: Uuid, otransid: u64) -> Candidate {
        Candidate {
            copy: copy(uuid, otransid),
            local: Some(LocalSnapshot {
                id: uuid as u64,
                uuid: Uuid::from_u128(uuid),
                parent_uuid: of,
                ctransid: otransid,
                otransid,
                rtransid: None,
                read_only: true,
            }),
            recorded: Recorded::Nothing,
        }
    }

    fn lineage() -> Lineage {
        let ancestor = |uuid, until, relation| Ancestor {
            uuid,
            until,
            relation,
        };
        Lineage {
            ancestors: vec![
                ancestor(VOLUME, u64::MAX, Relation::Volume),
                ancestor(PAST, 50, Relation::Past),
            ],
            cut_at: None,
        }
    }

    fn chosen(candidates: Vec<Candidate>) -> Option<u64> {
        let plan = decide(ParentChoice::Auto, &lineage(), candidates).unwrap();
        plan.parent.map(|parent| match parent.local {
            Local::Snapshot(id) => id,
            Local::Sendshot(_) => 0,
        })
    }

    #[test]
    fn the_newest_common_snapshot_of_the_volume_is_the_parent() {
        let candidates = vec![candidate(10, VOLUME, 60), candidate(11, VOLUME, 70)];
        assert_eq!(chosen(candidates), Some(11));
    }

    #[test]
    fn a_nearer_relative_is_better_than_a_newer_one() {
        let candidates = vec![candidate(10, VOLUME, 60), candidate(11, PAST, 45)];
        assert_eq!(chosen(candidates), Some(10));
    }

    #[test]
    fn after_a_rollback_ancestors_lie_before_the_branch() {
        assert_eq!(chosen(vec![candidate(10, PAST, 50)]), Some(10));
        assert_eq!(chosen(vec![candidate(10, PAST, 51)]), None);
    }

    #[test]
    fn the_snapshot_we_were_made_from_is_an_ancestor_itself() {
        let mut own = candidate(2, Uuid::from_u128(99), 40);
        own.copy.uuid = PAST;
        assert_eq!(chosen(vec![own]), Some(2));
    }

    #[test]
    fn each_objection_means_a_full_send() {
        type Break = fn(&mut Candidate);
        fn local(c: &mut Candidate) -> &mut LocalSnapshot {
            c.local.as_mut().unwrap()
        }
        use ReasonCode as Code;
        let cases: [(Break, Code, &str); 12] = [
            (
                |c| {
                    c.copy.unusable = Some(Unusable {
                        code: Code::CopyChanged,
                        why: "changed".into(),
                    })
                },
                Code::CopyChanged,
                "not usable at the receiver: changed",
            ),
            (
                |c| c.local = None,
                Code::SnapshotNotHere,
                "not on the volume's file system",
            ),
            (
                |c| (c.local, c.recorded) = (None, Recorded::Snapshot),
                Code::SnapshotDeleted,
                "was deleted",
            ),
            (
                |c| (c.local, c.recorded) = (None, Recorded::Sendshot),
                Code::OnlySendshotHere,
                "only a sendshot",
            ),
            (
                |c| local(c).read_only = false,
                Code::SnapshotWritable,
                "is writable",
            ),
            (
                |c| local(c).ctransid = 61,
                Code::SnapshotChanged,
                "changed after it was sent",
            ),
            (
                |c| c.copy.ctransid = 61,
                Code::SnapshotOtherState,
                "different states",
            ),
            (
                |c| (c.copy.ctransid, local(c).ctransid) = (61, 61),
                Code::SnapshotOnceChanged,
                "once writable or was deduplicated",
            ),
            (
                |c| {
                    (c.copy.ctransid, local(c).ctransid) = (61, 61);
                    local(c).rtransid = Some(61);
                },
                Code::SnapshotReceivedByOtherTool,
                "received by another tool",
            ),
            (
                |c| {
                    (c.copy.ctransid, local(c).ctransid) = (61, 61);
                    local(c).rtransid = Some(59);
                },
                Code::SnapshotOnceChanged,
                "once writable or was deduplicated",
            ),
            (
                |c| local(c).parent_uuid = PAST,
                Code::LaterThanRollback,
                "later (transaction 60) than the state that the volume was made from (50)",
            ),
            (
                |c| local(c).parent_uuid = Uuid::from_u128(77),
                Code::Unrelated,
                "not a snapshot of",
            ),
        ];
        for (break_it, code, expected) in cases {
            let mut broken = candidate(10, VOLUME, 60);
            break_it(&mut broken);
            let plan = decide(ParentChoice::Auto, &lineage(), vec![broken]).unwrap();
            assert_eq!(plan.parent, None, "{expected}");
            assert_eq!(plan.reason.code, code);
            assert!(plan.reason.text.contains(expected), "{}", plan.reason);
        }
    }

    #[test]
    fn a_later_copy_is_named_as_later() {
        let mut lineage = lineage();
        lineage.ancestors[0].until = 55;
        let plan = decide(
            ParentChoice::Auto,
            &lineage,
            vec![candidate(10, VOLUME, 60)],
        )
        .unwrap();
        assert_eq!(plan.reason.code, ReasonCode::LaterThanPushed);
    }

    #[test]
    fn where_the_ancestry_is_cut_nothing_is_called_unrelated() {
        let cut = Lineage {
            cut_at: Some(PAST),
            ..lineage()
        };
        let unknown = candidate(10, Uuid::from_u128(77), 40);
        let plan = decide(ParentChoice::Auto, &cut, vec![unknown]).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::AncestryCut);
        let remedy = format!("--parent {}", Uuid::from_u128(10));
        assert!(plan.reason.text.contains(&remedy), "{}", plan.reason);
    }

    #[test]
    fn a_newer_unusable_copy_is_mentioned() {
        let mut newer = candidate(11, VOLUME, 70);
        newer.local.as_mut().unwrap().read_only = false;
        let all = vec![candidate(10, VOLUME, 60), newer];
        let plan = decide(ParentChoice::Auto, &lineage(), all).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::NewestUsableSnapshot);
        assert!(plan.reason.text.contains("copy-11"), "{}", plan.reason);
        let mut older = candidate(9, VOLUME, 50);
        older.local.as_mut().unwrap().read_only = false;
        let all = vec![candidate(10, VOLUME, 60), older];
        let plan = decide(ParentChoice::Auto, &lineage(), all).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::NewestCommonSnapshot);
    }

    #[test]
    fn an_emptied_receiver_is_not_a_new_one() {
        use crate::decide::retention::tests::record;
        let acknowledged = record();
        let of = |receiver, name: &str| {
            let name = name.parse().unwrap();
            let records = std::slice::from_ref(&acknowledged);
            let known = Acknowledged::of(records, acknowledged.volume, (receiver, None), &name);
            let plan = decide(ParentChoice::Auto, &lineage(), Vec::new()).unwrap();
            plan.with(known).reason.code
        };
        assert_eq!(of(acknowledged.receiver, "nas2"), ReasonCode::CopiesGone);
        let other = ReceiverId::generate();
        assert_eq!(of(other, "nas2"), ReasonCode::ReceiverReplaced);
        assert_eq!(of(other, "nas3"), ReasonCode::NoCopyYet);
    }

    #[test]
    fn a_parent_by_hand_may_be_unrelated_but_not_changed() {
        let unrelated = candidate(10, Uuid::from_u128(77), 60);
        let plan = decide(
            ParentChoice::Uuid(Uuid::from_u128(10)),
            &lineage(),
            vec![unrelated],
        )
        .unwrap();
        assert_eq!(plan.parent.unwrap().local, Local::Snapshot(10));
        let mut changed = candidate(10, VOLUME, 60);
        changed.local.as_mut().unwrap().ctransid = 61;
        let refused = decide(
            ParentChoice::Uuid(Uuid::from_u128(10)),
            &lineage(),
            vec![changed],
        );
        assert!(matches!(refused, Err(Error::Unusable { .. })));
        let missing = decide(
            ParentChoice::Uuid(Uuid::from_u128(5)),
            &lineage(),
            Vec::new(),
        );
        assert_eq!(missing, Err(Error::NotHeld(Uuid::from_u128(5))));
    }

    #[test]
    fn without_copies_the_send_is_full() {
        let plan = decide(ParentChoice::Auto, &lineage(), Vec::new()).unwrap();
        assert_eq!(plan.parent, None);
        assert!(plan.reason.text.contains("no copy of this volume yet"));
    }
}
