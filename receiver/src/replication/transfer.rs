//! Stage *transfer*, receiving end: moves a push from its connection to its thread, and the thread's reports back
//! to the connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sendshot_model::history::ReceiverEvent;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::transfer::{Begin, Down, Up};
use sendshot_proto::v1;
use sendshot_sys::filesystem;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::receive::announcement::{self, Announcement};
use crate::receive::incoming::{self, Ended, IncomingTransfer, Progress, Received};
use crate::receive::input::Input;
use crate::receive::limits;
use crate::receive::table::{Entered, Slot};
use crate::receive::turns::Place;
use crate::shared::receiver::Receiver;
use crate::store::root::Root;
use crate::store::volumes::Caller;
use crate::upkeep;

/// Segments that wait for the applier. HTTP/2's window holds back more.
const QUEUE: usize = 4;

/// Messages to the sender that wait.
const ANSWERS: usize = 16;

/// Longest wait for the first message of a push.
const BEGIN_DEADLINE: Duration = Duration::from_secs(30);

/// How long a committed push may count twice: until it has left the table.
const COMMIT_GRACE: Duration = Duration::from_secs(1);

/// How often the sender gets a report of how far its stream was applied.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Checks whether a sender is still authorised.
pub type StillWelcome = Arc<dyn Fn() -> Result<(), Status> + Send + Sync>;

/// The messages to the sender of one push.
pub type Answers = mpsc::Receiver<Result<v1::TransferDown, Status>>;

/// Serves a push of an authorised caller; `still_welcome` is called again for every message and before the commit,
/// since a sender can be revoked in the middle.
///
/// # Errors
/// A status if the call does not begin with an announcement.
pub async fn serve(
    receiver: Arc<Receiver>,
    caller: Caller,
    mut messages: Streaming<v1::TransferUp>,
    still_welcome: StillWelcome,
) -> Result<Answers, Status> {
    let begin = first(&mut messages).await?;
    let (answers, answered) = mpsc::channel(ANSWERS);
    let Some(Entered { slot, waiting }) = receiver.transfers().enter(&caller, &begin) else {
        let failure = Failure::new(
            Code::Busy,
            format!("a push of `{}` is running already", begin.volume.name),
            "wait until it has ended",
        );
        // Cannot fail: the channel is new.
        let _ = answers.try_send(Ok(Down::Failure(failure).into()));
        return Ok(answered);
    };
    let (input, messages_in) = mpsc::channel(QUEUE);
    let over = CancellationToken::new();
    let pump = pump(
        messages,
        input,
        answers.clone(),
        Arc::clone(&still_welcome),
        receiver.stopping(),
    );
    let (watch, interrupted) = (over.clone(), slot.interrupted());
    receiver.tasks().spawn(async move {
        tokio::select! {
            () = pump => {}
            () = watch.cancelled() => {}
            () = interrupted.cancelled() => {}
        }
    });
    let config = receiver.config();
    let policy = config.policy(&caller.name);
    if receiver.transfers().of_sender(&caller).0 > policy.max_partials.get() as usize {
        let failure = limits::too_many_pushes(&policy);
        let _ = answers.try_send(Ok(Down::Failure(failure).into()));
        return Ok(answered);
    }
    let work = Announcement {
        policy,
        root: receiver.root().clone(),
        caller,
        begin,
        checkpoints: announcement::policy(config.checkpoint_bytes, config.checkpoint_interval),
        ledger_writer: receiver.ledger_writer(),
        min_free: config.min_free,
    };
    let welcome = still_welcome;
    let gone = CancellationToken::new();
    let place = receiver
        .turns()
        .place(&work.caller.name, messages_in, gone.clone());
    let (watch, interrupted) = (over.clone(), slot.interrupted());
    let (stopping, heard) = (receiver.stopping(), answers.clone());
    receiver.tasks().spawn(async move {
        tokio::select! {
            () = watch.cancelled() => return,
            () = heard.closed() => {}
            () = interrupted.cancelled() => {}
            () = stopping.cancelled() => {}
        }
        gone.cancel();
    });
    let thread = std::thread::Builder::new().name("apply".into());
    let spawned = thread.spawn(move || {
        let _over = over.drop_guard();
        receive(&receiver, (work, waiting), slot, place, &answers, &welcome);
    });
    spawned.map_err(|e| {
        Status::resource_exhausted(format!("cannot start a thread for the push: {e}"))
    })?;
    Ok(answered)
}

