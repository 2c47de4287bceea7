//! Faults of a message that breaks the contract.

use sendshot_model::{PeerNameError, RootId, VolumeNameError};
use uuid::Uuid;

/// A message of the peer breaks the contract.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A required field is missing.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field of fixed length has another length.
    #[error("field {field} has {len} bytes instead of {expected}")]
    Length {
        /// Name of the field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// Required length in bytes.
        expected: usize,
    },
    /// A list has too many entries.
    #[error("more than {limit} {field}")]
    TooMany {
        /// Name of the list.
        field: &'static str,
        /// Maximum number of entries.
        limit: usize,
    },
    /// A value is outside its range.
    #[error("field {0} has an impossible value")]
    Value(&'static str),
    /// A volume's name is invalid.
    #[error("volume_name")]
    VolumeName(#[from] VolumeNameError),
    /// A peer's name is invalid.
    #[error("name")]
    PeerName(#[from] PeerNameError),
}

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        tonic::Status::invalid_argument(format!("malformed message: {error}"))
    }
}

/// Parses an id of 16 bytes.
///
/// # Errors
/// [`Malformed::Length`].
pub fn id_bytes(bytes: &[u8], field: &'static str) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed::Length {
        field,
        len: bytes.len(),
        expected: 16,
    })
}

/// Parses a UUID of 16 bytes that is not nil.
///
/// # Errors
/// [`Malformed::Length`] or [`Malformed::Value`].
pub fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, Malformed> {
    let uuid = Uuid::from_bytes(id_bytes(bytes, field)?);
    if uuid.is_nil() {
        return Err(Malformed::Value(field));
    }
    Ok(uuid)
}

/// Parses the id of a receiver's disk; `None` if the field is empty.
///
/// # Errors
/// See [`Malformed`].
pub fn root_id(bytes: &[u8]) -> Result<Option<RootId>, Malformed> {
    match bytes {
        [] => Ok(None),
        bytes => Ok(Some(RootId::from_bytes(id_bytes(bytes, "root_id")?))),
    }
}

/// Converts the id of a receiver's disk for a message.
pub fn root_bytes(root: Option<RootId>) -> Vec<u8> {
    root.map(|root| root.to_bytes().to_vec())
        .unwrap_or_default()
}
