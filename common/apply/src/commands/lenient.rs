//! Applies commands with exceptions: lists what the file system cannot keep, and leaves out privileges.
//!
//! An error is an exception only if the kernel says that it cannot do this, not that it failed: an I/O error, a
//! full disk or a file that is too large fails the stream as ever. Calls that some file systems ignore without an
//! error are checked by reading the attribute back.

use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;
use sendshot_model::{LeftOutKind, NotKeptKind};
use sendshot_stream::Command;
use sendshot_sys::filesystem;

use crate::commands::absent::{Place, at};
use crate::commands::applier::{Applier, Identity};
use crate::commands::clone::{self, CloneSources};
use crate::commands::data;
use crate::commands::exceptions::{
    CAPABILITY, Privileges, Unsupported, is_about_attribute, is_about_link, is_about_name,
    is_about_type, kind_of_entry,
};
use crate::commands::flags;
use crate::commands::metadata;
use crate::error::{ApplyError, Cause};
use crate::paths;

/// Bits of the mode that make a program run as another user or group.
const SET_ID: u64 = 0o6000;
/// Bits of the mode that can be set.
const PERMISSIONS: u64 = 0o7777;

/// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE: the modes that clear data.
const CLEARING: u32 = 0x2 | 0x10;

/// Maximum number of attempts to find an unused substitute name; only a stream that guesses them has such names.
const ATTEMPTS: usize = 100;

/// Free space with which a kernel's ENOSPC for an attribute means that the attribute is too large: an attribute
/// has at most 64 KiB.
const ROOM_FOR_ATTRIBUTES: u64 = 1 << 20;

impl Applier {
    pub(super) fn lists(&self) -> bool {
        self.policies.unsupported == Unsupported::List
    }

    pub(super) fn apply_with_exceptions(
        &mut self,
        command: &Command<'_>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let shown = command.path();
        match *command {
            Command::Mkfile { .. }
            | Command::Mkdir { .. }
            | Command::Mknod { .. }
            | Command::Mkfifo { .. }
            | Command::Mksock { .. }
            | Command::Symlink { .. } => return self.make(command, sources),
            Command::Link { path, existing } => return self.link(path, existing, sources),
            Command::Rename { to, .. } => self.require_present(&[shown, to])?,
            Command::Unlink { .. } | Command::Rmdir { .. } => self.require_present(&[shown])?,
            _ => {}
        }
        let (from, instead);
        let mut command = *command;
        if let Command::Clone {
            clone_path,
            clone_uuid: uuid,
            clone_ctransid: ctransid,
            ..
        } = &mut command
            && self.identity()
                == (Identity {
                    uuid: *uuid,
                    ctransid: *ctransid,
                })
            && let Some(Place::Instead(place)) = self.absent.place(clone_path)
        {
            from = place;
            *clone_path = &from;
        }
        match self.absent.place(shown) {
            None => self.change(&command, shown, sources),
            Some(Place::Instead(place)) => {
                instead = place;
                self.change(&at(&command, &instead), shown, sources)
            }
            Some(Place::Nowhere(_)) => Ok(()),
        }
    }

    fn require_present(&self, paths: &[&[u8]]) -> Result<(), Cause> {
        match paths.iter().any(|path| self.absent.place(path).is_some()) {
            true => Err(Cause::ChangesLeftOut),
            false => Ok(()),
        }
    }

    /// Leaves out an entry, and everything that would go into it.
    fn leave_out(&mut self, path: &[u8], kind: LeftOutKind) -> Result<(), Cause> {
        self.exceptions.note(kind, path);
        self.absent.insert(path, Place::Nowhere(kind))
    }

    /// Makes an entry, under a substitute name if its own is impossible, or leaves it out.
    fn make(&mut self, command: &Command<'_>, sources: &mut dyn CloneSources) -> Result<(), Cause> {
        let path = command.path();
        paths::split(path)?;
        if self.policies.privileges == Privileges::List && is_device(command) {
            return self.leave_out(path, LeftOutKind::DeviceNodeNotWanted);
        }
        if !self.lists() {
            return self.attempt(command, sources);
        }
        let reason = if self.absent.is_beneath(path) {
            LeftOutKind::InLeftOutDirectory
        } else {
            let Err(cause) = self.attempt(command, sources) else {
                return Ok(());
            };
            match (cause.errno(), kind_of_entry(command)) {
                (Some(e), Some(kind)) if is_about_type(e) => return self.leave_out(path, kind),
                (Some(e), _) if is_about_name(e) => LeftOutKind::Name,
                _ => return Err(cause),
            }
        };
        match command {
            Command::Mkdir { .. } => self.leave_out(path, reason),
            _ => self.make_instead(command, reason, sources),
        }
    }