async fn first(messages: &mut Streaming<v1::TransferUp>) -> Result<Begin, Status> {
    let message = tokio::time::timeout(BEGIN_DEADLINE, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the push did not begin in time"))??;
    let message = message.ok_or_else(|| Status::invalid_argument("the push is empty"))?;
    match Up::try_from(message)? {
        Up::Begin(begin) => Ok(begin),
        Up::Segment(_) | Up::End { .. } => Err(Status::invalid_argument("a push opens with Begin")),
    }
}

/// Moves messages to the thread. When it returns, the thread sees the end of its input: unless that follows an
/// `End`, the push is interrupted.
async fn pump(
    mut messages: Streaming<v1::TransferUp>,
    input: mpsc::Sender<Input>,
    answers: mpsc::Sender<Result<v1::TransferDown, Status>>,
    still_welcome: StillWelcome,
    stopping: CancellationToken,
) {
    let mut whole = false;
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = stopping.cancelled() => {
                let failure = Failure::new(Code::ShuttingDown, "the receiver is shutting down", "push again later");
                let _ = answers.send(Ok(Down::Failure(failure).into())).await;
                return;
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) if whole => return, // the stream was complete
            // The connection broke, or the sender closed it, perhaps because it was revoked, or the sender
            // breaks the contract and can still receive the reason.
            broken => {
                if still_welcome().is_err() {
                    let _ = input.send(Input::Unwelcome).await;
                }
                let why = match broken {
                    Err(status) => status,
                    Ok(_) => Status::invalid_argument("the push was closed before its end"),
                };
                let _ = answers.try_send(Err(why));
                return;
            }
        };
        let up = still_welcome().and_then(|()| Ok(Up::try_from(message)?));
        match up {
            Ok(up) => {
                whole = matches!(up, Up::End { .. });
                if input.send(Input::Up(up)).await.is_err() {
                    return; // the thread has failed, and reported why
                }
            }
            Err(status) => {
                if still_welcome().is_err() {
                    let _ = input.send(Input::Unwelcome).await;
                }
                let _ = answers.send(Err(status)).await;
                return;
            }
        }
    }
}

enum Outcome {
    Received(Received),
    Failed(Failure),
    /// The connection broke; what was applied, if it can be resumed.
    Interrupted(Option<Box<IncomingTransfer>>),
    /// The sender is not authorised any more.
    Dropped,
    /// It ended before its turn; what had been applied earlier.
    Left(Option<Box<IncomingTransfer>>),
}

/// Runs the push and reports how it ends; one line in the log has the whole outcome, and the history its essence.
///
/// The slot is freed before the report, since the sender may push again as soon as it has it.
fn receive(
    receiver: &Receiver,
    (work, waiting): (Announcement, Option<Box<IncomingTransfer>>),
    slot: Slot,
    mut place: Place,
    answers: &mpsc::Sender<Result<v1::TransferDown, Status>>,
    still_welcome: &StillWelcome,
) {
    let (started, transfer) = (Instant::now(), work.begin.transfer);
    let (sender, volume) = (work.caller.name.clone(), work.begin.volume.name.clone());
    let (uuid, parent) = (work.begin.uuid, work.begin.parent.map(|parent| parent.uuid));
    let resumed_at = work.begin.resume_at.map(|point| point.offset);
    let root = work.root.clone();
    let tell = |down: Down| {
        // The sender may be gone; the log has the outcome as well.
        let _ = answers.blocking_send(Ok(down.into()));
    };
    let failed = |error: String| ReceiverEvent::Failed {
        sender: sender.clone(),
        volume: volume.to_string(),
        error,
    };
    let may_wait = work.begin.may_wait;
    let sign = || {
        // A sender that does not read the one before has no use for it.
        if may_wait && answers.capacity() == answers.max_capacity() {
            let _ = answers.try_send(Ok(Down::Waiting.into()));
        }
    };
    // What is there already counts while the push waits.
    match (&waiting, resumed_at) {
        (Some(waiting), _) => slot.applied(waiting.offset(), waiting.made()),
        (None, Some(offset)) => slot.applied(offset, 0),
        (None, None) => {}
    }
    let outcome = match place.wait(&sign) {
        true => run(
            (work, waiting),
            &slot,
            (&mut place, &sign),
            answers,
            still_welcome,
        ),
        false => Outcome::Left(waiting),
    };
    // It commits within its turn.
    drop(place);
    let seconds = started.elapsed().as_secs_f64();
    match outcome {
        Outcome::Received(received) => {
            drop(slot);
            receiver.due().note(&received.directory);
            tracing::info!(%transfer, %sender, %volume, %uuid, parent = parent.map(tracing::field::display),
                copy = %received.name, directory = %received.directory,
                stream_bytes = received.stream_bytes, resumed_at, seconds,
                not_kept = received.not_kept.entries().iter().map(|entry| entry.count).sum::<u64>(),
                "received {}/{}", received.directory, received.name);
            receiver.note(ReceiverEvent::Received {
                sender: sender.clone(),
                volume: received
                    .directory
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                copy: received.name.clone(),
                uuid,
                stream_bytes: received.stream_bytes,
                seconds,
            });
            tell(Down::Committed {
                name: received.name,
                directory: received.directory,
                not_kept: received.not_kept,
            });
        }
        Outcome::Failed(failure) => {
            drop(slot);
            reclaim_space(&root);
            tracing::info!(%transfer, %sender, %volume, %uuid, resumed_at, seconds,
                "push of {sender}/{volume} failed: {failure}");
            receiver.note(failed(failure.to_string()));
            tell(Down::Failure(failure));
        }
        Outcome::Interrupted(Some(incoming)) => {
            let offset = incoming.offset();
            // If this removes another waiting transfer, its checkpoint stays.
            drop(slot.wait_for_sender(incoming));
            tracing::info!(%transfer, %sender, %volume, %uuid, offset, seconds,
                "push of {sender}/{volume} was interrupted; it waits for its sender");
        }
        Outcome::Left(waiting) => {
            match waiting {
                Some(incoming) => drop(slot.wait_for_sender(incoming)),
                None => drop(slot),
            }
            if still_welcome().is_err() {
                // It was at work when the sender was revoked.
                upkeep::drop_interrupted(receiver, &sender);
            }
            tracing::info!(%transfer, %sender, %volume, %uuid, seconds,
                "push of {sender}/{volume} ended before its turn");
        }
        Outcome::Interrupted(None) | Outcome::Dropped => {
            drop(slot);
            reclaim_space(&root);
            tracing::info!(%transfer, %sender, %volume, %uuid, seconds,
                "push of {sender}/{volume} was interrupted; its partial was deleted");
            receiver.note(failed(
                "it was interrupted, and its partial was deleted".to_owned(),
            ));
        }
    }
}

