//! The file system as a whole: its identity, properties, devices and commits.

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use uuid::Uuid;

use crate::raw::{self, Args};

/// `f_type` of btrfs (BTRFS_SUPER_MAGIC).
const BTRFS_MAGIC: i64 = 0x9123_683e;

/// File in which the kernel reports the newest send stream version that it supports.
const SEND_STREAM_VERSION: &str = "/sys/fs/btrfs/features/send_stream_version";

/// Whether `fd` is on btrfs.
///
/// # Errors
/// I/O errors.
pub fn is_btrfs(fd: impl AsFd) -> io::Result<bool> {
    // `f_type` has a different width on some architectures.
    #[allow(clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(fd)?.f_type as i64;
    Ok(kind & 0xffff_ffff == BTRFS_MAGIC)
}

/// Whether the file system, or the mount through which `fd` was opened, is read-only.
///
/// # Errors
/// I/O errors.
pub fn is_read_only(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(fd)?
        .f_flag
        .contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether the file system itself is read-only, regardless of the mount through which `fd` was opened. If
/// this is unknown for a read-only mount, it counts as read-only.
///
/// # Errors
/// I/O errors.
pub fn is_read_only_everywhere(fd: impl AsFd) -> io::Result<bool> {
    if !is_read_only(&fd)? {
        return Ok(false);
    }
    Ok(has_option(fd, b"ro")?.unwrap_or(true))
}

/// Whether the file system is mounted with `nodatacow`, so that new files are overwritten in place. If this
/// is unknown, it is not.
///
/// # Errors
/// I/O errors of reading `/proc`.
pub fn is_nodatacow(fd: impl AsFd) -> io::Result<bool> {
    Ok(has_option(fd, b"nodatacow")?.unwrap_or(false))
}

/// Whether the file system of a descriptor is mounted with an option; `None` if this process cannot see its
/// mount.
fn has_option(fd: impl AsFd, option: &[u8]) -> io::Result<Option<bool>> {
    let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(info)?;
    // The file is not read as text: mount points can have any bytes.
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let options = mount_id(&info).and_then(|id| super_options(&mounts, id));
    Ok(options.map(|options| {
        options
            .split(|byte| *byte == b',')
            .any(|found| found == option)
    }))
}

/// Finds the mount ID of a descriptor in its `/proc/self/fdinfo` file.
fn mount_id(fdinfo: &str) -> Option<&str> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some(line.trim())
}

/// Finds the options of the file system of a mount: the last field of its line in `mountinfo`.
fn super_options<'a>(mountinfo: &'a [u8], id: &str) -> Option<&'a [u8]> {
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.split(|byte| *byte == b' ').next() == Some(id.as_bytes()))?;
    line.rsplit(|byte| *byte == b' ').next()
}

/// Returns the UUID of the file system (`btrfs filesystem show`).
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs.
pub fn fsid(fd: impl AsFd) -> io::Result<Uuid> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(Uuid::from_bytes(args.bytes(16)))
}

/// Whether a file system has its UUID only while it is mounted. A copy of a disk that is mounted beside the
/// disk gets a temporary UUID (kernel 6.7 and later: `temp_fsid` in sysfs).
pub fn has_passing_id(fsid: Uuid) -> bool {
    let path = format!("/sys/fs/btrfs/{fsid}/temp_fsid");
    // Older kernels do not have the file, and refuse to mount the copy.
    std::fs::read(path).is_ok_and(|text| text.trim_ascii() == b"1")
}

/// Returns the last transaction that was begun. Every write by any process advances it.
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs, `Unsupported` before kernel 5.10.
pub fn generation(fd: impl AsFd) -> io::Result<u64> {
    /// BTRFS_FS_INFO_FLAG_GENERATION; the flags are those requested, and in the answer those filled in.
    const ASKED: u64 = 1 << 1;
    const FLAGS: usize = 48;
    const GENERATION: usize = 56;
    let mut args = Args::<1024>::new();
    args.put_u64(FLAGS, ASKED);
    raw::fs_info(fd, &mut args)?;
    match args.u64(FLAGS) & ASKED {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(args.u64(GENERATION)),
    }
}

/// Returns the size of a tree node in bytes (`mkfs.btrfs --nodesize`).
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs.
pub fn node_size(fd: impl AsFd) -> io::Result<u32> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(args.u32(32))
}

