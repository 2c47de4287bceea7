//! Labels of directories in which copies lie.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use sendshot_model::VolumeLabel;
use sendshot_sys::durable;
use sendshot_sys::subvolume::Info;
use uuid::Uuid;

/// Stands for what a label names, where else the UUID of a subvolume stands. Who chooses a label chooses no
/// other's, nor a subvolume.
pub(crate) fn of_label(label: &VolumeLabel) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&label.sender.to_bytes());
    hasher.update(&label.volume.to_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Uuid::from_bytes(bytes)
}

/// The label of the directory that a received copy lies in, if it has one.
pub(crate) fn label_of(fd: &OwnedFd, info: &Info) -> Option<VolumeLabel> {
    if info.received_uuid.is_nil() {
        return None;
    }
    let directory = durable::open_dir(fd, OsStr::new("..")).ok()?;
    // One that is damaged says nothing.
    durable::read_json_at(directory, OsStr::new(VolumeLabel::FILE)).unwrap_or_default()
}
