//! A stream from its first byte to its last, fed in slices.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use sendshot_model::NotKept;
use sendshot_stream::{Command, DecodeError, Item, Parser, Version};
use uuid::Uuid;

use crate::commands::applier::{Applier, Content, Identity, Policies};
use crate::commands::budget::Budget;
use crate::commands::clone::CloneSources;
use crate::error::{ApplyError, Cause};

/// A subvolume that a stream announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Its name as the sender has it: any bytes, not checked.
    pub name: Vec<u8>,
    /// Which subvolume it is.
    pub identity: Identity,
    /// What the stream holds the changes to; `None` for a full stream.
    pub parent: Option<Identity>,
}

/// Where subvolumes are made: the part of a receiver that decides.
pub trait Host: CloneSources {
    /// Why it refuses, or fails.
    type Error;

    /// Makes the staging subvolume: empty, or a writable snapshot of the parent. Returns its
    /// root directory, opened for reading before anything is written to the subvolume.
    ///
    /// # Errors
    /// Why not; the session fails with it.
    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, Self::Error>;

    /// Takes the finished staging subvolume: everything of it was applied, and all files in it
    /// are closed. Nothing is on disk for sure yet; see [`crate::commit()`].
    ///
    /// # Errors
    /// Why it cannot; the session fails with it.
    fn complete(&mut self, subvolume: &Announced, root: Arc<OwnedFd>) -> Result<(), Self::Error>;

    /// Takes what the file system could not keep of the subvolume that is completed next. Called only if
    /// there is something.
    fn not_kept(&mut self, _: &NotKept) {}
}

/// How many subvolumes a stream may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subvolumes {
    /// One.
    One,
    /// Any number, one after the other.
    Several,
}

/// A place between two commands of a subvolume, from which a stream can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Bytes from the start of the stream to the first byte of the next command.
    pub offset: u64,
    /// The stream's version.
    pub version: Version,
    /// The subvolume that is being made.
    pub subvolume: Announced,
}

/// A command where it cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The stream does not begin with a subvolume.
    #[error("{0} comes before any subvolume was begun")]
    BeforeSubvolume(&'static str),
    /// More than one subvolume where one is allowed.
    #[error("a second subvolume in a transfer of one")]
    SecondSubvolume,
    /// A subvolume without identity.
    #[error("the subvolume's UUID is nil")]
    NilUuid,
}

/// Why a stream cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SessionError<E> {
    /// Its bytes are wrong.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its commands are in a wrong order.
    #[error("bad send stream at byte {offset}: {fault}")]
    Sequence {
        /// Where the command begins, in bytes from the start of the stream.
        offset: u64,
        /// What is wrong.
        fault: SequenceError,
    },
    /// A command could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The root of the staging subvolume cannot be worked on.
    #[error("work on the root of the staging subvolume")]
    Staging(#[source] Cause),
    /// The host refused.
    #[error(transparent)]
    Host(E),
    /// The session has failed before.
    #[error("the transfer has failed before")]
    Failed,
}

impl<E> SessionError<E> {
    /// Whether more would be made than may be; see [`Session::limit_made`].
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Apply(e) if matches!(e.cause, Cause::TooMuch { .. }))
    }

    /// What the kernel said when a command was applied, if that is the reason.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Apply(e) => e.errno(),
            Self::Staging(cause) => cause.errno(),
            Self::Decode(_) | Self::Sequence { .. } | Self::Host(_) | Self::Failed => None,
        }
    }
}

/// Applies a stream as it comes in.
#[derive(Debug)]
pub struct Session<H> {
    parser: Parser,
    state: State<H>,
}

/// Everything but the parser, from which commands are borrowed.
#[derive(Debug)]
struct State<H> {
    host: H,
    allowed: Subvolumes,
    policies: Policies,
    begun: usize,
    current: Option<(Announced, Applier)>,
    budget: Budget,
    /// Of subvolumes that are complete, and of what was applied before this session.
    not_kept: NotKept,
    failed: bool,
}

impl<H: Host> Session<H> {
    /// A session at the start of a stream.
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

    /// A session that goes on at `position`, with the root directory of a staging subvolume
    /// that holds exactly what the stream says up to there: what [`Session::checkpoint`] has
    /// made ready, and not a moment later.
    ///
    /// # Errors
    /// The kernel's, from looking at the root.
    pub fn resume(
        host: H,
        position: Position,
        root: OwnedFd,
        allowed: Subvolumes,
        policies: Policies,
    ) -> Result<Self, Cause> {
        let identity = position.subvolume.identity;
        let applier = Applier::new(root, Content::Some, identity, policies)?;
        Ok(Self {
            parser: Parser::resume(position.version, position.offset),
            state: State {
                host,
                allowed,
                policies,
                begun: 1,
                current: Some((position.subvolume, applier)),
                budget: Budget::default(),
                not_kept: NotKept::default(),
                failed: false,
            },
        })
    }

