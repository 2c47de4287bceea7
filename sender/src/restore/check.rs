//! Checks a restored tree before it is exposed. The hashes of the transfer prove that it is what the receiver sent;
//! this compares it with what this host itself knows.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sendshot_engine::Sendshot;
use sendshot_engine::format::entry::{Inode, Name, ROOT};
use sendshot_engine::format::error::Error as SendshotError;
use sendshot_model::restore::Checked;
use sendshot_stream::Command;
use sendshot_stream::dump::escaped;
use sendshot_sys::durable::proc_path;

/// Most differences, and most paths of a kind, that are listed.
const MAX_LISTED: usize = 20;

/// Attributes that depend on how a file system stores data; the applier reports them if it cannot set them.
const OF_STORAGE: &str = "btrfs.";

/// Attribute with the capabilities of a file.
const CAPABILITIES: &str = "security.capability";

/// Why a tree could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the restored tree at {}", .path.display())]
    Tree {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read this host's own sendshot")]
    Sendshot(#[from] SendshotError),
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Tree {
        path: path.to_owned(),
        source,
    }
}

/// Compares the names and the metadata of a read-only tree with a sendshot of the same state. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn compare(root: impl AsFd, sendshot: &Sendshot) -> Result<Checked, Error> {
    let dirs = directories(sendshot)?;
    let mut checked = Checked {
        own_sendshot: true,
        ..Checked::default()
    };
    let mut reader = sendshot.reader()?;
    let mut expected = 0;
    while let Some(inode) = reader.next_inode()? {
        expected += inode.names.len() as u64;
        compare_inode(root.as_fd(), &dirs, &inode, &mut checked.differences)?;
        if checked.differences.len() >= MAX_LISTED {
            return Ok(checked);
        }
    }
    let mut found = 0;
    walk(root.as_fd(), &mut |_, _| {
        found += 1;
        Ok(())
    })?;
    checked.names = found;
    // Every expected name was found: more names are additions.
    if checked.differences.is_empty() && found != expected {
        checked.differences.push(format!(
            "the tree has {found} names, and the sendshot has {expected}"
        ));
    }
    Ok(checked)
}

