//! Regular files of the staging subvolume. The last few stay open for the next command.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath::open_beneath;
use crate::commands::dirs::{Dirs, Named};
use crate::error::Cause;
use crate::paths;

/// Number of files that stay open: the one being written and a few from which it clones.
const KEPT: usize = 4;

/// Flags to open a file that a stream names. If it is of an unexpected type, opening never follows a link,
/// waits for a pipe's other end or acquires a controlling terminal.
const CAREFUL: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// The regular files used last, open for reading and writing.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// In order of use, the last used at the end.
    kept: Vec<(Vec<u8>, Arc<OwnedFd>)>,
}

impl Files {
    /// Returns the file with this path, if it is open.
    pub(crate) fn kept(&mut self, path: &[u8]) -> Option<Arc<OwnedFd>> {
        let at = self.kept.iter().rposition(|(kept, _)| kept == path)?;
        self.kept[at..].rotate_left(1);
        self.kept.last().map(|(_, fd)| fd.clone())
    }

    /// Returns the regular file with this path, opening it if needed.
    pub(crate) fn open(&mut self, path: &[u8], dirs: &mut Dirs) -> Result<Arc<OwnedFd>, Cause> {
        if let Some(fd) = self.kept(path) {
            return Ok(fd);
        }
        let fd = open_regular(&dirs.place(path)?)?;
        Ok(self.keep(path, fd))
    }

    /// Makes an empty regular file and keeps it open.
    pub(crate) fn create(
        &mut self,
        path: &[u8],
        named: &Named<'_>,
        mode: Mode,
    ) -> Result<(), Cause> {
        let flags = CAREFUL | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOATIME;
        let fd = rustix::fs::openat(&named.fd, named.name(), flags, mode)?;
        self.keep(path, fd);
        Ok(())
    }

    fn keep(&mut self, path: &[u8], fd: OwnedFd) -> Arc<OwnedFd> {
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        let fd = Arc::new(fd);
        self.kept.push((path.to_vec(), fd.clone()));
        fd
    }

    /// Closes the file with this path.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.kept.retain(|(kept, _)| kept != path);
    }

    /// Follows a rename: an open file keeps its descriptor under the new path; the file that had that path is
    /// closed, and so is everything in a moved directory.
    pub(crate) fn renamed(&mut self, from: &[u8], to: &[u8]) {
        self.kept.retain(|(kept, _)| {
            kept == from
                || !(paths::is_at_or_beneath(kept, from) || paths::is_at_or_beneath(kept, to))
        });
        for (path, _) in &mut self.kept {
            if path == from {
                to.clone_into(path);
            }
        }
    }
}

/// Opens a regular file of the staging subvolume for reading and writing.
fn open_regular(named: &Named<'_>) -> Result<OwnedFd, Cause> {
    // The type is checked first, because merely opening a device can have side effects.
    let stat = rustix::fs::statat(&named.fd, named.name(), AtFlags::SYMLINK_NOFOLLOW)?;
    require_regular(stat.st_mode)?;
    let fd = without_atime(|noatime| {
        let flags = CAREFUL | OFlags::RDWR | noatime;
        rustix::fs::openat(&named.fd, named.name(), flags, Mode::empty())
    })?;
    require_regular(rustix::fs::fstat(&fd)?.st_mode)?;
    Ok(fd)
}

/// Opens a regular file of another subvolume for reading.
pub(crate) fn open_foreign(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Cause> {
    paths::split(path)?;
    let look = open_beneath(
        &root,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )?;
    require_regular(rustix::fs::fstat(&look)?.st_mode)?;
    let fd =
        without_atime(|noatime| open_beneath(&root, path, CAREFUL | OFlags::RDONLY | noatime))?;
    require_regular(rustix::fs::fstat(&fd)?.st_mode)?;
    Ok(fd)
}

/// Opens with O_NOATIME: reading to copy a range must not change an access time that was already set. Only
/// the owner or root may use the flag; for others access times are best effort.
fn without_atime(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => open(OFlags::empty()),
        other => other,
    }
}

fn require_regular(mode: u32) -> Result<(), Cause> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Cause::NotRegular),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn files(paths: &[&str]) -> Files {
        let mut files = Files::default();
        for path in paths {
            files.keep(path.as_bytes(), fd());
        }
        files
    }

    fn paths_of(files: &Files) -> Vec<&str> {
        files
            .kept
            .iter()
            .map(|(path, _)| std::str::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn a_renamed_file_is_found_under_its_new_path_only() {
        let mut files = files(&["o257-8-0", "dir/x"]);
        files.renamed(b"o257-8-0", b"dir/x");
        assert_eq!(paths_of(&files), ["dir/x"]);
        assert!(files.kept(b"o257-8-0").is_none());
    }

    #[test]
    fn files_in_a_directory_that_moves_are_forgotten() {
        let mut files = files(&["a/b/f", "a/bc", "g"]);
        files.renamed(b"a/b", b"a/c");
        assert_eq!(paths_of(&files), ["a/bc", "g"]);
        files.renamed(b"tmp", b"a");
        assert_eq!(paths_of(&files), ["g"]);
    }

    #[test]
    fn the_least_recently_used_is_closed_first() {
        let mut files = files(&["a", "b", "c", "d"]);
        assert!(files.kept(b"a").is_some());
        files.keep(b"e", fd());
        assert_eq!(paths_of(&files), ["c", "d", "a", "e"]);
    }
}
