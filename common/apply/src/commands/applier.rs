//! One command after the other, applied to a staging subvolume and to nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Timestamps;
use rustix::io::Errno;
use sendshot_model::{NotKept, NotKeptKind};
use sendshot_stream::dump::escaped;
use sendshot_stream::{Command, Timespec};
use sendshot_sys::encoded::Encoding;
use sendshot_sys::filesystem;
use uuid::Uuid;

use crate::commands::budget::{self, Budget};
use crate::commands::clone::{self, ClonePolicy, CloneSources, Foreign};
use crate::commands::data;
use crate::commands::dirs::Dirs;
use crate::commands::encoded::{Checked, EncodedPolicy, EncodedWriter};
use crate::commands::files::{self, Files};
use crate::commands::flags::{self, MountOptions};
use crate::commands::metadata::{self, Inode};
use crate::commands::nodes::Nodes;
use crate::error::{ApplyError, Cause};

/// What a stream calls a state of a subvolume, whichever file system it lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The sender's UUID of it, or the UUID that the sender received it as.
    pub uuid: Uuid,
    /// The sender's transaction number of its last change.
    pub ctransid: u64,
}

/// How commands are carried out. Tests use it to take the ways that real systems take rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policies {
    /// What to do with encoded writes.
    pub encoded: EncodedPolicy,
    /// What to do with clones.
    pub clone: ClonePolicy,
}

/// What the staging subvolume holds at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// The parent's content, or that of an earlier part of the stream.
    Some,
}

/// Applies commands to one staging subvolume, which nobody else may change meanwhile.
#[derive(Debug)]
pub struct Applier {
    dirs: Dirs,
    files: Files,
    foreign: Foreign,
    encoded: EncodedWriter,
    clone_policy: ClonePolicy,
    identity: Identity,
    root_times: Option<Timestamps>,
    budget: Budget,
    mount: MountOptions,
    not_kept: NotKept,
}

impl Applier {
    /// An applier for the subvolume whose root directory is `root`, opened for reading (not
    /// with O_PATH). It becomes the subvolume that the stream calls `identity`.
    ///
    /// # Errors
    /// The kernel's, from looking at the root.
    pub fn new(
        root: OwnedFd,
        content: Content,
        identity: Identity,
        policies: Policies,
    ) -> Result<Self, Cause> {
        let stat = rustix::fs::fstat(&root)?;
        let mut dirs = Dirs::new(Arc::new(root));
        let root_times = match content {
            Content::Empty => {
                dirs.has_only_root()?;
                None
            }
            Content::Some => Some(metadata::times_of(&stat)),
        };
        Ok(Self {
            root_times,
            dirs,
            files: Files::default(),
            foreign: Foreign::default(),
            encoded: EncodedWriter::new(policies.encoded),
            clone_policy: policies.clone,
            identity,
            budget: Budget::default(),
            mount: MountOptions::default(),
            not_kept: NotKept::default(),
        })
    }

    /// The root directory.
    pub fn root(&self) -> &OwnedFd {
        self.dirs.root()
    }

