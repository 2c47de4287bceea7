//! Stage *plan* for our engine: which sendshot is the parent, or a full send, and why. Pure.
//!
//! A copy can be the parent when the receiver reported it in this push and calls it usable, and
//! we have the sendshot of exactly that state. What of it is unchanged is decided later, extent
//! by extent, by the engine's rule; lineage only makes that cheap, so a sendshot of the same
//! lineage is preferred, the newest of them.

use sendshot_engine::Head;
use sendshot_engine::rule::Kinship;
use sendshot_model::PushId;
use sendshot_proto::inventory::HeldCopy;

use crate::plan::{Error, Local, Parent, Plan, Verdict, Wish, why_full};

/// A copy at the receiver, and its sendshot here if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What the receiver reports.
    pub copy: HeldCopy,
    /// The push that made it, and the head of its sendshot.
    pub sendshot: Option<(PushId, Head)>,
}

/// Decides for the snapshot that `new` was captured from.
///
/// # Errors
/// Only for a parent chosen by hand; otherwise a full send is always possible.
pub fn decide(wish: Wish, new: &Head, candidates: Vec<Candidate>) -> Result<Plan, Error> {
    let judged: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, new);
            (candidate, verdict)
        })
        .collect();
    let usable = |judged: &&(Candidate, Verdict)| judged.1 == Verdict::Usable;
    let chosen = match wish {
        Wish::None => None,
        Wish::Auto => judged
            .iter()
            .filter(usable)
            .max_by_key(|(c, _)| rank(c, new)),
        Wish::Uuid(uuid) => {
            let held = judged.iter().find(|(c, _)| c.copy.uuid == uuid);
            let (_, verdict) = held.ok_or(Error::NotHeld(uuid))?;
            let verdict = verdict.clone();
            let found = judged
                .iter()
                .filter(usable)
                .find(|(c, _)| c.copy.uuid == uuid);
            Some(found.ok_or(Error::Unusable { uuid, verdict })?)
        }
    };
    let parent = chosen.and_then(|(candidate, _)| parent(candidate));
    let reason = match (wish, chosen) {
        (Wish::None, _) => "a full send was asked for".to_owned(),
        (_, Some((candidate, _))) => why(wish, candidate, new),
        (_, None) => why_full(judged.iter().map(|(c, verdict)| (&c.copy, verdict))),
    };
    Ok(Plan {
        parent,
        reason,
        verdicts: judged
            .into_iter()
            .map(|(c, verdict)| (c.copy, verdict))
            .collect(),
    })
}

fn judge(candidate: &Candidate, new: &Head) -> Verdict {
    if let Some(why) = &candidate.copy.unusable {
        return Verdict::UnusableThere(why.clone());
    }
    match &candidate.sendshot {
        None => Verdict::NoSendshot,
        Some((_, head)) if head.ctransid != candidate.copy.ctransid => Verdict::Changed {
            sent: candidate.copy.ctransid,
            now: head.ctransid,
        },
        Some((_, head)) if Kinship::of(head, new) == Kinship::None => Verdict::Unrelated,
        Some(_) => Verdict::Usable,
    }
}

/// Lineage first, then the newest.
fn rank(candidate: &Candidate, new: &Head) -> (bool, u64) {
    match &candidate.sendshot {
        Some((_, head)) => (Kinship::of(head, new) == Kinship::Lineage, head.otransid),
        None => (false, 0),
    }
}

fn parent(candidate: &Candidate) -> Option<Parent> {
    let (push, _) = candidate.sendshot.as_ref()?;
    Some(Parent {
        uuid: candidate.copy.uuid,
        ctransid: candidate.copy.ctransid,
        local: Local::Sendshot(*push),
    })
}

fn why(wish: Wish, candidate: &Candidate, new: &Head) -> String {
    let name = &candidate.copy.name;
    match (wish, rank(candidate, new).0) {
        (Wish::Uuid(_), _) => format!("chosen by hand: copy {name}"),
        (_, true) => {
            format!(
                "copy {name} is the newest state of this volume that the receiver holds and we have the sendshot of"
            )
        }
        (_, false) => format!(
            "copy {name} is the newest one that we have a sendshot of; the volume was replaced since, so every file is compared"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn head(number: u128, of: u128, otransid: u64) -> Head {
        Head {
            wire_uuid: Uuid::from_u128(number),
            ctransid: otransid,
            fsid: Uuid::from_u128(1),
            uuid: Uuid::from_u128(number),
            parent_uuid: Uuid::from_u128(of),
            otransid,
            generation: otransid,
            taken_at: 0,
        }
    }

    fn candidate(head: Head) -> Candidate {
        Candidate {
            copy: HeldCopy {
                uuid: head.wire_uuid,
                ctransid: head.ctransid,
                name: format!("copy-{}", head.otransid),
                unusable: None,
                committed_at: 0,
            },
            sendshot: Some((PushId::generate(), head)),
        }
    }

    fn chosen(candidates: Vec<Candidate>) -> Option<Uuid> {
        let plan = decide(Wish::Auto, &head(9, 5, 90), candidates).unwrap();
        plan.parent.map(|parent| parent.uuid)
    }

    #[test]
    fn the_newest_sendshot_of_the_lineage_is_the_parent() {
        let (old, newest) = (head(1, 5, 50), head(2, 5, 60));
        let other = head(3, 6, 70);
        let all = [other, old, newest].map(candidate).to_vec();
        assert_eq!(chosen(all), Some(Uuid::from_u128(2)));
    }

    #[test]
    fn without_lineage_a_sendshot_of_the_same_file_system_still_serves() {
        assert_eq!(
            chosen(vec![candidate(head(3, 6, 70))]),
            Some(Uuid::from_u128(3))
        );
        let foreign = Head {
            fsid: Uuid::from_u128(2),
            ..head(3, 5, 70)
        };
        assert_eq!(chosen(vec![candidate(foreign)]), None);
    }

    #[test]
    fn what_stands_against_a_copy_is_said() {
        let mut unusable = candidate(head(1, 5, 50));
        unusable.copy.unusable = Some("it is writable".into());
        let mut lacking = candidate(head(1, 5, 50));
        lacking.sendshot = None;
        let mut other_state = candidate(head(1, 5, 50));
        other_state.copy.ctransid = 49;
        for (candidate, expected) in [
            (unusable, "it is writable"),
            (lacking, "no sendshot of it"),
            (other_state, "changed after it was sent"),
        ] {
            let plan = decide(Wish::Auto, &head(9, 5, 90), vec![candidate]).unwrap();
            assert!(
                plan.parent.is_none() && plan.reason.contains(expected),
                "{}",
                plan.reason
            );
        }
    }
}
