//! Stage *plan* for the sendshot engine: chooses a sendshot as parent, or a full send, with the reason. Pure.
//!
//! A copy can be the parent if the receiver reported it in this push as usable, and this host has the sendshot of
//! exactly that state. The engine's rule decides later, extent by extent, what of it is unchanged; lineage only
//! makes that cheap, so the newest sendshot of the same lineage is preferred. Without lineage (the volume was
//! rolled back, or replaced) only measuring shows which sendshot is nearest: the one with the shortest stream.

use std::cmp::Reverse;

use sendshot_engine::Head;
use sendshot_engine::diff::rule::{Difference, Kinship};
use sendshot_model::{PushId, Reason, ReasonCode, human};
use sendshot_proto::inventory::HeldCopy;

use crate::decide::parent::{
    Error, Local, Parent, ParentChoice, Plan, Verdict, chosen_by_hand, full_asked_for,
    newer_unusable, why_full,
};
use crate::decide::verdict::why_compared;
use crate::state::record::Standing;

/// Most sendshots, the newest, that are measured when there is no lineage: measuring one compares all metadata.
const TRIED: usize = 8;

/// A copy at the receiver, and its sendshot on this host if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The receiver's report.
    pub copy: HeldCopy,
    /// The sendshot on this host.
    pub sendshot: OwnSendshot,
    /// Length of the stream with it as parent, in bytes, if measured.
    pub stream_bytes: Option<u64>,
}

/// What this host has of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnSendshot {
    None,
    /// A sendshot that cannot be used, and why.
    Unusable(Reason),
    Usable {
        push: PushId,
        head: Head,
        standing: Standing,
    },
}

impl OwnSendshot {
    pub fn push(&self) -> Option<PushId> {
        match self {
            Self::Usable { push, .. } => Some(*push),
            Self::None | Self::Unusable(_) => None,
        }
    }

    fn head(&self) -> Option<&Head> {
        match self {
            Self::Usable { head, .. } => Some(head),
            Self::None | Self::Unusable(_) => None,
        }
    }

    fn is_suspect(&self) -> bool {
        matches!(
            self,
            Self::Usable {
                standing: Standing::Suspect,
                ..
            }
        )
    }
}

/// Chooses the sendshots that must be measured before [`decide`] can choose well: none if one is of the same
/// lineage, or if there is only one choice.
pub fn to_try(parent_choice: ParentChoice, new: &Head, candidates: &[Candidate]) -> Vec<PushId> {
    let mut usable: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| judge(candidate, new).is_usable())
        .collect();
    let no_choice = parent_choice != ParentChoice::Auto || usable.len() < 2;
    if no_choice || usable.iter().any(|candidate| is_kin(candidate, new)) {
        return Vec::new();
    }
    usable.sort_by_key(|candidate| Reverse(otransid(candidate)));
    usable.truncate(TRIED);
    usable
        .into_iter()
        .filter_map(|candidate| candidate.sendshot.push())
        .collect()
}

