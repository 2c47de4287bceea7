//! The file system as a whole: what it is, where its devices are, committing it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::raw::{self, Args};

/// `f_type` of btrfs (BTRFS_SUPER_MAGIC).
const BTRFS_MAGIC: i64 = 0x9123_683e;

/// Where the kernel tells the newest send stream version it speaks.
const SEND_STREAM_VERSION: &str = "/sys/fs/btrfs/features/send_stream_version";

/// Whether `fd` lies on btrfs.
///
/// # Errors
/// The kernel's.
pub fn is_btrfs(fd: impl AsFd) -> io::Result<bool> {
    // `f_type` has a different width on some architectures.
    #[allow(clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(fd)?.f_type as i64;
    Ok(kind & 0xffff_ffff == BTRFS_MAGIC)
}

/// Whether the file system, or the mount that `fd` was opened through, is read-only.
///
/// # Errors
/// The kernel's.
pub fn is_read_only(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(fd)?
        .f_flag
        .contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Whether the file system itself is read-only, whatever the mount that `fd` was opened
/// through is. If that cannot be told of a read-only mount, it is.
///
/// # Errors
/// The kernel's.
pub fn is_read_only_everywhere(fd: impl AsFd) -> io::Result<bool> {
    if !is_read_only(&fd)? {
        return Ok(false);
    }
    Ok(has_option(fd, b"ro")?.unwrap_or(true))
}

/// Whether the file system is mounted with `nodatacow`, so that new files are overwritten in place. If
/// that cannot be told, it is not.
///
/// # Errors
/// The kernel's, from reading `/proc`.
pub fn is_nodatacow(fd: impl AsFd) -> io::Result<bool> {
    Ok(has_option(fd, b"nodatacow")?.unwrap_or(false))
}

/// Whether the file system of a descriptor is mounted with an option; `None` if its mount is not to be
/// seen from here.
fn has_option(fd: impl AsFd, option: &[u8]) -> io::Result<Option<bool>> {
    let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let info = std::fs::read_to_string(info)?;
    // Not as text: mount points are any bytes.
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let options = mount_id(&info).and_then(|id| super_options(&mounts, id));
    Ok(options.map(|options| {
        options
            .split(|byte| *byte == b',')
            .any(|found| found == option)
    }))
}

/// The mount of a descriptor, from its `/proc/self/fdinfo` file.
fn mount_id(fdinfo: &str) -> Option<&str> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some(line.trim())
}

/// The options of the file system under a mount: the last field of its line in `mountinfo`.
fn super_options<'a>(mountinfo: &'a [u8], id: &str) -> Option<&'a [u8]> {
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.split(|byte| *byte == b' ').next() == Some(id.as_bytes()))?;
    line.rsplit(|byte| *byte == b' ').next()
}

/// The id of the file system (`btrfs filesystem show`).
///
/// # Errors
/// The kernel's; `ENOTTY` when it is not btrfs.
pub fn fsid(fd: impl AsFd) -> io::Result<Uuid> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(Uuid::from_bytes(args.bytes(16)))
}

/// Whether a file system has its id only as long as it is mounted. A copy of a disk that is mounted beside
/// the disk gets such a one (kernel 6.7 and later: `temp_fsid` in sysfs).
pub fn has_passing_id(fsid: Uuid) -> bool {
    let path = format!("/sys/fs/btrfs/{fsid}/temp_fsid");
    // Older kernels have none, and refuse to mount the copy.
    std::fs::read(path).is_ok_and(|text| text.trim_ascii() == b"1")
}

/// The transaction that was begun last. It moves with every write, whoever makes it.
///
/// # Errors
/// The kernel's; `ENOTTY` when it is not btrfs, `Unsupported` from a kernel before 5.10.
pub fn generation(fd: impl AsFd) -> io::Result<u64> {
    /// BTRFS_FS_INFO_FLAG_GENERATION; the flags say what is asked for, and what was answered.
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

/// Bytes of a node of its trees (`mkfs.btrfs --nodesize`).
///
/// # Errors
/// The kernel's; `ENOTTY` when it is not btrfs.
pub fn node_size(fd: impl AsFd) -> io::Result<u32> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(args.u32(32))
}

