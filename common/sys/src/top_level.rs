//! The top level of a file system, reached without an entry in any mount table.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use uuid::Uuid;

use crate::filesystem;
use crate::subvolume::Access;

/// A detached mount of the top level (subvolid=5) of a file system.
///
/// It exists only as this descriptor: no mount table shows it, and users can unmount their own mounts at any
/// time. The device stays busy while it is held, so it must be held only during work.
#[derive(Debug)]
pub struct TopLevel {
    root: OwnedFd,
    fsid: Uuid,
    /// Keeps the mount alive; this descriptor cannot be used for other calls.
    _mount: OwnedFd,
}

/// Reason why the top level cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system could not be queried.
    #[error("cannot query the file system for its devices")]
    Devices(#[source] io::Error),
    /// No device could be mounted.
    #[error("cannot mount the top level of the file system from {device}")]
    Mount {
        /// Path of the last device tried.
        device: PathBuf,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The device has no node here, as in a container without access to the device.
    #[error(
        "there is no device node {device} here, that of block device {numbers}, on which the file system lies"
    )]
    NoNode {
        /// Path of the device on the host.
        device: PathBuf,
        /// Major and minor numbers of the device.
        numbers: String,
    },
    /// A device of the file system was removed.
    #[error(
        "the disk {device} of file system {fsid} was unplugged: the kernel has no such device now"
    )]
    Unplugged {
        /// Former path of the device in the kernel.
        device: PathBuf,
        /// UUID of the file system.
        fsid: Uuid,
    },
    /// The mounted device belongs to another file system.
    #[error("{device} holds another file system than the volume does")]
    Foreign {
        /// Path of the device.
        device: PathBuf,
    },
}

impl Error {
    /// Returns what the administrator can do.
    pub fn remedy(&self) -> String {
        const KERNEL_LOG: &str = "read the kernel log for errors of the device";
        match self {
            Self::NoNode { device, .. } => {
                let device = device.display();
                format!(
                    "pass the device into the container: systemd-nspawn `Bind={device}` with `DeviceAllow={device} rw`, Docker `--device={device}`, LXC `lxc.mount.entry = {device} {} none bind,create=file`",
                    device.to_string().trim_start_matches('/')
                )
            }
            Self::Unplugged { .. } => {
                "plug it in again, unmount the file system everywhere, and mount it again"
                    .to_owned()
            }
            Self::Mount { device, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!(
                    "mounting needs CAP_SYS_ADMIN; in a container the device must be allowed, too: `DeviceAllow={} rw`",
                    device.display()
                )
            }
            Self::Mount { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                "another mount of the device is in the way: `findmnt` shows them".to_owned()
            }
            Self::Mount { .. } | Self::Devices(_) => KERNEL_LOG.to_owned(),
            Self::Foreign { .. } => {
                "the device node leads to another disk: correct it, or run `udevadm trigger`"
                    .to_owned()
            }
        }
    }
}

impl TopLevel {
    /// Mounts the top level of the file system of `fd`. Needs CAP_SYS_ADMIN.
    ///
    /// A read-only file system stays read-only: mounting it again without `ro` would make it writable for all
    /// its mounts.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn of(fd: impl AsFd) -> Result<Self, Error> {
        let fsid = filesystem::fsid(&fd).map_err(Error::Devices)?;
        let devices = filesystem::device_paths(&fd).map_err(Error::Devices)?;
        let access = match filesystem::is_read_only_everywhere(&fd).map_err(Error::Devices)? {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let mut last = Error::Devices(io::ErrorKind::NotFound.into());
        // A missing device has an empty path.
        let there = |device: &PathBuf| !device.as_os_str().is_empty();
        for device in devices.into_iter().filter(there) {
            match mount(&device, access) {
                Ok((mount, root)) => {
                    let found = filesystem::fsid(&root).map_err(Error::Devices)?;
                    if found != fsid {
                        // A seed device that is mounted alone is its original file system.
                        last = Error::Foreign { device };
                        continue;
                    }
                    return Ok(Self {
                        root,
                        fsid,
                        _mount: mount,
                    });
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    last = match filesystem::device_numbers(fsid, &device) {
                        Some(numbers) => Error::NoNode { device, numbers },
                        None if filesystem::shows_devices(fsid) => {
                            Error::Unplugged { device, fsid }
                        }
                        None => Error::NoNode {
                            device,
                            numbers: "unknown numbers".to_owned(),
                        },
                    };
                }
                Err(source) => last = Error::Mount { device, source },
            }
        }
        Err(last)
    }

    /// Mounts the top level of the file system on a device, which need not be mounted. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn of_device(device: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Mount {
            device: device.to_owned(),
            source,
        };
        let (mount, root) = mount(device, Access::ReadWrite).map_err(failed)?;
        let fsid = filesystem::fsid(&root).map_err(failed)?;
        Ok(Self {
            root,
            fsid,
            _mount: mount,
        })
    }

    /// Returns the UUID of the file system.
    pub fn fsid(&self) -> Uuid {
        self.fsid
    }
}

impl AsFd for TopLevel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Makes the detached mount and opens its root directory.
fn mount(device: &Path, access: Access) -> io::Result<(OwnedFd, OwnedFd)> {
    let context = fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", device)?;
    fsconfig_set_string(context.as_fd(), "subvolid", "5")?;
    if access == Access::ReadOnly {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    fsconfig_create(context.as_fd())?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOATIME
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, quiet)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&mount, ".", flags, Mode::empty())?;
    Ok((mount, root))
}
