//! Fetches the stream of a copy, and continues after a broken connection at the end of the last segment.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sendshot_model::human;
use sendshot_model::restore::RestoreEvent;
use sendshot_proto::chain::Chain;
use sendshot_proto::failure::Code;
use sendshot_proto::restore::{FetchPoint, FetchRequest, Fetched, FetchedSegment, Started};
use sendshot_proto::transfer::SEGMENT;
use sendshot_transfer::position::Position;
use sendshot_transfer::retry::RetryBudget;
use sendshot_transfer::stall::stalled;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::connection::link::Link;
use crate::connection::restore::FetchStream;
use crate::restore::access::Access;
use crate::restore::error::Error;
use crate::restore::events::Events;
use crate::restore::list;

/// Longest wait for the first message: the receiver reads all metadata of the copy, possibly from a cold disk.
const STARTED_DEADLINE: Duration = Duration::from_secs(600);

/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// When the duration of the whole restore is estimated.
const ESTIMATE_AFTER: Duration = Duration::from_secs(5);

/// Longest time without progress, if no configuration has one.
const STALL_AFTER: Duration = Duration::from_secs(60);

/// A fetch that the receiver has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) started: Started,
    stream: FetchStream,
    link: Link,
}

/// Asks for a copy and waits for the first message.
pub(super) async fn begin(mut link: Link, request: FetchRequest) -> Result<Begun, Error> {
    let from = request.resume_at.map_or(0, |at| at.point.offset);
    let address = link.address().to_owned();
    let first = async {
        let mut stream = link.fetch(request).await?;
        let message = stream.next().await?;
        Ok::<_, Error>((stream, message))
    };
    let answered = tokio::time::timeout(STARTED_DEADLINE, first).await;
    let (stream, message) = answered.unwrap_or_else(|_| {
        Err(connection::error::Error::NotReady {
            address,
            seconds: STARTED_DEADLINE.as_secs(),
        }
        .into())
    })?;
    match message {
        Fetched::Started(started) if started.resume_at == from && from <= started.length => {
            Ok(Begun {
                started,
                stream,
                link,
            })
        }
        Fetched::Started(started) => Err(Error::Invalid(format!(
            "it sends from byte {} of {} on, and byte {from} was requested",
            started.resume_at, started.length
        ))),
        Fetched::Segment(_) | Fetched::End { .. } | Fetched::Failure(_) => {
            Err(Error::Invalid("it does not begin with the length".into()))
        }
    }
}

/// Moves a stream from the receiver to the thread that applies it.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    pub(super) access: &'a Access,
    pub(super) request: FetchRequest,
    /// Length of the stream, as announced before its first byte.
    pub(super) length: u64,
    pub(super) segments: mpsc::Sender<FetchedSegment>,
    pub(super) applied: &'a AtomicU64,
    pub(super) retry: RetryBudget,
    pub(super) events: &'a Events,
    pub(super) cancel: CancellationToken,
    /// Bytes on connections that have ended.
    pub(super) wire_bytes: u64,
}

/// How the stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it was handed to the thread.
    Whole,
    /// The thread has failed, and has the reason.
    NotApplied,
}

/// What the stall watch looks at.
#[derive(Debug, Default)]
struct Seen {
    received: AtomicU64,
    /// The thread that applies is behind: that is no fault of the receiver.
    waits_here: AtomicBool,
}

