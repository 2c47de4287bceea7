//! Generated ids: random UUIDs, with a type for each kind so that they cannot be confused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text or byte string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not a UUID.
    #[error("`{text}` is not an id: expected a UUID like `3f2b8c1e-5d0a-4c7e-9b1f-0a2d4e6f8091`")]
    Text {
        /// The invalid text.
        text: String,
    },
    /// The byte string has the wrong length.
    #[error("an id has 16 bytes, not {len}")]
    Length {
        /// Number of bytes given.
        len: usize,
    },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Generates a random id.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::new_v4())
            }

            /// Makes an id from its bytes; every value is valid.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Returns the bytes of the id.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError::Text { text: text.to_owned() })
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let len = bytes.len();
                bytes.try_into().map(Self::from_bytes).map_err(|_| IdError::Length { len })
            }
        }
    };
}

id! {
    /// Identifies an instance of a sender: generated with its state directory, lost with it.
    SenderId
}
id! {
    /// Identifies an instance of a receiver: generated with its state directory, lost with it.
    ReceiverId
}
id! {
    /// Identifies a replicated subvolume, independent of its name and mount point.
    VolumeId
}
id! {
    /// Identifies a push as requested by the user; interruptions and resumptions keep it.
    PushId
}
id! {
    /// Identifies a disk of a receiver: generated when its root is marked, it stays with the copies.
    RootId
}
id! {
    /// Identifies a stream on its way to a receiver; a partial is found by it.
    TransferId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_text_lead_back() {
        let id = VolumeId::generate();
        assert_eq!(VolumeId::from_bytes(id.to_bytes()), id);
        assert_eq!(VolumeId::try_from(&id.to_bytes()[..]), Ok(id));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn generated_ids_differ() {
        assert_ne!(SenderId::generate(), SenderId::generate());
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = PushId::try_from(&[0_u8; 15][..]).unwrap_err();
        assert_eq!(error.to_string(), "an id has 16 bytes, not 15");
    }

    #[test]
    fn a_wrong_text_is_shown() {
        let error = "photos".parse::<TransferId>().unwrap_err();
        assert!(
            error.to_string().starts_with("`photos` is not an id"),
            "{error}"
        );
    }

    #[test]
    fn debug_tells_the_kind() {
        let id = ReceiverId::from_bytes([0; 16]);
        assert_eq!(
            format!("{id:?}"),
            "ReceiverId(00000000-0000-0000-0000-000000000000)"
        );
    }
}
