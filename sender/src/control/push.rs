//! `sendshotctl push`: starts a push, and sends its events as messages.

use std::pin::Pin;
use std::sync::Arc;

use sendshot_model::VolumeRef;
use sendshot_proto::problem::Problem;
use sendshot_proto::v1;
use sendshot_proto::v1::push_event::Event as Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::plan::parse;
use crate::push::progress::{self, Event, Listener};
use crate::push::request::Request;
use crate::schedule::if_due::{self, NotDue};
use crate::schedule::outlook::Pair;
use crate::shared::sender::Sender;

/// The events for the client.
pub(super) type Events =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::PushEvent, Status>> + Send>>;

/// Starts a push. If it cannot start, that error is its only event.
pub(super) async fn answer(sender: &Arc<Sender>, message: v1::PushRequest, root: bool) -> Events {
    let (events, received) = mpsc::channel(progress::QUEUE);
    let listener = Listener::new(events);
    let if_due = message.if_due;
    let started = match parse(message, root) {
        Ok(wanted) => {
            if if_due {
                let event = match check_due(sender, &wanted).await {
                    Ok(None) => None,
                    Ok(Some(not_due)) => Some(skipped(not_due)),
                    Err(problem) => Some(describe(Event::Failed(problem))),
                };
                if let Some(event) = event {
                    return Box::pin(tokio_stream::once(Ok(event)));
                }
            }
            let started = sender.start_push(wanted, listener.clone()).await;
            started.map_err(Problem::from)
        }
        Err(problem) => Err(problem),
    };
    if let Err(problem) = started {
        listener.over(Err(problem)).await;
    }
    Box::pin(ReceiverStream::new(received).map(|event| Ok(describe(event))))
}

/// Why a push is not due. One of a path has no schedule, and is.
async fn check_due(sender: &Arc<Sender>, wanted: &Request) -> Result<Option<NotDue>, Problem> {
    let VolumeRef::Name(volume) = wanted.volume.clone() else {
        return Ok(None);
    };
    let receiver = wanted.receiver.clone();
    let pair = Pair { receiver, volume };
    match if_due::check(sender, &pair).await {
        Ok(not_due) => Ok(not_due),
        // Recorded as a push that failed: no snapshot is made of a volume that is perhaps unchanged.
        Err(error) => {
            let problem = Problem::from(error);
            let (receiver, volume) = (&pair.receiver, &pair.volume);
            sender.note_not_started(receiver, volume, &problem).await;
            Err(problem)
        }
    }
}

fn skipped(not_due: NotDue) -> v1::PushEvent {
    let skipped = v1::PushSkipped {
        code: not_due.code.to_owned(),
        reason: not_due.reason,
    };
    v1::PushEvent {
        event: Some(Message::Skipped(skipped)),
    }
}

fn describe(event: Event) -> v1::PushEvent {
    let event = match event {
        Event::Started(push) => Message::Started(v1::PushStarted {
            push_id: push.to_bytes().to_vec(),
        }),
        Event::Stage { stage, detail } => Message::Stage(v1::PushStage {
            stage: stage.to_owned(),
            detail,
        }),
        Event::Progress {
            sent,
            applied,
            total,
        } => Message::Progress(v1::PushProgress {
            stream_bytes: sent,
            applied_bytes: applied,
            total_bytes: total,
        }),
        Event::Done(report) => Message::Done((*report).into()),
        Event::Failed(problem) => Message::Failed(problem.into()),
    };
    v1::PushEvent { event: Some(event) }
}
