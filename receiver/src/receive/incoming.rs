//! Stages *apply* and *commit*: one transfer, on its own thread, from its first segment to the copy.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Check the root, find or make the volume's directory. — At most an empty directory.
//! 2. Apply the stream to a staging subvolume, with a checkpoint now and then; see
//!    [`mod@crate::receive::checkpoint`]. — A staging subvolume, which the next start deletes: nothing is ever
//!    applied over it again. The last checkpoint stays, and the push resumes from it.
//! 3. Fill the files that note the size of the copy, and in the ledger that it comes; see [`mod@crate::store::ledger`]. —
//!    Files that the next push replaces.
//! 4. Commit with these notes; see [`mod@sendshot_apply::commit`]. — At the end the copy, durable, which the ledger's note
//!    identifies.
//! 5. Enter the copy into the ledger. — The copy, with its entry.
//! 6. Delete the partial. — Checkpoints of a push whose copy exists; the next start deletes them.
//!
//! If only the connection breaks, the [`IncomingTransfer`] stays as it is until its sender is back.

use std::io;
use std::sync::{Mutex, PoisonError};

use sendshot_apply::staging::Area;
use sendshot_apply::{Policies, Position, Session, Subvolumes};
use sendshot_config::SenderPolicy;
use sendshot_model::{CopyName, NotKept, RootId, TransferId};
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::{Begin, Resumable, Segment, Up};
use sendshot_sys::{crash, durable, subvolume};
use sendshot_transfer::position as transfer;

use crate::receive::announcement::{Announcement, announced_identity, copy_name, stream_version};
use crate::receive::checkpoint::Checkpoints;
use crate::receive::failures::{
    check_writable, in_commit, in_dir, in_staging, io_failure, not_continued, rule_broken,
    search_failure, session_failure,
};
use crate::receive::input::Input;
use crate::receive::ledger_writer::LedgerWriter;
use crate::receive::limits;
use crate::receive::staging::StagingHost;
use crate::receive::turns::Place;
use crate::store::partials::{self, Checkpoint, Record};
use crate::store::root::OpenRoot;
use crate::store::usage::{self, Progress as Noted};
use crate::store::volumes::{self, VolumeDir};

/// Most copies received under one UUID, with any ctransid. The file system lists them in one item, which holds some
/// 2,000 (500 with nodes of 4 KiB), and kernels without the fix of 2026 fail where it is full.
const MAX_OF_ONE_UUID: usize = 64;

/// Least size of a copy, in bytes, whatever its content: the root node of its tree.
const COPY_METADATA_BYTES: u64 = 16 * 1024;

/// Most segments that are applied together.
const MOST_TOGETHER: usize = 8;

/// Segments that continue the stream, and what follows them.
#[derive(Debug, Default)]
struct Verified {
    segments: Vec<Segment>,
    /// Why the segment behind them does not continue the stream.
    failure: Option<Failure>,
}

/// A committed copy.
#[derive(Debug)]
pub struct Received {
    pub name: String,
    /// Its directory, relative to the root.
    pub directory: String,
    /// Length of the stream in bytes.
    pub stream_bytes: u64,
    /// What the copy lacks.
    pub not_kept: NotKept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Whole,
    /// The connection broke, or the sender closed it.
    Broken,
    /// The sender's access was revoked.
    Unwelcome,
}

/// The reports during a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The stream is applied up to this offset.
    Applied {
        /// Offset in the stream.
        offset: u64,
        /// Bytes allocated beyond those of the stream.
        made: u64,
    },
    /// A checkpoint was taken at this offset.
    Checkpoint(u64),
}

/// A transfer as far as it was applied. Dropping it deletes its staging; its checkpoints stay.
#[derive(Debug)]
pub struct IncomingTransfer {
    root: RootId,
    session: Session<StagingHost>,
    dir: VolumeDir,
    name: CopyName,
    begin: Begin,
    place: transfer::Position,
    checkpoints: Checkpoints,
    policy: SenderPolicy,
    ledger_writer: LedgerWriter,
}

