//! What a push tells while it runs, for whoever listens.

use std::sync::Arc;
use std::time::Duration;

use sendshot_proto::v1::{PushEvent, PushProgress, PushStage, PushStarted, push_event::Event};
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

/// The listener of a push, if there is one. A push never waits for it.
#[derive(Debug, Clone)]
pub struct Listener(Option<mpsc::Sender<PushEvent>>);

impl Listener {
    /// Tells `events`.
    pub fn new(events: mpsc::Sender<PushEvent>) -> Self {
        Self(Some(events))
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self(None)
    }

    /// The push has its id.
    pub fn started(&self, running: &Running) {
        let push_id = running.push.to_bytes().to_vec();
        self.tell(Event::Started(PushStarted { push_id }));
    }

    /// A stage was entered.
    pub fn stage(&self, running: &Running, stage: &'static str, detail: impl Into<String>) {
        running.enter(stage);
        let detail = detail.into();
        tracing::debug!(push = %running.push, volume = %running.volume,
            receiver = %running.receiver, stage, "{detail}");
        let stage = stage.to_owned();
        self.tell(Event::Stage(PushStage { stage, detail }));
    }

    /// Tells progress again and again; ends only by being dropped.
    pub async fn tick(&self, running: Arc<Running>) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let (stream_bytes, applied_bytes) = running.progress();
            self.tell(Event::Progress(PushProgress {
                stream_bytes,
                applied_bytes,
                total_bytes: running.total(),
            }));
        }
    }

    /// The push is over.
    pub async fn over(self, outcome: Result<Report, Problem>) {
        let Some(events) = self.0 else { return };
        let event = match outcome {
            Ok(report) => Event::Done(report.into()),
            Err(problem) => Event::Failed(problem.into()),
        };
        let last = PushEvent { event: Some(event) };
        // The listener may have gone or hang: the push is over all the same.
        let _ = tokio::time::timeout(LAST_WORD, events.send(last)).await;
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.0 {
            let _ = events.try_send(PushEvent { event: Some(event) });
        }
    }
}
