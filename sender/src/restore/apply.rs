//! Applies the stream of a fetch in staging, on a thread.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sendshot_apply::commit::flush;
use sendshot_apply::staging::{Area, Staged, StagingError};
use sendshot_apply::{
    Announced, Cause, CloneSources, Host, Identity, Policies, Position, Session, SessionError,
    Subvolumes,
};
use sendshot_model::NotKept;
use sendshot_proto::restore::{FetchPoint, FetchedSegment};
use sendshot_proto::resume::{CheckpointPolicy, Point};
use sendshot_stream::Version;
use sendshot_sys::crash;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::state::restores::{RestoreFiles, Resumable};

/// Segments that wait for the applier.
const QUEUE: usize = 4;

/// Why a stream could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFailure {
    #[error(transparent)]
    Session(#[from] SessionError<HostError>),
    /// The stream has another version than requested.
    #[error("the stream has version {found}, and {requested} was requested")]
    Version { found: u32, requested: u32 },
    /// What was applied could not be written to disk, or kept to continue from.
    #[error("cannot write what was restored so far")]
    Keep(#[source] io::Error),
    /// The root of staging cannot be used.
    #[error("cannot continue from an earlier restore")]
    Resume(#[source] Cause),
    /// The stream has no subvolume.
    #[error("the stream has no subvolume")]
    Nothing,
    #[error("cannot start the thread that applies the stream")]
    Start(#[source] io::Error),
    #[error("the thread that applies the stream ended without a result")]
    Died,
}

/// Why a subvolume of the stream is refused, or not made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The stream holds another state than the requested one.
    #[error("the stream holds another subvolume than the requested copy")]
    OtherState,
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error("cannot open the staging subvolume")]
    Open(#[source] io::Error),
}

/// Makes staging for the requested state, without clone sources.
#[derive(Debug)]
pub(super) struct RestoreHost {
    area: Area,
    name: OsString,
    uuid: Uuid,
    /// The transaction number of an unchanged copy.
    ctransid: Option<u64>,
    staged: Option<Staged>,
    /// The transaction number that the stream announces.
    announced: u64,
}

impl RestoreHost {
    /// Accepts only the state with this UUID, and with this transaction number if one is given.
    pub(super) fn new(area: Area, name: OsString, (uuid, ctransid): (Uuid, Option<u64>)) -> Self {
        Self {
            area,
            name,
            uuid,
            ctransid,
            staged: None,
            announced: 0,
        }
    }

    fn stage(&mut self, source: Option<BorrowedFd<'_>>) -> Result<OwnedFd, HostError> {
        let staged = self.area.stage(&self.name, source)?;
        crash::point("restore-staged");
        let root = staged.root_for_applier().map_err(HostError::Open)?;
        self.staged = Some(staged);
        Ok(root)
    }
}

impl CloneSources for RestoreHost {
    fn open(&mut self, uuid: Uuid, _: u64) -> Result<OwnedFd, Box<dyn StdError + Send + Sync>> {
        Err(format!("the stream clones from subvolume {uuid}, which is not part of it").into())
    }
}

impl Host for RestoreHost {
    type Error = HostError;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, HostError> {
        let found = subvolume.identity;
        let is_number = self
            .ctransid
            .is_none_or(|ctransid| ctransid == found.ctransid);
        if found.uuid != self.uuid || !is_number || subvolume.parent.is_some() {
            return Err(HostError::OtherState);
        }
        self.announced = subvolume.identity.ctransid;
        self.stage(None)
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), HostError> {
        Ok(()) // exposed when the whole stream is known to be good
    }
}

/// A place to which a stream is applied.
pub(super) trait Place: Host<Error = HostError> + std::fmt::Debug + Send + 'static {
    /// The staging subvolume that can be kept to continue from, and the transaction number that the stream announced.
    fn to_keep(&self) -> Option<(&Staged, u64)>;
}

impl Place for RestoreHost {
    fn to_keep(&self) -> Option<(&Staged, u64)> {
        Some((self.staged.as_ref()?, self.announced))
    }
}

/// A stream that is being applied.
#[derive(Debug)]
pub(super) struct Applier<P> {
    session: Session<P>,
    /// Where snapshots to continue from are recorded, if they can be taken.
    files: Option<RestoreFiles>,
    stream_version: u32,
    policy: CheckpointPolicy,
    kept_at: (u64, Instant),
}

/// A tree that was applied whole.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) staged: Staged,
    pub(super) files: RestoreFiles,
    /// Length of its stream in bytes.
    pub(super) length: u64,
    pub(super) not_kept: NotKept,
}

/// A place to which a stream was applied whole.
#[derive(Debug)]
pub(super) struct Filled<P> {
    pub(super) place: P,
    files: Option<RestoreFiles>,
    length: u64,
    not_kept: NotKept,
}

impl Filled<RestoreHost> {
    /// The tree in its staging subvolume.
    pub(super) fn into_tree(self) -> Result<Applied, ApplyFailure> {
        Ok(Applied {
            staged: self.place.staged.ok_or(ApplyFailure::Nothing)?,
            files: self.files.ok_or(ApplyFailure::Nothing)?,
            length: self.length,
            not_kept: self.not_kept,
        })
    }
}

