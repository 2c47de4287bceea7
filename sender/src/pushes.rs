//! Pushes and dry runs: their start, their slot in the table, and their end when the daemon stops.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::history::SenderEvent;
use sendshot_model::{PeerName, ReceiverId, VolumeName};
use tokio::sync::oneshot;

use crate::push;
use crate::push::dry_run::{self, PushEstimate};
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::push::request::Request;
use crate::push::series;
use crate::push::stages::release;
use crate::shared::blocking::blocking;
use crate::shared::last_pushes::Outcome;
use crate::shared::running::{Running, Slot};
use crate::shared::sender::Sender;
use crate::shared::stopped::{self, Stopped};
use crate::volume::resolve;
use sendshot_proto::problem::Problem;
use sendshot_proto::report::Report;

impl Sender {
    /// Starts a push, which continues to its end even without a listener.
    ///
    /// # Errors
    /// An [`Error`] if it cannot start.
    pub async fn start_push(
        self: &Arc<Self>,
        request: Request,
        listener: Listener,
    ) -> Result<(), Error> {
        let receiver = self.receiver(&request.receiver).await?.receiver_id;
        let volume = self.resolve(&request).await?;
        let place = self.enter((&request, receiver), &volume).await?;
        self.schedule_changed().notify_one();
        let sender = Arc::clone(self);
        self.pushes.spawn(async move {
            let running = Arc::clone(&place.running);
            listener.started(&running);
            let (by, told) = (Arc::clone(&sender), listener.clone());
            let (outcome, left) = match volume.series.is_empty() {
                true => push::run(by, request, volume, Arc::clone(&running), told).await,
                false => series::push_all(by, request, volume, Arc::clone(&running), told).await,
            };
            let outcome = outcome.map_err(Problem::from);
            sender.remember(&running, &outcome).await;
            running.enter(release::STAGE);
            running.reported();
            let deleting = async {
                if let Some(left) = left {
                    left.carry_out().await;
                }
                drop(place);
            };
            tokio::join!(listener.over(outcome), deleting);
            sender.schedule_changed().notify_one();
        });
        Ok(())
    }

    /// Takes the slot of a push. It waits for a push that is only being released: that one's user already has the
    /// outcome.
    async fn enter(
        &self,
        (request, id): (&Request, ReceiverId),
        volume: &resolve::Volume,
    ) -> Result<Slot, Error> {
        loop {
            let receiver = (request.receiver.clone(), id);
            let held = self.hold_starts().await;
            if self.table.is_held(&volume.key.name) {
                return Err(Error::Held {
                    volume: volume.key.name.clone(),
                });
            }
            let entered = self.table.enter(volume, receiver, self.stop.child_token());
            drop(held);
            match entered {
                Ok(place) => return Ok(place),
                Err(running) if running.is_reported() => running.over().await,
                Err(running) => return Err(is_running(&running)),
            }
        }
    }

