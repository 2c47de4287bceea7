//! Applies one command after the other to a staging subvolume and to nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, Timestamps};
use rustix::io::Errno;
use sendshot_model::{LeftOut, LeftOutKind, NotKept, NotKeptKind};
use sendshot_stream::dump::escaped;
use sendshot_stream::{Command, Timespec};
use sendshot_sys::encoded::Encoding;
use sendshot_sys::filesystem;
use uuid::Uuid;

use crate::commands::absent::Absent;
use crate::commands::budget::{self, Budget};
use crate::commands::clone::{self, ClonePolicy, CloneSources, Cloned, Foreign};
use crate::commands::data;
use crate::commands::dirs::{Dirs, Heirs};
use crate::commands::encoded::{Checked, EncodedPolicy, EncodedWriter, Written};
use crate::commands::exceptions::{Exceptions, Privileges, Unsupported, is_about_attribute};
use crate::commands::files::{self, Files};
use crate::commands::flags::{self, MountOptions};
use crate::commands::fold::{self, Fold};
use crate::commands::metadata::{self, Inode};
use crate::commands::nodes::Nodes;
use crate::commands::run::{Renamed, Run};
use crate::commands::run_policy::{Attributes, RunPolicy};
use crate::error::{ApplyError, Cause};

/// Identity of one state of a subvolume in streams, independent of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The sender's UUID of the subvolume, or the UUID as which the sender received it.
    pub uuid: Uuid,
    /// The sender's transaction number of the last change.
    pub ctransid: u64,
}

/// How commands are executed. Copies are made with the defaults, and restores with lists instead of errors. Tests
/// exercise paths that real systems rarely need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policies {
    /// How encoded writes are executed.
    pub encoded: EncodedPolicy,
    /// How clones are executed.
    pub clone: ClonePolicy,
    /// How properties and entries are handled that the file system cannot keep.
    pub unsupported: Unsupported,
    /// How privileges are handled.
    pub privileges: Privileges,
    /// How independent commands are executed.
    pub runs: RunPolicy,
}

impl Policies {
    /// Whether any command may be executed in another way than the stream says.
    pub(crate) fn makes_exceptions(&self) -> bool {
        self.unsupported == Unsupported::List || self.privileges == Privileges::List
    }
}

/// Initial content of the staging subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// It is empty.
    Empty,
    /// It has the parent's content, or that of an earlier part of the stream.
    Some,
}

/// Applies commands to one staging subvolume, which no other process may change meanwhile.
#[derive(Debug)]
pub struct Applier {
    pub(super) dirs: Dirs,
    files: Files,
    behind: data::WriteBehind,
    foreign: Foreign,
    encoded: EncodedWriter,
    pub(super) policies: Policies,
    identity: Identity,
    root_times: Option<Timestamps>,
    pub(super) budget: Budget,
    mount: MountOptions,
    not_kept: NotKept,
    pub(super) exceptions: Exceptions,
    pub(super) absent: Absent,
    /// Files to be made equal to another one in the end: the path of that one, and their own.
    pub(super) copies: Vec<(Vec<u8>, Vec<u8>)>,
    /// The last command was executed in another way, which stores the same data.
    pub(super) fallback: Option<LeftOutKind>,
    /// Mode of the next file that is made.
    new_mode: Mode,
    /// Whether it has replaced a file by a rename, which others may still have open.
    replaced: bool,
}

/// Mode of a file until its command for that comes.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