impl IncomingTransfer {
    /// Prepares a transfer, from its start or from where it can be resumed. Blocks.
    ///
    /// # Errors
    /// The failure for the sender; nothing is left then but what could be resumed before.
    ///
    /// `waiting` is what was applied before the connection broke, possibly of another transfer. `left` are the
    /// bytes that the sender may still use; `None` if there is no limit.
    pub fn start(
        work: Announcement,
        waiting: Option<Box<Self>>,
        left: Option<u64>,
    ) -> Result<Box<Self>, Failure> {
        // Held to the end of this function, so that the disk cannot be exchanged meanwhile.
        let root = work.root.open()?;
        if work.begin.root.is_some_and(|agreed| agreed != root.id()) {
            return Err(Failure::new(
                Code::RootChanged,
                "the receiver's disk was exchanged for another one after this push was prepared",
                "push again",
            ));
        }
        work.root.check_tested(&root)?;
        limits::check_free(&root, work.min_free)?;
        // A transfer that waits on another disk cannot continue here. Its checkpoint remains on that disk.
        let waiting = waiting.filter(|waiting| waiting.root == root.id());
        let mut incoming = match (work.begin.resume_at, waiting) {
            (Some(point), Some(waiting)) if waiting.resumes_at(&work.begin, point) => waiting,
            (Some(point), other) => {
                drop(other);
                Self::from_checkpoint(&root, &work, point)?
            }
            (None, other) => {
                drop(other);
                Self::fresh(&root, work)?
            }
        };
        let made = incoming.made();
        incoming.session.limit_made(made, left.unwrap_or(u64::MAX));
        Ok(incoming)
    }

    fn fresh(root: &OpenRoot, work: Announcement) -> Result<Box<Self>, Failure> {
        let dir = volume_dir(root, &work)?; // 1
        refuse_what_is_held(root, &dir, &work.begin)?;
        let area = Area::new(root).map_err(|e| io_failure("prepare staging", &e))?;
        let checkpoints = Checkpoints::new(&area, &work, 0)?;
        let concerned = |record: &Record| record.concerns(&work.caller, work.begin.volume.id);
        checkpoints
            .forget_those(|partial| concerned(&partial.record))
            .map_err(|e| io_failure("delete an earlier partial of the volume", &e))?;
        limits::check_partials(checkpoints.area(), &work.caller, &work.policy)?;
        if partials::is_taken(checkpoints.area(), work.begin.transfer)
            .map_err(|e| io_failure("look for partials", &e))?
        {
            return Err(rule_broken("another transfer has this id"));
        }
        let name = copy_name(work.begin.taken_at)?;
        let host = StagingHost::new(area, &dir, work.begin.clone())?;
        let mut session = Session::new(host, Subvolumes::One, Policies::default());
        if let Some(parent) = work.begin.parent {
            // What the parent's copy lacks, this copy lacks too.
            let failed = |e| io_failure("read the record of attributes that the parent lacks", &e);
            let lacks = usage::not_kept(&dir.fd).map_err(failed)?;
            session.add_not_kept(&lacks.copy((parent.uuid, parent.ctransid)));
        }
        Ok(Box::new(Self {
            root: root.id(),
            session,
            dir,
            name,
            begin: work.begin,
            place: transfer::Position::default(),
            checkpoints,
            policy: work.policy,
            ledger_writer: work.ledger_writer,
        }))
    }

    fn from_checkpoint(
        root: &OpenRoot,
        work: &Announcement,
        point: Point,
    ) -> Result<Box<Self>, Failure> {
        let begin = &work.begin;
        let failed = |e| io_failure("look for the partial", &e);
        let dir = volumes::find(root, &work.caller, &begin.volume).map_err(failed)?;
        let dir = dir.ok_or_else(not_resumable)?;
        refuse_what_is_held(root, &dir, begin)?;
        let area = Area::new(root).map_err(failed)?;
        let checkpoints = Checkpoints::new(&area, work, point.offset)?;
        let mine = |partial: &partials::Partial| partial.record.is_of(&work.caller, begin);
        if !partials::all(checkpoints.area())
            .map_err(failed)?
            .iter()
            .any(mine)
        {
            return Err(not_resumable());
        }
        let checkpoint = Checkpoint {
            transfer: begin.transfer,
            point,
        };
        let source = partials::open(checkpoints.area(), checkpoint).map_err(failed)?;
        let source = source.ok_or_else(not_resumable)?;
        let mut host = StagingHost::new(area, &dir, begin.clone())?;
        let staging = host.take_again(&source)?;
        let position = Position {
            offset: point.offset,
            version: stream_version(begin)?,
            subvolume: host.announced(),
        };
        let session = Session::resume(
            host,
            position,
            staging,
            Subvolumes::One,
            Policies::default(),
        );
        let mut session = session.map_err(|e| rule_broken(e.to_string()))?;
        let state = usage::state(announced_identity(begin));
        let noted = usage::noted(&dir.fd, state).map_err(failed)?;
        session.limit_made(noted.saturating_sub(point.offset), u64::MAX);
        let lacks = usage::not_kept(&dir.fd).map_err(failed)?;
        session.add_not_kept(&lacks.checkpoint(state, point.offset));
        Ok(Box::new(Self {
            root: root.id(),
            session,
            dir,
            name: copy_name(begin.taken_at)?,
            begin: begin.clone(),
            place: transfer::Position::at(point),
            checkpoints: checkpoints.with(checkpoint),
            policy: work.policy.clone(),
            ledger_writer: work.ledger_writer.clone(),
        }))
    }

