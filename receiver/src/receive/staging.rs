//! The staging subvolume to which a stream is applied. It is made when the stream names the announced subvolume, or
//! again from a checkpoint.

use std::error::Error as StdError;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use sendshot_apply::commit::{CommitError, Committed, Taken, commit};
use sendshot_apply::parent::{self, Trust};
use sendshot_apply::staging::{Area, Staged};
use sendshot_apply::{Announced, CloneSources, Host, Identity};
use sendshot_model::CopyName;
use sendshot_proto::failure::Failure;
use sendshot_proto::transfer::{Begin, ParentRef};
use sendshot_sys::crash;
use sendshot_sys::durable::Filled;
use uuid::Uuid;

use crate::receive::announcement::announced_identity;
use crate::receive::failures::{
    commit_failure, io_failure, parent_failure, rule_broken, staging_failure, with_causes,
};
use crate::store::partials::staging_name;
use crate::store::volumes::VolumeDir;

/// Makes staging for the single announced subvolume, and opens clone sources of the same sender and volume only.
#[derive(Debug)]
pub(crate) struct StagingHost {
    area: Area,
    dir: OwnedFd,
    begin: Begin,
    staged: Option<Staged>,
    /// Whether the stream was seen whole, and has cloned from no copy but its parent.
    shares_only_with_parent: bool,
}

impl StagingHost {
    pub(crate) fn new(area: Area, dir: &VolumeDir, begin: Begin) -> Result<Self, Failure> {
        let io = |e| io_failure("prepare staging", &e);
        let host = Self {
            area,
            dir: dir.fd.try_clone().map_err(io)?,
            begin,
            staged: None,
            shares_only_with_parent: true,
        };
        // The parent is checked before the sender may begin, and once more when the stream names it.
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

    /// Whether the subvolume certainly shares data with no copy but its parent.
    pub(crate) fn shares_only_with_parent(&self) -> bool {
        self.shares_only_with_parent
    }

    pub(crate) fn staging(&self) -> Option<BorrowedFd<'_>> {
        self.staged.as_ref().map(Staged::root)
    }

    /// The subvolume as the stream must name it.
    pub(crate) fn announced(&self) -> Announced {
        Announced {
            name: Vec::new(),
            identity: announced_identity(&self.begin),
            parent: self.begin.parent.map(parent_identity),
        }
    }

    /// Makes staging again from a checkpoint; returns its root directory.
    pub(crate) fn take_again(&mut self, checkpoint: &OwnedFd) -> Result<OwnedFd, Failure> {
        // What was cloned up to the checkpoint is not recorded.
        self.shares_only_with_parent = false;
        self.stage(Some(checkpoint.as_fd()))
    }

    fn stage(&mut self, source: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failure> {
        let name = staging_name(self.begin.transfer);
        let staged = self
            .area
            .stage(&name, source)
            .map_err(|e| staging_failure(&e))?;
        crash::point("staging-made");
        let root = staged
            .root_for_applier()
            .map_err(|e| io_failure("open the staging subvolume", &e))?;
        self.staged = Some(staged);
        Ok(root)
    }

    /// Commits it together with `notes`; see [`commit`].
    pub(crate) fn commit(
        mut self,
        dir: &VolumeDir,
        name: &CopyName,
        notes: Vec<Filled>,
    ) -> Result<Committed, Failure> {
        let staged = self
            .staged
            .take()
            .ok_or_else(|| rule_broken("the stream holds no subvolume"))?;
        let identity = announced_identity(&self.begin);
        let name = name.to_string();
        match commit(
            staged,
            &dir.fd,
            name.as_ref(),
            identity,
            Taken::Number,
            notes,
        ) {
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
        let parent = self.begin.parent.map(parent_identity);
        self.shares_only_with_parent &= parent == Some(wanted);
        Ok(parent::find(&self.dir, wanted, Trust::Strict)?.root)
    }
}

impl Host for StagingHost {
    type Error = Failure;

    fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, Failure> {
        // The name is not used, since a copy is named by its time, but everything in a stream is checked.
        if !is_plain(&subvolume.name) {
            return Err(rule_broken(
                "the stream's name for its subvolume is not a plain name",
            ));
        }
        let parent = self.begin.parent.map(parent_identity);
        if subvolume.identity != announced_identity(&self.begin) || subvolume.parent != parent {
            return Err(rule_broken(
                "the stream holds another subvolume than the push announced",
            ));
        }
        let parent = self.parent()?;
        self.stage(parent.as_ref().map(AsFd::as_fd))
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), Failure> {
        Ok(()) // committed when the whole stream is known to be good
    }
}

/// Whether it can be the name of a directory entry.
fn is_plain(name: &[u8]) -> bool {
    let special = name.is_empty() || name == b"." || name == b"..";
    !special && name.len() <= 255 && !name.iter().any(|byte| [b'/', 0].contains(byte))
}

fn parent_identity(parent: ParentRef) -> Identity {
    Identity {
        uuid: parent.uuid,
        ctransid: parent.ctransid,
    }
}
