//! Directories of the staging subvolume, resolved without ever leaving it. The last few stay open.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::CONFINED;
use crate::commands::inherited::are_inherited;
use crate::error::Cause;
use crate::paths::{self, DirEntry};
use sendshot_sys::durable::proc_path;

/// Number of directories that stay open. Streams stay in one directory for a while, but switch between it,
/// the root and the targets of renames.
const KEPT: usize = 8;

/// Attributes of a directory that the kernel copies to new entries. A stream sets all attributes itself, so
/// inherited ones must be removed.
pub(crate) const INHERITED: [&str; 2] = ["system.posix_acl_default", "btrfs.compression"];

/// Whether new entries of a directory inherit attributes or flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heirs {
    /// New entries inherit.
    Inherit,
    /// New entries do not inherit.
    Plain,
}

/// An open directory. All except the root are open for resolution only.
#[derive(Debug)]
struct Dir {
    path: Vec<u8>,
    fd: Arc<OwnedFd>,
    /// `None` if not determined since it was opened or inheritable attributes were set anywhere.
    heirs: Option<Heirs>,
}

/// The root, and the directories used last.
#[derive(Debug)]
pub(crate) struct Dirs {
    root: Dir,
    /// In order of use, the last used at the end.
    kept: Vec<Dir>,
    /// False as long as no directory can have inheritable attributes.
    any_inheritable: bool,
}

impl Dirs {
    /// Starts with the root of a subvolume, of which nothing is known yet.
    pub(crate) fn new(root: Arc<OwnedFd>) -> Self {
        Self {
            root: Dir {
                path: Vec::new(),
                fd: root,
                heirs: None,
            },
            kept: Vec::with_capacity(KEPT),
            any_inheritable: true,
        }
    }

    /// Notes that the subvolume has no directory except its root.
    pub(crate) fn has_only_root(&mut self) -> Result<(), Cause> {
        self.any_inheritable = self.heirs(b"")? == Heirs::Inherit;
        Ok(())
    }

    /// Starts with what is known of the root only, for use at the same time.
    pub(crate) fn fork(&self) -> Self {
        Self {
            root: Dir {
                path: Vec::new(),
                fd: self.root.fd.clone(),
                heirs: self.root.heirs,
            },
            kept: Vec::with_capacity(KEPT),
            any_inheritable: self.any_inheritable,
        }
    }

    pub(crate) fn root(&self) -> &Arc<OwnedFd> {
        &self.root.fd
    }

    /// Checks a path and opens its directory.
    pub(crate) fn place<'p>(&mut self, path: &'p [u8]) -> Result<Named<'p>, Cause> {
        let place = paths::split(path)?;
        Ok(Named {
            fd: self.open(place.dir)?,
            place,
        })
    }

    /// Opens the directory with this checked path, for resolution only.
    fn open(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Cause> {
        Ok(self.dir(path)?.fd.clone())
    }

    fn dir(&mut self, path: &[u8]) -> Result<&mut Dir, Cause> {
        if path.is_empty() {
            return Ok(&mut self.root);
        }
        let last = match self.kept.iter().rposition(|dir| dir.path == path) {
            Some(at) => {
                self.kept[at..].rotate_left(1);
                self.kept.len() - 1
            }
            None => self.keep(path)?,
        };
        Ok(&mut self.kept[last])
    }

    fn keep(&mut self, path: &[u8]) -> Result<usize, Cause> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&self.root.fd, path, flags, Mode::empty(), CONFINED)?;
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(Dir {
            path: path.to_vec(),
            fd: Arc::new(fd),
            heirs: None,
        });
        Ok(self.kept.len() - 1)
    }

    /// Closes a directory that is removed or moved, and all beneath it.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.kept
            .retain(|dir| !paths::is_at_or_beneath(&dir.path, path));
    }

    /// Notes that an [`INHERITED`] attribute was set or removed anywhere, or flags of a directory.
    pub(crate) fn inheritable_changed(&mut self) {
        self.any_inheritable = true;
        self.root.heirs = None;
        for dir in &mut self.kept {
            dir.heirs = None;
        }
    }

    /// Whether new entries of a directory inherit. It needs no call as long as no directory can have such
    /// attributes or flags, and a few per opened directory afterwards.
    pub(crate) fn heirs(&mut self, path: &[u8]) -> Result<Heirs, Cause> {
        if !self.any_inheritable {
            return Ok(Heirs::Plain);
        }
        let dir = self.dir(path)?;
        if let Some(heirs) = dir.heirs {
            return Ok(heirs);
        }
        let heirs = look_for_inherited(&dir.fd)?;
        dir.heirs = Some(heirs);
        Ok(heirs)
    }
}

/// A name in an open directory.
#[derive(Debug)]
pub(crate) struct Named<'p> {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) place: DirEntry<'p>,
}

impl<'p> Named<'p> {
    pub(crate) fn name(&self) -> &'p [u8] {
        self.place.name
    }

    /// Returns a path for calls without directory descriptors; it stays in this directory.
    pub(crate) fn proc_path(&self) -> Vec<u8> {
        let mut path = proc_path(&self.fd).into_bytes();
        path.push(b'/');
        path.extend_from_slice(self.place.name);
        path
    }
}

fn look_for_inherited(dir: &OwnedFd) -> Result<Heirs, Cause> {
    let path = proc_path(dir);
    for name in INHERITED {
        match rustix::fs::getxattr(&path, name, &mut [0_u8; 0][..]) {
            Ok(_) => return Ok(Heirs::Inherit),
            // The attribute is not set, or ACLs are disabled on this mount.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    match are_inherited(dir)? {
        true => Ok(Heirs::Inherit),
        false => Ok(Heirs::Plain),
    }
}
