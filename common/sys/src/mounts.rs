//! The mount table: finds the paths at which users see a subvolume.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

use crate::{filesystem, subvolume};

/// Returns a path at which this process reaches subvolume `id` of the file system `fsid`, which is at
/// `from_top` from the top level; `None` if no mount shows it.
///
/// # Errors
/// I/O errors of reading the mount table.
pub fn visible_path(fsid: Uuid, id: u64, from_top: &Path) -> io::Result<Option<PathBuf>> {
    // The file is not read as text: mount points can have any bytes.
    let table = std::fs::read("/proc/self/mountinfo")?;
    let from_top = Path::new("/").join(from_top);
    let paths = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let (root, mount_point) = btrfs_mount(line)?;
        let below = from_top.strip_prefix(root).ok()?;
        Some(mount_point.components().chain(below.components()).collect())
    });
    // Another mount can cover it, and several file systems can have the same paths.
    Ok(paths.into_iter().find(|path| leads_to(path, fsid, id)))
}

/// Opens the root of any accessible mount of the file system `fsid`; `None` if there is none.
///
/// # Errors
/// I/O errors of reading the mount table.
pub fn any_of(fsid: Uuid) -> io::Result<Option<OwnedFd>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut mount_points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| btrfs_mount(line).map(|(_, mount_point)| mount_point));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(mount_points.find_map(|path| {
        // Another mount can cover it.
        let root = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let is_it = filesystem::is_btrfs(&root).ok()? && filesystem::fsid(&root).ok()? == fsid;
        is_it.then_some(root)
    }))
}

/// Returns the mount points in a mount table (`mountinfo`) of a subvolume at `from_top`, with a leading slash, or of
/// something in it. `is_source` tells whether a device is of its file system.
pub fn of_subvolume(
    table: &[u8],
    from_top: &Path,
    is_source: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let (root, mount_point) = btrfs_mount(line)?;
            let mut end = line
                .split(|byte| *byte == b' ')
                .skip_while(|field| *field != b"-");
            let source = unescaped(end.nth(2)?);
            (root.starts_with(from_top) && is_source(&source)).then_some(mount_point)
        })
        .collect()
}

fn leads_to(path: &PathBuf, fsid: Uuid, id: u64) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(path, flags, Mode::empty()) else {
        return false;
    };
    filesystem::is_btrfs(&root).is_ok_and(|is_btrfs| is_btrfs)
        && filesystem::fsid(&root).is_ok_and(|found| found == fsid)
        && subvolume::is_subvolume(&root).is_ok_and(|is_root| is_root)
        && subvolume::info(&root).is_ok_and(|info| info.id == id)
}

/// Parses the root and the mount point of a line of `mountinfo`, if it is a btrfs mount.
fn btrfs_mount(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescaped(fields.nth(3)?);
    let mount_point = unescaped(fields.next()?);
    // The line continues with any number of optional fields, a dash, and the type.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    (kind == b"btrfs").then_some((root, mount_point))
}

/// Decodes blanks, tabs, line ends and backslashes, which are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        let digits = match behind {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some([a, b, c])
            }
            _ => None,
        };
        let byte = digits.map(|digits| {
            digits
                .into_iter()
                .fold(0, |byte, digit| byte * 8 + (digit - b'0'))
        });
        out.push(byte.unwrap_or(*first));
        rest = &behind[if byte.is_some() { 3 } else { 0 }..];
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_subvolume_are_found() {
        let table = b"1 0 0:40 / /mnt rw - btrfs /dev/loop1 rw\n\
                      2 0 0:40 /photos /a\\040b rw shared:7 - btrfs /dev/loop1 rw\n\
                      3 0 0:40 /photos/2019 /c rw - btrfs /dev/loop1 rw\n\
                      4 0 0:40 /photos2 /d rw - btrfs /dev/loop1 rw\n\
                      5 0 0:41 /photos /e rw - btrfs /dev/loop2 rw\n\
                      6 0 0:42 /photos /f rw - ext4 /dev/loop1 rw\n";
        let is_source = |source: &Path| source == Path::new("/dev/loop1");
        let found = of_subvolume(table, Path::new("/photos"), is_source);
        assert_eq!(found, ["/a b", "/c"].map(PathBuf::from));
    }

    #[test]
    fn mounts_of_btrfs_are_read() {
        let line =
            b"44 27 0:40 /@/a\\040b /mnt/\xff\\134c ro,relatime shared:7 - btrfs /dev/loop1 ro";
        let (root, mount_point) = btrfs_mount(line).unwrap();
        assert_eq!(root, Path::new("/@/a b"));
        assert_eq!(
            mount_point.into_os_string().into_vec(),
            b"/mnt/\xff\\c".to_vec()
        );
        let other = b"45 27 0:39 / /proc rw - proc proc rw";
        assert_eq!(btrfs_mount(other), None);
        assert_eq!(btrfs_mount(b""), None);
    }
}
