//! Stage *transfer*: sends the stream over the connection, until the receiver has committed.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sendshot_model::{NotKept, human};
use sendshot_proto::failure::Failure;
use sendshot_proto::malformed::Malformed;
use sendshot_proto::resume::CheckpointPolicy;
use sendshot_proto::transfer::{Begin, Down, SEGMENT, Up, framed_len};
use sendshot_proto::v1;
use sendshot_transfer::stall::stalled;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::connection;
use crate::connection::call::failed;
use crate::connection::link::Link;
use crate::connection::wire::WireBytes;
use crate::push::generate::{self, Output};
use crate::push::stages::still;
use crate::shared::running::Running;
use crate::state::segment_log::SegmentLog;

/// Messages that wait for the connection; each is a segment.
const QUEUE: usize = 2;

/// Longest wait until the receiver is ready for the stream, or says that the push waits for its turn: it opens every
/// copy of the volume, possibly from a cold disk.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(120);

/// Longest wait of a push for its turn.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The receiver's report of its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Path of the copy below the receiver's root.
    pub copy: String,
    /// Length of the stream in bytes.
    pub stream_bytes: u64,
    /// What the copy lacks.
    pub not_kept: NotKept,
}

/// Why a transfer failed, or its acknowledgement is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The receiver reported a failure.
    #[error("the receiver reports: {0}")]
    Refused(#[from] Failure),
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// The call broke, or was refused.
    #[error(transparent)]
    Connection(#[from] connection::error::Error),
    /// The receiver breaks the contract.
    #[error("the receiver's response is invalid: {0}")]
    ProtocolViolation(String),
    /// A volume without a snapshot changed while it was read.
    #[error("{0}")]
    Moved(std::io::Error),
    /// The push could not be recorded as sent.
    #[error("cannot write the push's record")]
    Record(#[source] std::io::Error),
    /// No progress within the stall time-out.
    #[error("{address} is connected, but the push made no progress for {}", human::duration(*.after))]
    Stalled {
        address: String,
        /// The stall time-out.
        after: Duration,
    },
    #[error("the push was cancelled")]
    Cancelled,
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::ProtocolViolation(error.to_string())
    }
}

/// A transfer that the receiver has accepted.
#[derive(Debug)]
pub struct Transfer {
    up: mpsc::Sender<v1::TransferUp>,
    down: Answers,
    wire: WireBytes,
    /// Bytes of the first message.
    opening: u64,
}

#[derive(Debug)]
struct Answers {
    messages: Streaming<v1::TransferDown>,
    /// For error messages.
    address: String,
}

impl Answers {
    async fn next(&mut self) -> Result<Down, Error> {
        match self.messages.message().await {
            Ok(Some(message)) => Ok(message.try_into()?),
            Ok(None) => Err(Error::ProtocolViolation(
                "it ended the push without a result".into(),
            )),
            Err(status) => Err(failed(&self.address, &status).into()),
        }
    }
}

impl Transfer {
    /// Announces the transfer and waits until the receiver is ready for it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        link: &mut Link,
        begin: Begin,
        waits: impl Fn(),
    ) -> Result<(Self, CheckpointPolicy), Error> {
        let from = begin.resume_at.map_or(0, |point| point.offset);
        let (up, messages) = mpsc::channel(QUEUE);
        let begin = v1::TransferUp::from(Up::Begin(begin));
        let opening = framed_len(&begin);
        // Cannot fail: the channel was just made and has room.
        let _ = up.try_send(begin);
        let (address, began) = (link.address().to_owned(), Instant::now());
        let silent = |seconds| {
            let address = address.clone();
            Error::from(connection::error::Error::NotReady { address, seconds })
        };
        let within = ACCEPT_DEADLINE;
        let call = tokio::time::timeout(within, link.transfer(ReceiverStream::new(messages)));
        let mut down = Answers {
            messages: call.await.map_err(|_| silent(within.as_secs()))??,
            address: address.clone(),
        };
        let first = loop {
            // Endless messages must not keep the task from being cancelled.
            tokio::task::consume_budget().await;
            let next = tokio::time::timeout(within, down.next()).await;
            match next.map_err(|_| silent(within.as_secs()))?? {
                Down::Waiting if began.elapsed() < MAX_WAIT => waits(),
                Down::Waiting => return Err(silent(MAX_WAIT.as_secs())),
                other => break other,
            }
        };
        match first {
            Down::Accepted {
                resume_at,
                checkpoints,
            } if resume_at == from => {
                let wire = link.wire();
                let transfer = Self {
                    up,
                    down,
                    wire,
                    opening,
                };
                Ok((transfer, checkpoints))
            }
            Down::Accepted { resume_at, .. } => Err(Error::ProtocolViolation(format!(
                "it wants to resume at byte {resume_at} of a push that resumes at {from}"
            ))),
            Down::Failure(failure) => Err(failure.into()),
            Down::Waiting | Down::Applied(_) | Down::Checkpoint(_) | Down::Committed { .. } => Err(
                Error::ProtocolViolation("it did not accept the push first".into()),
            ),
        }
    }

    /// Sends the generator's output, and waits for the commit. `before_end` runs when everything has left for the
    /// receiver, which does not have the end of the stream yet. Data still queued here has not left: otherwise a
    /// receiver that reads nothing could report a commit.
    ///
    /// Dropping the returned future, or cancelling, breaks the call: the receiver then keeps a part that can be
    /// resumed, and deletes any other.
    ///
    /// # Errors
    /// See [`Error`]. After `before_end` has run the receiver may have committed all the same.
    pub async fn run<F>(
        self,
        outputs: mpsc::Receiver<Result<Output, generate::Error>>,
        running: &Running,
        segment_log: Option<&SegmentLog>,
        stall_after: Duration,
        before_end: F,
    ) -> Result<Committed, Error>
    where
        F: AsyncFnOnce() -> std::io::Result<()>,
    {
        let Self {
            up,
            mut down,
            wire,
            opening,
        } = self;
        let address = down.address.clone();
        let mut pump = pin!(pump(outputs, (up, wire, opening), running, before_end));
        // Signs of life while the push waits for another turn.
        let (waits, moved) = (AtomicU64::new(0), Mutex::new(Instant::now()));
        let progress = || {
            let signs = waits.load(Ordering::Relaxed);
            (running.progress(), signs)
        };
        let is_progress = |(before, signs), (now, more)| {
            let mut moved = moved.lock().unwrap_or_else(PoisonError::into_inner);
            if has_come_forward(before, now) {
                *moved = Instant::now();
                return true;
            }
            more > signs && moved.elapsed() < MAX_WAIT
        };
        let mut stalled = pin!(stalled(stall_after, progress, is_progress));
        let mut stream_bytes = None;
        loop {
            // Endless messages must not keep the task from the stall check or from being cancelled.
            tokio::task::consume_budget().await;
            tokio::select! {
                biased;
                () = running.cancel.cancelled() => return Err(Error::Cancelled),
                () = &mut stalled => {
                    return Err(Error::Stalled { address, after: stall_after });
                }
                message = down.next() => match message? {
                    Down::Applied(offset) => running.applied(offset),
                    Down::Waiting => {
                        waits.fetch_add(1, Ordering::Relaxed);
                    }
                    Down::Checkpoint(offset) => {
                        if let Some(segment_log) = segment_log {
                            segment_log.checkpoint(offset);
                        }
                    }
                    Down::Failure(failure) => return Err(failure.into()),
                    Down::Accepted { .. } => return Err(Error::ProtocolViolation("it accepted twice".into())),
                    Down::Committed { name, directory, not_kept } => {
                        let stream_bytes = stream_bytes.ok_or_else(|| {
                            Error::ProtocolViolation("it committed before the end of the stream".into())
                        })?;
                        let copy = format!("{directory}/{name}");
                        return Ok(Committed { copy, stream_bytes, not_kept });
                    }
                },
                sent = &mut pump, if stream_bytes.is_none() => stream_bytes = Some(sent?),
            }
        }
    }
}

