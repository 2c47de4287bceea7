//! Stages *apply* and *commit*: one push, on a thread of its own, from its first segment to
//! the copy.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Check the root, find or make the volume's directory. — At most an empty directory.
//! 2. Apply the stream to a staging subvolume. — A staging subvolume, which the next start
//!    deletes: nothing is ever applied over it again.
//! 3. Commit; see [`mod@sendshot_apply::commit`]. — At last the copy, durable.

use std::error::Error as StdError;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use sendshot_apply::commit::{CommitError, Committed, Taken, commit};
use sendshot_apply::parent::{self, FindError, Trust};
use sendshot_apply::staging::{Area, Staged, StagingError};
use sendshot_apply::{
    Announced, CloneSources, Host, Identity, Policies, Session, SessionError, Subvolumes,
};
use sendshot_model::CopyName;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::transfer::{Begin, Chain, ParentRef, Segment, Up};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::holdings::{self, Caller, VolumeDir};
use crate::root::{OpenRoot, Root};

/// What names of staging subvolumes begin with; only those are ever swept.
pub const STAGING_PREFIX: &str = "push-";

/// One push to take in.
#[derive(Debug)]
pub struct Work {
    /// Where to.
    pub root: Root,
    /// Whose it is.
    pub caller: Caller,
    /// What was announced.
    pub begin: Begin,
}

/// A copy that was made.
#[derive(Debug)]
pub struct Received {
    /// Its name.
    pub name: String,
    /// Its directory below the root.
    pub directory: String,
    /// Length of the stream in bytes.
    pub stream_bytes: u64,
}

/// Why there is no copy.
#[derive(Debug)]
pub enum Error {
    /// To be told to the sender.
    Failed(Failure),
    /// The sender went away or gave up; nobody is there to be told.
    Abandoned,
}

impl<T: Into<Failure>> From<T> for Error {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

/// Takes in a push. `accepted` runs when the receiver is ready for segments, `applied` after
/// each of them with the offset behind it. Blocks; on any error nothing of the push is left.
///
/// # Errors
/// See [`Error`].
pub fn run(
    work: Work,
    mut input: mpsc::Receiver<Up>,
    accepted: impl FnOnce(),
    mut applied: impl FnMut(u64),
) -> Result<Received, Error> {
    let root = work.root.open()?;
    let dir = holdings::find_or_create(&root, &work.caller, &work.begin.volume)
        .map_err(|e| io_failure("prepare the volume's directory", &e))?; // 1
    refuse_what_is_held(&dir, &work.begin)?;
    let name = copy_name(work.begin.taken_at)?;
    let host = StagingHost::new(&root, &dir, work.begin)?;
    let mut session = Session::new(host, Subvolumes::One, Policies::default());
    accepted();
    let mut progress = Progress::default();
    loop {
        match input.blocking_recv().ok_or(Error::Abandoned)? {
            Up::Segment(segment) => {
                progress.check(&segment)?;
                session.feed(&segment.data).map_err(session_failure)?;
                applied(progress.offset);
            }
            Up::End { length, chain } => {
                progress.check_end(length, chain)?;
                break;
            }
            Up::Begin(_) => return Err(rule_broken("the push was begun twice").into()),
        }
    }
    let host = session.finish().map_err(session_failure)?; // 2
    let copy = host.commit(&dir, &name)?; // 3
    Ok(Received {
        name: copy.name.to_string_lossy().into_owned(),
        directory: dir.name,
        stream_bytes: progress.offset,
    })
}

/// Where the stream is, and its hash so far.
#[derive(Debug, Default)]
struct Progress {
    offset: u64,
    chain: Chain,
}

impl Progress {
    fn check(&mut self, segment: &Segment) -> Result<(), Failure> {
        if segment.offset != self.offset {
            return Err(rule_broken(format!(
                "a segment begins at {} instead of {}",
                segment.offset, self.offset
            )));
        }
        let chain = self.chain.extend(&segment.data);
        if chain != segment.chain {
            return Err(hash_mismatch(self.offset));
        }
        self.chain = chain;
        self.offset += segment.data.len() as u64;
        Ok(())
    }

    fn check_end(&self, length: u64, chain: Chain) -> Result<(), Failure> {
        if length != self.offset || chain != self.chain {
            return Err(hash_mismatch(self.offset));
        }
        Ok(())
    }
}

/// Makes staging for the one subvolume that was announced, and hands out clone sources of the
/// same sender and volume only.
struct StagingHost {
    area: Area,
    dir: OwnedFd,
    begin: Begin,
    staged: Option<Staged>,
}

impl StagingHost {
    fn new(root: &OpenRoot, dir: &VolumeDir, begin: Begin) -> Result<Self, Failure> {
        let io = |e| io_failure("prepare staging", &e);
        let host = Self {
            area: Area::new(root).map_err(io)?,
            dir: dir.fd.try_clone().map_err(io)?,
            begin,
            staged: None,
        };
        // The parent is looked at before the sender is told to begin, and once more when the
        // stream names it.
        host.parent()?;
        Ok(host)
    }

    fn parent(&self) -> Result<Option<OwnedFd>, Failure> {
        let Some(parent) = self.begin.parent else {
            return Ok(None);
        };
        match parent::find(&self.dir, parent_identity(parent), Trust::Strict) {
            Ok(found) => Ok(Some(found.root)),
            Err(error) => Err(parent_failure(&error)),
        }
    }

