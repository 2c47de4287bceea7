//! What is wrong with a message that cannot be understood.

use sendshot_model::{PeerNameError, RootId, VolumeNameError};
use uuid::Uuid;

/// A message of the peer breaks the contract.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// An id has not 16 bytes.
    #[error("field {field} has {len} bytes instead of {expected}")]
    Length {
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A list is longer than is listened to.
    #[error("more than {limit} {field}")]
    TooMany {
        /// The list.
        field: &'static str,
        /// How long it may be.
        limit: usize,
    },
    /// A value is outside of its range.
    #[error("field {0} has an impossible value")]
    Value(&'static str),
    /// A volume's name cannot be one.
    #[error("volume_name")]
    VolumeName(#[from] VolumeNameError),
    /// A peer's name cannot be one.
    #[error("name")]
    PeerName(#[from] PeerNameError),
}

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        tonic::Status::invalid_argument(format!("malformed message: {error}"))
    }
}

/// An id of 16 bytes.
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

/// A UUID of 16 bytes that is not nil.
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

/// The id of a receiver's disk; `None` if the message has none.
///
/// # Errors
/// [`Malformed`].
pub fn root_id(bytes: &[u8]) -> Result<Option<RootId>, Malformed> {
    match bytes {
        [] => Ok(None),
        bytes => Ok(Some(RootId::from_bytes(id_bytes(bytes, "root_id")?))),
    }
}

/// The same as it is told.
pub fn root_bytes(root: Option<RootId>) -> Vec<u8> {
    root.map(|root| root.to_bytes().to_vec())
        .unwrap_or_default()
}
