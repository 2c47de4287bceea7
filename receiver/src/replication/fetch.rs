//! Fetch: sends a copy back to its sender, as long as that is permitted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sendshot_identity::{Reader, ReaderKey};
use sendshot_model::history::{Key, ReceiverEvent};
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::restore::{FetchRequest, Fetched, Started};
use sendshot_proto::v1;
use sendshot_transfer::cutter::Output;
use tokio::sync::mpsc;
use tonic::Status;

use crate::replication::permission::Permit;
use crate::restore::fetches::Slot;
use crate::restore::stream::{self, Fetch, Generator};
use crate::restore::{capture, copy};
use crate::shared::receiver::Receiver;
use crate::store::captures::Lease;

/// Messages that wait for the connection; each is a segment.
const QUEUE: usize = 2;

/// How often the permission is checked while a fetch runs: it must end within a second.
const PERMISSION_INTERVAL: Duration = Duration::from_millis(250);

/// Longest wait for a sender that reads nothing, with the reason for the end of its fetch.
const FAILURE_DEADLINE: Duration = Duration::from_secs(5);

/// Checks the caller's permission to read the volume of the fetch.
pub type Permission = Arc<dyn Fn() -> Result<Permit, Failure> + Send + Sync>;

/// The messages to the sender of one fetch.
pub type Answers = mpsc::Receiver<Result<v1::FetchResponse, Status>>;

type Out = mpsc::Sender<Result<v1::FetchResponse, Status>>;

/// A fetch that can begin.
struct Prepared {
    started: Started,
    generator: Generator,
    lease: Lease,
}

/// How a fetch ended.
enum Outcome {
    Complete,
    /// The connection broke, or the sender closed it.
    Broken,
    Failed(Failure),
}

/// Serves a fetch of an authorised reader. `permission` is checked again while it runs.
pub fn serve(
    receiver: &Arc<Receiver>,
    reader: Reader,
    request: FetchRequest,
    permission: Permission,
) -> Answers {
    let (out, answers) = mpsc::channel(QUEUE);
    let receiver_of_task = Arc::clone(receiver);
    receiver.tasks().spawn(async move {
        fetch(&receiver_of_task, &reader, request, &permission, &out).await;
    });
    answers
}

async fn fetch(
    receiver: &Arc<Receiver>,
    reader: &Reader,
    request: FetchRequest,
    permission: &Permission,
    out: &Out,
) {
    let begun = Instant::now();
    let (sender, volume, copy) = (&reader.name, request.volume.clone(), request.name.clone());
    let resumed_at = request.resume_at.map(|at| at.point.offset);
    let mut sent = 0;
    let outcome = match prepare(receiver, reader, request, permission).await {
        Ok((prepared, slot)) => {
            tracing::info!(%sender, %volume, %copy, resumed_at, length = prepared.started.length,
                "sends the copy {sender}/{volume}/{copy} back");
            let outcome = send(receiver, prepared, permission, out, &mut sent).await;
            drop(slot);
            outcome
        }
        Err(failure) => Outcome::Failed(failure),
    };
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Outcome::Complete => {
            tracing::info!(%sender, %volume, %copy, resumed_at, sent, seconds,
                "sent the copy {sender}/{volume}/{copy} back");
            let event = ReceiverEvent::Fetched {
                sender: sender.clone(),
                volume,
                copy,
                bytes: sent,
                by: match reader.key {
                    ReaderKey::Own => Key::Own,
                    ReaderKey::Temporary => Key::Temporary,
                },
            };
            note(receiver, event).await;
        }
        Outcome::Broken => {
            tracing::info!(%sender, %volume, %copy, resumed_at, sent, seconds,
                "the fetch of {sender}/{volume}/{copy} was interrupted");
        }
        Outcome::Failed(failure) => {
            tracing::info!(%sender, %volume, %copy, resumed_at, sent, seconds,
                "the fetch of {sender}/{volume}/{copy} ended: {failure}");
            // The sender may be gone; the log has the outcome as well.
            let last = out.send(Ok(Fetched::Failure(failure).into()));
            let _ = tokio::time::timeout(FAILURE_DEADLINE, last).await;
        }
    }
}

/// Adds an event to the history.
async fn note(receiver: &Arc<Receiver>, event: ReceiverEvent) {
    let receiver = Arc::clone(receiver);
    let work = move || receiver.note(event);
    if let Err(e) = sendshot_service::blocking::run("history", work).await {
        tracing::warn!("cannot write the history: {e}");
    }
}

async fn prepare(
    receiver: &Arc<Receiver>,
    reader: &Reader,
    request: FetchRequest,
    permission: &Permission,
) -> Result<(Prepared, Slot), Failure> {
    permission()?;
    let max_fetches = receiver.config().policy(&reader.name).max_fetches;
    let copy = (request.volume.as_str(), request.name.as_str());
    let slot = receiver.fetches().enter(&reader.name, copy, max_fetches);
    let slot = slot.ok_or_else(|| too_many(max_fetches.get()))?;
    let (shared, name) = (Arc::clone(receiver), reader.name.clone());
    let work = move || open(&shared, &name, request);
    let opened = receiver.calls().run(Some(reader.id), "fetch", work).await;
    let died = |e: sendshot_service::blocking::BlockingError| {
        Failure::new(Code::Internal, e.to_string(), "")
    };
    let mut prepared = opened.map_err(died)??;
    // The capture may have taken long.
    prepared.started.permitted_seconds = permission()?.left.map(|left| left.as_secs().max(1));
    Ok((prepared, slot))
}