/// Bytes of a block of data; items of files cover whole blocks.
///
/// # Errors
/// The kernel's; `ENOTTY` when it is not btrfs.
pub fn sector_size(fd: impl AsFd) -> io::Result<u32> {
    let mut args = Args::<1024>::new();
    raw::fs_info(fd, &mut args)?;
    Ok(args.u32(36))
}

/// The paths of its devices, as the kernel knows them. Seed devices, which the number of devices leaves out,
/// are among them.
///
/// # Errors
/// The kernel's.
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

/// Numbers of the block device of a file system that the kernel calls `path`, as `8:17`, or of all its devices
/// if none has that name there, as with LVM; `None` if none is listed (`/sys/fs/btrfs/FSID/devices/NAME/dev`).
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

/// Whether the kernel shows here which devices a mounted file system has (`/sys/fs/btrfs/FSID/devices`): it does not
/// where `/sys` is hidden, as in some containers.
pub fn shows_devices(fsid: Uuid) -> bool {
    Path::new(&format!("/sys/fs/btrfs/{fsid}/devices")).is_dir()
}

/// Commits the running transaction and wakes the cleaner, so that the space of deleted
/// subvolumes comes back in a moment instead of in half a minute.
///
/// # Errors
/// The kernel's.
pub fn sync(fd: impl AsFd) -> io::Result<()> {
    raw::sync(fd)
}

/// Makes what was done to subvolumes and directories durable, by committing the running
/// transaction. Other than [`sync`] it writes no file's data that can wait.
///
/// # Errors
/// The kernel's.
pub fn commit(fd: impl AsFd) -> io::Result<()> {
    let mut transid = Args::<8>::new();
    raw::start_sync(&fd, &mut transid)?;
    raw::wait_sync(&fd, &mut transid)
}

/// Writes all data of the file system of `fd` back and commits, so that its trees describe every
/// byte that was written before.
///
/// # Errors
/// The kernel's, also for data that could not be written back since `fd` was opened.
pub fn write_back(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Whether a range of a file that has no data needs no item there (the `no-holes` feature).
/// Without the feature the items of a file cover all of its size.
///
/// # Errors
/// The kernel's; `ENOTTY` when it is not btrfs.
pub fn has_no_holes(fd: impl AsFd) -> io::Result<bool> {
    /// BTRFS_FEATURE_INCOMPAT_NO_HOLES
    const NO_HOLES: u64 = 1 << 9;
    let mut args = Args::<24>::new();
    raw::get_features(fd, &mut args)?;
    Ok(args.u64(16) & NO_HOLES != 0)
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What can still be written, as far as btrfs can tell.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// The room on the file system of `fd`.
///
/// # Errors
/// The kernel's.
pub fn space(fd: impl AsFd) -> io::Result<Space> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// The newest version of the send stream that this kernel can make; 1 on kernels before 6.0.
pub fn send_stream_version() -> u32 {
    std::fs::read_to_string(SEND_STREAM_VERSION)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1)
}

/// Clears the inode flags that new entries of a directory would inherit (NOCOW, compression).
///
/// # Errors
/// The kernel's.
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

    const MOUNTS: &[u8] = b"43 27 0:39 / /mnt/a rw,relatime - btrfs /dev/loop0 rw,space_cache=v2\n\
        44 27 0:40 /@ /mnt/\xff\\040b ro,relatime shared:7 - btrfs /dev/loop1 ro,subvol=/@\n\
        45 27 0:39 / /mnt/c ro,relatime - btrfs /dev/loop0 rw,space_cache=v2\n";

    #[test]
    fn the_file_systems_options_are_told_from_the_mounts() {
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
