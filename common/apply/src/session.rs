//! A session applies a stream from its first byte to its last, fed in slices.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use sendshot_model::{LeftOut, NotKept};
use sendshot_stream::{Command, DecodeError, Item, Parser, Version};
use uuid::Uuid;

use crate::commands::applier::{Applier, Content, Identity, Policies};
use crate::commands::batch::{self, Batch, Conflict};
use crate::commands::budget::Budget;
use crate::commands::clone::CloneSources;
use crate::commands::run::NewDir;
use crate::commands::workers::Workers;
use crate::error::{ApplyError, Cause};
use crate::paths;

/// A subvolume that a stream announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Its name at the sender: any bytes, not checked.
    pub name: Vec<u8>,
    /// Its identity in streams.
    pub identity: Identity,
    /// The subvolume to which the stream holds the changes; `None` for a full stream.
    pub parent: Option<Identity>,
}

/// Provider of staging subvolumes: the deciding part of a receiver.
pub trait Host: CloneSources {
    /// Reason of a refusal or failure.
    type Error;

    /// Makes the staging subvolume: empty, or a writable snapshot of the parent. Returns its root directory,
    /// opened for reading before anything is written to the subvolume.
    ///
    /// # Errors
    /// Refusals and failures; the session fails with them.
    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, Self::Error>;

    /// Takes the finished staging subvolume: all its commands were applied, and all files in it are closed.
    /// The data may not be on disk yet; see [`crate::commit()`].
    ///
    /// # Errors
    /// Refusals and failures; the session fails with them.
    fn complete(&mut self, subvolume: &Announced, root: Arc<OwnedFd>) -> Result<(), Self::Error>;

    /// Reports what the file system could not keep of the subvolume that is completed next. It is called only
    /// if there is something to report.
    fn not_kept(&mut self, _: &NotKept) {}

    /// Reports what was left out of the subvolume that is completed next, or stored in another way, if the policies
    /// allow that. It is called only if there is something to report.
    fn left_out(&mut self, _: &LeftOut) {}
}

/// Permitted number of subvolumes in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subvolumes {
    /// Exactly one.
    One,
    /// Any number, one after the other.
    Several,
}

/// A position between two commands of a subvolume, at which a stream can be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the start of the stream to the first byte of the next command.
    pub offset: u64,
    /// Version of the stream.
    pub version: Version,
    /// The subvolume that is being made.
    pub subvolume: Announced,
}

/// A command is at an invalid position of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The stream does not begin with a subvolume.
    #[error("{0} comes before any subvolume was begun")]
    BeforeSubvolume(&'static str),
    /// The stream has more than the one allowed subvolume.
    #[error("a second subvolume in a transfer of one")]
    SecondSubvolume,
    /// A subvolume has no identity.
    #[error("the subvolume's UUID is nil")]
    NilUuid,
}

/// Reason why a stream cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum SessionError<E> {
    /// The bytes of the stream are invalid.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The order of its commands is invalid.
    #[error("bad send stream at byte {offset}: {fault}")]
    Sequence {
        /// Offset of the command in bytes from the start of the stream.
        offset: u64,
        /// Reason why the command is invalid there.
        fault: SequenceError,
    },
    /// A command could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The root of the staging subvolume cannot be accessed.
    #[error("cannot work on the root of the staging subvolume")]
    Staging(#[source] Cause),
    /// The host refused or failed.
    #[error(transparent)]
    Host(E),
    /// The session had already failed.
    #[error("the transfer has failed before")]
    Failed,
}

impl<E> SessionError<E> {
    /// Whether the stream exceeds the limit on allocated bytes; see [`Session::limit_made`].
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Apply(e) if matches!(e.cause, Cause::TooMuch { .. }))
    }

    /// Returns the kernel's error in applying a command, if that is the reason.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Apply(e) => e.errno(),
            Self::Staging(cause) => cause.errno(),
            Self::Decode(_) | Self::Sequence { .. } | Self::Host(_) | Self::Failed => None,
        }
    }
}

/// Applies a stream as it arrives.
#[derive(Debug)]
pub struct Session<H> {
    parser: Parser,
    state: State<H>,
}