    fn make_instead(
        &mut self,
        command: &Command<'_>,
        reason: LeftOutKind,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let path = command.path();
        let mut taken = Errno::EXIST.into();
        for _ in 0..ATTEMPTS {
            let instead = self.absent.substitute();
            let Err(cause) = self.attempt(&at(command, &instead), sources) else {
                self.absent.made(&instead);
                self.exceptions.note(reason, path);
                return self.absent.insert(path, Place::Instead(instead));
            };
            match (cause.errno(), kind_of_entry(command)) {
                (Some(Errno::EXIST), _) => taken = cause,
                (Some(e), Some(kind)) if is_about_type(e) || is_about_name(e) => {
                    return self.leave_out(path, kind);
                }
                _ => return Err(cause),
            }
        }
        Err(taken)
    }

    /// Adds a name to an entry; makes a copy if the file system has no hard links.
    fn link(
        &mut self,
        path: &[u8],
        existing: &[u8],
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        paths::split(path)?;
        let source = match self.absent.place(existing) {
            Some(Place::Nowhere(kind)) => return self.leave_out(path, kind),
            Some(Place::Instead(instead)) => instead,
            None => existing.to_vec(),
        };
        if self.absent.is_beneath(path) {
            self.exceptions.note(LeftOutKind::InLeftOutDirectory, path);
            return self.absent.insert(path, Place::Instead(source));
        }
        let existing = &source;
        let linked = self.attempt(&Command::Link { path, existing }, sources);
        match linked.as_ref().err().and_then(Cause::errno) {
            Some(e) if self.lists() && is_about_name(e) => self.alias(path, source),
            Some(e) if self.lists() && is_about_link(e) => {
                self.make_separate(path, source, sources)
            }
            _ => linked,
        }
    }

    /// Leaves out a name of an entry that has another one.
    fn alias(&mut self, path: &[u8], source: Vec<u8>) -> Result<(), Cause> {
        self.exceptions.note(LeftOutKind::Name, path);
        self.absent.insert(path, Place::Instead(source))
    }

