//! Compares two directory trees in everything that a copy must have. Uses none of the project's
//! code, so that it does not share its mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

/// Bytes read at a time.
const CHUNK: usize = 1024 * 1024;
/// Largest extended attribute, and largest list of names: the kernel's limit of 64 KiB.
const XATTR_MAX: usize = 64 * 1024;

/// What to compare in addition to what every copy must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Nothing more.
    Ignore,
    /// Position of holes in files.
    Holes,
}

/// Compares the trees below two directories, these included: names, types, modes, owners, sizes,
/// times of access and modification, extended attributes of all namespaces, targets of links,
/// device numbers, hard links, content. Returns the differences, one line each.
///
/// # Errors
/// If a tree cannot be read.
pub fn compare(a: &Path, b: &Path) -> Result<Vec<String>> {
    compare_with(a, b, Layout::Ignore)
}

/// As [`compare`], with a choice of layout.
///
/// # Errors
/// If a tree cannot be read.
pub fn compare_with(a: &Path, b: &Path, layout: Layout) -> Result<Vec<String>> {
    compare_but(a, b, layout, None)
}

/// As [`compare_with`], ignoring one extended attribute.
///
/// # Errors
/// If a tree cannot be read.
pub fn compare_but(
    a: &Path,
    b: &Path,
    layout: Layout,
    left_out: Option<&'static [u8]>,
) -> Result<Vec<String>> {
    allow_many_files();
    let mut comparison = Comparison {
        layout,
        left_out,
        differences: Vec::new(),
        links: [BTreeMap::new(), BTreeMap::new()],
    };
    let roots = [open_root(a)?, open_root(b)?];
    comparison.inode(&roots, b".", b"")?;
    comparison.directory(&roots, &mut Vec::new())?;
    comparison.links();
    Ok(comparison.differences)
}

/// The inodes with several names on one side: inode number and all its paths.
type Links = BTreeMap<u64, BTreeSet<Vec<u8>>>;

struct Comparison {
    layout: Layout,
    left_out: Option<&'static [u8]>,
    differences: Vec<String>,
    links: [Links; 2],
}

impl Comparison {
    fn differ(
        &mut self,
        path: &[u8],
        what: &str,
        a: impl std::fmt::Debug,
        b: impl std::fmt::Debug,
    ) {
        let path = path.escape_ascii();
        self.differences
            .push(format!("{path}: {what}: {a:?} / {b:?}"));
    }

    /// Compares the entries of two directories. `path` is the path of both, with a final slash.
    fn directory(&mut self, dirs: &[OwnedFd; 2], path: &mut Vec<u8>) -> Result<()> {
        let names = [names(&dirs[0])?, names(&dirs[1])?];
        for name in names[0].symmetric_difference(&names[1]) {
            let side = if names[0].contains(name) { "a" } else { "b" };
            let whole = [&path[..], name].concat();
            self.differ(&whole, "exists only in", side, ());
        }
        for name in names[0].intersection(&names[1]) {
            let len = path.len();
            path.extend_from_slice(name);
            let kind = self.inode(dirs, name, path)?;
            if kind == Some(FileType::Directory) {
                path.push(b'/');
                let children = [open_dir(&dirs[0], name)?, open_dir(&dirs[1], name)?];
                self.directory(&children, path)?;
            }
            path.truncate(len);
        }
        Ok(())
    }

    /// Compares the two inodes of a name; returns their type if it is equal.
    fn inode(&mut self, dirs: &[OwnedFd; 2], name: &[u8], path: &[u8]) -> Result<Option<FileType>> {
        let stats = [stat(&dirs[0], name)?, stat(&dirs[1], name)?];
        let [a, b] = &stats;
        let kinds = [a, b].map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kinds[0] != kinds[1] {
            self.differ(path, "type", kinds[0], kinds[1]);
            return Ok(None);
        }
        self.stats(path, a, b);
        self.xattrs(dirs, name, path)?;
        match kinds[0] {
            FileType::RegularFile => self.content(dirs, name, path)?,
            FileType::Symlink => self.target(dirs, name, path)?,
            _ => {}
        }
        if kinds[0] != FileType::Directory {
            for (links, stat) in self.links.iter_mut().zip(&stats) {
                if stat.st_nlink > 1 {
                    links.entry(stat.st_ino).or_default().insert(path.to_vec());
                }
            }
        }
        Ok(Some(kinds[0]))
    }

