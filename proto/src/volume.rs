//! Identity of a volume on both sides.

use sendshot_model::{VolumeId, VolumeName};

use crate::malformed::{self, Malformed};

/// A volume as both sides identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeKey {
    /// Its generated id.
    pub id: VolumeId,
    /// The sender's name for the volume.
    pub name: VolumeName,
}

impl VolumeKey {
    /// Parses id and name of a message.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn parse(id: &[u8], name: &str) -> Result<Self, Malformed> {
        Ok(Self {
            id: VolumeId::from_bytes(malformed::id_bytes(id, "volume_id")?),
            name: name.parse()?,
        })
    }
}