    pub fn transfer(&self) -> TransferId {
        self.begin.transfer
    }

    /// The sender's first message.
    pub fn begin(&self) -> &Begin {
        &self.begin
    }

    /// Bytes applied, with those of an incomplete command.
    pub fn offset(&self) -> u64 {
        self.place.offset()
    }

    /// Bytes allocated beyond those of the stream; see [`Session::limit_made`].
    pub fn made(&self) -> u64 {
        self.session.made()
    }

    /// The point at which it can be resumed as it is: only between two commands.
    pub fn point(&self) -> Option<Point> {
        let between = self.place.offset() > 0 && self.session.offset() == self.place.offset();
        (between && self.begin.resumable == Resumable::Yes).then(|| self.place.point())
    }

    fn resumes_at(&self, begin: &Begin, point: Point) -> bool {
        let announced = Begin {
            resume_at: self.begin.resume_at,
            volume: self.begin.volume.clone(),
            ..begin.clone()
        };
        self.begin.volume.id == begin.volume.id
            && announced == self.begin
            && self.point() == Some(point)
    }

    /// Applies the input until it ends.
    ///
    /// # Errors
    /// The failure for the sender; what was applied must not be used again.
    pub fn take(
        &mut self,
        (place, sign): (&mut Place, &dyn Fn()),
        mut told: impl FnMut(Progress) -> Result<(), Failure>,
    ) -> Result<Ended, Failure> {
        loop {
            match place.next(sign) {
                None => return Ok(Ended::Broken),
                Some(Input::Unwelcome) => return Ok(Ended::Unwelcome),
                Some(Input::Up(Up::Segment(segment))) => {
                    let verified = self.verify(segment, place);
                    let data = verified.segments.iter().map(|segment| &segment.data[..]);
                    let fed = self.session.feed_all(data);
                    fed.map_err(|error| match error.is_too_much() {
                        true => limits::too_many_bytes(&self.policy),
                        false => {
                            let staging = self.session.host().staging();
                            in_staging(session_failure(error), staging)
                        }
                    })?;
                    self.check_version()?;
                    told(Progress::Applied {
                        offset: self.place.offset(),
                        made: self.made(),
                    })?;
                    if let Some(failure) = verified.failure {
                        return Err(failure);
                    }
                    if let Some(last) = verified.segments.last()
                        && let Some(offset) = self.checkpoint(last)?
                    {
                        told(Progress::Checkpoint(offset))?;
                    }
                }
                Some(Input::Up(Up::End { length, chain })) => {
                    self.place.check_end(length, chain).map_err(not_continued)?;
                    return Ok(Ended::Whole);
                }
                Some(Input::Up(Up::Begin(_))) => {
                    return Err(rule_broken("the push was begun twice"));
                }
            }
        }
    }

    /// Verifies a segment and those that have already arrived behind it, up to one after which a checkpoint is due. They
    /// are applied together, which lets more of their commands be executed at the same time.
    fn verify(&mut self, first: Segment, place: &mut Place) -> Verified {
        let mut verified = Verified::default();
        let mut arrived = Some(first);
        while let Some(segment) = arrived.take() {
            if let Err(e) = self.place.check(&segment) {
                verified.failure = Some(not_continued(e));
                break;
            }
            self.place.passed(&segment);
            let is_due = self.checkpoints.is_due(&segment, self.place.point());
            verified.segments.push(segment);
            if is_due || verified.segments.len() == MOST_TOGETHER {
                break;
            }
            match place.arrived() {
                Some(Input::Up(Up::Segment(segment))) => arrived = Some(segment),
                Some(other) => place.put_back(other),
                None => {}
            }
        }
        verified
    }

