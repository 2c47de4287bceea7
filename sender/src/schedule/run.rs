//! Runs a scheduled push, and notes its outcome.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use sendshot_model::{PeerName, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};
use tokio::sync::mpsc;

use crate::decide::parent::ParentChoice;
use crate::decide::schedule::backoff;
use crate::push::error::Error;
use crate::push::progress::{self, Event, Listener};
use crate::push::request::Request;
use crate::schedule::outlook::Pair;
use crate::schedule::turns::Turns;
use crate::schedule::unchanged;
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;
use crate::shared::stopped::{self, Stopped};

/// Begins a run that serves a slot. It belongs to the daemon.
pub(super) fn begin(sender: &Arc<Sender>, turns: &Arc<Turns>, pair: Pair, slot: Timestamp) {
    let (sender, turns) = (Arc::clone(sender), Arc::clone(turns));
    tokio::spawn(async move {
        let mut reached = true;
        match unchanged::check(&sender, &pair).await {
            Some(_) => unchanged::served(&sender, &pair, slot),
            None => {
                let outcome = push(&sender, &pair).await;
                reached = !matches!(&outcome, Err(problem) if problem.kind == Kind::Unreachable);
                note(&sender, &pair, slot, outcome);
            }
        }
        turns.ended(&pair.receiver, reached);
        sender.schedule_changed().notify_one();
    });
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
    Err(Error::CameToNothing.into())
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
    let later = |failed| {
        let wait = SignedDuration::try_from(backoff(failed)).unwrap_or_default();
        now.saturating_add(wait).ok()
    };
    let is_stopping = sender.is_stopping();
    sender.runs().change(&pair.key(), |run| match &outcome {
        Ok(()) => {
            (run.served, run.failed, run.not_before) = (slot, 0, None);
            run.unchanged_at = None;
        }
        Err(_) if is_stopping => {}
        Err(problem) => {
            run.failed = run.failed.saturating_add(1);
            match problem.kind {
                // They may succeed soon.
                Kind::Unreachable | Kind::Failed => run.not_before = later(run.failed),
                // Only a user can help, or the user has decided.
                Kind::Usage | Kind::Refused | Kind::Cancelled => {
                    (run.served, run.not_before) = (slot, None);
                }
            }
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
        if let Err(e) = sender
            .start_push(request(receiver.clone(), reference), Listener::none())
            .await
        {
            let problem = Problem::from(e);
            tracing::info!(%receiver, %volume, "the push of {volume} does not begin: {}", problem.message);
        }
    }
}
