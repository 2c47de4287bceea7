//! Generated ids: random UUIDs of which one kind cannot be taken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text or byte string that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is no UUID.
    #[error("`{text}` is not an id: expected a UUID like `3f2b8c1e-5d0a-4c7e-9b1f-0a2d4e6f8091`")]
    Text {
        /// What was given.
        text: String,
    },
    /// The byte string has the wrong length.
    #[error("an id has 16 bytes, not {len}")]
    Length {
        /// How many bytes were given.
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
            /// A new random id.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id of these bytes; every value is allowed.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The bytes of the id.
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
    /// One instance of a sender: made with its state directory, gone with it.
    SenderId
}
id! {
    /// One instance of a receiver: made with its state directory, gone with it.
    ReceiverId
}
id! {
    /// A replicated subvolume, whatever it is called and wherever it is mounted.
    VolumeId
}
id! {
    /// One push, as the user asked for it; interrupting and resuming keep it.
    PushId
}
id! {
    /// One disk of a receiver: made when its root is marked, it stays with the copies.
    RootId
}
id! {
    /// One stream on its way to a receiver; what a partial is found by.
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
