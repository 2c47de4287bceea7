//! Receiving a stream into a directory, without a daemon: what `btrfs receive` does, with
//! staging and commit as the daemon has them.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use sendshot_model::NotKept;
use sendshot_sys::filesystem;
use uuid::Uuid;

use crate::commands::applier::{Identity, Policies};
use crate::commands::clone::CloneSources;
use crate::commit::{self, CommitError, Committed, Taken};
use crate::elsewhere::Scope;
use crate::obstacle::WriteObstacle;
use crate::parent::{self, FindError, Parent, Trust, Unusable};
use crate::paths::{self, PathError};
use crate::session::{Announced, Host, Session, SessionError, Subvolumes};
use crate::staging::{Area, Staged, StagingError};

/// Bytes read at a time; large enough that most commands lie whole in it.
const CHUNK: usize = 1024 * 1024;

/// What names of staging subvolumes begin with here, so that only those are swept.
const PREFIX: &str = "receive-";

/// How to receive.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Whether parents and clone sources that may be in another state are taken.
    pub trust: Trust,
    /// Where parents and clone sources are taken from besides the target directory.
    pub scope: Scope<'a>,
    /// How commands are carried out.
    pub policies: Policies,
}

/// Something to tell the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A subvolume is received from here on.
    Begun(Announced),
    /// A parent or clone source is used although it may be in another state.
    Doubtful {
        /// Its name, or its path if it does not lie directly in the target directory.
        name: OsString,
        /// What speaks against it.
        why: Unusable,
    },
    /// What the file system cannot keep of the copy that is completed next.
    NotKept(NotKept),
    /// A copy is complete, and stays whatever comes after it in the stream.
    Received(Committed),
}

/// Why receiving failed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream is wrong, or could not be applied or committed.
    #[error(transparent)]
    Stream(#[from] SessionError<HostError>),
    /// The stream could not be read.
    #[error("read the stream")]
    Read(#[source] io::Error),
    /// The directory cannot be looked at.
    #[error("look at the target directory")]
    Target(#[source] io::Error),
    /// It lies on another kind of file system.
    #[error("the target directory is not on btrfs")]
    NotBtrfs,
    /// Nothing can be written there.
    #[error("nothing can be written to the target directory: {0}")]
    ReadOnly(WriteObstacle),
    /// The staging area does not work.
    #[error(transparent)]
    Staging(#[from] StagingError),
}

/// Why a subvolume of the stream cannot be begun or finished.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The stream's name for it cannot be a name.
    #[error("the stream's name for the subvolume is no name")]
    Name(#[source] PathError),
    /// The name is taken.
    #[error("{} exists already", .0.display())]
    Exists(OsString),
    /// The directory cannot be searched for the name.
    #[error("look for {}", .name.display())]
    Look {
        /// The name.
        name: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The parent is missing or cannot be used.
    #[error("find the parent")]
    Parent(#[from] FindError),
    /// The staging subvolume cannot be made.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The staging subvolume cannot be opened once more.
    #[error("open the staging subvolume")]
    Open(#[source] io::Error),
    /// The copy could not be committed.
    #[error("commit the copy")]
    Commit(#[from] CommitError),
    /// A subvolume ended that was not begun.
    #[error("no subvolume was begun")]
    NotBegun,
}

/// Receives all subvolumes of a stream into the directory `dir`, each under its own name.
///
/// Parents and clone sources are looked for among the read-only subvolumes directly in `dir`, and
/// where the options say. A failure leaves nothing behind but the copies that were complete before it; `tell` has
/// got to know of those. What an earlier run has left that was killed is cleaned up.
///
/// # Errors
/// See [`ReceiveError`].
pub fn receive(
    mut input: impl Read,
    dir: impl AsFd,
    options: Options<'_>,
    tell: impl FnMut(Event),
) -> Result<(), ReceiveError> {
    check_target(&dir)?;
    let area = Area::new(&dir).map_err(ReceiveError::Target)?;
    area.sweep(PREFIX)?;
    let host = Receiver {
        dir: dir
            .as_fd()
            .try_clone_to_owned()
            .map_err(ReceiveError::Target)?,
        area: &area,
        options,
        doubted: Vec::new(),
        tell,
        staged: None,
    };
    let session = Session::new(host, Subvolumes::Several, options.policies);
    let received = pump(&mut input, session);
    // The session is gone, and with it what was staged.
    let removed = area.remove_if_empty();
    received?;
    Ok(removed?)
}

fn check_target(dir: impl AsFd) -> Result<(), ReceiveError> {
    if !filesystem::is_btrfs(&dir).map_err(ReceiveError::Target)? {
        return Err(ReceiveError::NotBtrfs);
    }
    match WriteObstacle::of(&dir).map_err(ReceiveError::Target)? {
        Some(obstacle) => Err(ReceiveError::ReadOnly(obstacle)),
        None => Ok(()),
    }
}

fn pump<F: FnMut(Event)>(
    input: &mut impl Read,
    mut session: Session<Receiver<'_, F>>,
) -> Result<(), ReceiveError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => session.feed(&buffer[..len])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ReceiveError::Read(e)),
        }
    }
    session.finish()?;
    Ok(())
}

/// Stages and commits in a directory.
#[derive(Debug)]
struct Receiver<'a, F> {
    dir: OwnedFd,
    area: &'a Area,
    options: Options<'a>,
    /// Parents and clone sources of which the user was told what speaks against them.
    doubted: Vec<Identity>,
    tell: F,
    /// The subvolume that is being made.
    staged: Option<Staged>,
}

impl<F: FnMut(Event)> Receiver<'_, F> {
    fn find(&mut self, wanted: Identity) -> Result<Parent, FindError> {
        let Options { trust, scope, .. } = self.options;
        let parent = parent::find_within(&self.dir, scope, wanted, trust)?;
        // The same one can be a parent, and be opened to clone from again and again.
        if !self.doubted.contains(&wanted) && !parent.doubts.is_empty() {
            self.doubted.push(wanted);
            for why in &parent.doubts {
                (self.tell)(Event::Doubtful {
                    name: parent.name.clone(),
                    why: *why,
                });
            }
        }
        Ok(parent)
    }

    /// Refuses a taken name now, before any data has come.
    fn require_free(&self, name: &OsStr) -> Result<(), HostError> {
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => Err(HostError::Exists(name.to_owned())),
            Err(e) => Err(HostError::Look {
                name: name.to_owned(),
                source: e.into(),
            }),
        }
    }
}