    /// Plans a push, with the `top` paths that would cost most. If the caller disconnects, the snapshot taken
    /// for it is deleted all the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn plan(
        self: &Arc<Self>,
        request: Request,
        volume: resolve::Volume,
        top: usize,
    ) -> Result<PushEstimate, Error> {
        let cancel = self.stop.child_token();
        let _nobody_waits = cancel.clone().drop_guard();
        let (running, protected) = self.table.aside(&volume, request.receiver.clone(), cancel);
        let (tell, told) = oneshot::channel();
        let sender = Arc::clone(self);
        self.pushes.spawn(async move {
            let outcome = dry_run::run(sender, request, volume, running, top).await;
            drop(protected);
            // The caller may have disconnected.
            let _ = tell.send(outcome);
        });
        told.await.map_err(|_| Error::Stopped)?
    }

    /// Logs one line with the whole outcome, and adds it to the history and to the last pushes.
    async fn remember(self: &Arc<Self>, running: &Running, outcome: &Result<Report, Problem>) {
        let entry = match outcome {
            Ok(report) => {
                log_done(running, report);
                Outcome::Done(Box::new(report.clone()))
            }
            Err(problem) => {
                log_failed(running, problem);
                Outcome::Failed(problem.message.clone())
            }
        };
        let sender = Arc::clone(self);
        let (volume, receiver) = (running.volume.clone(), running.receiver.clone());
        let events = events(running, outcome);
        let now = Timestamp::now().as_second();
        let stored = blocking("history", move || {
            events.for_each(|event| sender.note(event));
            sender.last_pushes().add(volume, receiver, now, entry)
        });
        if let Ok(Err(e)) = stored.await {
            tracing::warn!("cannot write the last pushes: {e}");
        }
    }

    /// Logs a scheduled push that could not start, and adds it to the history and to the last pushes.
    pub async fn note_not_started(
        self: &Arc<Self>,
        receiver: &PeerName,
        volume: &VolumeName,
        problem: &Problem,
    ) {
        tracing::info!(%volume, %receiver, remedy = %problem.remedy,
            "push of {volume} to {receiver} failed: {}", problem.message);
        let failed = SenderEvent::Failed {
            receiver: receiver.clone(),
            volume: volume.clone(),
            error: problem.message.clone(),
        };
        let (sender, receiver, volume) = (Arc::clone(self), receiver.clone(), volume.clone());
        let outcome = Outcome::Failed(problem.message.clone());
        let now = Timestamp::now().as_second();
        let stored = blocking("history", move || {
            sender.note(failed);
            sender.last_pushes().add(volume, receiver, now, outcome)
        });
        if let Ok(Err(e)) = stored.await {
            tracing::warn!("cannot write the last pushes: {e}");
        }
    }

    /// Records the pushes that the end of the daemon interrupts. They begin again at the next start.
    pub fn note_stopped(&self) {
        let all = self.table.all();
        let running = all
            .iter()
            .filter(|running| !running.is_reported() && !running.cancel.is_cancelled());
        let stopped: Vec<Stopped> = running.map(|running| Stopped::from(&**running)).collect();
        if let Err(e) = stopped::note(&self.paths().state_dir, &stopped) {
            tracing::warn!("cannot record which pushes are interrupted: {e}");
        }
    }

    /// Cancels all pushes and waits until they have cleaned up, and closed their file systems.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.pushes.close();
        self.pushes.wait().await;
    }

    /// Finds and opens the volume of a request.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resolve(self: &Arc<Self>, request: &Request) -> Result<resolve::Volume, Error> {
        let (sender, wanted) = (Arc::clone(self), request.volume.clone());
        let volume = blocking("resolve", move || {
            sender.find(|finder| resolve::resolve(finder, &wanted))
        })
        .await??;
        Ok(volume)
    }
}

/// The events of a push that has ended.
fn events(
    running: &Running,
    outcome: &Result<Report, Problem>,
) -> impl Iterator<Item = SenderEvent> + use<> {
    let (receiver, volume) = (running.receiver.clone(), running.volume.clone());
    let (ended, pruned) = match outcome {
        Ok(report) => (pushed(report), superseded(report)),
        Err(problem) => {
            let error = problem.message.clone();
            let failed = SenderEvent::Failed {
                receiver,
                volume,
                error,
            };
            (failed, None)
        }
    };
    [ended].into_iter().chain(pruned)
}

fn pushed(report: &Report) -> SenderEvent {
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let earlier = report.completed_first.iter().chain(&report.earlier);
    SenderEvent::Pushed {
        receiver: report.receiver.clone(),
        volume: report.volume.clone(),
        copy: name(&report.copy),
        uuid: report.uuid,
        stream_bytes: report.stream_bytes,
        seconds: report.seconds,
        parent: report.parent,
        earlier: earlier.map(name).collect(),
    }
}

fn superseded(report: &Report) -> Option<SenderEvent> {
    let superseded = SenderEvent::Pruned {
        receiver: report.receiver.clone(),
        volume: report.volume.clone(),
        uuids: report.pruned.clone(),
        reason: "the push superseded them".to_owned(),
    };
    (!report.pruned.is_empty()).then_some(superseded)
}

fn is_running(running: &Running) -> Error {
    Error::Running {
        volume: running.volume.clone(),
        receiver: running.receiver.clone(),
        since: running.elapsed(),
    }
}

fn log_done(running: &Running, report: &Report) {
    tracing::info!(
        push = %running.push,
        volume = %report.volume,
        receiver = %report.receiver,
        uuid = %report.uuid,
        parent = report.parent.map(tracing::field::display),
        parent_reason = %report.parent_reason,
        engine = %report.engine,
        stream_bytes = report.stream_bytes,
        wire_bytes = report.wire_bytes,
        seconds = report.seconds,
        pruned = report.pruned.len(),
        skipped = report.skipped.len(),
        copy = %report.copy,
        "pushed {} to {}: {} in {}",
        report.volume,
        report.receiver,
        sendshot_model::human::bytes_human(report.stream_bytes),
        sendshot_model::human::duration(running.elapsed()),
    );
}

fn log_failed(running: &Running, problem: &Problem) {
    tracing::info!(
        push = %running.push,
        volume = %running.volume,
        receiver = %running.receiver,
        stage = running.stage(),
        seconds = running.elapsed().as_secs_f64(),
        remedy = %problem.remedy,
        "push of {} to {} failed: {}",
        running.volume,
        running.receiver,
        problem.message,
    );
}
