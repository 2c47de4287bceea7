//! What the user wants to have restored in its place.

use std::path::PathBuf;

use crate::restore::in_place::place::Disk;
use crate::restore::whole::Volume;

/// A volume to be restored in its place.
#[derive(Debug)]
pub(in crate::restore) struct Job<'a> {
    pub(in crate::restore) volume: Volume<'a>,
    /// Device of its file system, if the user names it.
    pub(in crate::restore) device: Option<PathBuf>,
    /// Whether it is to be put on the file system that is mounted at its path, whatever the records say.
    pub(in crate::restore) new_disk: bool,
    /// Whether the old volume may be mounted or open.
    pub(in crate::restore) while_in_use: bool,
}

impl Job<'_> {
    /// What the user says about the file system.
    pub(super) fn disk(&self) -> Disk<'_> {
        match (&self.device, self.new_disk) {
            (Some(device), _) => Disk::Device(device),
            (None, true) => Disk::New,
            (None, false) => Disk::Known,
        }
    }
}