impl Fetch<'_> {
    /// Moves the whole stream, over as many connections as it takes.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) async fn run(&mut self, begun: Begun) -> Result<Ended, Error> {
        let mut next = Some(begun);
        let mut position = match self.request.resume_at {
            Some(at) => Position::at(at.point),
            None => Position::default(),
        };
        loop {
            let attempt = match next.take() {
                Some(begun) => self.attempt(begun, &mut position).await,
                None => match self.reconnect().await {
                    Ok(begun) => self.attempt(begun, &mut position).await,
                    Err(error) => Err(error),
                },
            };
            match attempt {
                Ok(ended) => return Ok(ended),
                Err(error) if error.is_transient() => self.wait(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&mut self, begun: Begun, position: &mut Position) -> Result<Ended, Error> {
        let Begun {
            started,
            stream,
            link,
        } = begun;
        if started.length != self.length {
            return Err(Error::Invalid(format!(
                "the stream now has {} bytes instead of {}",
                started.length, self.length
            )));
        }
        let moved = self.pump(stream, position, &started).await;
        self.wire_bytes += link.wire_bytes();
        moved
    }

    async fn reconnect(&mut self) -> Result<Begun, Error> {
        let link = tokio::select! {
            link = list::connect(self.access) => link?,
            () = self.cancel.cancelled() => return Err(Error::Cancelled),
        };
        let request = self.request.clone();
        tokio::select! {
            begun = begin(link, request) => begun,
            () = self.cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    async fn wait(&mut self, error: Error) -> Result<(), Error> {
        let Some(wait) = self.retry.next(Instant::now()) else {
            return Err(error);
        };
        let again = human::duration(wait);
        self.events
            .stage("retry", format!("{error}; trying again in {again}"));
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    async fn pump(
        &mut self,
        mut stream: FetchStream,
        position: &mut Position,
        started: &Started,
    ) -> Result<Ended, Error> {
        let seen = Seen::default();
        seen.received.store(position.offset(), Ordering::Relaxed);
        let (length, from, begun) = (self.length, position.offset(), Instant::now());
        let configured = self.access.config.as_ref();
        let after = configured.map_or(STALL_AFTER, |config| config.stall_after);
        let progress = || {
            let waits_here = seen.waits_here.load(Ordering::Relaxed);
            (seen.received.load(Ordering::Relaxed), waits_here)
        };
        // A byte now and then is no progress: such a fetch could run for ever.
        let is_progress = |last: (u64, bool), now: (u64, bool)| {
            now.1 || now.0 >= last.0 + SEGMENT as u64 || (now.0 > last.0 && now.0 == length)
        };
        let mut stalled = pin!(stalled(after, progress, is_progress));
        let mut reports = tokio::time::interval(PROGRESS_INTERVAL);
        let mut permitted = started.permitted_seconds.map(Duration::from_secs);
        loop {
            // Endless messages must not keep the task from the stall check or from being cancelled.
            tokio::task::consume_budget().await;
            let message = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
                () = &mut stalled => return Err(Error::Stalled { after }),
                () = self.segments.closed() => return Ok(Ended::NotApplied),
                _ = reports.tick() => {
                    self.report();
                    let estimate = estimate(position.offset() - from, length - from, begun);
                    if let Some((left, estimate)) = permitted.zip(estimate) {
                        permitted = None;
                        self.warn(left, estimate);
                    }
                    continue;
                }
                message = stream.next() => message?,
            };
            match message {
                Fetched::Segment(fetched) => {
                    self.check(position, &fetched)?;
                    let point = point(&fetched);
                    position.passed(&fetched.segment);
                    seen.waits_here.store(true, Ordering::Relaxed);
                    let sent = tokio::select! {
                        sent = self.segments.send(fetched) => sent,
                        () = self.cancel.cancelled() => return Err(Error::Cancelled),
                    };
                    seen.waits_here.store(false, Ordering::Relaxed);
                    if sent.is_err() {
                        return Ok(Ended::NotApplied);
                    }
                    seen.received.store(position.offset(), Ordering::Relaxed);
                    self.request.resume_at = Some(point);
                    self.retry.progress();
                }
                Fetched::End { length, chain } => return self.end(position, length, chain),
                Fetched::Started(_) | Fetched::Failure(_) => {
                    return Err(Error::Invalid("it began twice".into()));
                }
            }
        }
    }

    /// Checks a segment before anything of it is applied.
    fn check(&self, position: &Position, fetched: &FetchedSegment) -> Result<(), Error> {
        let segment = &fetched.segment;
        position.check(segment).map_err(Error::Damaged)?;
        let end = segment.offset.saturating_add(segment.data.len() as u64);
        match end > self.length {
            true => Err(Error::Invalid(format!(
                "it sends more than the {} bytes that it announced",
                self.length
            ))),
            false => Ok(()),
        }
    }

    fn end(&self, position: &Position, length: u64, chain: Chain) -> Result<Ended, Error> {
        position.check_end(length, chain).map_err(Error::Damaged)?;
        match length == self.length {
            true => Ok(Ended::Whole),
            false => Err(Error::Invalid(format!(
                "it sends {length} bytes and announced {}",
                self.length
            ))),
        }
    }

    fn report(&self) {
        self.events.tell(RestoreEvent::Progress {
            done: self.applied.load(Ordering::Relaxed),
            length: self.length,
        });
    }

    /// Warns if the permission of the receiver's administrator ends before the restore.
    fn warn(&self, left: Duration, estimate: Duration) {
        if estimate > left {
            self.events.note(format!(
                "about {} are left, and the permission at the receiver ends in {}: ask for a longer one; what has \
                 arrived by then is kept, and the same command continues",
                human::duration(estimate),
                human::duration(left)
            ));
        }
    }
}

fn point(fetched: &FetchedSegment) -> FetchPoint {
    let segment = &fetched.segment;
    FetchPoint {
        point: sendshot_proto::resume::Point {
            offset: segment.offset + segment.data.len() as u64,
            chain: segment.chain,
        },
        skeleton: fetched.skeleton,
    }
}

/// The time that the rest will take, once that can be estimated.
fn estimate(done: u64, all: u64, begun: Instant) -> Option<Duration> {
    let time = begun.elapsed();
    if done == 0 || time < ESTIMATE_AFTER {
        return None;
    }
    let left = time.as_secs_f64() * (all - done) as f64 / done as f64;
    Duration::try_from_secs_f64(left).ok()
}

/// Whether the receiver cannot continue the stream, so that it must begin again.
pub(super) fn must_begin_again(error: &Error) -> Option<Again> {
    let Error::Connection(connection::error::Error::Failure(failure)) = error else {
        return None;
    };
    match failure.code {
        Code::ResumeImpossible => Some(Again::FromTheBeginning),
        Code::LengthChanged => Some(Again::Decoded),
        _ => None,
    }
}

/// How a fetch begins again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    FromTheBeginning,
    /// With stream version 1, in which no data is compressed.
    Decoded,
}