/// Everything except the parser, from which commands are borrowed.
#[derive(Debug)]
struct State<H> {
    host: H,
    allowed: Subvolumes,
    policies: Policies,
    begun: usize,
    current: Option<(Announced, Workers)>,
    budget: Budget,
    /// Of completed subvolumes, and of what was applied before this session.
    not_kept: NotKept,
    failed: bool,
}

impl<H: Host> Session<H> {
    /// Starts a session at the beginning of a stream.
    pub fn new(host: H, allowed: Subvolumes, policies: Policies) -> Self {
        Self {
            parser: Parser::new(),
            state: State {
                host,
                allowed,
                policies,
                begun: 0,
                current: None,
                budget: Budget::default(),
                not_kept: NotKept::default(),
                failed: false,
            },
        }
    }

    /// Resumes a session at `position`, with the root directory of a staging subvolume that holds exactly the
    /// content of the stream up to there: the state that [`Session::checkpoint`] prepared, without any later
    /// change.
    ///
    /// # Errors
    /// I/O errors of reading the root.
    pub fn resume(
        host: H,
        position: Position,
        root: OwnedFd,
        allowed: Subvolumes,
        policies: Policies,
    ) -> Result<Self, Cause> {
        let identity = position.subvolume.identity;
        let applier = Applier::new(root, Content::Some, identity, policies)?;
        let workers = Workers::new(applier, Content::Some);
        Ok(Self {
            parser: Parser::resume(position.version, position.offset),
            state: State {
                host,
                allowed,
                policies,
                begun: 1,
                current: Some((position.subvolume, workers)),
                budget: Budget::default(),
                not_kept: NotKept::default(),
                failed: false,
            },
        })
    }

    /// Makes the session fail when more than `most` bytes beyond those of the stream are allocated: reserved,
    /// copied, or used by clones; the estimate is never too low. `made` bytes were allocated before, by the
    /// stream up to here.
    pub fn limit_made(&mut self, made: u64, most: u64) {
        self.state.budget = Budget::new(made, most);
        let current = self.state.current.take();
        let budget = &self.state.budget;
        self.state.current =
            current.map(|(subvolume, workers)| (subvolume, workers.with(budget.clone())));
    }

    /// Returns the bytes allocated so far beyond those of the stream; see [`Session::limit_made`].
    pub fn made(&self) -> u64 {
        self.state.budget.made()
    }

    /// Adds what was not kept before: of the parent, or of what was applied before this session.
    pub fn add_not_kept(&mut self, before: &NotKept) {
        self.state.not_kept.add_all(before);
    }

    /// Returns what the file system could not keep so far, including what was added.
    pub fn not_kept(&self) -> NotKept {
        let mut all = self.state.not_kept.clone();
        if let Some((_, workers)) = &self.state.current {
            all.add_all(workers.first().not_kept());
        }
        all
    }