/// Builds the error for a failed `before_end`.
fn not_announced(error: std::io::Error) -> Error {
    match error.get_ref().is_some_and(|why| why.is::<still::Moved>()) {
        true => Error::Moved(error),
        false => Error::Record(error),
    }
}

/// Whether more was sent, or a segment more applied, or all that was sent. A byte applied now and then is no
/// progress: such a push could run for ever.
fn has_come_forward((sent, applied): (u64, u64), now: (u64, u64)) -> bool {
    now.0 > sent || now.1 >= applied + SEGMENT as u64 || (now.1 > applied && now.1 == now.0)
}

/// Moves the stream into the connection; returns its length. When the connection is gone it waits for ever: the
/// other direction then reports the cause.
async fn pump<F>(
    mut outputs: mpsc::Receiver<Result<Output, generate::Error>>,
    (up, wire, mut left): (mpsc::Sender<v1::TransferUp>, WireBytes, u64),
    running: &Running,
    before_end: F,
) -> Result<u64, Error>
where
    F: AsyncFnOnce() -> std::io::Result<()>,
{
    loop {
        match outputs.recv().await.ok_or(generate::Error::Died)?? {
            Output::Segment(segment) => {
                let bytes = segment.data.len() as u64;
                let message = v1::TransferUp::from(Up::Segment(segment));
                left += framed_len(&message);
                send(&up, message).await;
                running.sent(bytes);
            }
            Output::End { length, chain } => {
                wire.until_written(left).await;
                before_end().await.map_err(not_announced)?;
                running.enter("commit");
                send(&up, Up::End { length, chain }.into()).await;
                return Ok(length);
            }
        }
    }
}

async fn send(up: &mpsc::Sender<v1::TransferUp>, message: v1::TransferUp) {
    if up.send(message).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_are_no_progress() {
        let segment = SEGMENT as u64;
        let last = (10 * segment, segment);
        assert!(!has_come_forward(last, last));
        assert!(!has_come_forward(last, (last.0, last.1 + 1)));
        assert!(!has_come_forward(last, (last.0, last.1 + segment - 1)));
        assert!(has_come_forward(last, (last.0, last.1 + segment)));
        assert!(has_come_forward(last, (last.0 + 1, last.1)));
        // The last of what was sent, however short.
        let last = (10 * segment, 10 * segment - 7);
        assert!(!has_come_forward(last, (last.0, last.1 + 6)));
        assert!(has_come_forward(last, (last.0, last.0)));
    }
}