    /// Has it fail when more than `most` bytes would be made beyond those of the stream: allocated,
    /// copied, or taken by what is cloned, as an estimate that is not too low. `made` were before, by
    /// what the stream said up to here.
    pub fn limit_made(&mut self, made: u64, most: u64) {
        self.state.budget = Budget::new(made, most);
        let current = self.state.current.take();
        let budget = self.state.budget;
        self.state.current = current.map(|(subvolume, applier)| (subvolume, applier.with(budget)));
    }

    /// How much was made so far beyond the bytes of the stream; see [`Session::limit_made`].
    pub fn made(&self) -> u64 {
        self.state.budget.made()
    }

    /// Adds what is not kept already: of the parent, or of what was applied before this session.
    pub fn add_not_kept(&mut self, before: &NotKept) {
        self.state.not_kept.add_all(before);
    }

    /// What the file system could not keep so far, with what was added.
    pub fn not_kept(&self) -> NotKept {
        let mut all = self.state.not_kept.clone();
        if let Some((_, applier)) = &self.state.current {
            all.add_all(applier.not_kept());
        }
        all
    }

    /// Takes the next bytes of the stream and applies every command that is complete with
    /// them; keeps the beginning of the next.
    ///
    /// # Errors
    /// [`SessionError`]; the session is of no further use then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SessionError<H::Error>> {
        if self.state.failed {
            return Err(SessionError::Failed);
        }
        let result = self.take(bytes);
        if result.is_err() {
            self.state.failed = true;
            self.state.current = None;
        }
        result
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), SessionError<H::Error>> {
        while let Some(located) = self.parser.next(&mut input)? {
            if let Item::Command(command) = located.item {
                self.state.command(&command, located.start)?;
            }
        }
        Ok(())
    }

    /// The stream's version, once its header was read.
    pub fn version(&self) -> Option<Version> {
        self.parser.version()
    }

    /// Bytes from the start of the stream to the first byte of the next command.
    pub fn offset(&self) -> u64 {
        self.parser.offset()
    }

    /// Makes the staging subvolume ready to be taken up again from a snapshot of it, and says
    /// where in the stream it is; `None` if no subvolume is being made. All commands before
    /// that place are carried out, and nothing is in flight. (Before the snapshot, sync and
    /// look at the result; see [`crate::commit::flush`].)
    ///
    /// # Errors
    /// The kernel's; the session is still of use.
    pub fn checkpoint(&mut self) -> Result<Option<Position>, Cause> {
        let (Some((subvolume, applier)), Some(version)) =
            (&mut self.state.current, self.parser.version())
        else {
            return Ok(None);
        };
        applier.settle()?;
        Ok(Some(Position {
            offset: self.parser.offset(),
            version,
            subvolume: subvolume.clone(),
        }))
    }

    /// Says that the stream ends here, and returns the host.
    ///
    /// # Errors
    /// [`SessionError`] if it cannot end here.
    pub fn finish(self) -> Result<H, SessionError<H::Error>> {
        if self.state.failed {
            return Err(SessionError::Failed);
        }
        self.parser.finish()?;
        Ok(self.state.host)
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.state.host
    }

    /// The host, to be changed.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.state.host
    }

    /// Gives up the stream, and returns the host.
    pub fn into_host(self) -> H {
        self.state.host
    }
}

impl<H: Host> State<H> {
    fn command(
        &mut self,
        command: &Command<'_>,
        offset: u64,
    ) -> Result<(), SessionError<H::Error>> {
        if let Some(announced) = announced(command) {
            return self.begin(announced, offset);
        }
        if *command == Command::End && self.current.is_some() {
            return self.complete();
        }
        match &mut self.current {
            Some((_, applier)) => {
                let applied = applier.apply(command, offset, &mut self.host);
                self.budget = applier.budget();
                Ok(applied?)
            }
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
        // `btrfs send -e` leaves out the end command between subvolumes.
        self.complete()?;
        self.begun += 1;
        let root = self.host.begin(&subvolume).map_err(SessionError::Host)?;
        let content = match subvolume.parent {
            None => Content::Empty,
            Some(_) => Content::Some,
        };
        let applier = Applier::new(root, content, subvolume.identity, self.policies)
            .map_err(SessionError::Staging)?;
        self.current = Some((subvolume, applier.with(self.budget)));
        Ok(())
    }

    fn complete(&mut self) -> Result<(), SessionError<H::Error>> {
        let Some((subvolume, mut applier)) = self.current.take() else {
            return Ok(());
        };
        applier.settle().map_err(SessionError::Staging)?;
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