impl Applier {
    /// Makes an applier for the subvolume whose root directory is `root`, opened for reading (not with
    /// O_PATH). It becomes the subvolume that the stream calls `identity`.
    ///
    /// # Errors
    /// I/O errors of reading the root.
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
            Content::Some => {
                // A parent that another program made may be immutable: its copy could not be deleted.
                flags::unguard(b"", &mut dirs)?;
                Some(metadata::times_of(&stat))
            }
        };
        Ok(Self {
            root_times,
            ..Self::over(dirs, identity, policies)
        })
    }

    fn over(dirs: Dirs, identity: Identity, policies: Policies) -> Self {
        Self {
            root_times: None,
            dirs,
            files: Files::default(),
            behind: data::WriteBehind::default(),
            foreign: Foreign::default(),
            encoded: EncodedWriter::new(policies.encoded),
            policies,
            identity,
            budget: Budget::default(),
            mount: MountOptions::default(),
            not_kept: NotKept::default(),
            exceptions: Exceptions::default(),
            absent: Absent::default(),
            copies: Vec::new(),
            fallback: None,
            new_mode: PRIVATE_FILE,
            replaced: false,
        }
    }

    pub(crate) fn run_policy(&self) -> RunPolicy {
        self.policies.runs
    }

    /// Makes another applier for the same subvolume, which executes commands on other paths at the same time. For
    /// what it leaves behind see [`Applier::take_over`].
    pub(crate) fn fork(&self) -> Self {
        let forked = Self::over(self.dirs.fork(), self.identity, self.policies);
        forked.with(self.budget.clone())
    }

    /// Takes what a fork could not keep, and closes its files: it does not learn of later renames.
    pub(crate) fn take_over(&mut self, fork: &mut Self) {
        fork.files = Files::default();
        fork.behind = data::WriteBehind::default();
        if std::mem::take(&mut fork.replaced) {
            self.files = Files::default();
        }
        self.not_kept.add_all(&std::mem::take(&mut fork.not_kept));
    }

    /// Whether any command may be executed in another way than the stream says.
    pub(crate) fn makes_exceptions(&self) -> bool {
        self.policies.makes_exceptions()
    }

    /// Returns the root directory.
    pub fn root(&self) -> &OwnedFd {
        self.dirs.root()
    }

    /// Returns the identity of the subvolume that is being made.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives the root directory the times that the stream set last, or else its initial times.
    ///
    /// The kernel's stream makes every new inode in the root before it moves it to its place, which changes
    /// the root's times here; but the stream sets them only if the sender's root has changed too. So this
    /// must be called at the end, and before a checkpoint.
    ///
    /// # Errors
    /// I/O errors.
    pub fn set_root_times(&mut self) -> Result<(), Cause> {
        let Some(times) = &self.root_times else {
            return Ok(());
        };
        // Setting them would copy the nodes above the root's inode, also for an unchanged volume.
        let stat = rustix::fs::fstat(self.dirs.root())?;
        if metadata::are_equal(&metadata::times_of(&stat), times) {
            return Ok(());
        }
        match rustix::fs::futimens(self.dirs.root(), times) {
            // It was counted when the stream set them.
            Err(e) if self.lists() && is_about_attribute(e) => Ok(()),
            set => Ok(set?),
        }
    }

    /// Continues with an existing budget.
    pub(crate) fn with(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Returns the parts of the commands that this file system could not keep.
    pub fn not_kept(&self) -> &NotKept {
        &self.not_kept
    }

    /// Returns what was left out or stored in another way, if the policies allow that.
    pub fn left_out(&self) -> &LeftOut {
        self.exceptions.left_out()
    }

    /// Closes all files except the root directory, and returns that.
    pub fn into_root(self) -> Arc<OwnedFd> {
        self.dirs.root().clone()
    }

    /// Applies a command that begins at byte `offset` of the stream.
    ///
    /// # Errors
    /// See [`ApplyError`]. The applier must not be used again, because the command may have been executed in
    /// part.
    pub fn apply(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        sources: &mut dyn CloneSources,
    ) -> Result<(), ApplyError> {
        let charged = self.budget.charge(budget::beyond(command));
        let done = charged.and_then(|()| match self.policies.makes_exceptions() {
            false => self.attempt(command, sources),
            true => self.apply_with_exceptions(command, sources),
        });
        done.map_err(|cause| failed(command, offset, cause))
    }

    /// Applies the commands of a run.
    ///
    /// # Errors
    /// As for [`Applier::apply`].
    pub(crate) fn apply_run(
        &mut self,
        run: &Run<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), ApplyError> {
        let mut fold = Fold::new(run);
        let folds = self.policies.runs.attributes == Attributes::Fold;
        if folds {
            self.new_mode = fold::mode_of(run).unwrap_or(PRIVATE_FILE);
        }
        let mut commands = run.commands.iter();
        let made = match (run.renamed, commands.as_slice()) {
            (Some(renamed), [(make, offset), ..]) => {
                commands.next();
                match self.make_in_place(make, renamed, sources) {
                    true => Ok(()),
                    false => self.make_and_rename(make, *offset, renamed, sources),
                }
            }
            _ => Ok(()),
        };
        let mut rest = || {
            commands.try_for_each(|(command, offset)| {
                let leaves_out = match folds {
                    true => fold.leaves_out(command, || self.inode(command.path())?.stat()),
                    false => Ok(false),
                };
                match leaves_out {
                    Ok(true) => Ok(()),
                    Ok(false) => self.apply(command, *offset, sources),
                    Err(cause) => Err(failed(command, *offset, cause)),
                }
            })
        };
        let done = made.and_then(|()| rest());
        self.new_mode = PRIVATE_FILE;
        done
    }

    /// Makes an entry where the stream renames it, if nothing is there, nothing has its temporary name, and it gets
    /// nothing from its directory. Returns whether that is done.
    pub(crate) fn make_in_place(
        &mut self,
        make: &Command<'_>,
        renamed: Renamed<'_>,
        sources: &mut dyn CloneSources,
    ) -> bool {
        self.policies.runs.attributes == Attributes::Fold
            && self.is_free(renamed.temporary)
            && self.passes_nothing_on(make.path()).unwrap_or(false)
            && self.execute(make, sources).is_ok()
    }

    /// Whether nothing in the root has a name.
    fn is_free(&self, name: &[u8]) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = rustix::fs::statat(self.dirs.root(), name, flags);
        matches!(found, Err(Errno::NOENT))
    }

    /// Whether a new entry gets neither attributes nor flags nor its group from its directory.
    fn passes_nothing_on(&mut self, path: &[u8]) -> Result<bool, Cause> {
        let named = self.dirs.place(path)?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&named.fd)?.st_mode);
        let heirs = self.dirs.heirs(named.place.dir)?;
        Ok(heirs == Heirs::Plain && !mode.contains(Mode::SGID))
    }

    /// Makes an entry as the stream does.
    fn make_and_rename(
        &mut self,
        make: &Command<'_>,
        offset: u64,
        renamed: Renamed<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), ApplyError> {
        let path = make.path();
        self.replaced = true;
        self.apply(&make.with_path(renamed.temporary), offset, sources)?;
        self.apply(&renamed.command(path), renamed.offset, sources)
    }

    /// Executes a command, if necessary after clearing flags that forbid it.
    pub(super) fn attempt(
        &mut self,
        command: &Command<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        match self.execute(command, sources) {
            Err(cause) if cause.errno() == Some(Errno::PERM) => {
                self.unguard(command);
                // Also if nothing was cleared: another applier may have cleared the flags of the directory meanwhile.
                self.execute(command, sources)
            }
            done => done,
        }
    }

    /// Clears the flags that forbid changes to a command's objects.
    fn unguard(&mut self, command: &Command<'_>) {
        let other = match *command {
            Command::Rename { to, .. } => to,
            Command::Link { existing, .. } => existing,
            _ => b"",
        };
        for path in [command.path(), other] {
            let dir = path.iter().rposition(|b| *b == b'/');
            let dir = &path[..dir.unwrap_or(0)];
            for path in [path, dir] {
                // An object that does not exist forbids nothing.
                let _ = flags::unguard(path, &mut self.dirs);
            }
        }
    }

    fn execute(
        &mut self,
        command: &Command<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        match *command {
            Command::Mkfile { path } => {
                let mode = self.new_mode;
                self.nodes().file(path, mode)
            }
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
            Command::Write { path, offset, data } => {
                let file = self.file(path)?;
                data::write(&file, offset, data)?;
                self.behind.wrote(&file, offset, data.len() as u64)
            }
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

    pub(super) fn nodes(&mut self) -> Nodes<'_> {
        Nodes {
            dirs: &mut self.dirs,
            files: &mut self.files,
            mount: &mut self.mount,
        }
    }

    pub(super) fn inode<'p>(&mut self, path: &'p [u8]) -> Result<Inode<'p>, Cause> {
        Inode::find(path, &mut self.dirs, &mut self.files)
    }

    pub(super) fn file(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Cause> {
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
            // A file without checksums cannot be compressed and rejects the property; on a file system that
            // is mounted without them every file is one. For any other attribute the error stands.
            Err(cause)
                if cause.errno() == Some(Errno::INVAL) && flags::is_compression(name, data) =>
            {
                // No property is better than the previous, different one.
                inode.remove_xattr(name)?;
                self.cannot_keep(NotKeptKind::CompressionProperty, path);
                Ok(())
            }
            set => set.map_err(|cause| self.explain_attribute(cause, name.len() + data.len())),
        }
    }

    pub(super) fn cannot_keep(&mut self, kind: NotKeptKind, path: &[u8]) {
        let path = if path.is_empty() { b"." } else { path };
        self.not_kept.add(kind, &escaped(path).to_string());
    }

    /// Explains the kernel's ENOSPC for an attribute that is too large for any free space.
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
        let policy = self.policies.clone;
        let cloned = clone::range(policy, source, target, range, &mut self.budget)?;
        if (policy, cloned) == (ClonePolicy::Share, Cloned::Copied) {
            self.fallback = Some(LeftOutKind::SharedData);
        }
        Ok(())
    }

    /// Opens a file of this subvolume, which may already be immutable.
    pub(super) fn clone_source(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Cause> {
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
        let written = self.encoded.write(file, &write, data, &mut self.budget)?;
        if (self.policies.encoded, written) == (EncodedPolicy::Store, Written::Decoded) {
            self.fallback = Some(LeftOutKind::CompressedData);
        }
        Ok(())
    }
}

fn failed(command: &Command<'_>, offset: u64, cause: Cause) -> ApplyError {
    ApplyError {
        command: command.name(),
        path: command.path().to_vec(),
        offset,
        cause,
    }
}

/// Names the file that could not be opened, unless the error is about its subvolume.
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