impl<F: FnMut(Event)> CloneSources for Receiver<'_, F> {
    fn open(&mut self, uuid: Uuid, ctransid: u64) -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        Ok(self.find(Identity { uuid, ctransid })?.root)
    }
}

impl<F: FnMut(Event)> Host for Receiver<'_, F> {
    type Error = HostError;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, HostError> {
        let name = final_name(subvolume)?;
        self.require_free(name)?;
        let parent = subvolume
            .parent
            .map(|wanted| self.find(wanted))
            .transpose()?;
        let staging_name = format!("{PREFIX}{}", Uuid::new_v4());
        let source = parent.as_ref().map(|parent| parent.root.as_fd());
        let staged = self.area.stage(staging_name.as_ref(), source)?;
        let root = staged.root_for_applier().map_err(HostError::Open)?;
        self.staged = Some(staged);
        (self.tell)(Event::Begun(subvolume.clone()));
        Ok(root)
    }

    fn complete(&mut self, subvolume: &Announced, _: Arc<OwnedFd>) -> Result<(), HostError> {
        let staged = self.staged.take().ok_or(HostError::NotBegun)?;
        let name = final_name(subvolume)?;
        let copy = commit::commit(staged, &self.dir, name, subvolume.identity, Taken::Refuse)?;
        (self.tell)(Event::Received(copy));
        Ok(())
    }

    fn not_kept(&mut self, lacks: &NotKept) {
        (self.tell)(Event::NotKept(lacks.clone()));
    }
}

fn final_name(subvolume: &Announced) -> Result<&OsStr, HostError> {
    paths::single(&subvolume.name)
        .map(OsStr::from_bytes)
        .map_err(HostError::Name)
}