/// Returns the size of a data block in bytes; items of files cover whole blocks.
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs.
pub fn sector_size(fd: impl AsFd) -> io::Result<u32> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(args.u32(36))
}

/// The block and page size with which this program is tested, in bytes.
const TESTED: u32 = 4096;

/// A block or page size with which this program is not tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untested {
    /// The blocks of the file system have so many bytes.
    #[error("its file system has blocks of {0} bytes; only blocks of {TESTED} bytes are tested")]
    Blocks(u32),
    /// The pages of this host's memory have so many bytes.
    #[error(
        "the kernel of this host has pages of {0} bytes; only pages of {TESTED} bytes are tested"
    )]
    Pages(usize),
}

/// Returns why this program is not tested with a file system on this host; `None` if it is.
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs.
pub fn untested(fd: impl AsFd) -> io::Result<Option<Untested>> {
    Ok(untested_sizes(sector_size(fd)?, rustix::param::page_size()))
}

fn untested_sizes(blocks: u32, pages: usize) -> Option<Untested> {
    match (blocks, pages) {
        (TESTED, pages) if pages == TESTED as usize => None,
        (TESTED, pages) => Some(Untested::Pages(pages)),
        (blocks, _) => Some(Untested::Blocks(blocks)),
    }
}

/// Returns the paths of its devices, as known to the kernel, including seed devices, which the number of
/// devices omits.
///
/// # Errors
/// I/O errors.
pub fn device_paths(fd: impl AsFd) -> io::Result<Vec<PathBuf>> {
    let mut info = Args::<1024>::new();
    raw::fs_info(&fd, &mut info)?;
    let max_id = info.u64(0);
    let mut paths = Vec::new();
    for device_id in 0..=max_id {
        let mut args = Args::<4096>::new();
        args.put_u64(0, device_id);
        match raw::dev_info(&fd, &mut args) {
            Ok(()) => paths.push(PathBuf::from(OsStr::from_bytes(args.c_str(3072, 4096)))),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(paths)
}

/// Returns the numbers of the block device of a file system that the kernel calls `path`, as `8:17`, or of all its
/// devices if none has that name, as with LVM; `None` if none is listed (`/sys/fs/btrfs/FSID/devices/NAME/dev`).
pub fn device_numbers(fsid: Uuid, path: &Path) -> Option<String> {
    let devices = format!("/sys/fs/btrfs/{fsid}/devices");
    let numbers = |device: &Path| std::fs::read_to_string(device.join("dev")).ok();
    if let Some(text) = numbers(&Path::new(&devices).join(path.file_name()?)) {
        return Some(text.trim().to_owned());
    }
    let all = std::fs::read_dir(&devices).ok()?.flatten();
    let mut all: Vec<String> = all.filter_map(|device| numbers(&device.path())).collect();
    all.sort();
    let all: Vec<&str> = all.iter().map(|text| text.trim()).collect();
    (!all.is_empty()).then(|| all.join(" or "))
}

/// Whether the kernel lists the devices of a mounted file system here (`/sys/fs/btrfs/FSID/devices`): it does
/// not if `/sys` is hidden, as in some containers.
pub fn shows_devices(fsid: Uuid) -> bool {
    Path::new(&format!("/sys/fs/btrfs/{fsid}/devices")).is_dir()
}

/// Starts to write a range of a file to disk, and does not wait for it: later there is less to wait for. A failure of the disk is
/// still reported by the next flush of the file or its file system.
///
/// # Errors
/// I/O errors of starting.
pub fn start_write_back(file: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    raw::start_write_back(file, offset, len)
}

/// Removes a range of a file from the page cache, except what still has to be written to disk. Without `len` it is
/// everything from `offset` on.
///
/// The memory of data that no program reads again is used at once for other data then, while it is still in the processor's
/// caches. The kernel may leave some of it where it is.
pub fn forget_pages(file: impl AsFd, offset: u64, len: Option<NonZeroU64>) {
    // It is advice: without effect everything is right, only slower.
    let _ = rustix::fs::fadvise(file, offset, len, Advice::DontNeed);
}

/// Commits the running transaction and wakes the cleaner, so that the space of deleted subvolumes is freed
/// within a moment instead of half a minute.
///
/// # Errors
/// I/O errors.
pub fn sync(fd: impl AsFd) -> io::Result<()> {
    raw::sync(fd)
}

/// Makes changes of subvolumes and directories durable by committing the running transaction. Unlike [`sync`]
/// it does not write file data that can wait.
///
/// # Errors
/// I/O errors.
pub fn commit(fd: impl AsFd) -> io::Result<()> {
    let mut transid = Args::<8>::new();
    raw::start_sync(&fd, &mut transid)?;
    raw::wait_sync(&fd, &mut transid)
}

/// Writes back all data of the file system of `fd` and commits, so that its trees describe every byte that
/// was written before.
///
/// # Errors
/// I/O errors, also for data that could not be written back since `fd` was opened.
pub fn write_back(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Whether a range of a file without data needs no item (the `no-holes` feature). Without the feature the
/// items of a file cover its whole size.
///
/// # Errors
/// I/O errors; `ENOTTY` if it is not btrfs.
pub fn has_no_holes(fd: impl AsFd) -> io::Result<bool> {
    /// BTRFS_FEATURE_INCOMPAT_NO_HOLES.
    const NO_HOLES: u64 = 1 << 9;
    let mut args = Args::<24>::new();
    raw::get_features(fd, &mut args)?;
    Ok(args.u64(16) & NO_HOLES != 0)
}

/// A number that each mount of a file system has for itself while the host runs: that of its directory in sysfs. `None` if it
/// is not shown, as in a container.
#[must_use]
pub fn mount_number(fsid: Uuid) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let shown = std::fs::metadata(format!("/sys/fs/btrfs/{fsid}")).ok()?;
    Some(shown.ino())
}

/// Space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Space that can still be written, as estimated by btrfs.
    pub free: u64,
    /// Total size of the file system.
    pub total: u64,
}

/// Returns the space of the file system of `fd`.
///
/// # Errors
/// I/O errors.
pub fn space(fd: impl AsFd) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Returns the newest send stream version that this kernel can generate; 1 on kernels before 6.0.
pub fn send_stream_version() -> u32 {
    std::fs::read_to_string(SEND_STREAM_VERSION)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1)
}