    fn check_version(&self) -> Result<(), Failure> {
        let found = self.session.version();
        match found {
            Some(version) if version.number() != self.begin.stream_version => {
                Err(rule_broken(format!(
                    "the stream has version {}, and {} was announced",
                    version.number(),
                    self.begin.stream_version
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn checkpoint(&mut self, behind: &Segment) -> Result<Option<u64>, Failure> {
        let Some(point) = self
            .point()
            .filter(|point| self.checkpoints.is_due(behind, *point))
        else {
            return Ok(None);
        };
        // The size of an interrupted push counts, too; a number that is too high for the previous checkpoint
        // does no harm.
        let not_kept = self.session.not_kept();
        if self.policy.max_bytes.is_some() || !not_kept.is_empty() {
            self.note_usage(not_kept)?;
        }
        let taken = self.checkpoints.take(&mut self.session, point);
        taken.map_err(|failure| in_staging(failure, self.session.host().staging()))
    }

    fn note_usage(&self, not_kept: NotKept) -> Result<(), Failure> {
        let progress = self.progress(0, not_kept);
        // What a run deletes meanwhile is counted in the same file.
        let _lock = self.ledger_writer.locks.lock(&self.dir.name);
        usage::note(&self.dir.fd, progress.0, progress.1).map_err(|e| not_recorded(&e, &self.dir))
    }

    /// The state, and what it takes so far with `more` bytes.
    fn progress(&self, more: u64, not_kept: NotKept) -> (usage::State, Noted) {
        let bytes = self.place.offset().saturating_add(self.made());
        let progress = Noted {
            bytes: bytes.saturating_add(more),
            offset: self.place.offset(),
            not_kept,
        };
        (usage::state(announced_identity(&self.begin)), progress)
    }

    /// Commits the copy of a complete stream, and deletes the partial.
    ///
    /// # Errors
    /// The failure for the sender; there is no copy then.
    pub fn commit(self) -> Result<Received, Failure> {
        let not_kept = self.session.not_kept();
        let (state, size) = self.progress(COPY_METADATA_BYTES, not_kept.clone());
        let host = self.session.finish().map_err(session_failure)?;
        let lock = self.ledger_writer.locks.lock(&self.dir.name);
        let mut notes =
            vec![usage::fill(&self.dir.fd, state, size).map_err(|e| not_recorded(&e, &self.dir))?];
        let (expected, note) = self.ledger_writer.expect(
            self.root,
            &self.dir,
            &self.begin,
            host.shares_only_with_parent(),
            lock,
        )?; // 3
        notes.extend(note);
        let copy = host
            .commit(&self.dir, &self.name, notes)
            .map_err(|failure| in_commit(failure, &self.dir.name, &self.dir.fd))?; // 4
        crash::point("ledger-committed");
        self.ledger_writer
            .enter(self.root, &self.dir, expected, &copy); // 5
        crash::point("ledger-entered");
        self.checkpoints.forget(); // 6
        Ok(Received {
            name: copy.name.to_string_lossy().into_owned(),
            directory: self.dir.name,
            stream_bytes: self.place.offset(),
            not_kept,
        })
    }

    /// Deletes its staging and all its checkpoints.
    pub fn forget(self) {
        drop(self.session);
        self.checkpoints.forget();
    }
}

/// Whether a push can be resumed from its checkpoint after this failure: it will work when the cause is gone.
pub fn can_go_on_after(failure: &Failure) -> bool {
    match failure.code {
        Code::NoSpace
        | Code::ReadOnly
        | Code::RootMissing
        | Code::Io
        | Code::Internal
        | Code::Busy
        | Code::OverLimit
        | Code::ShuttingDown => true,
        Code::ParentGone
        | Code::RootChanged
        | Code::ParentUnusable
        | Code::AlreadyHeld
        | Code::InvalidStream
        | Code::HashMismatch
        | Code::ResumeImpossible
        | Code::NotPermitted
        | Code::NotFound
        | Code::LengthChanged
        | Code::Unsupported => false,
    }
}

fn not_recorded(error: &io::Error, dir: &VolumeDir) -> Failure {
    let failure = io_failure("record the size of the copy", error);
    in_dir(failure, &dir.name, &dir.fd)
}

fn not_resumable() -> Failure {
    Failure::new(
        Code::ResumeImpossible,
        "the receiver has no checkpoint of the push to resume from",
        "push again: it restarts from the beginning",
    )
}

/// Finds or makes the directory of a volume, if its sender may have one more.
fn volume_dir(root: &OpenRoot, work: &Announcement) -> Result<VolumeDir, Failure> {
    /// Held during the count, else several concurrent calls would each take the last volume allowed.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limits::check_volumes(root, &work.caller, &work.begin.volume, &work.policy)?;
    let made = volumes::find_or_create(root, &work.caller, &work.begin.volume);
    let dir = made.map_err(|e| {
        let failure = io_failure("prepare the volume's directory", &e);
        let sender = work.caller.name.as_str();
        match durable::open_dir(root, sender.as_ref()) {
            Ok(dir) => in_dir(failure, sender, dir),
            Err(_) => failure,
        }
    })?;
    check_writable(&dir.name, &dir.fd)?;
    Ok(dir)
}

fn refuse_what_is_held(root: &OpenRoot, dir: &VolumeDir, begin: &Begin) -> Result<(), Failure> {
    let of_uuid = subvolume::ids_by_received_uuid(root, begin.uuid)
        .map_err(|e| search_failure("look for copies of this UUID", &e))?;
    if of_uuid.len() >= MAX_OF_ONE_UUID {
        return Err(Failure::new(
            Code::OverLimit,
            format!(
                "there are {MAX_OF_ONE_UUID} copies under the UUID {} already",
                begin.uuid
            ),
            "push another snapshot: this one was changed repeatedly",
        ));
    }
    let copies =
        volumes::copies(&dir.fd).map_err(|e| io_failure("read the copies of the volume", &e))?;
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