    /// The subvolume that is being made.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives the root directory the times that the stream has given it last, or else those
    /// that it had at first.
    ///
    /// The kernel's stream makes every new inode in the root before it moves it to its place,
    /// which changes the root's times here; but it says them only if the sender's root has
    /// changed too. So this is to be done at the end, and before a checkpoint.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settle(&mut self) -> Result<(), Cause> {
        if let Some(times) = &self.root_times {
            rustix::fs::futimens(self.dirs.root(), times)?;
        }
        Ok(())
    }

    /// Goes on with what was made, and what may be.
    pub(crate) fn with(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// What was made so far beyond the bytes of the commands.
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// What of the commands this file system could not keep.
    pub fn not_kept(&self) -> &NotKept {
        &self.not_kept
    }

    /// Closes all files but the root directory, and returns that.
    pub fn into_root(self) -> Arc<OwnedFd> {
        self.dirs.root().clone()
    }

    /// Applies a command that begins at byte `offset` of the stream.
    ///
    /// # Errors
    /// [`ApplyError`]; the subvolume is then of no further use, since the command may have been
    /// carried out in part.
    pub fn apply(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        sources: &mut dyn CloneSources,
    ) -> Result<(), ApplyError> {
        let charged = self.budget.charge(budget::beyond(command));
        let done = match charged.and_then(|()| self.execute(command, sources)) {
            Err(cause) if cause.errno() == Some(Errno::PERM) && self.unguard(command) => {
                self.execute(command, sources)
            }
            done => done,
        };
        done.map_err(|cause| ApplyError {
            command: command.name(),
            path: command.path().to_vec(),
            offset,
            cause,
        })
    }

    /// Takes away what forbids changes from what a command works on; returns whether that may
    /// help.
    fn unguard(&mut self, command: &Command<'_>) -> bool {
        let other = match *command {
            Command::Rename { to, .. } => to,
            Command::Link { existing, .. } => existing,
            _ => b"",
        };
        let mut unguarded = false;
        for path in [command.path(), other] {
            let dir = path.iter().rposition(|b| *b == b'/');
            let dir = &path[..dir.unwrap_or(0)];
            for path in [path, dir] {
                // What is not there does not forbid anything.
                unguarded |= flags::unguard(path, &mut self.dirs).unwrap_or(false);
            }
        }
        unguarded
    }

    fn execute(
        &mut self,
        command: &Command<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        match *command {
            Command::Mkfile { path } => self.nodes().file(path),
            Command::Mkdir { path } => self.nodes().dir(path),
            Command::Mknod { path, mode, rdev } => self.nodes().node(path, mode, rdev),
            Command::Mkfifo { path } => self.nodes().pipe(path),
            Command::Mksock { path } => self.nodes().socket(path),
            Command::Symlink { path, target } => self.nodes().symlink(path, target),
            Command::Rename { path, to } => self.nodes().rename(path, to),
            Command::Link { path, existing } => self.nodes().link(path, existing),
            Command::Unlink { path } => self.nodes().unlink(path),
            Command::Rmdir { path } => self.nodes().rmdir(path),
            Command::SetXattr { path, name, data } => {
                self.set_xattr(path, name, data)?;
                self.attribute_changed(name);
                Ok(())
            }
            Command::RemoveXattr { path, name } => {
                self.inode(path)?.remove_xattr(name)?;
                self.attribute_changed(name);
                Ok(())
            }
            Command::Write { path, offset, data } => data::write(self.file(path)?, offset, data),
            Command::Clone { .. } => self.clone_range(command, sources),
            Command::Truncate { path, size } => data::truncate(self.file(path)?, size),
            Command::Chmod { path, mode } => self.inode(path)?.chmod(mode),
            Command::Chown { path, uid, gid } => self.inode(path)?.chown(uid, gid),
            Command::Utimes {
                path, atime, mtime, ..
            } => self.utimes(path, atime, mtime),
            Command::Fallocate {
                path,
                mode,
                offset,
                len,
            } => data::fallocate(self.file(path)?, mode, offset, len),
            Command::EncodedWrite { .. } => self.encoded_write(command),
            Command::Fileattr { path, flags } => {
                let lost = flags::set(path, flags, &mut self.dirs, &mut self.mount)?;
                for kind in lost {
                    self.cannot_keep(kind, path);
                }
                Ok(())
            }
            Command::UpdateExtent { .. } => Err(Cause::NoData),
            Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => {
                Err(Cause::Misplaced)
            }
        }
    }

    fn nodes(&mut self) -> Nodes<'_> {
        Nodes {
            dirs: &mut self.dirs,
            files: &mut self.files,
            mount: &mut self.mount,
        }
    }

    fn inode<'p>(&mut self, path: &'p [u8]) -> Result<Inode<'p>, Cause> {
        Inode::find(path, &mut self.dirs, &mut self.files)
    }

    fn file(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Cause> {
        self.files.open(path, &mut self.dirs)
    }

    fn utimes(&mut self, path: &[u8], atime: Timespec, mtime: Timespec) -> Result<(), Cause> {
        let times = metadata::times(atime, mtime)?;
        self.inode(path)?.utimes(&times)?;
        if path.is_empty() {
            self.root_times = Some(times);
        }
        Ok(())
    }

    fn set_xattr(&mut self, path: &[u8], name: &[u8], data: &[u8]) -> Result<(), Cause> {
        let inode = self.inode(path)?;
        match inode.set_xattr(name, data) {
            // A file without checksums cannot be compressed, and has no property that says so; on a file
            // system that is mounted without them each file is one. Any other attribute is an error.
            Err(cause)
                if cause.errno() == Some(Errno::INVAL) && flags::is_compression(name, data) =>
            {
                // Better none than another one.
                inode.remove_xattr(name)?;
                self.cannot_keep(NotKeptKind::CompressionProperty, path);
                Ok(())
            }
            set => set.map_err(|cause| self.explain_attribute(cause, name.len() + data.len())),
        }
    }

    fn cannot_keep(&mut self, kind: NotKeptKind, path: &[u8]) {
        let path = if path.is_empty() { b"." } else { path };
        self.not_kept.add(kind, &escaped(path).to_string());
    }

    /// The kernel says that there is no space for an attribute that is too large for any space.
    fn explain_attribute(&self, cause: Cause, len: usize) -> Cause {
        let limit = match filesystem::node_size(self.dirs.root()) {
            Ok(size) => metadata::largest_attribute(size),
            Err(_) => return cause,
        };
        match cause.errno() {
            Some(Errno::NOSPC) if len > limit => Cause::AttributeTooLarge { len, limit },
            _ => cause,
        }
    }

    fn attribute_changed(&mut self, name: &[u8]) {
        if metadata::is_inherited(name) {
            self.dirs.inheritable_changed();
        }
    }

    fn clone_range(
        &mut self,
        command: &Command<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let Command::Clone {
            path,
            offset,
            len,
            clone_uuid,
            clone_ctransid,
            clone_path,
            clone_offset,
        } = *command
        else {
            return Err(Cause::Misplaced);
        };
        let named = Identity {
            uuid: clone_uuid,
            ctransid: clone_ctransid,
        };
        let source = if named == self.identity {
            self.clone_source(clone_path)
        } else {
            self.foreign
                .file(clone_uuid, clone_ctransid, clone_path, sources)
        }
        .map_err(|cause| clone_file(clone_uuid, clone_path, cause))?;
        let target = self.file(path)?;
        let range = clone::Range {
            from: clone_offset,
            to: offset,
            len,
        };
        clone::range(self.clone_policy, source, target, range, &mut self.budget)
    }

    /// A file of this subvolume, which may be immutable by now.
    fn clone_source(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Cause> {
        match self.file(path) {
            Err(cause) if cause.errno() == Some(Errno::PERM) => {
                files::open_foreign(self.dirs.root(), path).map(Arc::new)
            }
            opened => opened,
        }
    }

    fn encoded_write(&mut self, command: &Command<'_>) -> Result<(), Cause> {
        let Command::EncodedWrite {
            path,
            offset,
            unencoded_file_len,
            unencoded_len,
            unencoded_offset,
            compression,
            encryption,
            data,
        } = *command
        else {
            return Err(Cause::Misplaced);
        };
        let encoding = Encoding {
            file_offset: offset,
            unencoded_file_len,
            unencoded_len,
            unencoded_offset,
            compression,
        };
        let write = Checked::new(encoding, encryption, data.len())?;
        let file = self.file(path)?;
        self.encoded.write(file, &write, data, &mut self.budget)
    }
}

/// Says which file could not be opened, unless it is the subvolume that is at fault.
fn clone_file(uuid: Uuid, path: &[u8], cause: Cause) -> Cause {
    match cause {
        Cause::CloneSource { .. } => cause,
        other => Cause::CloneFile {
            uuid,
            path: path.to_vec(),
            source: Box::new(other),
        },
    }
}