    /// Takes the next bytes of the stream and applies every command that they complete; keeps the beginning
    /// of an incomplete one.
    ///
    /// # Errors
    /// See [`SessionError`]; the session must not be used again.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SessionError<H::Error>> {
        self.feed_all([bytes])
    }

    /// Does what [`Session::feed`] does for each of the slices. Commands of all of them may be executed at the same
    /// time.
    ///
    /// # Errors
    /// See [`Session::feed`].
    pub fn feed_all<'i>(
        &mut self,
        slices: impl IntoIterator<Item = &'i [u8]>,
    ) -> Result<(), SessionError<H::Error>> {
        if self.state.failed {
            return Err(SessionError::Failed);
        }
        let result = self.take(slices);
        if result.is_err() {
            self.state.failed = true;
            self.state.current = None;
        }
        result
    }

    fn take<'i>(
        &mut self,
        inputs: impl IntoIterator<Item = &'i [u8]>,
    ) -> Result<(), SessionError<H::Error>> {
        let mut batch = Batch::default();
        let taken = inputs
            .into_iter()
            .try_for_each(|input| self.take_one(input, &mut batch));
        // What comes before an error in the stream may have one, too, which is the first then.
        self.state.run(&mut batch)?;
        taken
    }

    fn take_one<'i>(
        &mut self,
        mut input: &'i [u8],
        batch: &mut Batch<'i>,
    ) -> Result<(), SessionError<H::Error>> {
        loop {
            while let Some(located) = self.parser.next_whole(&mut input)? {
                if let Item::Command(command) = located.item {
                    self.state.add(command, located.start, batch)?;
                }
            }
            if input.is_empty() {
                return Ok(());
            }
            // It is not whole in this input.
            self.state.run(batch)?;
            let Some(located) = self.parser.next(&mut input)? else {
                return Ok(());
            };
            if let Item::Command(command) = located.item {
                self.state.command(&command, located.start)?;
            }
        }
    }

    /// Returns the version of the stream, once its header was read.
    pub fn version(&self) -> Option<Version> {
        self.parser.version()
    }

    /// Returns the bytes from the start of the stream to the first byte of the next command.
    pub fn offset(&self) -> u64 {
        self.parser.offset()
    }

    /// Prepares the staging subvolume for a snapshot of it from which the transfer can be resumed, and
    /// returns the position in the stream; `None` if no subvolume is being made, or if the policies allow exceptions,
    /// which a resumed session would not know. All commands before that
    /// position are executed, and none is in progress. (Before the snapshot, sync and check the result; see
    /// [`crate::commit::flush`].)
    ///
    /// # Errors
    /// I/O errors; the session stays usable.
    pub fn checkpoint(&mut self) -> Result<Option<Position>, Cause> {
        if self.state.policies.makes_exceptions() {
            return Ok(None);
        }
        let (Some((subvolume, workers)), Some(version)) =
            (&mut self.state.current, self.parser.version())
        else {
            return Ok(None);
        };
        workers.first_mut().set_root_times()?;
        Ok(Some(Position {
            offset: self.parser.offset(),
            version,
            subvolume: subvolume.clone(),
        }))
    }

    /// Ends the stream and returns the host.
    ///
    /// # Errors
    /// See [`SessionError`]: the stream is incomplete, or had failed.
    pub fn finish(self) -> Result<H, SessionError<H::Error>> {
        if self.state.failed {
            return Err(SessionError::Failed);
        }
        self.parser.finish()?;
        Ok(self.state.host)
    }

    /// Returns the host.
    pub fn host(&self) -> &H {
        &self.state.host
    }

    /// Returns the host for changes.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.state.host
    }

    /// Aborts the stream and returns the host.
    pub fn into_host(self) -> H {
        self.state.host
    }
}

