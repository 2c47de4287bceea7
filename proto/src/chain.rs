//! The hash chain over the segments of a stream.

use crate::malformed::Malformed;

/// Value of the hash chain: BLAKE3 over the previous value and the bytes since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// Returns the value after `data`.
    #[must_use]
    pub fn extend(self, data: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(data);
        Self(*hasher.finalize().as_bytes())
    }

    /// Parses a field of a message.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        bytes.try_into().map(Self).map_err(|_| Malformed::Length {
            field: "chain",
            len: bytes.len(),
            expected: 32,
        })
    }
}