fn too_many(max_fetches: u32) -> Failure {
    Failure::new(
        Code::Busy,
        format!("{max_fetches} fetches of this sender are running at the receiver"),
        "wait until one has ended, or raise `max_fetches` of the sender in the receiver's receiver.toml",
    )
}

/// Opens, captures and measures the copy, and starts the generator. Blocks.
fn open(
    receiver: &Receiver,
    sender: &sendshot_model::PeerName,
    request: FetchRequest,
) -> Result<Prepared, Failure> {
    let root = receiver.root().open_to_read()?;
    let copy = copy::open(&root, sender, &request)?;
    let lease = receiver.captures().lease(copy.info.uuid);
    let sendshot = capture::capture(&root, &copy, receiver.captures(), &lease)?;
    let sendshot = match request.paths.as_slice() {
        [] => sendshot,
        paths => Arc::new(capture::reduce(
            &root,
            &sendshot,
            paths,
            receiver.captures(),
        )?),
    };
    let inodes = sendshot.counts().inodes;
    let fetch = Fetch {
        copy: copy.fd,
        sendshot,
        stream_version: request.stream_version,
        from: request.resume_at,
    };
    let size = fetch.measure()?;
    let started = Started {
        length: size.bytes,
        data: size.data,
        inodes,
        resume_at: request.resume_at.map_or(0, |at| at.point.offset),
        permitted_seconds: None,
        doubt: copy.doubt,
    };
    let generator = fetch.start(size.bytes).map_err(|e| {
        let message = format!("cannot start a thread for the fetch: {e}");
        Failure::new(Code::Internal, message, "")
    })?;
    Ok(Prepared {
        started,
        generator,
        lease,
    })
}

async fn send(
    receiver: &Arc<Receiver>,
    prepared: Prepared,
    permission: &Permission,
    out: &Out,
    sent: &mut u64,
) -> Outcome {
    let Prepared {
        started,
        generator,
        lease,
    } = prepared;
    let Generator {
        mut outputs,
        finished,
    } = generator;
    let outcome = {
        let watch = until_forbidden(permission);
        let stopping = receiver.stopping();
        tokio::select! {
            biased;
            failure = watch => Outcome::Failed(failure),
            () = stopping.cancelled() => Outcome::Failed(shutting_down()),
            outcome = pump(started, &mut outputs, out, sent) => outcome,
        }
    };
    drop(outputs);
    finished.wait().await;
    let is_complete = matches!(outcome, Outcome::Complete);
    let receiver = Arc::clone(receiver);
    let release = move || match is_complete {
        true => lease.complete(receiver.root().open_to_read().ok().as_ref()),
        // It is kept, so that the fetch can be resumed.
        false => drop(lease),
    };
    if let Err(e) = sendshot_service::blocking::run("fetch", release).await {
        tracing::warn!("a capture of a copy stays until it expires: {e}");
    }
    outcome
}

/// Returns the failure for the sender as soon as the permission has ended.
async fn until_forbidden(permission: &Permission) -> Failure {
    let mut checks = tokio::time::interval(PERMISSION_INTERVAL);
    loop {
        checks.tick().await;
        if let Err(failure) = permission() {
            return failure;
        }
    }
}

async fn pump(
    started: Started,
    outputs: &mut mpsc::Receiver<
        Result<Output<sendshot_proto::restore::FetchedSegment>, stream::Error>,
    >,
    out: &Out,
    sent: &mut u64,
) -> Outcome {
    if out
        .send(Ok(Fetched::Started(started).into()))
        .await
        .is_err()
    {
        return Outcome::Broken;
    }
    loop {
        let message = match outputs.recv().await {
            Some(Ok(Output::Segment(fetched))) => {
                *sent += fetched.segment.data.len() as u64;
                Fetched::Segment(fetched)
            }
            Some(Ok(Output::End { length, chain })) => {
                let end = Fetched::End { length, chain };
                return match out.send(Ok(end.into())).await {
                    Ok(()) => Outcome::Complete,
                    Err(_) => Outcome::Broken,
                };
            }
            Some(Err(error)) => return Outcome::Failed(stream::failure(&error)),
            None => {
                let died = "the thread of the generator ended without a result";
                return Outcome::Failed(Failure::new(Code::Internal, died, ""));
            }
        };
        if out.send(Ok(message.into())).await.is_err() {
            return Outcome::Broken;
        }
    }
}

fn shutting_down() -> Failure {
    Failure::new(
        Code::ShuttingDown,
        "the receiver is shutting down",
        "restore again later: it continues where it stopped",
    )
}