    fn commit(mut self, dir: &VolumeDir, name: &CopyName) -> Result<Committed, Failure> {
        let staged = self
            .staged
            .take()
            .ok_or_else(|| rule_broken("the stream holds no subvolume"))?;
        let identity = announced_identity(&self.begin);
        let name = name.to_string();
        match commit(staged, &dir.fd, name.as_ref(), identity, Taken::Number) {
            Ok(copy) => Ok(copy),
            Err(CommitError::Leftover { copy, source }) => {
                tracing::warn!("{}; the next start deletes it", with_causes(&source));
                Ok(*copy)
            }
            Err(error) => Err(commit_failure(&error)),
        }
    }
}

impl CloneSources for StagingHost {
    fn open(
        &mut self,
        uuid: Uuid,
        ctransid: u64,
    ) -> Result<OwnedFd, Box<dyn StdError + Send + Sync>> {
        let wanted = Identity { uuid, ctransid };
        Ok(parent::find(&self.dir, wanted, Trust::Strict)?.root)
    }
}

impl Host for StagingHost {
    type Error = Failure;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, Failure> {
        let parent = self.begin.parent.map(parent_identity);
        if subvolume.identity != announced_identity(&self.begin) || subvolume.parent != parent {
            return Err(rule_broken(
                "the stream holds another subvolume than the push announced",
            ));
        }
        let parent = self.parent()?;
        let name = format!("{STAGING_PREFIX}{}", self.begin.transfer);
        let staged = self
            .area
            .stage(name.as_ref(), parent.as_ref().map(AsFd::as_fd))
            .map_err(|e| staging_failure(&e))?;
        let root = staged
            .root_for_applier()
            .map_err(|e| io_failure("open the staging subvolume", &e))?;
        self.staged = Some(staged);
        Ok(root)
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), Failure> {
        Ok(()) // committed when the whole stream is known to be good
    }
}

fn announced_identity(begin: &Begin) -> Identity {
    Identity {
        uuid: begin.uuid,
        ctransid: begin.ctransid,
    }
}

fn parent_identity(parent: ParentRef) -> Identity {
    Identity {
        uuid: parent.uuid,
        ctransid: parent.ctransid,
    }
}

fn copy_name(taken_at: i64) -> Result<CopyName, Failure> {
    jiff::Timestamp::from_second(taken_at)
        .map(CopyName::from_time)
        .map_err(|_| rule_broken("the snapshot's time is impossible"))
}

fn refuse_what_is_held(dir: &VolumeDir, begin: &Begin) -> Result<(), Failure> {
    let copies = holdings::copies(&dir.fd)
        .map_err(|e| io_failure("look at the copies of the volume", &e))?;
    let held = copies.iter().find(|copy| {
        copy.uuid == begin.uuid && copy.ctransid == begin.ctransid && copy.unusable.is_none()
    });
    match held {
        Some(copy) => Err(Failure::new(
            Code::AlreadyHeld,
            format!("{}/{} is this state already", dir.name, copy.name),
            "",
        )),
        None => Ok(()),
    }
}

fn rule_broken(what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidStream, what, "")
}

fn hash_mismatch(offset: u64) -> Failure {
    Failure::new(
        Code::HashMismatch,
        format!("what arrived behind byte {offset} of the stream is not what was sent"),
        "nothing of it was kept; push again, and look for faulty memory or network hardware",
    )
}

fn session_failure(error: SessionError<Failure>) -> Failure {
    match error {
        SessionError::Host(failure) => failure,
        SessionError::Apply(apply) => match apply.errno() {
            Some(errno) => errno_failure(errno, with_causes(&apply)),
            None => rule_broken(with_causes(&apply)),
        },
        SessionError::Decode(decode) => rule_broken(with_causes(&decode)),
        SessionError::Staging(cause) => failure_with_errno(&cause),
        other @ (SessionError::Sequence { .. } | SessionError::Failed) => {
            rule_broken(with_causes(&other))
        }
    }
}

fn parent_failure(error: &FindError) -> Failure {
    let remedy = "push again: another parent will be agreed on";
    match error {
        FindError::Missing(_) => {
            Failure::new(Code::ParentGone, "the agreed parent is gone", remedy)
        }
        FindError::Unusable { name, why, .. } => Failure::new(
            Code::ParentUnusable,
            format!("the agreed parent {} cannot be used: {why}", name.display()),
            remedy,
        ),
        FindError::Search { source, .. } => io_failure("look for the agreed parent", source),
    }
}

fn staging_failure(error: &StagingError) -> Failure {
    failure_with_errno(error)
}

fn commit_failure(error: &CommitError) -> Failure {
    failure_with_errno(error)
}

/// Looks for the kernel's word among the causes.
fn failure_with_errno(error: &(dyn StdError + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if let Some(errno) = io.and_then(Errno::from_io_error) {
            return errno_failure(errno, with_causes(error));
        }
        next = cause.source();
    }
    Failure::new(Code::Internal, with_causes(error), "")
}

/// A failure of the receiver's own disks.
pub fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    let message = format!("{what}: {error}");
    match Errno::from_io_error(error) {
        Some(errno) => errno_failure(errno, message),
        None => Failure::new(Code::Io, message, ""),
    }
}

fn errno_failure(errno: Errno, message: String) -> Failure {
    match errno {
        Errno::NOSPC | Errno::DQUOT => Failure::new(
            Code::NoSpace,
            format!("the receiver's file system is full: {message}"),
            "free space on the receiver (delete copies, or grow the file system) and push again",
        ),
        Errno::ROFS => Failure::new(
            Code::ReadOnly,
            format!("the receiver's file system is read-only: {message}"),
            "look into the receiver's kernel log, mount it read-write again, and push again",
        ),
        Errno::IO => Failure::new(
            Code::Io,
            format!("the receiver's disk fails: {message}"),
            "look into the receiver's kernel log",
        ),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Failure::new(
            Code::Internal,
            format!("the receiver is short of memory or descriptors: {message}"),
            "push again when it has less to do",
        ),
        _ => Failure::new(Code::InvalidStream, message, ""),
    }
}

fn with_causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}