impl<H: Host> State<H> {
    /// Adds a command to the batch, executes it before the batch, or executes both. After an error the batch is still
    /// to be executed.
    fn add<'i>(
        &mut self,
        command: Command<'i>,
        offset: u64,
        batch: &mut Batch<'i>,
    ) -> Result<(), SessionError<H::Error>> {
        if let Some(dir) = batch.release() {
            let renamed = dir.renamed_by(&command, offset);
            self.make_dir(&renamed.unwrap_or(dir), batch)?;
            if renamed.is_some() {
                return Ok(());
            }
        }
        let makes_early = self
            .current
            .as_ref()
            .is_some_and(|(_, workers)| workers.makes_early());
        let may_batch = |current: &(_, Workers)| current.1.may_batch(&command, batch);
        if !self.current.as_ref().is_some_and(may_batch) {
            self.run(batch)?;
            return self.command(&command, offset);
        }
        match command {
            Command::Mkdir { path } if makes_early => {
                let dir = NewDir::new(path, offset);
                return match paths::single(path) {
                    Ok(_) => {
                        batch.hold(dir);
                        Ok(())
                    }
                    Err(_) => self.make_dir(&dir, batch),
                };
            }
            Command::Rename { path, to } if batch.add_rename(path, to, offset).is_ok() => {
                return Ok(());
            }
            _ if batch.is_of_new_dir(&command) => return self.command(&command, offset),
            _ if batch::may_be_batched(&command) => {}
            _ => {
                self.run(batch)?;
                return self.command(&command, offset);
            }
        }
        if batch.add(command, offset).is_ok() {
            return Ok(());
        }
        self.run(batch)?;
        match batch.add(command, offset) {
            Ok(()) => Ok(()),
            Err(Conflict) => self.command(&command, offset),
        }
    }

    /// Executes the batch, which is empty then, also after an error.
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), SessionError<H::Error>> {
        let (runs, held) = (batch.take(), batch.release());
        if let Some((_, workers)) = &mut self.current
            && !runs.is_empty()
        {
            workers.run(&runs)?;
        }
        match held {
            Some(dir) => self.command(&Command::Mkdir { path: dir.path }, dir.offset),
            None => Ok(()),
        }
    }

    /// Makes a directory, if possible before the batch is executed.
    fn make_dir<'i>(
        &mut self,
        dir: &NewDir<'i>,
        batch: &mut Batch<'i>,
    ) -> Result<(), SessionError<H::Error>> {
        if !batch.admits(dir) {
            self.run(batch)?;
        }
        let (path, offset) = (dir.path, dir.offset);
        let make = Command::Mkdir { path };
        let Some(renamed) = dir.renamed else {
            self.command(&make, offset)?;
            batch.made_dir(path);
            return Ok(());
        };
        if let Some((_, workers)) = &mut self.current
            && workers.make_in_place(&make, renamed)
        {
            batch.made_dir(path);
            return Ok(());
        }
        self.run(batch)?;
        self.command(&make.with_path(renamed.temporary), offset)?;
        self.command(&renamed.command(path), renamed.offset)
    }

    fn command(
        &mut self,
        command: &Command<'_>,
        offset: u64,
    ) -> Result<(), SessionError<H::Error>> {
        if let Some(announced) = announced(command) {
            return self.begin(announced, offset);
        }
        if *command == Command::End && self.current.is_some() {
            return self.complete(offset);
        }
        match &mut self.current {
            Some((_, workers)) => Ok(workers.apply(command, offset, &mut self.host)?),
            None => {
                let fault = SequenceError::BeforeSubvolume(command.name());
                Err(SessionError::Sequence { offset, fault })
            }
        }
    }

    fn begin(&mut self, subvolume: Announced, offset: u64) -> Result<(), SessionError<H::Error>> {
        let refuse = |fault| Err(SessionError::Sequence { offset, fault });
        if self.allowed == Subvolumes::One && self.begun > 0 {
            return refuse(SequenceError::SecondSubvolume);
        }
        if subvolume.identity.uuid.is_nil() {
            return refuse(SequenceError::NilUuid);
        }
        // `btrfs send -e` omits the end command between subvolumes.
        self.complete(offset)?;
        self.begun += 1;
        let root = self.host.begin(&subvolume).map_err(SessionError::Host)?;
        let content = match subvolume.parent {
            None => Content::Empty,
            Some(_) => Content::Some,
        };
        let applier = Applier::new(root, content, subvolume.identity, self.policies)
            .map_err(SessionError::Staging)?;
        let workers = Workers::new(applier, content);
        self.current = Some((subvolume, workers.with(self.budget.clone())));
        Ok(())
    }

    fn complete(&mut self, offset: u64) -> Result<(), SessionError<H::Error>> {
        let Some((subvolume, workers)) = self.current.take() else {
            return Ok(());
        };
        let mut applier = workers.into_first();
        applier.finish(offset)?;
        applier.set_root_times().map_err(SessionError::Staging)?;
        if !applier.left_out().is_empty() {
            self.host.left_out(applier.left_out());
        }
        if !applier.not_kept().is_empty() {
            self.host.not_kept(applier.not_kept());
            self.not_kept.add_all(applier.not_kept());
        }
        self.host
            .complete(&subvolume, applier.into_root())
            .map_err(SessionError::Host)
    }
}

fn announced(command: &Command<'_>) -> Option<Announced> {
    let (name, uuid, ctransid, parent) = match *command {
        Command::Subvol {
            path,
            uuid,
            ctransid,
        } => (path, uuid, ctransid, None),
        Command::Snapshot {
            path,
            uuid,
            ctransid,
            clone_uuid,
            clone_ctransid,
        } => {
            let parent = identity(clone_uuid, clone_ctransid);
            (path, uuid, ctransid, Some(parent))
        }
        _ => return None,
    };
    Some(Announced {
        name: name.to_vec(),
        identity: identity(uuid, ctransid),
        parent,
    })
}

fn identity(uuid: Uuid, ctransid: u64) -> Identity {
    Identity { uuid, ctransid }
}
