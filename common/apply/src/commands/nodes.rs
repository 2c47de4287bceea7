//! Makes, names and removes inodes.

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use sendshot_stream::Command;

use crate::commands::dirs::{Dirs, Heirs, INHERITED, Named};
use crate::commands::files::Files;
use crate::commands::flags::{self, MountOptions};
use crate::error::Cause;

/// Mode of new pipes, sockets and devices, as of new files: accessible to the owner only, until the stream
/// sets the mode.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Mode of new directories.
const PRIVATE_DIR: Mode = Mode::RWXU;

/// Attribute that new directories get from a default ACL besides [`INHERITED`].
const ACCESS_ACL: &str = "system.posix_acl_access";

/// Changes to the tree of names.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    pub(crate) dirs: &'a mut Dirs,
    pub(crate) files: &'a mut Files,
    pub(crate) mount: &'a mut MountOptions,
}

impl Nodes<'_> {
    pub(crate) fn file(&mut self, path: &[u8], mode: Mode) -> Result<(), Cause> {
        let named = self.dirs.place(path)?;
        self.files.create(path, &named, mode)?;
        self.disinherit_flags(path, &named)
    }

    pub(crate) fn dir(&mut self, path: &[u8]) -> Result<(), Cause> {
        let named = self.dirs.place(path)?;
        rustix::fs::mkdirat(&named.fd, named.name(), PRIVATE_DIR)?;
        self.disinherit_flags(path, &named)
    }

    pub(crate) fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), Cause> {
        if target.contains(&0) {
            return Err(Cause::Nul("link's target"));
        }
        let named = self.dirs.place(path)?;
        rustix::fs::symlinkat(target, &named.fd, named.name())?;
        self.disinherit(&named)
    }

    /// Makes a node of the type in `mode`, such as a device. A later command sets the permission bits.
    pub(crate) fn node(&mut self, path: &[u8], mode: u64, rdev: u64) -> Result<(), Cause> {
        let kind = node_kind(mode)?;
        let (major, minor) = Command::device_numbers(rdev).ok_or(Cause::DeviceNumber(rdev))?;
        self.special(path, kind, rustix::fs::makedev(major, minor))
    }

    pub(crate) fn pipe(&mut self, path: &[u8]) -> Result<(), Cause> {
        self.special(path, FileType::Fifo, 0)
    }

    pub(crate) fn socket(&mut self, path: &[u8]) -> Result<(), Cause> {
        self.special(path, FileType::Socket, 0)
    }

    fn special(&mut self, path: &[u8], kind: FileType, device: u64) -> Result<(), Cause> {
        let named = self.dirs.place(path)?;
        rustix::fs::mknodat(&named.fd, named.name(), kind, PRIVATE, device)?;
        self.disinherit(&named)
    }

    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Cause> {
        let source = self.dirs.place(from)?;
        let target = self.dirs.place(to).map_err(|e| other_path(to, e))?;
        rustix::fs::renameat(&source.fd, source.name(), &target.fd, target.name())?;
        self.files.renamed(from, to);
        self.dirs.forget(from);
        self.dirs.forget(to);
        Ok(())
    }

    pub(crate) fn link(&mut self, path: &[u8], existing: &[u8]) -> Result<(), Cause> {
        let source = self
            .dirs
            .place(existing)
            .map_err(|e| other_path(existing, e))?;
        let named = self.dirs.place(path)?;
        let flags = AtFlags::empty(); // does not follow `existing`
        rustix::fs::linkat(&source.fd, source.name(), &named.fd, named.name(), flags)?;
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &[u8]) -> Result<(), Cause> {
        let named = self.dirs.place(path)?;
        rustix::fs::unlinkat(&named.fd, named.name(), AtFlags::empty())?;
        self.files.forget(path);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, path: &[u8]) -> Result<(), Cause> {
        let named = self.dirs.place(path)?;
        rustix::fs::unlinkat(&named.fd, named.name(), AtFlags::REMOVEDIR)?;
        self.dirs.forget(path);
        Ok(())
    }

    /// Removes inherited attributes from a new inode.
    fn disinherit(&mut self, named: &Named<'_>) -> Result<(), Cause> {
        if self.dirs.heirs(named.place.dir)? == Heirs::Plain {
            return Ok(());
        }
        let path = named.proc_path();
        for name in INHERITED.into_iter().chain([ACCESS_ACL]) {
            match rustix::fs::lremovexattr(&path, name) {
                // It was not inherited, or the inode cannot have it, such as a link.
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Removes inherited attributes and inode flags from a new file or directory.
    fn disinherit_flags(&mut self, path: &[u8], named: &Named<'_>) -> Result<(), Cause> {
        self.disinherit(named)?;
        match self.dirs.heirs(named.place.dir)? {
            Heirs::Plain => Ok(()),
            Heirs::Inherit => flags::disinherit(path, self.dirs, self.mount),
        }
    }
}

/// Names the path in an error about one that is not the command's own.
fn other_path(path: &[u8], cause: Cause) -> Cause {
    match cause {
        Cause::Path(source) => Cause::OtherPath {
            path: path.to_vec(),
            source,
        },
        other => other,
    }
}

fn node_kind(mode: u64) -> Result<FileType, Cause> {
    let short = u32::try_from(mode).map_err(|_| Cause::NodeMode(mode))?;
    match FileType::from_raw_mode(short) {
        kind @ (FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Fifo
        | FileType::Socket) => Ok(kind),
        _ => Err(Cause::NodeMode(mode)),
    }
}
