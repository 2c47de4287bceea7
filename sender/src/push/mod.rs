//! The stages of a push, in order. Each is a function in the file that the table names.
//!
//! A push sends one state of one volume to one receiver. This module does not decide on a parent
//! ([`crate::decide`]), manage what is kept between pushes ([`crate::retained`]) or start pushes
//! ([`crate::pushes`]).
//!
//! | stage | where |
//! |---|---|
//! | connect | [`stages::connect`] |
//! | (resume an interrupted push) | [`stages::resume`] |
//! | snapshot | [`stages::source`] by [`stages::snapshot`] |
//! | negotiate | [`stages::negotiate`] |
//! | (adopt, capture, with the sendshot engine), plan | [`stages::prepare`] by [`stages::prepare::capture_held`], [`stages::prepare::capture`], [`stages::prepare::candidates`]; [`crate::decide`] decides |
//! | announce | [`stages::announce`] |
//! | generate | [`generate`] |
//! | transfer, apply, commit, acknowledge | [`stages::send`] by [`stages::transfer`], and the receiver |
//! | record, prune | [`stages::record`] |
//! | (report) | here the user gets the outcome |
//! | release | [`stages::release`] |
//!
//! The stages from negotiate to record may run several times: [`retry`] says which errors are transient, `attempts`
//! what follows each, `give_up` what is kept when the push gives up.
//!
//! Steps of the first attempt, and what a crash after each leaves:
//!
//! 1. Prepare: the sendshot of the state is durable, and the choice of parent and its reason are known. — A
//!    snapshot and a sendshot of a push that never began; reconciliation deletes them.
//! 2. Write into the record what it takes to make the same stream again. — The same, but the next push
//!    resumes it.
//! 3. Transfer, storing a mark now and then ([`crate::state::segment_log`]). — The same; it resumes at the
//!    receiver's last checkpoint.
//! 4. Before the receiver gets the end of the stream: mark the record `unconfirmed`. — The next push asks.
//! 5. Record the acknowledgement; see [`stages::record`].

mod attempts;
pub mod confirm;
mod context;
mod delivery;
pub mod dry_run;
pub mod error;
pub mod generate;
mod give_up;
mod outcome;
pub mod progress;
pub mod request;
pub mod retry;
mod room;
pub mod series;
pub mod stages;

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_proto::inventory::Inventory;
use sendshot_proto::report::Report;

use crate::push::attempts::{Attempt, Failed, Stopped};
use crate::push::context::PushContext;
use crate::push::delivery::{Delivery, Disk};
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::push::request::Request;
use crate::push::stages::prepare::{self, HeldSendshot};
use crate::push::stages::record::Superseded;
use crate::push::stages::release::Release;
use crate::push::stages::resume::{self, Resumption};
use crate::push::stages::{connect, negotiate, send, source};
use crate::retained::reconcile::Purpose;
use crate::shared::blocking::blocking;
use crate::shared::holdings::{self, Holding, Summary};
use crate::shared::pushed_states::{PushedState, Seen};
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::volume::engine;
use crate::volume::live_state;
use crate::volume::resolve::Volume;
use sendshot_transfer::retry::RetryBudget;

/// Runs a push up to its outcome for the user. The work left after that is returned with the outcome; it is
/// `None` if the push ended before it had any.
///
/// An interrupted push of the volume to this receiver is completed first, if possible; the current state of the
/// volume follows if it has changed since.
///
/// A failed push leaves only what the next one can resume, or what the receiver may have committed.
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> (Result<Report, Error>, Option<Release>) {
    let usual = sender.engine(&volume.key.name);
    let engine = match engine::choose(request.engine, usual, &volume) {
        Ok(engine) => engine,
        Err(e) => return (Err(e.into()), None),
    };
    let mut retry_budget = RetryBudget::new(request.retry_for, sender.config().retry_for);
    let told = (&running, &listener);
    let begun =
        connect::begin_patiently(&sender, &request, engine, &volume, told, &mut retry_budget).await;
    let mut context = match begun {
        Ok(context) => context,
        Err(error) => return (Err(error), None),
    };
    let skipped: Vec<String> = volume
        .skipped
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let known = sender.last_pushes().left_out(&volume.key.name);
    let is_new = |path: &&String| !known.contains(*path);
    let newly_skipped: Vec<String> = skipped.iter().filter(is_new).cloned().collect();
    let done = complete_and_send(&mut context, volume, &request, &mut retry_budget).await;
    let (outcome, superseded) = match done {
        Ok((report, superseded)) => {
            let report = Report {
                skipped,
                newly_skipped,
                ..report
            };
            (Ok(report), superseded)
        }
        Err(error) => (Err(error), Superseded::default()),
    };
    if let Ok(report) = &outcome {
        note_holding(&context, report).await;
        note_pushed(&context).await;
    }
    (outcome, Some(Release::new(context.state, superseded)))
}

/// Records the state of the live volume that the receiver holds now, for scheduled runs.
async fn note_pushed(context: &PushContext) {
    let (sender, path) = (Arc::clone(&context.sender), context.running.path.clone());
    let (receiver, volume) = (context.link.receiver(), context.key.name.clone());
    let delivered = context.delivered.clone();
    let noted = blocking("pushed-states", move || {
        let pushed = delivered.map(|pushed| {
            // A volume that has changed since is not of the same number.
            let now = live_state::read(&path).ok().flatten();
            let now = now.filter(|now| now.live == pushed.live);
            PushedState {
                seen: now.as_ref().map(Seen::of),
                ..pushed
            }
        });
        sender.pushed_states().note(receiver, &volume, pushed);
    });
    if let Err(e) = noted.await {
        tracing::warn!("cannot record the state that was pushed: {e}");
    }
}