    fn stats(&mut self, path: &[u8], a: &Stat, b: &Stat) {
        let kind = FileType::from_raw_mode(a.st_mode);
        let mut fields = vec![
            ("mode", u64::from(a.st_mode), u64::from(b.st_mode)),
            ("uid", a.st_uid.into(), b.st_uid.into()),
            ("gid", a.st_gid.into(), b.st_gid.into()),
            ("nlink", a.st_nlink, b.st_nlink),
            ("rdev", a.st_rdev, b.st_rdev),
        ];
        // A directory's size counts its names, including those of nested subvolumes.
        if kind != FileType::Directory {
            fields.push(("size", a.st_size as u64, b.st_size as u64));
        }
        for (what, a, b) in fields {
            if a != b {
                self.differ(path, what, format_args!("{a:#o}"), format_args!("{b:#o}"));
            }
        }
        let times = |stat: &Stat| {
            [
                (stat.st_atime, stat.st_atime_nsec),
                (stat.st_mtime, stat.st_mtime_nsec),
            ]
        };
        for (what, (a, b)) in ["atime", "mtime"]
            .iter()
            .zip(times(a).iter().zip(&times(b)))
        {
            if a != b {
                self.differ(path, what, a, b);
            }
        }
    }

    fn xattrs(&mut self, dirs: &[OwnedFd; 2], name: &[u8], path: &[u8]) -> Result<()> {
        let [mut a, mut b] = [xattrs(&dirs[0], name)?, xattrs(&dirs[1], name)?];
        for side in [&mut a, &mut b] {
            side.retain(|name, _| self.left_out != Some(name.as_slice()));
        }
        if a != b {
            self.differ(path, "xattrs", printable(&a), printable(&b));
        }
        Ok(())
    }

    fn target(&mut self, dirs: &[OwnedFd; 2], name: &[u8], path: &[u8]) -> Result<()> {
        let read = |dir| rustix::fs::readlinkat(dir, name, Vec::new());
        let [a, b] = [read(&dirs[0])?, read(&dirs[1])?];
        if a != b {
            self.differ(path, "target", a, b);
        }
        Ok(())
    }

    fn content(&mut self, dirs: &[OwnedFd; 2], name: &[u8], path: &[u8]) -> Result<()> {
        let files = [open_file(&dirs[0], name)?, open_file(&dirs[1], name)?];
        if let Some(at) = first_difference(&files[0], &files[1])
            .with_context(|| format!("read {}", path.escape_ascii()))?
        {
            self.differ(path, "content", format_args!("at byte {at}"), ());
        }
        if self.layout == Layout::Holes {
            let [a, b] = [data_ranges(&files[0])?, data_ranges(&files[1])?];
            if a != b {
                self.differ(path, "data and holes", a, b);
            }
        }
        Ok(())
    }

    /// Compares which paths are hard links to the same inode.
    fn links(&mut self) {
        let [a, b] = [0, 1].map(|side| -> BTreeSet<BTreeSet<Vec<u8>>> {
            self.links[side].values().cloned().collect()
        });
        for group in a.symmetric_difference(&b) {
            let first = group.first().cloned().unwrap_or_default();
            let side = if a.contains(group) { "a" } else { "b" };
            self.differ(&first, "hard links only in", side, group.len());
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

fn open_dir(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn open_file(dir: &OwnedFd, name: &[u8]) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

fn stat(dir: &OwnedFd, name: &[u8]) -> Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn names(dir: &OwnedFd) -> Result<BTreeSet<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.insert(name);
        }
    }
    Ok(names)
}

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

fn xattrs(dir: &OwnedFd, name: &[u8]) -> Result<Xattrs> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = OsStr::from_bytes(&path);
    let mut list = vec![0_u8; XATTR_MAX];
    let len = rustix::fs::llistxattr(path, &mut list[..])?;
    let mut xattrs = Xattrs::new();
    for name in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0_u8; XATTR_MAX];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