/// Clears the inode flags that new entries of a directory would inherit (NOCOW, compression).
///
/// # Errors
/// I/O errors.
pub fn clear_inherited_flags(dir: impl AsFd) -> io::Result<()> {
    /// FS_NOCOW_FL, FS_COMPR_FL and FS_NOCOMP_FL of linux/fs.h.
    const INHERITED: u32 = 0x0080_0000 | 0x4 | 0x400;
    let mut args = Args::<8>::new();
    raw::get_inode_flags(&dir, &mut args)?;
    let flags = args.u32(0);
    if flags & INHERITED == 0 {
        return Ok(());
    }
    let mut args = Args::<8>::new();
    args.put_u32(0, flags & !INHERITED);
    raw::set_inode_flags(&dir, &mut args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untested_sizes_are_named() {
        assert_eq!(untested_sizes(4096, 4096), None);
        assert_eq!(untested_sizes(16384, 4096), Some(Untested::Blocks(16384)));
        assert_eq!(untested_sizes(4096, 16384), Some(Untested::Pages(16384)));
        let text = Untested::Blocks(65536).to_string();
        assert!(text.contains("blocks of 65536 bytes"), "{text}");
    }

    const MOUNTS: &[u8] = b"43 27 0:39 / /mnt/a rw,relatime - btrfs /dev/loop0 rw,space_cache=v2\n\
        44 27 0:40 /@ /mnt/\xff\\040b ro,relatime shared:7 - btrfs /dev/loop1 ro,subvol=/@\n\
        45 27 0:39 / /mnt/c ro,relatime - btrfs /dev/loop0 rw,space_cache=v2\n";

    #[test]
    fn file_system_and_mount_options_are_distinguished() {
        let options = |id: &str| super_options(MOUNTS, id);
        assert_eq!(options("44"), Some(&b"ro,subvol=/@"[..]));
        assert_eq!(options("45"), Some(&b"rw,space_cache=v2"[..]));
        assert_eq!(options("4"), None);
    }

    #[test]
    fn a_descriptors_mount_is_found() {
        assert_eq!(
            mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t44\n"),
            Some("44")
        );
        let dir = std::fs::File::open("/").unwrap();
        is_read_only_everywhere(dir).unwrap();
    }
}