/// Decides on the parent for the snapshot that `new` was captured from.
///
/// # Errors
/// Only for a parent chosen by the user; otherwise a full send is always possible.
pub fn decide(
    parent_choice: ParentChoice,
    new: &Head,
    candidates: Vec<Candidate>,
) -> Result<Plan, Error> {
    let judged: Vec<(Candidate, Verdict)> = candidates
        .into_iter()
        .map(|candidate| {
            let verdict = judge(&candidate, new);
            (candidate, verdict)
        })
        .collect();
    let usable = |judged: &&(Candidate, Verdict)| judged.1.is_usable();
    let chosen = match parent_choice {
        ParentChoice::None => None,
        ParentChoice::Auto => judged
            .iter()
            .filter(usable)
            .max_by_key(|(c, _)| rank(c, new)),
        ParentChoice::Uuid(uuid) => {
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
    let is_suspect = chosen.is_some_and(|(candidate, _)| candidate.sendshot.is_suspect());
    let mut reason = match (parent_choice, chosen) {
        (ParentChoice::None, _) => full_asked_for(),
        (ParentChoice::Uuid(_), Some((c, _))) => chosen_by_hand(&c.copy),
        (_, Some((c, _))) if is_kin(c, new) => why_kin(c, &judged),
        (_, Some((c, _))) => why_nearest(c, judged.iter().filter(usable).map(|(c, _)| c)),
        (_, None) => why_full(judged.iter().map(|(c, verdict)| (&c.copy, verdict))),
    };
    if let Some((_, Verdict::UsableAllCompared(difference))) = chosen {
        reason = reason.and(why_compared(*difference));
    }
    if is_suspect {
        reason = reason.and(
            "the volume was captured whole, as a receiver could not apply a stream that was built on this \
             copy before",
        );
    }
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
        OwnSendshot::None => Verdict::NoSendshot,
        OwnSendshot::Unusable(why) => Verdict::SendshotUnusable(why.clone()),
        OwnSendshot::Usable { head, .. } if head.wire_ctransid != candidate.copy.ctransid => {
            Verdict::SendshotOtherState {
                copy: candidate.copy.ctransid,
                sendshot: head.wire_ctransid,
            }
        }
        OwnSendshot::Usable { head, standing, .. } => {
            match (Difference::between(head, new), standing) {
                (Some(Difference::Filesystem), _) => Verdict::OtherFilesystem {
                    sendshot: head.fsid,
                    volume: new.fsid,
                },
                (Some(Difference::Later), _) => Verdict::LaterTransaction {
                    sendshot: head.otransid,
                    pushed: new.otransid,
                },
                (_, Standing::Rejected) => Verdict::Rejected,
                (None, Standing::Good | Standing::Suspect) => Verdict::Usable,
                (
                    Some(
                        difference @ (Difference::OriginUnknown
                        | Difference::Subvolume
                        | Difference::ParentChanged
                        | Difference::NewChanged),
                    ),
                    Standing::Good | Standing::Suspect,
                ) => Verdict::UsableAllCompared(difference),
            }
        }
    }
}

/// Ranks by lineage first, then newest within it; else by the shortest stream, with unmeasured ones last.
fn rank(candidate: &Candidate, new: &Head) -> (bool, bool, Reverse<u64>, u64) {
    let kin = is_kin(candidate, new);
    let tried = candidate.stream_bytes.filter(|_| !kin);
    (
        kin,
        tried.is_some(),
        Reverse(tried.unwrap_or(0)),
        otransid(candidate),
    )
}

fn is_kin(candidate: &Candidate, new: &Head) -> bool {
    let head = candidate.sendshot.head();
    head.is_some_and(|head| Kinship::of(head, new) == Kinship::Lineage)
}

fn otransid(candidate: &Candidate) -> u64 {
    candidate.sendshot.head().map_or(0, |head| head.otransid)
}

fn parent(candidate: &Candidate) -> Option<Parent> {
    let push = candidate.sendshot.push()?;
    Some(Parent {
        uuid: candidate.copy.uuid,
        ctransid: candidate.copy.ctransid,
        local: Local::Sendshot(push),
    })
}

fn why_kin(candidate: &Candidate, judged: &[(Candidate, Verdict)]) -> Reason {
    let name = &candidate.copy.name;
    let ages = judged.iter().map(|(c, verdict)| {
        let taken = c.sendshot.head().map(|head| head.otransid);
        (&c.copy, taken, verdict)
    });
    let newer = newer_unusable(&candidate.copy, otransid(candidate), ages);
    match (newer, newer_compared(candidate, judged)) {
        (None, Some((newer, why))) => Reason::new(
            ReasonCode::NewestSendshot,
            format!(
                "copy {name} is the newest state of this volume that can be the parent without comparing \
                 every file; as for the newer copy {newer}, {why}"
            ),
        ),
        (None, None) => Reason::new(
            ReasonCode::NewestSendshot,
            format!(
                "copy {name} is the newest state of this volume that the receiver holds and whose sendshot is on this host"
            ),
        ),
        (Some((newer, verdict)), _) => Reason::new(
            ReasonCode::NewestUsableSendshot,
            format!(
                "copy {name} is the newest state of this volume that can be the parent; the newer copy \
                 {newer} cannot: {verdict}"
            ),
        ),
    }
}

/// The newest state of the volume that is newer than the parent and usable too, but only by comparing every file;
/// and why.
fn newer_compared<'a>(
    parent: &Candidate,
    judged: &'a [(Candidate, Verdict)],
) -> Option<(&'a str, &'static str)> {
    let of_volume = judged.iter().filter_map(|(c, verdict)| match verdict {
        Verdict::UsableAllCompared(difference @ Difference::ParentChanged) => {
            Some((c, why_compared(*difference)))
        }
        _ => None,
    });
    of_volume
        .filter(|(c, _)| otransid(c) > otransid(parent))
        .max_by_key(|(c, _)| otransid(c))
        .map(|(c, why)| (&*c.copy.name, why))
}