fn printable(xattrs: &Xattrs) -> Vec<String> {
    let text = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        format!("{}={}", name.escape_ascii(), value.escape_ascii())
    };
    xattrs.iter().map(text).collect()
}

/// Returns the offset of the first byte that differs. Skips ranges that are holes in both files.
fn first_difference(a: &File, b: &File) -> Result<Option<u64>> {
    let size = a.metadata()?.len().min(b.metadata()?.len());
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < size {
        at = next_data(a, at, size)?.min(next_data(b, at, size)?);
        let len = (size - at).min(CHUNK as u64) as usize;
        a.read_exact_at(&mut left[..len], at)?;
        b.read_exact_at(&mut right[..len], at)?;
        if let Some(differs) = (0..len).find(|i| left[*i] != right[*i]) {
            return Ok(Some(at + differs as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

fn next_data(file: &File, at: u64, size: u64) -> Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.min(size)),
        Err(Errno::NXIO) => Ok(size),
        Err(e) => bail!(io::Error::from(e)),
    }
}

/// Lists the ranges of a file that hold data, as start and end in bytes.
fn data_ranges(file: &File) -> Result<Vec<(u64, u64)>> {
    let size = file.metadata()?.len();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < size {
        let start = next_data(file, at, size)?;
        if start == size {
            break;
        }
        at = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        ranges.push((start, at));
    }
    Ok(ranges)
}

/// Raises the descriptor limit: a tree of the deepest possible paths keeps two descriptors open per level.
fn allow_many_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If this fails, a later open fails and reports it.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pair() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for side in [&a, &b] {
            fs::create_dir(side).unwrap();
            fs::write(side.join("file"), "content").unwrap();
            fs::hard_link(side.join("file"), side.join("link")).unwrap();
            sync_all(side);
        }
        (dir, a, b)
    }

    /// Gives a directory and everything in it the same times.
    fn sync_all(side: &Path) {
        let set = |path: &Path| {
            let time = std::time::UNIX_EPOCH;
            let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
            File::open(path).unwrap().set_times(times).unwrap();
        };
        for entry in fs::read_dir(side).unwrap() {
            set(&entry.unwrap().path());
        }
        set(side);
    }

    fn differences(change: impl FnOnce(&Path)) -> Vec<String> {
        let (_dir, a, b) = pair();
        change(&b);
        sync_all(&b);
        compare_with(&a, &b, Layout::Holes).unwrap()
    }

    #[test]
    fn equal_trees_are_equal() {
        assert_eq!(differences(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_difference_is_seen() {
        use std::os::unix::fs::PermissionsExt;
        assert!(!differences(|b| fs::write(b.join("file"), "contemt").unwrap()).is_empty());
        assert!(!differences(|b| fs::write(b.join("more"), "").unwrap()).is_empty());
        assert!(!differences(|b| fs::remove_file(b.join("link")).unwrap()).is_empty());
        let unlinked = differences(|b| {
            fs::remove_file(b.join("link")).unwrap();
            fs::write(b.join("link"), "content").unwrap();
        });
        assert!(!unlinked.is_empty());
        let mode = differences(|b| {
            fs::set_permissions(b.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        });
        assert!(mode.iter().any(|d| d.contains("mode")), "{mode:?}");
    }

    #[test]
    fn times_are_compared() {
        let (_dir, a, b) = pair();
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1);
        File::open(b.join("file"))
            .unwrap()
            .set_modified(later)
            .unwrap();
        let found = compare(&a, &b).unwrap();
        assert_eq!(found.len(), 2, "{found:?}"); // file and link
    }
}
