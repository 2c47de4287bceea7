//! What a push tells while it runs, for whoever listens.

use std::sync::Arc;
use std::time::Duration;

use sendshot_model::PushId;
use tokio::sync::mpsc;

use crate::shared::running::Running;
use sendshot_proto::problem::Problem;
use sendshot_proto::report::Report;

/// How often progress is told while transferring.
const TICK: Duration = Duration::from_millis(200);

/// Events that wait for a slow listener; further ones but the last are left out.
pub const QUEUE: usize = 64;

/// Longest wait for a listener to take the last event.
const LAST_WORD: Duration = Duration::from_secs(10);

/// What a push tells.
#[derive(Debug)]
pub enum Event {
    /// It has its id.
    Started(PushId),
    /// A stage was entered.
    Stage {
        /// Its name.
        stage: &'static str,
        /// What is to be said of it; may be empty.
        detail: String,
    },
    /// How far it is, in bytes of its stream.
    Progress {
        /// Sent.
        sent: u64,
        /// Applied by the receiver.
        applied: u64,
        /// In all; 0 if not known.
        total: u64,
    },
    /// It is over, and came to its end.
    Done(Box<Report>),
    /// It is over, and did not.
    Failed(Problem),
}

/// The listener of a push, if there is one. A push never waits for it.
#[derive(Debug, Clone)]
pub struct Listener(Option<mpsc::Sender<Event>>);

impl Listener {
    /// Tells `events`.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self(Some(events))
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self(None)
    }

    /// The push has its id.
    pub fn started(&self, running: &Running) {
        self.tell(Event::Started(running.push));
    }

    /// A stage was entered.
    pub fn stage(&self, running: &Running, stage: &'static str, detail: impl Into<String>) {
        running.enter(stage);
        let detail = detail.into();
        tracing::debug!(push = %running.push, volume = %running.volume,
            receiver = %running.receiver, stage, "{detail}");
        self.tell(Event::Stage { stage, detail });
    }

    /// Tells progress again and again; ends only by being dropped.
    pub async fn tick(&self, running: Arc<Running>) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(TICK);
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

    /// The push is over.
    pub async fn over(self, outcome: Result<Report, Problem>) {
        let Some(events) = self.0 else { return };
        let last = match outcome {
            Ok(report) => Event::Done(Box::new(report)),
            Err(error) => Event::Failed(error),
        };
        // The listener may have gone or hang: the push is over all the same.
        let _ = tokio::time::timeout(LAST_WORD, events.send(last)).await;
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.0 {
            let _ = events.try_send(event);
        }
    }
}
