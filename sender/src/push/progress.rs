//! The events that a running push reports to its listener.

use std::sync::Arc;
use std::time::Duration;

use sendshot_model::PushId;
use tokio::sync::mpsc;

use crate::shared::running::Running;
use sendshot_proto::problem::Problem;
use sendshot_proto::report::Report;

/// How often progress is reported while transferring.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Events that wait for a slow listener; further ones except the last are dropped.
pub const QUEUE: usize = 64;

const LAST_WORD: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub enum Event {
    /// The push has its id.
    Started(PushId),
    Stage {
        stage: &'static str,
        /// Detail for the user; may be empty.
        detail: String,
    },
    /// Progress in bytes of the stream.
    Progress {
        sent: u64,
        /// Bytes applied by the receiver.
        applied: u64,
        /// Length of the stream; 0 if not known.
        total: u64,
    },
    /// The push completed.
    Done(Box<Report>),
    /// The push failed.
    Failed(Problem),
}

/// The listener of a push, if there is one. A push never waits for it.
#[derive(Debug, Clone)]
pub struct Listener(Option<mpsc::Sender<Event>>);

impl Listener {
    /// A listener that receives `events`.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self(Some(events))
    }

    /// No listener.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reports the push's id.
    pub fn started(&self, running: &Running) {
        self.tell(Event::Started(running.push));
    }

    /// Records and reports that the push has entered a stage.
    pub fn stage(&self, running: &Running, stage: &'static str, detail: impl Into<String>) {
        running.enter(stage);
        let detail = detail.into();
        tracing::debug!(push = %running.push, volume = %running.volume,
            receiver = %running.receiver, stage, "{detail}");
        self.tell(Event::Stage { stage, detail });
    }

    /// Reports progress periodically; ends only by being dropped.
    pub async fn tick(&self, running: Arc<Running>) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            ticks.tick().await;
            let (sent, applied) = running.progress();
            self.tell(Event::Progress {
                sent,
                applied,
                total: running.total(),
            });
        }
    }

    /// Reports the outcome, the last event.
    pub async fn over(self, outcome: Result<Report, Problem>) {
        let Some(events) = self.0 else { return };
        let last = match outcome {
            Ok(report) => Event::Done(Box::new(report)),
            Err(error) => Event::Failed(error),
        };
        // The listener may be gone or hang: the push has ended all the same.
        let _ = tokio::time::timeout(LAST_WORD, events.send(last)).await;
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.0 {
            let _ = events.try_send(event);
        }
    }
}
