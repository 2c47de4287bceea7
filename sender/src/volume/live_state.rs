//! Reads the state of a live volume, without reading anything of its disk that is not in memory.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sendshot_sys::{filesystem, subvolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A state of a live volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveState {
    pub filesystem: Uuid,
    pub subvolume: Uuid,
    /// Transaction of its last change.
    pub ctransid: u64,
}

/// A state, and what tells whether a log was replayed since, which changes a subvolume and leaves `ctransid` as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenState {
    pub live: LiveState,
    /// Transaction of its last change of any kind.
    pub generation: u64,
    /// The mount of its file system: each mount has another one; `None` if the kernel does not show it.
    pub mount: Option<u64>,
}

/// Reads the state of the subvolume at a path; `None` if none is there that can be written to, or it is not on btrfs.
///
/// # Errors
/// I/O errors.
pub fn read(path: &Path) -> io::Result<Option<SeenState>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if !filesystem::is_btrfs(&fd)? || !subvolume::is_subvolume(&fd)? {
        return Ok(None);
    }
    let info = subvolume::info(&fd)?;
    if info.read_only {
        return Ok(None);
    }
    let filesystem = filesystem::fsid(&fd)?;
    Ok(Some(SeenState {
        live: LiveState {
            filesystem,
            subvolume: info.uuid,
            ctransid: info.ctransid,
        },
        generation: info.generation,
        mount: filesystem::mount_number(filesystem),
    }))
}
