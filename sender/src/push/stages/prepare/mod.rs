//! The stages between the inventory and the stream: capture of a held snapshot, capture of the new one, and plan.
//! The result is what is sent, on which parent, and why. Nothing here talks to the receiver.

pub mod candidates;
pub mod capture;
pub mod capture_held;

use std::sync::Arc;

use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::{Frozen, Sendshot, compare_hashes};
use sendshot_model::PushId;
use sendshot_proto::inventory::HeldCopy;
use sendshot_sys::subvolume::Info;
use sendshot_sys::top_level::TopLevel;
use uuid::Uuid;

use crate::decide::parent::{Acknowledged, ParentChoice, Plan, Recorded};
use crate::decide::parent_snapshot;
use crate::push::context::{PushContext, another};
use crate::push::error::Error;
use crate::push::generate;
use crate::push::stages::prepare::candidates::{Chosen, Demand};
use crate::push::stages::prepare::capture::{Captured, KnownSendshots};
use crate::push::stages::source::SourceSnapshot;
use crate::push::stages::standing::CapturedFrom;
use crate::shared::blocking::blocking;
use crate::shared::running::Protected;
use crate::state::journal;
use crate::state::record::Record;
use crate::volume::lineage;
use sendshot_model::Engine;
use sendshot_proto::problem::JOURNAL;

/// What is sent, on which parent, and why.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// Only with the sendshot engine.
    pub(crate) by_sendshots: Option<BySendshots>,
}

impl Prepared {
    /// Drops the verdicts on the copies: only a dry run needs them, and they would take memory as long as the
    /// push runs.
    pub(crate) fn without_verdicts(self) -> Self {
        let verdicts = Vec::new();
        let plan = Plan {
            verdicts,
            ..self.plan
        };
        Self { plan, ..self }
    }
}

/// The sendshots from which the sendshot engine makes a stream.
#[derive(Debug)]
pub(crate) struct BySendshots {
    pub(crate) new: Arc<Sendshot>,
    pub(crate) parent: Option<Arc<Sendshot>>,
    pub(crate) effort: Effort,
    pub(crate) from: CapturedFrom,
}

/// The new snapshot's sendshot, and the candidates for its parent.
#[derive(Debug)]
struct Prospects {
    new: Captured,
    known: KnownSendshots,
}

/// What becomes of a captured sendshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldSendshot {
    /// It stays, for this push and later ones.
    Kept,
    /// It is discarded with the plan that it was made for.
    Temporary,
}

/// The record of a captured snapshot, protected from reconciliation as long as this lives.
#[derive(Debug)]
pub(crate) struct CapturedHeld {
    pub(crate) record: Record,
    _protected: Protected,
}

/// Decides on a parent for the kernel engine. `ours` are the records of the journal, if there is one: they show of
/// which states only a sendshot is left.
pub(crate) fn decide(
    top: &TopLevel,
    ours: &[Record],
    info: &Info,
    held: Vec<HeldCopy>,
    parent_choice: ParentChoice,
) -> Result<Plan, Error> {
    let failed = Error::volume("find the states that both hosts hold");
    let mut lineage = lineage::of(top, info).map_err(failed)?;
    let mut candidates = lineage::candidates(top, held).map_err(failed)?;
    let siblings = lineage::siblings(top, info, &candidates).map_err(failed)?;
    lineage.ancestors.extend(siblings);
    for candidate in &mut candidates {
        candidate.recorded = recorded(ours, candidate.copy.uuid);
    }
    Ok(parent_snapshot::decide(
        parent_choice,
        &lineage,
        candidates,
    )?)
}

/// What the journal records of a state.
fn recorded(ours: &[Record], uuid: Uuid) -> Recorded {
    let of_state = ours
        .iter()
        .filter(|record| record.snapshot.is_some_and(|s| s.uuid == uuid));
    let engines: Vec<Engine> = of_state.map(|record| record.engine).collect();
    if engines.contains(&Engine::Sendshot) {
        Recorded::Sendshot
    } else if engines.contains(&Engine::Kernel) {
        Recorded::Snapshot
    } else {
        Recorded::Nothing
    }
}

/// Decides what is sent; returns the sendshot of a held snapshot, too.
pub(crate) async fn prepare(
    context: &PushContext,
    source: &SourceSnapshot,
    held: Vec<HeldCopy>,
    demand: Demand,
    fate: HeldSendshot,
) -> Result<(Prepared, Option<CapturedHeld>), Error> {
    let parent_choice = match &demand {
        Demand::ParentChoice(parent_choice) => *parent_choice,
        Demand::Full(_) => ParentChoice::None,
    };
    let (Engine::Sendshot, Some(record)) = (context.engine, &source.record) else {
        let plan = plan_by_snapshots(context, source, held, parent_choice).await?;
        let by_sendshots = None;
        return Ok((Prepared { plan, by_sendshots }, None));
    };
    let (known, captured_held) =
        gather_known(context, source, held.clone(), parent_choice, fate).await?;
    let prepared = async {
        let prospects = capture_new(context, source, record.clone(), known).await?;
        plan_by_sendshots(context, source, record, prospects, held, demand).await
    };
    match (prepared.await, fate, captured_held) {
        (Ok(prepared), _, captured_held) => Ok((prepared, captured_held)),
        (Err(error), HeldSendshot::Temporary, Some(captured_held)) => {
            context.discard(captured_held.record).await;
            Err(error)
        }
        (Err(error), _, _) => Err(error),
    }
}