    /// Makes an entry like another one, whose content and attributes it gets in the end.
    fn make_separate(
        &mut self,
        path: &[u8],
        source: Vec<u8>,
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let named = self.dirs.place(&source)?;
        let stat = metadata::Inode::Named(named).stat()?;
        let target;
        let command = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Command::Mkfile { path },
            FileType::Symlink => {
                let named = self.dirs.place(&source)?;
                target = rustix::fs::readlinkat(&named.fd, named.name(), Vec::new())?;
                let target = target.to_bytes();
                Command::Symlink { path, target }
            }
            FileType::Fifo => Command::Mkfifo { path },
            FileType::Socket => Command::Mksock { path },
            _ => {
                let (major, minor) = (
                    rustix::fs::major(stat.st_rdev),
                    rustix::fs::minor(stat.st_rdev),
                );
                let rdev =
                    Command::device(major, minor).ok_or(Cause::DeviceNumber(stat.st_rdev))?;
                let mode = u64::from(stat.st_mode);
                Command::Mknod { path, mode, rdev }
            }
        };
        match self.attempt(&command, sources) {
            Err(cause) if cause.errno().is_some_and(is_about_name) => self.alias(path, source),
            Err(cause) => Err(cause),
            Ok(()) => {
                self.exceptions.note(LeftOutKind::HardLink, path);
                self.copies.push((source, path.to_vec()));
                Ok(())
            }
        }
    }

    /// Changes an entry; `shown` is its path in the stream.
    fn change(
        &mut self,
        command: &Command<'_>,
        shown: &[u8],
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let before = self.size_before(command)?;
        let done = match *command {
            Command::Chmod { path, mode } => return self.chmod(path, mode, shown, sources),
            Command::SetXattr { name, .. }
                if name == CAPABILITY && self.policies.privileges == Privileges::List =>
            {
                self.exceptions
                    .note(LeftOutKind::CapabilityNotWanted, shown);
                return Ok(());
            }
            _ => self.attempt(command, sources),
        };
        let fallback = self.fallback.take();
        if !self.lists() {
            return done;
        }
        match done {
            Err(cause) => self.except(command, shown, cause)?,
            Ok(()) => self.compare(command, shown)?,
        }
        if let Some(kind) = fallback {
            self.exceptions.note(kind, shown);
        }
        match before {
            Some((size, start)) => self.look_for_hole(command.path(), shown, size, start),
            None => Ok(()),
        }
    }

    fn chmod(
        &mut self,
        path: &[u8],
        mode: u64,
        shown: &[u8],
        sources: &mut dyn CloneSources,
    ) -> Result<(), Cause> {
        let mut allowed = mode;
        let is_unwanted = self.policies.privileges == Privileges::List;
        if mode & SET_ID != 0 && (is_unwanted || self.exceptions.is_unowned(shown)) {
            // Without its owner, the program would run as the user who owns the file here.
            self.exceptions.note(LeftOutKind::SetId, shown);
            allowed &= !SET_ID;
        }
        let mode = self.exceptions.without_list(shown, allowed);
        let command = Command::Chmod { path, mode };
        match self.attempt(&command, sources) {
            done if !self.lists() => done,
            Err(cause) => self.except(&command, shown, cause),
            Ok(()) => self.compare(&command, shown),
        }
    }

    /// Counts a command that the file system cannot execute; other causes stay errors.
    fn except(&mut self, command: &Command<'_>, shown: &[u8], cause: Cause) -> Result<(), Cause> {
        let is_attribute = cause.errno().is_some_and(is_about_attribute);
        match *command {
            Command::Chown { .. } if is_attribute => self.exceptions.lost_owner(shown),
            Command::Chmod { .. } if is_attribute => {
                self.exceptions.note(LeftOutKind::Mode, shown);
            }
            Command::Utimes { .. } if is_attribute => {
                self.exceptions.note(LeftOutKind::Times, shown);
            }
            Command::SetXattr { name, data, .. } if is_attribute || self.is_too_large(&cause) => {
                match name {
                    flags::COMPRESSION => self.cannot_keep(NotKeptKind::CompressionProperty, shown),
                    _ => self.exceptions.lost_attribute(shown, name, data),
                }
            }
            // What the file system cannot have is not there.
            Command::RemoveXattr { .. } if cause.errno() == Some(Errno::OPNOTSUPP) => {}
            Command::RemoveXattr { name, .. } if is_attribute => {
                self.exceptions.lost_attribute(shown, name, b"");
            }
            Command::Fileattr { path, flags } if is_attribute => {
                for kind in flags::lost(path, flags, &self.dirs)? {
                    self.cannot_keep(kind, shown);
                }
            }
            Command::Fallocate {
                path,
                mode,
                offset,
                len,
            } if matches!(cause.errno(), Some(Errno::OPNOTSUPP | Errno::NOSYS)) => {
                data::fallocate_by_writing(self.file(path)?, mode, offset, len)?;
                let kind = match mode & CLEARING {
                    0 => LeftOutKind::Reservation,
                    _ => LeftOutKind::Holes,
                };
                self.exceptions.note(kind, shown);
            }
            _ => return Err(cause),
        }
        Ok(())
    }

    /// Whether an attribute cannot be stored regardless of free space. Most file systems report that as ENOSPC.
    fn is_too_large(&self, cause: &Cause) -> bool {
        let has_room = || {
            let space = filesystem::space(self.root());
            space.is_ok_and(|space| space.free >= ROOM_FOR_ATTRIBUTES)
        };
        match cause {
            Cause::AttributeTooLarge { .. } => true,
            _ => cause.errno() == Some(Errno::NOSPC) && has_room(),
        }
    }

    /// Counts an attribute that the kernel accepted but did not store as it is.
    fn compare(&mut self, command: &Command<'_>, shown: &[u8]) -> Result<(), Cause> {
        if !matches!(
            command,
            Command::Chown { .. } | Command::Chmod { .. } | Command::Utimes { .. }
        ) {
            return Ok(());
        }
        let stat = self.inode(command.path())?.stat()?;
        match *command {
            Command::Chown { uid, gid, .. }
                if (uid, gid) != (stat.st_uid.into(), stat.st_gid.into()) =>
            {
                self.exceptions.lost_owner(shown);
            }
            Command::Chmod { mode, .. } if (mode ^ u64::from(stat.st_mode)) & PERMISSIONS != 0 => {
                self.exceptions.note(LeftOutKind::Mode, shown);
            }
            Command::Utimes { atime, mtime, .. }
                if !metadata::are_equal(
                    &metadata::times(atime, mtime)?,
                    &metadata::times_of(&stat),
                ) =>
            {
                self.exceptions.note(LeftOutKind::Times, shown);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the size of a file, and the offset up to which the command makes a hole behind it.
    fn size_before(&mut self, command: &Command<'_>) -> Result<Option<(u64, u64)>, Cause> {
        let start = match *command {
            Command::Write { offset, .. }
            | Command::EncodedWrite { offset, .. }
            | Command::Clone { offset, .. } => offset,
            Command::Truncate { size, .. } => size,
            _ => return Ok(None),
        };
        if !self.lists() || self.exceptions.keeps_holes == Some(true) {
            return Ok(None);
        }
        let file = self.file(command.path())?;
        let size = rustix::fs::fstat(&file)?.st_size as u64;
        Ok((size < start).then_some((size, start)))
    }

    /// Counts a hole if the file system filled it with zeros.
    fn look_for_hole(
        &mut self,
        path: &[u8],
        shown: &[u8],
        size: u64,
        start: u64,
    ) -> Result<(), Cause> {
        let file = self.file(path)?;
        let block = u64::try_from(rustix::fs::fstat(&file)?.st_blksize)
            .unwrap_or(4096)
            .max(1);
        let first = size.next_multiple_of(block);
        if first >= start - start % block {
            return Ok(());
        }
        let is_hole = match rustix::fs::seek(&file, SeekFrom::Data(first)) {
            Ok(data) => data != first,
            Err(Errno::NXIO) => true,
            Err(_) => false,
        };
        self.exceptions.keeps_holes = Some(is_hole);
        if !is_hole {
            self.exceptions.note(LeftOutKind::Holes, shown);
        }
        Ok(())
    }

    /// Completes the exceptions after the last command: fills the copies of files that could not be linked, and
    /// deletes the files with substitute names.
    ///
    /// # Errors
    /// See [`ApplyError`]; `offset` is the end of the commands in the stream.
    pub fn finish(&mut self, offset: u64) -> Result<(), ApplyError> {
        let failed = |command, path: &[u8], cause| ApplyError {
            command,
            path: path.to_vec(),
            offset,
            cause,
        };
        for (source, path) in std::mem::take(&mut self.copies) {
            let copied = self.copy(&source, &path);
            copied.map_err(|cause| failed("link", &path, cause))?;
        }
        for substitute in self.absent.take_substitutes() {
            let deleted = self.delete(&substitute);
            deleted.map_err(|cause| failed("unlink", &substitute, cause))?;
        }
        Ok(())
    }

    fn delete(&mut self, path: &[u8]) -> Result<(), Cause> {
        match self.nodes().unlink(path) {
            Err(cause) if cause.errno() == Some(Errno::PERM) => {
                flags::unguard(path, &mut self.dirs)?;
                self.nodes().unlink(path)
            }
            done => done,
        }
    }

    /// Gives an entry the content and attributes of another one. What of them is not kept was counted when the
    /// other one got them.
    fn copy(&mut self, source: &[u8], path: &[u8]) -> Result<(), Cause> {
        let from = metadata::Inode::Named(self.dirs.place(source)?);
        let stat = from.stat()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile && stat.st_size > 0 {
            let range = clone::Range {
                from: 0,
                to: 0,
                len: stat.st_size as u64,
            };
            let (source, target) = (self.clone_source(source)?, self.file(path)?);
            clone::range(self.policies.clone, source, target, range, &mut self.budget)?;
        }
        let to = self.inode(path)?;
        for (name, value) in from.xattrs()? {
            tolerated(to.set_xattr(&name, &value))?;
        }
        tolerated(to.chown(stat.st_uid.into(), stat.st_gid.into()))?;
        if kind != FileType::Symlink {
            tolerated(to.chmod(u64::from(stat.st_mode) & PERMISSIONS))?;
        }
        tolerated(to.utimes(&metadata::times_of(&stat)))
    }
}

/// Accepts that an attribute cannot be set.
fn tolerated(set: Result<(), Cause>) -> Result<(), Cause> {
    match set {
        Err(cause) if cause.errno().is_some_and(is_about_attribute) => Ok(()),
        other => other,
    }
}

fn is_device(command: &Command<'_>) -> bool {
    let Command::Mknod { mode, .. } = *command else {
        return false;
    };
    let kind = u32::try_from(mode).map(FileType::from_raw_mode);
    matches!(kind, Ok(FileType::CharacterDevice | FileType::BlockDevice))
}
