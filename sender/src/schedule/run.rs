//! Runs a scheduled push, and notes its outcome.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::{PeerName, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};
use tokio::sync::mpsc;

use crate::decide::parent::ParentChoice;
use crate::decide::schedule::{MAX_BACKOFF, backoff};
use crate::push::error::Error;
use crate::push::progress::{self, Event, Listener};
use crate::push::request::Request;
use crate::schedule::outlook::Pair;
use crate::schedule::turns::Turn;
use crate::schedule::unchanged::{self, Checked};
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;
use crate::shared::stopped::{self, Stopped};

/// Begins a run that serves a slot, or one that only has the receiver confirm an unchanged volume. It belongs to the daemon.
pub(super) fn begin(sender: &Arc<Sender>, mut turn: Turn, pair: Pair, slot: Option<Timestamp>) {
    let sender = Arc::clone(sender);
    tokio::spawn(async move {
        match (unchanged::check(&sender, &pair).await, slot) {
            (Ok(Checked::Unchanged { is_asked, .. }), slot) => {
                turn.reached = is_asked.then_some(true);
                if let Some(slot) = slot {
                    unchanged::served(&sender, &pair, slot);
                }
            }
            // Its next run pushes it.
            (Ok(Checked::Changed), None) => {}
            (Ok(Checked::Changed), Some(slot)) => {
                let outcome = push(&sender, &pair).await;
                turn.reached = Some(is_reached(&outcome));
                note(&sender, &pair, slot, outcome);
            }
            (Err(error), Some(slot)) => {
                let problem = Problem::from(error);
                let (receiver, volume) = (&pair.receiver, &pair.volume);
                sender.note_not_started(receiver, volume, &problem).await;
                let outcome = Err(problem);
                turn.reached = Some(is_reached(&outcome));
                note(&sender, &pair, slot, outcome);
            }
            // No push was due that could have failed.
            (Err(error), None) => {
                let (receiver, volume) = (&pair.receiver, &pair.volume);
                let problem = Problem::from(error);
                tracing::debug!(%receiver, %volume, "cannot confirm that it is unchanged: {}", problem.message);
                turn.reached = Some(problem.kind != Kind::Unreachable);
            }
        }
        drop(turn);
        sender.schedule_changed().notify_one();
    });
}

fn is_reached(outcome: &Result<(), Problem>) -> bool {
    !matches!(outcome, Err(problem) if problem.kind == Kind::Unreachable)
}

/// Pushes, and waits for the outcome.
async fn push(sender: &Arc<Sender>, pair: &Pair) -> Result<(), Problem> {
    let (events, mut received) = mpsc::channel(progress::QUEUE);
    let request = request(pair.receiver.clone(), VolumeRef::Name(pair.volume.clone()));
    let started = sender.start_push(request, Listener::new(events)).await;
    if let Err(e) = started {
        let problem = Problem::from(e);
        let (receiver, volume) = (&pair.receiver, &pair.volume);
        sender.note_not_started(receiver, volume, &problem).await;
        return Err(problem);
    }
    while let Some(event) = received.recv().await {
        match event {
            Event::Done(_) => return Ok(()),
            Event::Failed(problem) => return Err(problem),
            Event::Started(_) | Event::Stage { .. } | Event::Progress { .. } => {}
        }
    }
    let problem = Problem::from(Error::CameToNothing);
    let (receiver, volume) = (&pair.receiver, &pair.volume);
    sender.note_not_started(receiver, volume, &problem).await;
    Err(problem)
}

fn request(receiver: PeerName, volume: VolumeRef) -> Request {
    Request {
        receiver,
        volume,
        parent_choice: ParentChoice::Auto,
        engine: None,
        retry_for: None,
    }
}

/// Notes the outcome of a run. A run that was cancelled by the end of the daemon has served nothing, and is due at the next
/// start.
fn note(sender: &Sender, pair: &Pair, slot: Timestamp, outcome: Result<(), Problem>) {
    let now = Timestamp::now();
    let later = |wait: Duration| now.saturating_add(wait).ok();
    let is_stopping = sender.is_stopping();
    sender.runs().change(&pair.key(), |run| match &outcome {
        Ok(()) => {
            (run.served, run.failed, run.not_before) = (slot, 0, None);
            run.unchanged_at = None;
        }
        Err(_) if is_stopping => {}
        Err(problem) => {
            run.failed = run.failed.saturating_add(1);
            run.not_before = match problem.kind {
                // They may succeed soon.
                Kind::Unreachable | Kind::Failed => later(backoff(run.failed)),
                // The user has to plug the disk in, or to pair, first. A reload tries again at once.
                Kind::Usage | Kind::Refused => later(MAX_BACKOFF),
                // The user has decided.
                Kind::Cancelled => {
                    run.served = slot;
                    None
                }
            };
        }
    });
}

/// Starts the pushes again that the end of the last daemon has interrupted: an upgrade resumes them.
pub(super) async fn resume_stopped(sender: &Arc<Sender>) {
    let state_dir = sender.paths().state_dir.clone();
    let taken = blocking("stopped", move || stopped::take(&state_dir)).await;
    let stopped = match taken.map_err(std::io::Error::other).flatten() {
        Ok(stopped) => stopped,
        Err(e) => {
            tracing::warn!("cannot read which pushes the end of the daemon interrupted: {e}");
            return;
        }
    };
    for Stopped {
        receiver,
        volume,
        path,
    } in stopped
    {
        tracing::info!(%receiver, %volume, "the push of {volume} that the end of the daemon interrupted begins again");
        let is_configured = sender.config().volumes.contains_key(&volume);
        let reference = match is_configured {
            true => VolumeRef::Name(volume.clone()),
            false => VolumeRef::Path(path),
        };
        let now = Timestamp::now();
        if is_configured && sender.pauses().of(&receiver, &volume, now).is_some() {
            continue;
        }
        // The network may not be there yet.
        let request = Request {
            retry_for: Some(sender.config().retry_for),
            ..request(receiver.clone(), reference)
        };
        if let Err(e) = sender.start_push(request, Listener::none()).await {
            let problem = Problem::from(e);
            sender.note_not_started(&receiver, &volume, &problem).await;
        }
    }
}