/// Lists what a dishonest receiver could plant in a tree that cannot be compared. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn list(root: impl AsFd) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    walk(root.as_fd(), &mut |path, entry| {
        checked.names += 1;
        let stat = rustix::fs::fstat(entry).map_err(|e| at(path)(e.into()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let text = || escaped(path.as_os_str().as_bytes()).to_string();
        let add = |list: &mut Vec<String>| {
            if list.len() < MAX_LISTED {
                list.push(text());
            }
        };
        let is_set_id = kind == FileType::RegularFile && stat.st_mode & 0o6000 != 0;
        if is_set_id {
            add(&mut checked.set_id);
        }
        match kind {
            FileType::BlockDevice | FileType::CharacterDevice => add(&mut checked.devices),
            FileType::RegularFile if has_capabilities(entry).map_err(at(path))? => {
                add(&mut checked.capabilities);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(checked)
}

/// The name of every directory, by its inode number.
fn directories(sendshot: &Sendshot) -> Result<HashMap<u64, Name>, Error> {
    let (mut dirs, mut reader) = (HashMap::new(), sendshot.reader()?);
    while let Some(inode) = reader.next_inode()? {
        if let ([name], true) = (inode.names.as_slice(), inode.item.is_dir()) {
            dirs.insert(inode.ino, name.clone());
        }
    }
    Ok(dirs)
}

/// The path of a name; `None` if a directory on the way is missing in the sendshot.
fn path_of(dirs: &HashMap<u64, Name>, name: &Name) -> Option<PathBuf> {
    let (mut parts, mut at) = (vec![name.name.as_slice()], name.parent);
    while at != ROOT {
        let dir = dirs.get(&at)?;
        // A loop of directories would not end.
        if parts.len() > dirs.len() {
            return None;
        }
        parts.push(&dir.name);
        at = dir.parent;
    }
    let parts = parts.iter().rev().map(|part| OsStr::from_bytes(part));
    Some(parts.collect())
}

fn compare_inode(
    root: BorrowedFd<'_>,
    dirs: &HashMap<u64, Name>,
    inode: &Inode,
    differences: &mut Vec<String>,
) -> Result<(), Error> {
    let mut paths = Vec::new();
    match inode.ino {
        ROOT => paths.push(PathBuf::from(".")),
        _ => paths.extend(inode.names.iter().filter_map(|name| path_of(dirs, name))),
    }
    let mut first = None;
    for path in paths {
        let text = escaped(path.as_os_str().as_bytes()).to_string();
        let entry = match open(root, &path) {
            Ok(entry) => entry,
            Err(e) if is_absent(&e) => {
                differences.push(format!("{text} is missing"));
                continue;
            }
            Err(e) => return Err(at(&path)(e)),
        };
        let stat = rustix::fs::fstat(&entry).map_err(|e| at(&path)(e.into()))?;
        match first {
            None => {
                first = Some(stat.st_ino);
                let found = difference(&entry, &stat, inode).map_err(at(&path))?;
                differences.extend(found.map(|what| format!("{text} has {what}")));
            }
            Some(ino) if ino != stat.st_ino => {
                differences.push(format!("{text} is not a hard link to the same file"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// The first difference between a file and its inode in the sendshot.
fn difference(
    entry: &OwnedFd,
    stat: &rustix::fs::Stat,
    inode: &Inode,
) -> io::Result<Option<&'static str>> {
    let item = &inode.item;
    if stat.st_mode != item.mode {
        return Ok(Some("another type or other permissions"));
    }
    if (stat.st_uid, stat.st_gid) != (item.uid, item.gid) {
        return Ok(Some("another owner"));
    }
    if item.is_regular() && u64::try_from(stat.st_size) != Ok(item.size) {
        return Ok(Some("another size"));
    }
    if (stat.st_mtime, u64::from(item.mtime.nsec)) != (item.mtime.sec, stat.st_mtime_nsec) {
        return Ok(Some("another time"));
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice)
        && Command::device_numbers(item.rdev) != Some(device(stat.st_rdev))
    {
        return Ok(Some("another device number"));
    }
    if kind == FileType::Symlink {
        let target = rustix::fs::readlinkat(entry, "", Vec::new())?;
        if Some(target.as_bytes()) != inode.target.as_deref() {
            return Ok(Some("another target"));
        }
    }
    if attributes(entry)? != expected_attributes(inode) {
        return Ok(Some("other attributes"));
    }
    Ok(None)
}

fn device(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

fn expected_attributes(inode: &Inode) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = inode.xattrs.iter();
    let all = all.map(|xattr| (xattr.name.clone(), xattr.value.clone()));
    let mut all: Vec<_> = all.filter(|(name, _)| !is_of_storage(name)).collect();
    all.sort();
    all
}

fn is_of_storage(name: &[u8]) -> bool {
    name.starts_with(OF_STORAGE.as_bytes())
}

/// The extended attributes of a file that was opened by its path only, sorted.
fn attributes(entry: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(entry);
    let mut names = vec![0; 64 * 1024];
    let len = match rustix::fs::listxattr(&path, &mut names) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut all = Vec::new();
    for name in names[..len].split(|byte| *byte == 0) {
        if name.is_empty() || is_of_storage(name) {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let len = rustix::fs::getxattr(&path, OsStr::from_bytes(name), &mut value)?;
        value.truncate(len);
        all.push((name.to_vec(), value));
    }
    all.sort();
    Ok(all)
}

fn has_capabilities(entry: BorrowedFd<'_>) -> io::Result<bool> {
    let path = proc_path(entry);
    match rustix::fs::getxattr(&path, CAPABILITIES, &mut [0u8; 0][..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Opens a path beneath the root without following links, for looking only.
fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // The last part may be a link itself, which the flags above do not follow.
    let (dir, name) = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat2(root, dir, flags, Mode::empty(), resolve)?;
            (dir, name)
        }
        _ => (root.try_clone_to_owned()?, path.as_os_str()),
    };
    Ok(rustix::fs::openat(&dir, name, flags, Mode::empty())?)
}

/// Visits everything below a directory, by path; the paths are relative to it.
fn walk(
    root: BorrowedFd<'_>,
    visit: &mut impl FnMut(&Path, BorrowedFd<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let flags = OFlags::RDONLY
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::NOATIME
            | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let place = match dir.as_os_str().is_empty() {
            true => Path::new("."),
            false => &dir,
        };
        let opened = rustix::fs::openat2(root, place, flags, Mode::empty(), resolve);
        let opened = opened.map_err(|e| at(&dir)(e.into()))?;
        for name in names(&opened).map_err(at(&dir))? {
            let path = dir.join(&name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = rustix::fs::openat(&opened, &name, flags, Mode::empty());
            let entry = entry.map_err(|e| at(&path)(e.into()))?;
            let stat = rustix::fs::fstat(&entry).map_err(|e| at(&path)(e.into()))?;
            visit(&path, entry.as_fd())?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// The names in a directory, read without changing its time of last access.
fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(dir.try_clone()?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}
