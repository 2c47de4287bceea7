//! Permissions to read copies: grants for a sender's own key, and temporary keys.

use jiff::Timestamp;
use sendshot_model::{PeerName, SenderId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::pairing::moment::Period;
use crate::transport::peer::SpkiPin;

/// A permission to read copies for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The only volume whose copies can be read, by its directory; `None` for all volumes.
    pub volume: Option<VolumeName>,
    /// The time.
    #[serde(flatten)]
    pub period: Period,
}

impl Grant {
    /// Whether it permits reading the copies in this directory of the sender.
    #[must_use]
    pub fn covers(&self, volume_dir: &str) -> bool {
        let only = self.volume.as_ref();
        only.is_none_or(|volume| volume.as_str() == volume_dir)
    }
}

/// The record of a key that can read the copies of a name, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreKey {
    pub(crate) sender_id: SenderId,
    pub(crate) pin: SpkiPin,
    pub(crate) grant: Grant,
    /// Set when it has ended, which is final: a clock that is set back later does not revive it. The record then
    /// stays for a while, so that the holder gets the right remedy.
    pub(crate) ended_at: Option<Timestamp>,
}

/// A permission as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Name of the sender whose copies can be read.
    pub name: PeerName,
    /// Scope and time.
    pub grant: Grant,
    /// Id of the temporary key; `None` for a grant, which is for the sender's own key.
    pub temporary_key: Option<SenderId>,
}

/// A caller that may ask to read copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Name of the sender whose copies it can read.
    pub name: PeerName,
    /// Id of the caller's instance.
    pub id: SenderId,
    /// The kind of its key.
    pub key: ReaderKey,
}

/// The kind of a key that can read copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderKey {
    /// The sender's own key, with which it pushes.
    Own,
    /// A key that can only read, for a time.
    Temporary,
}

/// The permissions that were withdrawn from a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Withdrawn {
    /// Number of grants.
    pub grants: usize,
    /// Id of the temporary key.
    pub temporary_key: Option<SenderId>,
}