/// Runs a push from its announcement to the copy, or to its failure.
fn run(
    (work, waiting): (Announcement, Option<Box<IncomingTransfer>>),
    slot: &Slot,
    (place, sign): (&mut Place, &dyn Fn()),
    answers: &mpsc::Sender<Result<v1::TransferDown, Status>>,
    still_welcome: &StillWelcome,
) -> Outcome {
    let (checkpoints, policy, caller) =
        (work.checkpoints, work.policy.clone(), work.caller.clone());
    let (table, root, volume) = (slot.table(), work.root.clone(), work.begin.volume.id);
    let at_work = || {
        let glances = table.statuses().into_iter();
        glances.map(|status| status.transfer).collect()
    };
    let left = || -> Result<Option<u64>, Failure> {
        limits::bytes_left(&root.open()?, (&caller, volume), &policy, at_work)
    };
    let mut left_before = match left() {
        Ok(left) => left,
        Err(failure) => return Outcome::Failed(failure),
    };
    // Pushes of the sender that have committed meanwhile are not in the table any more, and resumed or deleted
    // partials have changed. The running ones are read first: one that commits in between counts twice for a
    // moment, rather than not at all.
    let fits = || -> Result<Option<u64>, Failure> {
        let look = || Ok::<_, Failure>((table.of_sender(&caller).1, left()?));
        let over = |(here, left): &(u64, Option<u64>)| left.is_some_and(|left| *here > left);
        let mut seen = look()?;
        if over(&seen) {
            std::thread::sleep(COMMIT_GRACE);
            seen = look()?;
        }
        match over(&seen) {
            true => Err(limits::too_many_bytes(&policy)),
            false => Ok(seen.1),
        }
    };
    let mut incoming = match IncomingTransfer::start(work, waiting, left_before) {
        Ok(incoming) => incoming,
        Err(failure) => return Outcome::Failed(failure),
    };
    let accepted = Down::Accepted {
        resume_at: incoming.offset(),
        checkpoints,
    };
    let _ = answers.blocking_send(Ok(accepted.into()));
    slot.applied(incoming.offset(), incoming.made());
    let mut told = Instant::now();
    let ended = incoming.take((place, sign), |progress| {
        let down = match progress {
            Progress::Applied { offset, made } => {
                slot.applied(offset, made);
                // What the sender's other pushes have sent meanwhile counts, too.
                if left_before.is_some_and(|left| table.of_sender(&caller).1 > left) {
                    left_before = fits()?;
                }
                if told.elapsed() < PROGRESS_INTERVAL {
                    return Ok(());
                }
                told = Instant::now();
                Down::Applied(offset)
            }
            Progress::Checkpoint(offset) => Down::Checkpoint(offset),
        };
        let _ = answers.try_send(Ok(down.into()));
        Ok(())
    });
    match ended {
        Ok(Ended::Whole) if still_welcome().is_err() => {
            incoming.forget();
            Outcome::Dropped
        }
        Ok(Ended::Whole) => match fits().and_then(|_| incoming.commit()) {
            Ok(received) => Outcome::Received(received),
            Err(failure) => Outcome::Failed(failure),
        },
        // It may have waited for another turn when the sender was revoked.
        Ok(Ended::Broken) if still_welcome().is_err() => {
            incoming.forget();
            Outcome::Dropped
        }
        Ok(Ended::Broken) if incoming.point().is_some() => Outcome::Interrupted(Some(incoming)),
        Ok(Ended::Broken) => Outcome::Interrupted(None),
        Ok(Ended::Unwelcome) => {
            incoming.forget();
            Outcome::Dropped
        }
        Err(failure) => {
            if !incoming::can_go_on_after(&failure) {
                incoming.forget();
            }
            Outcome::Failed(failure)
        }
    }
}

/// Has the cleaner free the space of a deleted partial at once instead of in half a minute: the next push may need
/// it.
fn reclaim_space(root: &Root) {
    let Ok(root) = root.open() else {
        return; // the root is gone or read-only: nothing was deleted
    };
    if let Err(e) = filesystem::sync(&root) {
        tracing::debug!("cannot commit the file system after deleting a partial: {e}");
    }
}
