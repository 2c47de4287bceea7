//! The label that a receiver writes into the directory of a volume's copies to record their origin.

use serde::{Deserialize, Serialize};

use crate::id::SenderId;
use crate::id::VolumeId;

/// The label of a volume's directory. It stays with the copies, even if the receiver loses its own state, or
/// if the copies are pushed to another receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLabel {
    /// Id of the volume.
    pub volume: VolumeId,
    /// Id of the sender that pushes it.
    pub sender: SenderId,
}

impl VolumeLabel {
    /// Name of the label's file in the directory.
    pub const FILE: &str = ".sendshot-volume";
}