fn why_nearest<'a>(
    chosen: &Candidate,
    usable: impl Iterator<Item = &'a Candidate> + Clone,
) -> Reason {
    let name = &chosen.copy.name;
    let mut tried: Vec<u64> = usable.clone().filter_map(|c| c.stream_bytes).collect();
    tried.sort_unstable();
    let (code, which) = match (chosen.stream_bytes, tried.get(1)) {
        (Some(bytes), Some(next)) => (
            ReasonCode::ShortestStream,
            format!(
                "copy {name} gives the shortest stream of the {} that were tried ({}, the next best {})",
                tried.len(),
                human::bytes_human(bytes),
                human::bytes_human(*next),
            ),
        ),
        _ if usable.count() == 1 => (
            ReasonCode::OnlyUsableSendshot,
            format!("copy {name} is the only one that can be the parent"),
        ),
        // If there are several, all of them were measured: see `to_try`.
        _ => (
            ReasonCode::default(),
            format!("copy {name} is the newest one that can be the parent"),
        ),
    };
    Reason::new(code, which)
}

#[cfg(test)]
pub(crate) mod tests {
    use sendshot_proto::inventory::Unusable;

    use super::*;
    use uuid::Uuid;

    pub(crate) fn head(number: u128, of: u128, otransid: u64) -> Head {
        Head {
            wire_uuid: Uuid::from_u128(number),
            wire_ctransid: otransid,
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
                ctransid: head.wire_ctransid,
                name: format!("copy-{}", head.otransid).into(),
                unusable: None,
                committed_at: 0,
            },
            sendshot: OwnSendshot::Usable {
                push: PushId::generate(),
                head,
                standing: Standing::Good,
            },
            stream_bytes: None,
        }
    }

    fn set_standing(candidate: &mut Candidate, new: Standing) {
        if let OwnSendshot::Usable { standing, .. } = &mut candidate.sendshot {
            *standing = new;
        }
    }

    #[test]
    fn a_suspect_parent_is_used_once_more_and_the_reason_says_how() {
        let mut suspect = candidate(head(1, 5, 50));
        set_standing(&mut suspect, Standing::Suspect);
        let plan = decide(ParentChoice::Auto, &head(9, 5, 90), vec![suspect]).unwrap();
        assert_eq!(plan.parent.unwrap().uuid, Uuid::from_u128(1));
        assert!(
            plan.reason.text.contains("captured whole"),
            "{}",
            plan.reason
        );
    }

    fn chosen(candidates: Vec<Candidate>) -> Option<Uuid> {
        let plan = decide(ParentChoice::Auto, &head(9, 5, 90), candidates).unwrap();
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
    fn without_lineage_the_file_system_still_serves() {
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
    fn without_lineage_the_shortest_stream_decides() {
        let (near, newer) = (candidate(head(3, 6, 70)), candidate(head(4, 6, 80)));
        let all = [near.clone(), newer.clone()];
        let tried: Vec<_> = to_try(ParentChoice::Auto, &head(9, 5, 90), &all);
        let push = |c: &Candidate| c.sendshot.push().unwrap();
        assert_eq!(tried, [push(&newer), push(&near)]);
        let tried = |c: Candidate, bytes| Candidate {
            stream_bytes: Some(bytes),
            ..c
        };
        let untried = candidate(head(5, 6, 85));
        let all = vec![tried(newer, 7 << 20), tried(near.clone(), 3 << 20), untried];
        let plan = decide(ParentChoice::Auto, &head(9, 5, 90), all).unwrap();
        assert_eq!(plan.parent.unwrap().uuid, near.copy.uuid);
        for text in ["copy-70", "3.0 MiB", "7.0 MiB", "of the 2"] {
            assert!(plan.reason.text.contains(text), "{}", plan.reason);
        }
    }

    #[test]
    fn nothing_is_tried_where_there_is_no_choice() {
        let new = head(9, 5, 90);
        let (kin, other) = (candidate(head(1, 5, 50)), candidate(head(3, 6, 70)));
        let third = candidate(head(4, 6, 80));
        let none =
            |parent_choice, all: &[Candidate]| assert_eq!(to_try(parent_choice, &new, all), []);
        none(ParentChoice::Auto, &[other.clone(), third.clone(), kin]);
        none(ParentChoice::Auto, std::slice::from_ref(&other));
        none(ParentChoice::None, &[other.clone(), third.clone()]);
        none(ParentChoice::Uuid(other.copy.uuid), &[other, third]);
        let many: Vec<_> = (10..30).map(|n| candidate(head(n, 6, n as u64))).collect();
        assert_eq!(to_try(ParentChoice::Auto, &new, &many).len(), TRIED);
    }

    #[test]
    fn each_objection_to_a_copy_is_named() {
        let mut unusable = candidate(head(1, 5, 50));
        unusable.copy.unusable = Some(Unusable {
            code: ReasonCode::CopyWritable,
            why: "it is writable".into(),
        });
        let mut lacking = candidate(head(1, 5, 50));
        lacking.sendshot = OwnSendshot::None;
        let mut orphaned = candidate(head(1, 5, 50));
        orphaned.sendshot = OwnSendshot::Unusable(Reason::new(
            ReasonCode::SendshotOrphan,
            "inode 258 has a name in no directory",
        ));
        let mut rejected = candidate(head(1, 5, 50));
        set_standing(&mut rejected, Standing::Rejected);
        let mut other_state = candidate(head(1, 5, 50));
        other_state.copy.ctransid = 49;
        let of_head = |change: fn(&mut Head)| {
            let mut other = head(1, 5, 50);
            change(&mut other);
            candidate(other)
        };
        let foreign = of_head(|head| head.fsid = Uuid::from_u128(2));
        let later = of_head(|head| head.otransid = 91);
        use ReasonCode as Code;
        for (candidate, code, expected) in [
            (unusable, Code::CopyWritable, "it is writable"),
            (lacking, Code::NoSendshot, "no sendshot of it"),
            (
                orphaned,
                Code::SendshotOrphan,
                "inode 258 has a name in no directory",
            ),
            (
                rejected,
                Code::StreamsRefused,
                "could not apply the streams",
            ),
            (other_state, Code::SendshotOtherState, "of another state"),
            (foreign, Code::OtherFilesystem, "of another file system"),
            (later, Code::LaterTransaction, "later transaction (91)"),
        ] {
            let plan = decide(ParentChoice::Auto, &head(9, 5, 90), vec![candidate]).unwrap();
            assert!(
                plan.parent.is_none() && plan.reason.text.contains(expected),
                "{}",
                plan.reason
            );
            assert_eq!(plan.reason.code, code);
        }
    }

    #[test]
    fn the_reason_for_comparing_all_is_exact() {
        let of_head = |change: fn(&mut Head)| {
            let mut other = head(1, 5, 50);
            change(&mut other);
            candidate(other)
        };
        use ReasonCode as Code;
        let changed_new = Head {
            ctransid: 95,
            ..head(9, 5, 90)
        };
        let new = head(9, 5, 90);
        for (candidate, new, code, expected) in [
            (
                of_head(|head| head.parent_uuid = Uuid::from_u128(6)),
                &new,
                Code::UsableVolumeReplaced,
                "replaced since",
            ),
            (
                of_head(|head| head.parent_uuid = Uuid::nil()),
                &new,
                Code::UsableOriginUnknown,
                "subvolume is not known",
            ),
            (
                of_head(|head| head.ctransid = 51),
                &new,
                Code::UsableParentChanged,
                "before its sendshot was made",
            ),
            (
                of_head(|_| {}),
                &changed_new,
                Code::UsableNewChanged,
                "new snapshot",
            ),
        ] {
            let plan = decide(ParentChoice::Auto, new, vec![candidate]).unwrap();
            assert_eq!(plan.verdicts[0].1.code(), code);
            assert_eq!(plan.reason.code, Code::OnlyUsableSendshot);
            assert!(plan.reason.text.contains(expected), "{}", plan.reason);
        }
    }

    #[test]
    fn a_newer_copy_without_lineage_is_mentioned() {
        let mut changed = head(2, 5, 60);
        changed.ctransid = 61;
        let all = vec![candidate(head(1, 5, 50)), candidate(changed)];
        let plan = decide(ParentChoice::Auto, &head(9, 5, 90), all).unwrap();
        assert_eq!(plan.parent.unwrap().uuid, Uuid::from_u128(1));
        assert_eq!(plan.reason.code, ReasonCode::NewestSendshot);
        for text in ["copy-60", "without comparing every file"] {
            assert!(plan.reason.text.contains(text), "{}", plan.reason);
        }
    }

    #[test]
    fn a_newer_copy_that_cannot_be_the_parent_is_named() {
        let mut newer = candidate(head(2, 5, 60));
        set_standing(&mut newer, Standing::Rejected);
        let all = vec![candidate(head(1, 5, 50)), newer];
        let plan = decide(ParentChoice::Auto, &head(9, 5, 90), all).unwrap();
        assert_eq!(plan.reason.code, ReasonCode::NewestUsableSendshot);
        for text in ["copy-60", "could not apply"] {
            assert!(plan.reason.text.contains(text), "{}", plan.reason);
        }
    }
}
