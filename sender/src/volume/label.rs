//! Labels of the directories that hold copies.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use sendshot_model::VolumeLabel;
use sendshot_sys::durable;
use sendshot_sys::subvolume::Info;
use uuid::Uuid;

/// Hashes a label to the UUID that replaces a subvolume's. The author of one label can match neither another label
/// nor a subvolume.
pub(crate) fn of_label(label: &VolumeLabel) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&label.sender.to_bytes());
    hasher.update(&label.volume.to_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Uuid::from_bytes(bytes)
}

/// Reads the label of the directory that holds a received copy, if there is one.
pub(crate) fn label_of(fd: &OwnedFd, info: &Info) -> Option<VolumeLabel> {
    if info.received_uuid.is_nil() {
        return None;
    }
    let directory = durable::open_dir(fd, OsStr::new("..")).ok()?;
    // A damaged label counts as none.
    durable::read_json_at(directory, OsStr::new(VolumeLabel::FILE)).unwrap_or_default()
}
