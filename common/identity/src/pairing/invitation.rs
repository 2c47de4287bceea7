//! An invitation as stored by the receiver, and the verdict on a secret that claims it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sendshot_model::{PeerName, SenderId, VolumeName};
use serde::{Deserialize, Serialize};

use crate::keys::crypto::equal;
use crate::pairing::moment::Moment;
use crate::pairing::refusal::Access;
use crate::pairing::token::{Secret, SecretHash, Selector};
use crate::transport::peer::SpkiPin;

/// Long enough to walk to the other host, short enough to make a token in a scrollback worthless.
const LIFE: SignedDuration = SignedDuration::from_mins(15);

/// Users mistype less often (the token's checksum detects that first); more attempts are guesses.
const MAX_WRONG: u8 = 5;

/// Purpose of an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Pairs a sender that this receiver does not know.
    New,
    /// Pairs a sender that takes over the name, directory and copies of a former one.
    Replace,
    /// Gives any host a temporary key that can read the copies of a sender, and nothing else.
    Restore {
        /// The only volume that can be read; `None` for all.
        volume: Option<VolumeName>,
        /// Life of the key from the use of the token.
        lasts: Duration,
    },
}

impl Pairing {
    /// Returns the access that a token of this purpose gives.
    pub(crate) fn access(&self) -> Access {
        match self {
            Self::New | Self::Replace => Access::Full,
            Self::Restore { .. } => Access::ReadOnly,
        }
    }
}

/// An open invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Name for the sender.
    pub name: PeerName,
    /// Purpose of the invitation.
    pub pairing: Pairing,
    /// Time of its expiry.
    pub expires_at: Timestamp,
}

/// The file of an invitation. It does not contain the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) selector: Selector,
    hash: SecretHash,
    pub(crate) pairing: Pairing,
    pub(crate) expires_at: Timestamp,
    wrong_attempts: u8,
    /// Kept until it expires, so that a sender that lost the answer can ask again.
    pub(crate) used: Option<Use>,
    /// Whether its use also gives a permission to read, if it is of a kind that does. False once the permissions of
    /// the name were withdrawn: a use, also a repeated one, would give them again.
    #[serde(default = "gives_reading")]
    pub(crate) gives_reading: bool,
}

fn gives_reading() -> bool {
    true
}

/// The sender that redeemed an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    pub(crate) sender_id: SenderId,
    pub(crate) pin: SpkiPin,
    /// The instance that had the name before; for a temporary key, the one of the earlier temporary key.
    pub(crate) replaced: Option<SenderId>,
    /// The moment of the first use, from which the time of a permission to read counts; `None` in a file of an
    /// older version.
    #[serde(default)]
    pub(crate) at: Option<Moment>,
}

/// Verdict on a secret with an invitation's selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Valid,
    /// The wrong attempt has been counted.
    Wrong,
    Void,
    Expired,
}

impl Stored {
    pub(crate) fn new(secret: &Secret, pairing: Pairing, now: Timestamp) -> Self {
        Self {
            selector: secret.selector(),
            hash: secret.hash(),
            pairing,
            expires_at: now.checked_add(LIFE).unwrap_or(Timestamp::MAX),
            wrong_attempts: 0,
            used: None,
            gives_reading: true,
        }
    }

    /// Checks a secret; a wrong one is counted, and the caller stores the count before it answers.
    pub(crate) fn claim(&mut self, secret: &Secret, now: Timestamp) -> Claim {
        if self.wrong_attempts >= MAX_WRONG {
            Claim::Void
        } else if !equal(&self.hash.0, &secret.hash().0) {
            self.wrong_attempts += 1;
            Claim::Wrong
        } else if now >= self.expires_at {
            Claim::Expired
        } else {
            Claim::Valid
        }
    }

    /// Whether it can still be redeemed.
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        self.used.is_none() && self.wrong_attempts < MAX_WRONG && now < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn secret(last: u8) -> Secret {
        let mut bytes = [1; 16];
        bytes[15] = last;
        Secret::from_bytes(bytes)
    }

    fn minutes(n: i64) -> Timestamp {
        NOW + SignedDuration::from_mins(n)
    }

    #[test]
    fn it_holds_for_fifteen_minutes() {
        let mut stored = Stored::new(&secret(1), Pairing::New, NOW);
        assert_eq!(stored.claim(&secret(1), minutes(14)), Claim::Valid);
        assert!(stored.is_open(minutes(14)));
        assert_eq!(stored.claim(&secret(1), minutes(15)), Claim::Expired);
        assert!(!stored.is_open(minutes(15)));
    }

    #[test]
    fn five_wrong_secrets_void_it() {
        let mut stored = Stored::new(&secret(1), Pairing::New, NOW);
        for _ in 0..5 {
            assert_eq!(stored.claim(&secret(2), NOW), Claim::Wrong);
        }
        assert_eq!(stored.claim(&secret(1), NOW), Claim::Void);
        assert!(!stored.is_open(NOW));
    }

    #[test]
    fn the_file_does_not_hold_the_secret() {
        let stored = Stored::new(&secret(1), Pairing::New, NOW);
        let file = serde_json::to_string(&stored).unwrap();
        assert!(!file.contains("01010101010101"), "{file}");
        assert_eq!(serde_json::from_str::<Stored>(&file).unwrap(), stored);
    }
}
