//! `sendshotctl history`.

use std::sync::Arc;

use sendshot_model::history::Selection;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// The parts for the client.
pub(super) type Parts = ReceiverStream<Result<v1::HistoryPart, Status>>;

/// Parts that wait for the client.
const QUEUE: usize = 2;

/// Sends the selected events. An error in the middle is the last part.
pub(super) fn answer(sender: &Arc<Sender>, message: v1::HistoryRequest) -> Result<Parts, Status> {
    let selection = Selection::try_from(message)?;
    let (tell, parts) = mpsc::channel(QUEUE);
    let sender = Arc::clone(sender);
    tokio::spawn(async move {
        if let Err(e) = blocking("history", move || read(&sender, &selection, &tell)).await {
            tracing::warn!("cannot read the history: {e}");
        }
    });
    Ok(ReceiverStream::new(parts))
}

fn read(
    sender: &Sender,
    selection: &Selection,
    tell: &mpsc::Sender<Result<v1::HistoryPart, Status>>,
) {
    let send = |part| tell.blocking_send(Ok(part)).is_ok();
    let read = sender.history().read(selection, |lines| {
        let problem = None;
        send(v1::HistoryPart { lines, problem })
    });
    if let Err(e) = read {
        let problem = Problem::new(Kind::Failed, format!("cannot read the history: {e}"));
        send(v1::HistoryPart {
            lines: Vec::new(),
            problem: Some(problem.into()),
        });
    }
}