async fn plan_by_snapshots(
    context: &PushContext,
    source: &SourceSnapshot,
    held: Vec<HeldCopy>,
    parent_choice: ParentChoice,
) -> Result<Plan, Error> {
    let (state, info) = (Arc::clone(&context.state), source.info.clone());
    let (volume, from, name) = context.destination();
    let work = move || {
        let ours = journal::records(state.pushes());
        let ours = ours.map_err(Error::volume(JOURNAL))?;
        let plan = decide(state.top(), &ours, &info, held, parent_choice)?;
        Ok::<_, Error>(plan.with(Acknowledged::of(&ours, volume, from, &name)))
    };
    let plan = blocking("plan", work).await??;
    context.enter("plan", &*plan.reason.text);
    Ok(plan)
}

/// Gathers the sendshots that can be parents, with a captured one if that is a better parent.
async fn gather_known(
    context: &PushContext,
    source: &SourceSnapshot,
    held: Vec<HeldCopy>,
    parent_choice: ParentChoice,
    fate: HeldSendshot,
) -> Result<(KnownSendshots, Option<CapturedHeld>), Error> {
    let (state, volume) = (Arc::clone(&context.state), context.key.id);
    let (fd, info) = (another(&source.fd)?, source.info.clone());
    let protected = context.sender.table().protect(PushId::generate());
    let intent = (context.intent(protected.push), context.root);
    let work = move || -> Result<_, Error> {
        let mut known = candidates::known(&state, volume)?;
        let captured_held = candidates::capture_held(
            &state,
            (&fd, &info),
            &held,
            parent_choice,
            &mut known,
            intent,
        )?;
        let Some((mut record, sendshot)) = captured_held else {
            return Ok((known, None));
        };
        if fate == HeldSendshot::Kept {
            record = capture_held::keep(&state, record).map_err(Error::volume(JOURNAL))?;
        }
        known.sendshots.push((record.clone(), sendshot));
        let captured_held = CapturedHeld {
            record,
            _protected: protected,
        };
        Ok((known, Some(captured_held)))
    };
    let (known, captured_held) = blocking("capture-held", work).await??;
    if captured_held.is_some() {
        let detail = "a sendshot was made of the last snapshot that the receiver holds";
        context.enter("capture-held", detail);
    }
    Ok((known, captured_held))
}

async fn capture_new(
    context: &PushContext,
    source: &SourceSnapshot,
    record: Record,
    known: KnownSendshots,
) -> Result<Prospects, Error> {
    let (state, fd) = (Arc::clone(&context.state), another(&source.fd)?);
    let work = move || {
        (
            capture::capture(&state, Frozen::snapshot(&fd), &record, &known),
            known,
        )
    };
    let (captured, known) = blocking("capture", work).await?;
    let new = captured?;
    let inodes = new.sendshot.counts().inodes;
    let detail = match new.effort {
        Effort::Full => format!("{inodes} inodes"),
        Effort::Changes(read) => format!("{inodes} inodes, {read} of them read again"),
    };
    context.enter("capture", detail);
    Ok(Prospects { new, known })
}

/// Decides on a parent, and hashes the files without checksums where only that shows a change, so that what is
/// measured from now on is what is sent.
async fn plan_by_sendshots(
    context: &PushContext,
    source: &SourceSnapshot,
    record: &Record,
    prospects: Prospects,
    held: Vec<HeldCopy>,
    demand: Demand,
) -> Result<Prepared, Error> {
    let version = context.stream_version();
    let (state, snapshot) = (Arc::clone(&context.state), another(&source.fd)?);
    let name = record.sendshot_name();
    let (volume, receiver, receiver_name) = context.destination();
    let Prospects { new, known } = prospects;
    let Captured {
        sendshot: new,
        effort,
        from,
    } = new;
    let work = move || -> Result<_, Error> {
        let mut chosen = candidates::choose(known, &new, held, demand, version, receiver)?;
        let ours = journal::records(state.pushes());
        let ours = ours.map_err(Error::volume(JOURNAL))?;
        let acknowledged = Acknowledged::of(&ours, volume, receiver, &receiver_name);
        chosen.plan = chosen.plan.with(acknowledged);
        let new = match &chosen.parent {
            Some(parent) => compare_hashes(parent, new, &snapshot, state.sendshots(), &name)
                .map_err(generate::Error::CompareHashes)?,
            None => new,
        };
        Ok((chosen, new))
    };
    let (Chosen { plan, parent }, new) = blocking("plan", work).await??;
    context.enter("plan", &*plan.reason.text);
    Ok(Prepared {
        plan,
        by_sendshots: Some(BySendshots {
            new: Arc::new(new),
            parent: parent.map(Arc::new),
            effort,
            from,
        }),
    })
}
