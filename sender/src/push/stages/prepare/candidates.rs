//! The stages *capture* and *plan* for the sendshot engine: gathers what the pure parts decide by.

use std::os::fd::AsFd;

use sendshot_engine::diff::rule::Kinship;
use sendshot_engine::format::error;
use sendshot_engine::{Head, Sendshot};
use sendshot_model::{PushId, Reason, ReasonCode, ReceiverId, RootId, VolumeId};
use sendshot_proto::inventory::HeldCopy;
use sendshot_sys::subvolume::Info;

use crate::decide::parent::{Local, ParentChoice, Plan};
use crate::decide::parent_sendshot::{self, Candidate, OwnSendshot};
use crate::push::error::Error;
use crate::push::generate;
use crate::push::stages::prepare::capture::{self, KnownSendshots};
use crate::push::stages::prepare::capture_held;
use crate::state::record::{Intent, Record, Standing};
use crate::state::store::StateSubvolume;
use crate::volume::lineage;
use sendshot_proto::problem::JOURNAL;

/// What determines the parent of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// The user's choice.
    ParentChoice(ParentChoice),
    /// No parent, for this reason.
    Full(Reason),
}

/// Reads the sendshots of a volume's acknowledged pushes.
///
/// # Errors
/// See [`Error`].
pub fn known(state: &StateSubvolume, volume: VolumeId) -> Result<KnownSendshots, Error> {
    capture::acknowledged(state, volume).map_err(Error::volume(JOURNAL))
}

/// Makes a sendshot of a snapshot that is a better parent than all known sendshots, if there is one
/// (see [`mod@crate::push::stages::prepare::capture_held`]). Comes before the capture of the new snapshot. If it fails, the stream
/// is longer, nothing more.
///
/// # Errors
/// See [`Error`]: what both sides hold cannot be determined.
pub fn capture_held(
    state: &StateSubvolume,
    subject: (impl AsFd, &Info),
    held: &[HeldCopy],
    parent_choice: ParentChoice,
    known: &mut KnownSendshots,
    (intent, root): (Intent, Option<RootId>),
) -> Result<Option<(Record, Sendshot)>, Error> {
    let failed = Error::volume("find the states that both hosts hold");
    let (snapshot, info) = subject;
    let new = sendshot_engine::capture::head(
        snapshot,
        info,
        crate::push::stages::prepare::capture::NUMBER,
    )
    .map_err(failed)?;
    let ancestors = lineage::of(state.top(), info).map_err(failed)?;
    let candidates = lineage::candidates(state.top(), held.to_vec()).map_err(failed)?;
    let to = (intent.receiver, root);
    let chosen = capture_held::choose(parent_choice, &new, &ancestors, candidates, (known, to));
    let Some(local) = chosen else {
        return Ok(None);
    };
    match capture_held::capture(state, &local, intent, known) {
        Ok(captured) => Ok(Some(captured)),
        Err(e) => {
            let why = sendshot_proto::problem::with_causes(&e);
            tracing::warn!(uuid = %local.uuid, "a snapshot cannot be adopted as parent: {why}");
            known.not_made = Some((local.uuid, why));
            Ok(None)
        }
    }
}

/// The chosen parent, and its sendshot.
#[derive(Debug)]
pub struct Chosen {
    pub plan: Plan,
    /// The sendshot of the plan's parent, if it has one.
    pub parent: Option<Sendshot>,
}

/// Decides on a parent for a stream to this receiver and disk among the known sendshots, after measuring the streams for those that require it. A
/// measurement uses no hashes, which would read data each time: files without checksums count as changed.
///
/// # Errors
/// See [`Error`].
pub fn choose(
    known: KnownSendshots,
    new: &Sendshot,
    held: Vec<HeldCopy>,
    demand: Demand,
    stream_version: u32,
    to: (ReceiverId, Option<RootId>),
) -> Result<Chosen, Error> {
    let parent_choice = match demand {
        Demand::ParentChoice(parent_choice) => parent_choice,
        Demand::Full(reason) => {
            return Ok(Chosen {
                plan: Plan {
                    reason,
                    ..Plan::default()
                },
                parent: None,
            });
        }
    };
    let mut candidates: Vec<Candidate> = held
        .into_iter()
        .map(|copy| Candidate {
            sendshot: sendshot_of(&known, &copy, new.head(), to),
            copy,
            stream_bytes: None,
        })
        .collect();
    for push in parent_sendshot::to_try(parent_choice, new.head(), &candidates) {
        let mut sendshots = known.sendshots.iter();
        let parent = sendshots.find(|(record, _)| record.push == push);
        let parent = parent.map(|(_, sendshot)| sendshot);
        let size = generate::size(parent, new, stream_version)?;
        for candidate in &mut candidates {
            if candidate.sendshot.push() == Some(push) {
                candidate.stream_bytes = Some(size.bytes);
            }
        }
    }
    let plan = parent_sendshot::decide(parent_choice, new.head(), candidates)?;
    let parent = match plan.parent.map(|parent| parent.local) {
        Some(Local::Sendshot(push)) => Some(take(known, push)?),
        Some(Local::Snapshot(_)) | None => None,
    };
    Ok(Chosen { plan, parent })
}

