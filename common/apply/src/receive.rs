//! Receives a stream into a directory without a daemon: like `btrfs receive`, with staging and commit as in
//! the daemon.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use sendshot_model::{LeftOut, NotKept};
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

/// Bytes read at a time; large enough to contain most commands whole.
const CHUNK: usize = 1024 * 1024;

/// Prefix of the names of staging subvolumes here; only those are swept.
const PREFIX: &str = "receive-";

/// Options of a reception.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Whether parents and clone sources that may be in another state are used.
    pub trust: Trust,
    /// Permitted locations of parents and clone sources besides the target directory.
    pub scope: Scope<'a>,
    /// How commands are executed.
    pub policies: Policies,
}

/// An event to report to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The reception of a subvolume begins.
    Begun(Announced),
    /// A parent or clone source is used although it may be in another state.
    Doubtful {
        /// Its name, or its path if it is not directly in the target directory.
        name: OsString,
        /// Reason for the doubt.
        why: Unusable,
    },
    /// The parts of the next completed copy that the file system cannot keep.
    NotKept(NotKept),
    /// What was left out of the next completed copy, if the policies allow that.
    LeftOut(LeftOut),
    /// A copy is complete, and stays even if the stream fails later.
    Received(Committed),
}

/// Reason why a reception failed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream is invalid, or could not be applied or committed.
    #[error(transparent)]
    Stream(#[from] SessionError<HostError>),
    /// The stream could not be read.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// The directory cannot be inspected.
    #[error("cannot check the target directory")]
    Target(#[source] io::Error),
    /// The directory is on another kind of file system.
    #[error("the target directory is not on btrfs")]
    NotBtrfs,
    /// Its file system, or this host, has sizes with which nothing is tested.
    #[error("the target directory: {0}")]
    Untested(filesystem::Untested),
    /// The directory is not writable.
    #[error("nothing can be written to the target directory: {0}")]
    ReadOnly(WriteObstacle),
    /// The staging area cannot be used.
    #[error(transparent)]
    Staging(#[from] StagingError),
}

/// Reason why a subvolume of the stream cannot be begun or completed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The stream's name for it is not a valid file name.
    #[error("the stream's name for the subvolume is not valid")]
    Name(#[source] PathError),
    /// The name exists already.
    #[error("{} exists already", .0.display())]
    Exists(OsString),
    /// The directory cannot be searched for the name.
    #[error("cannot look for {}", .name.display())]
    Look {
        /// Name of the subvolume.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The parent is missing or cannot be used.
    #[error("cannot find the parent")]
    Parent(#[from] FindError),
    /// The staging subvolume cannot be made.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// The staging subvolume cannot be reopened.
    #[error("cannot open the staging subvolume")]
    Open(#[source] io::Error),
    /// The copy could not be committed.
    #[error("cannot commit the copy")]
    Commit(#[from] CommitError),
    /// A subvolume ended that had not begun.
    #[error("no subvolume was begun")]
    NotBegun,
}

/// Receives all subvolumes of a stream into the directory `dir`, each under its own name.
///
/// Parents and clone sources are searched for among the read-only subvolumes directly in `dir`, and where the
/// options permit. A failure leaves only the copies that were complete before it, which were reported by
/// `tell`. Remnants of an earlier run that was killed are deleted.
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
    // The session was dropped, and with it the staging subvolume.
    let removed = area.remove_if_empty();
    received?;
    Ok(removed?)
}

fn check_target(dir: impl AsFd) -> Result<(), ReceiveError> {
    if !filesystem::is_btrfs(&dir).map_err(ReceiveError::Target)? {
        return Err(ReceiveError::NotBtrfs);
    }
    if let Some(sizes) = filesystem::untested(&dir).map_err(ReceiveError::Target)? {
        return Err(ReceiveError::Untested(sizes));
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
    /// Parents and clone sources whose doubts were reported already.
    doubted: Vec<Identity>,
    tell: F,
    /// The subvolume that is being received.
    staged: Option<Staged>,
}

impl<F: FnMut(Event)> Receiver<'_, F> {
    fn find(&mut self, wanted: Identity) -> Result<Parent, FindError> {
        let Options { trust, scope, .. } = self.options;
        let parent = parent::find_within(&self.dir, scope, wanted, trust)?;
        // The same subvolume can be a parent, and be opened repeatedly to clone from.
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

    /// Refuses an existing name before any data is received.
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
        let copy = commit::commit(
            staged,
            &self.dir,
            name,
            subvolume.identity,
            Taken::Refuse,
            Vec::new(),
        )?;
        (self.tell)(Event::Received(copy));
        Ok(())
    }

    fn not_kept(&mut self, lacks: &NotKept) {
        (self.tell)(Event::NotKept(lacks.clone()));
    }

    fn left_out(&mut self, left_out: &LeftOut) {
        (self.tell)(Event::LeftOut(left_out.clone()));
    }
}

fn final_name(subvolume: &Announced) -> Result<&OsStr, HostError> {
    paths::single(&subvolume.name)
        .map(OsStr::from_bytes)
        .map_err(HostError::Name)
}
