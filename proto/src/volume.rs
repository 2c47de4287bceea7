//! What both sides call a volume.

use sendshot_model::{VolumeId, VolumeName};

use crate::malformed::{self, Malformed};

/// A volume as both sides name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeKey {
    /// Its generated id.
    pub id: VolumeId,
    /// The sender's name for it.
    pub name: VolumeName,
}

impl VolumeKey {
    /// Checks id and name of a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(id: &[u8], name: &str) -> Result<Self, Malformed> {
        Ok(Self {
            id: VolumeId::from_bytes(malformed::id_bytes(id, "volume_id")?),
            name: name.parse()?,
        })
    }
}