/// The thread that applies.
#[derive(Debug)]
pub(super) struct Applying<P> {
    /// Takes segments that were checked. Dropping it ends the stream.
    pub(super) segments: mpsc::Sender<FetchedSegment>,
    /// Bytes applied.
    pub(super) applied: Arc<AtomicU64>,
    result: oneshot::Receiver<Result<Filled<P>, ApplyFailure>>,
}

impl<P: Place> Applier<P> {
    /// Begins with an empty tree.
    pub(super) fn fresh(
        place: P,
        files: Option<RestoreFiles>,
        stream_version: u32,
        policy: CheckpointPolicy,
        policies: Policies,
    ) -> Self {
        Self {
            session: Session::new(place, Subvolumes::One, policies),
            files,
            stream_version,
            policy,
            kept_at: (0, Instant::now()),
        }
    }
}

impl Applier<RestoreHost> {
    /// Continues from a snapshot of an earlier staging.
    pub(super) fn resume(
        mut host: RestoreHost,
        files: RestoreFiles,
        from: &Resumable,
        stream_version: u32,
        policy: CheckpointPolicy,
    ) -> Result<Self, ApplyFailure> {
        let version = Version::from_number(stream_version).ok_or(ApplyFailure::Nothing)?;
        host.announced = from.announced;
        let root = host
            .stage(Some(from.snapshot.as_fd()))
            .map_err(SessionError::Host)?;
        let offset = from.point.point.offset;
        let position = Position {
            offset,
            version,
            subvolume: Announced {
                name: Vec::new(),
                identity: Identity {
                    uuid: host.uuid,
                    ctransid: from.announced,
                },
                parent: None,
            },
        };
        let session = Session::resume(host, position, root, Subvolumes::One, Policies::default());
        let mut session = session.map_err(ApplyFailure::Resume)?;
        session.add_not_kept(&from.not_kept);
        Ok(Self {
            session,
            files: Some(files),
            stream_version,
            policy,
            kept_at: (offset, Instant::now()),
        })
    }
}

impl<P: Place> Applier<P> {
    /// Makes the stream fail when it allocates more than `most` bytes beyond its own.
    pub(super) fn limit_made(&mut self, most: u64) {
        self.session.limit_made(0, most);
    }

    /// Starts the thread.
    pub(super) fn start(self, offset: u64) -> Result<Applying<P>, ApplyFailure> {
        let (segments, input) = mpsc::channel(QUEUE);
        let (done, result) = oneshot::channel();
        let applied = Arc::new(AtomicU64::new(offset));
        let counter = Arc::clone(&applied);
        let work = move || {
            let _ = done.send(self.run(input, &counter));
        };
        let thread = std::thread::Builder::new().name("apply".into());
        thread.spawn(work).map_err(ApplyFailure::Start)?;
        Ok(Applying {
            segments,
            applied,
            result,
        })
    }

    fn run(
        mut self,
        mut input: mpsc::Receiver<FetchedSegment>,
        applied: &AtomicU64,
    ) -> Result<Filled<P>, ApplyFailure> {
        while let Some(fetched) = input.blocking_recv() {
            let segment = &fetched.segment;
            self.session.feed(&segment.data)?;
            self.check_version()?;
            let point = FetchPoint {
                point: Point {
                    offset: segment.offset + segment.data.len() as u64,
                    chain: segment.chain,
                },
                skeleton: fetched.skeleton,
            };
            applied.store(point.point.offset, Ordering::Relaxed);
            self.keep(point)?;
        }
        let not_kept = self.session.not_kept();
        let length = self.session.offset();
        let place = self.session.finish()?;
        Ok(Filled {
            place,
            files: self.files,
            length,
            not_kept,
        })
    }

    fn check_version(&self) -> Result<(), ApplyFailure> {
        match self.session.version().map(Version::number) {
            Some(found) if found != self.stream_version => Err(ApplyFailure::Version {
                found,
                requested: self.stream_version,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Keeps a snapshot of staging to continue from, if it is time for one and the stream is between two commands.
    fn keep(&mut self, point: FetchPoint) -> Result<(), ApplyFailure> {
        let offset = point.point.offset;
        let (last_offset, last_at) = self.kept_at;
        let is_due = offset.saturating_sub(last_offset) >= self.policy.bytes
            && last_at.elapsed() >= Duration::from_millis(self.policy.milliseconds);
        if !is_due || self.session.offset() != offset {
            return Ok(());
        }
        let position = self.session.checkpoint().map_err(SessionError::Staging)?;
        let to_keep = self.session.host().to_keep();
        let (Some(_), Some((staged, announced)), Some(files)) =
            (position, to_keep, &mut self.files)
        else {
            return Ok(()); // it is complete already, or cannot be continued
        };
        flush(staged.root()).map_err(ApplyFailure::Keep)?;
        crash::point("restore-flushed");
        let kept = files.keep(staged.root(), point, announced, self.session.not_kept());
        kept.map_err(ApplyFailure::Keep)?;
        self.kept_at = (offset, Instant::now());
        Ok(())
    }
}

impl<P> Applying<P> {
    /// Waits until everything is applied, and the thread has ended.
    pub(super) async fn finish(self) -> Result<Filled<P>, ApplyFailure> {
        drop(self.segments);
        self.result.await.unwrap_or(Err(ApplyFailure::Died))
    }
}
