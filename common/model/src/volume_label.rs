//! What a receiver writes into the directory of a volume's copies: whose they are.

use serde::{Deserialize, Serialize};

use crate::id::SenderId;
use crate::id::VolumeId;

/// The label of a volume's directory. It stays with the copies, also where the receiver's own state is
/// lost, and where the copies are pushed on to another receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLabel {
    /// The volume.
    pub volume: VolumeId,
    /// The sender that pushes it.
    pub sender: SenderId,
}

impl VolumeLabel {
    /// Name of the file.
    pub const FILE: &str = ".sendshot-volume";
}