/// Records what the receiver's disk holds now, for `list`.
async fn note_holding(context: &PushContext, report: &Report) {
    let copy = report.copy.rsplit('/').next().unwrap_or_default();
    let mut reported = context.reported.clone();
    reported.sort();
    let names = reported.iter().map(|(_, name)| name.to_string());
    let mut names: Vec<String> = names.collect();
    if !names.iter().any(|name| name == copy) {
        names.push(copy.to_owned());
    }
    let summary = Summary {
        volume: context.key.name.clone(),
        volume_id: context.key.id,
        receiver: context.running.receiver.clone(),
        receiver_id: context.link.receiver(),
        root: context.root,
        as_of: Timestamp::now().as_second(),
        count: 0,
        oldest: String::new(),
        newest: String::new(),
    };
    let state_dir = context.sender.paths().state_dir.clone();
    let noted = blocking("holdings", move || {
        holdings::note(&state_dir, &Holding::of(summary, names))
    });
    if let Err(e) = noted.await.map_err(std::io::Error::other).flatten() {
        tracing::warn!("cannot record for `list` what the receiver holds: {e}");
    }
}

/// Completes an interrupted push, then sends the current state of the volume.
async fn complete_and_send(
    context: &mut PushContext,
    volume: Volume,
    request: &Request,
    retry_budget: &mut RetryBudget,
) -> Result<(Report, Superseded), Error> {
    let mut completed = None;
    if let Some(interrupted) = resume::interrupted(context, &volume, request).await? {
        let mut delivery = interrupted.into_delivery(&context.sender);
        match deliver(context, &mut delivery, request, retry_budget).await {
            Ok((report, superseded)) => {
                context.delivered = delivery.pushed_state();
                if resume::is_unchanged(&context.sender, &volume, &delivery).await {
                    return Ok((report, superseded));
                }
                let release = Release::new(Arc::clone(&context.state), superseded);
                release.carry_out().await;
                completed = Some(report);
            }
            Err(Stopped::StartOver) => {}
            Err(Stopped::Failed(error)) => return Err(error),
        }
    }
    resume::discard_interrupted(context).await?;
    let source = source::take(context, volume).await?;
    let mut delivery = Delivery::fresh(source);
    match deliver(context, &mut delivery, request, retry_budget).await {
        Ok((report, superseded)) => {
            context.delivered = delivery.pushed_state();
            Ok((report.after(completed), superseded))
        }
        Err(Stopped::Failed(error)) => Err(error),
        // Only an interrupted delivery starts over.
        Err(Stopped::StartOver) => Err(Error::CameToNothing),
    }
}

/// Repeats attempts until one succeeds or no further one is allowed.
async fn deliver(
    context: &mut PushContext,
    delivery: &mut Delivery,
    request: &Request,
    retry_budget: &mut RetryBudget,
) -> Result<(Report, Superseded), Stopped> {
    retry_budget.contact();
    loop {
        match attempt(context, delivery, request).await {
            Ok(Attempt::Done(done)) => {
                retry_budget.progress();
                return Ok(*done);
            }
            Ok(Attempt::StartOver) => {
                give_up::discard(context, delivery).await;
                return Err(Stopped::StartOver);
            }
            // The interrupted push stays as it is until its disk is back.
            Ok(Attempt::Elsewhere) => return Err(Stopped::StartOver),
            Err(failed) => {
                attempts::after(failed, context, delivery, request, retry_budget).await?
            }
        }
    }
}

/// One attempt: from the receiver's inventory to its acknowledgement.
async fn attempt(
    context: &mut PushContext,
    delivery: &mut Delivery,
    request: &Request,
) -> Result<Attempt, Failed> {
    resume::reread(context, delivery).await?;
    let inventory = negotiate::negotiate(context, delivery.begun(), Purpose::Push).await?;
    match delivery.disk(context.root) {
        Disk::Same => {}
        Disk::Exchanged => delivery.restart(),
        Disk::Awaited => return Ok(Attempt::Elsewhere),
        Disk::Unconfirmed => return Err(Error::SentToOtherDisk.into()),
    }
    if let Some(done) = outcome::already_held(context, delivery, &inventory).await? {
        return Ok(Attempt::Done(Box::new(done)));
    }
    negotiate::check_root(context).await?;
    if let Some(record) = &mut delivery.source.record {
        record.root = context.root;
    }
    // A pending commit has to be known first: another push beside it would leave one more state that waits for the
    // receiver's acknowledgement.
    let is_begun = delivery.progress.begun;
    if inventory.commit_pending && (is_begun || negotiate::has_unconfirmed_push(context).await?) {
        return Err(Error::CommitPending(context.running.receiver.clone()).into());
    }
    let from = match resume::resumption(context, delivery, &inventory) {
        Resumption::At(from) => from,
        Resumption::StartOver => return Ok(Attempt::StartOver),
    };
    prepare_once(context, delivery, request, inventory).await?;
    let committed = send::send(context, delivery, from).await?;
    let done = outcome::finish(context, delivery, committed).await?;
    Ok(Attempt::Done(Box::new(done)))
}

/// Adopts, captures and plans, unless an earlier attempt did and its plan still holds.
async fn prepare_once(
    context: &PushContext,
    delivery: &mut Delivery,
    request: &Request,
    inventory: Inventory,
) -> Result<(), Error> {
    if delivery.prepared.is_some() {
        return Ok(());
    }
    let demand = delivery.demand(request.parent_choice);
    let (held, free) = (inventory.copies, inventory.free_bytes);
    let prepared = prepare::prepare(context, &delivery.source, held, demand, HeldSendshot::Kept);
    let (prepared, _) = prepared.await?;
    room::tell(context, &delivery.source, &prepared, free).await?;
    delivery.prepared = Some(prepared.without_verdicts());
    Ok(())
}
