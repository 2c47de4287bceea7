//! Parents on the file system of the target directory, but not directly in that directory.
//!
//! A stream is input from outside, and a forced command over ssh often runs as root. So the user decides from
//! which subvolumes a stream may take its parent and clones: see [`Scope`]. They are looked up by UUID in the
//! file system's UUID tree, which only root may search, and opened through a detached mount of the top level,
//! even if no mount shows them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::{self, TopLevel};
use sendshot_sys::{filesystem, mounts};
use uuid::Uuid;

/// Permitted locations of parents and clone sources besides the target directory.
#[derive(Debug, Clone, Copy, Default)]
pub enum Scope<'a> {
    /// No other location.
    #[default]
    Target,
    /// Any depth beneath these directories, which are on the same file system.
    Beneath(&'a [OwnedFd]),
    /// Anywhere on the file system.
    Anywhere,
}

/// A subvolume with the wanted UUID.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) root: OwnedFd,
    pub(crate) info: Info,
    /// Its path from the top level.
    pub(crate) path: PathBuf,
}

/// Reason why the file system could not be searched.
#[derive(Debug)]
pub(crate) enum SearchError {
    /// The kernel returned an error.
    System(io::Error),
    /// The top level cannot be reached.
    TopLevel(top_level::Error),
}

impl From<io::Error> for SearchError {
    fn from(e: io::Error) -> Self {
        Self::System(e)
    }
}

/// A location on the file system, as reported to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path that a mount shows.
    Visible(PathBuf),
    /// A path from the top level of the file system, which no mount shows.
    FromTop(PathBuf),
}

impl Location {
    /// Returns the path, whichever kind it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Visible(path) | Self::FromTop(path) => path,
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Visible(path) => write!(f, "{}", path.display()),
            Self::FromTop(path) => write!(
                f,
                "{} from the top level of the file system, where no mount shows it",
                path.display()
            ),
        }
    }
}

/// Returns the subvolumes of the file system of `dir` that were received as `uuid`, or have it as their own,
/// at any path. Needs CAP_SYS_ADMIN.
pub(crate) fn candidates(dir: impl AsFd, uuid: Uuid) -> Result<Vec<Candidate>, SearchError> {
    let mut ids = subvolume::ids_by_received_uuid(&dir, uuid)?;
    ids.extend(subvolume::ids_by_uuid(&dir, uuid)?);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let top = TopLevel::of(&dir).map_err(SearchError::TopLevel)?;
    let mut found = Vec::new();
    for id in ids {
        found.extend(open(top.as_fd(), id)?);
    }
    Ok(found)
}

/// Opens a subvolume by its id; `None` if it is being deleted or moved.
fn open(top: BorrowedFd<'_>, id: u64) -> io::Result<Option<Candidate>> {
    let Some(path) = subvolume::path_from_top(top, id)? else {
        return Ok(None);
    };
    let from_here = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => &path,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let root = match rustix::fs::openat2(top, from_here, flags, Mode::empty(), beneath) {
        Ok(root) => root,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // Another subvolume can have moved to this path since it was looked up.
    let info = subvolume::info(&root)?;
    let is_it = subvolume::is_subvolume(&root)? && info.id == id;
    Ok(is_it.then_some(Candidate { root, info, path }))
}

impl Scope<'_> {
    /// Whether the subvolume at a path from the top level may be used.
    pub(crate) fn allows(self, path: &Path) -> io::Result<bool> {
        let directories = match self {
            Self::Target => return Ok(false),
            Self::Anywhere => return Ok(true),
            Self::Beneath(directories) => directories,
        };
        for directory in directories {
            // A directory that was deleted meanwhile contains nothing.
            if directory_from_top(directory)?.is_some_and(|directory| path.starts_with(directory)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the path of a directory from the top level of its file system.
fn directory_from_top(dir: impl AsFd) -> io::Result<Option<PathBuf>> {
    let id = subvolume::info(&dir)?.id;
    let inode = rustix::fs::fstat(&dir)?.st_ino;
    let (Some(subvolume), Some(below)) = (
        subvolume::path_from_top(&dir, id)?,
        subvolume::path_of_inode(&dir, inode)?,
    ) else {
        return Ok(None);
    };
    // Joining an empty path would append a slash.
    Ok(Some(
        subvolume.components().chain(below.components()).collect(),
    ))
}

/// Returns the location to report for a subvolume at a path from the top level.
pub(crate) fn locate(dir: impl AsFd, id: u64, from_top: PathBuf) -> Location {
    let visible = filesystem::fsid(dir).and_then(|fsid| mounts::visible_path(fsid, id, &from_top));
    match visible {
        Ok(Some(path)) => Location::Visible(path),
        // The error does not justify a failure.
        Ok(None) | Err(_) => Location::FromTop(from_top),
    }
}