/// The best sendshot of a copy: preferably of exactly its state, not rejected, and of the lineage of the new state: a
/// volume that was restored in place has one of the old subvolume and one of the new.
fn sendshot_of(
    known: &KnownSendshots,
    copy: &HeldCopy,
    new: &Head,
    to: (ReceiverId, Option<RootId>),
) -> OwnSendshot {
    let best = known
        .usable_for(to)
        .filter(|(_, sendshot)| sendshot.head().wire_uuid == copy.uuid)
        .max_by_key(|(record, sendshot)| {
            let is_rejected = record.standing == Standing::Rejected;
            let is_kin = Kinship::of(sendshot.head(), new) == Kinship::Lineage;
            let is_state = sendshot.head().wire_ctransid == copy.ctransid;
            (is_state, !is_rejected, is_kin)
        });
    if let Some((record, sendshot)) = best {
        return OwnSendshot::Usable {
            push: record.push,
            head: sendshot.head().clone(),
            standing: record.standing,
        };
    }
    let is_of_copy = |record: &Record| record.snapshot.is_some_and(|s| s.uuid == copy.uuid);
    let mut unusable = known.unusable.iter();
    if let Some((_, why)) = unusable.find(|(record, _)| is_of_copy(record)) {
        return OwnSendshot::Unusable(Reason::new(unusable_code(why), why.to_string()));
    }
    if let Some((_, why)) = known
        .not_made
        .as_ref()
        .filter(|(uuid, _)| *uuid == copy.uuid)
    {
        let text = format!("no sendshot could be made of its snapshot, which is here: {why}");
        return OwnSendshot::Unusable(Reason::new(ReasonCode::SendshotNotMade, text));
    }
    if known.gone.iter().any(is_of_copy) {
        let text = "its file in `.sendshot`, which the journal of pushes still names, was deleted";
        return OwnSendshot::Unusable(Reason::new(ReasonCode::SendshotDeleted, text));
    }
    OwnSendshot::None
}

fn unusable_code(error: &error::Error) -> ReasonCode {
    match error {
        error::Error::Io { .. } => ReasonCode::SendshotUnreadable,
        error::Error::Foreign { .. } => ReasonCode::SendshotForeign,
        error::Error::TooNew { .. } => ReasonCode::SendshotTooNew,
        error::Error::TooOld { .. } => ReasonCode::SendshotTooOld,
        error::Error::Damaged { .. } => ReasonCode::SendshotDamaged,
        error::Error::Orphan { .. } => ReasonCode::SendshotOrphan,
    }
}

fn take(known: KnownSendshots, push: PushId) -> Result<Sendshot, Error> {
    let mut sendshots = known.sendshots.into_iter();
    let found = sendshots.find(|(record, _)| record.push == push);
    let (_, sendshot) = found.ok_or(Error::ParentGone)?;
    Ok(sendshot)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_missing_sendshot_is_explained() {
        let uuid = Uuid::from_u128(1);
        let copy = HeldCopy {
            uuid,
            ctransid: 7,
            name: "copy".into(),
            unusable: None,
            committed_at: 0,
        };
        let new = crate::decide::parent_sendshot::tests::head(2, 3, 9);
        let to = (ReceiverId::generate(), None);
        let code = |known: &KnownSendshots| match sendshot_of(known, &copy, &new, to) {
            OwnSendshot::Unusable(why) => Some(why.code),
            OwnSendshot::None => None,
            OwnSendshot::Usable { .. } => panic!("there is none"),
        };
        let mut known = KnownSendshots::default();
        assert_eq!(code(&known), None);
        let record = crate::decide::retention::tests::record();
        known.gone = vec![crate::decide::retention::tests::at(&record, 1)];
        assert_eq!(code(&known), Some(ReasonCode::SendshotDeleted));
        known.not_made = Some((uuid, "No space left on device".to_owned()));
        assert_eq!(code(&known), Some(ReasonCode::SendshotNotMade));
    }
}
