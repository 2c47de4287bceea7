//! Reasons for refusing a peer or caller: each error gives the reason, and its `remedy` what to run.

use std::io;

use jiff::Timestamp;
use sendshot_model::{PeerName, SenderId};

use crate::keys::authority::SignError;
use crate::keys::crypto::RandomError;

/// The registry's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the registry of senders: {0}")]
pub struct RegistryError(#[from] pub(crate) io::Error);

/// No sender can be invited under this name.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The name belongs to a paired sender.
    #[error("a sender is paired as `{name}` already")]
    AlreadyPaired {
        /// The name requested.
        name: PeerName,
    },
    /// The invitation cannot be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No secret could be generated.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The sender is not authorised.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request is for another key than the sender's, which needs an administrator.
    #[error("the request to renew a certificate is for another key")]
    OtherKey,
    /// The request is invalid.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The new expiry cannot be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A token is refused.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No invitation has this secret.
    #[error(
        "the receiver does not know this token: it may be of another receiver, or was replaced by a newer one"
    )]
    Unknown,
    /// The token has expired.
    #[error("the token expired at {expires_at}")]
    Expired {
        /// Name of the invited sender.
        name: PeerName,
        /// Time of its expiry.
        expires_at: Timestamp,
    },
    /// Another sender has used the token.
    #[error("the token has been used")]
    Used {
        /// Name of the invited sender.
        name: PeerName,
    },
    /// Too many wrong secrets were tried.
    #[error("the token is void, since wrong ones were tried too often")]
    Void {
        /// Name of the invited sender.
        name: PeerName,
    },
    /// The sender is already paired under another name.
    #[error("this sender is known to the receiver as `{name}`")]
    OtherName {
        /// The sender's present name.
        name: PeerName,
    },
    /// The request is invalid.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The pairing cannot be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A name cannot be revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// No sender has the name.
    #[error("no sender is paired or invited as `{name}`")]
    Unknown {
        /// The name requested.
        name: PeerName,
    },
    /// The revocation cannot be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Reason why a peer may not make a sender's calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer presented no sender's certificate.
    #[error("this receiver serves paired senders only")]
    NoCertificate,
    /// Its certificate is from this receiver, but the registry has no such sender.
    #[error("this receiver does not know sender {sender}")]
    Unknown {
        /// Id in the certificate.
        sender: SenderId,
    },
    /// An administrator revoked the sender.
    #[error("this receiver has revoked sender `{name}`")]
    Revoked {
        /// Name of the sender.
        name: PeerName,
    },
    /// The name now belongs to another instance or key.
    #[error("sender `{name}` has been paired again with another key")]
    KeyChanged {
        /// Name of the sender.
        name: PeerName,
    },
}

impl InviteError {
    /// Returns what the administrator can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::AlreadyPaired { name } => format!(
                "choose another name, or run `sendshotctl peer invite {name} --replace` for a new \
                 host to take over its directory and copies"
            ),
            Self::Registry(_) | Self::Random(_) => String::new(),
        }
    }
}

impl RedeemError {
    /// Returns what the user can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let another = |name: &str| {
            format!("run `sendshotctl peer invite {name}` on the receiver for a new one")
        };
        match self {
            Self::Unknown => another("NAME"),
            Self::Expired { name, .. } | Self::Void { name } => another(name.as_str()),
            Self::Used { name } => format!(
                "if it was not by this host, run `sendshotctl peer revoke {name}` on the receiver; \
                 for a new one, `sendshotctl peer invite {name} --replace`"
            ),
            Self::OtherName { name } => format!(
                "to pair it again, run `sendshotctl peer invite {name} --replace` on the receiver"
            ),
            Self::Sign(_) | Self::Registry(_) => String::new(),
        }
    }
}

impl RevokeError {
    /// Returns what the administrator can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "`sendshotctl peer list` shows the paired senders",
            Self::Registry(_) => "",
        }
    }
}

impl Refusal {
    /// Returns what to do, and on which host.
    #[must_use]
    pub fn remedy(&self) -> String {
        let again = |invite: &str| {
            format!(
                "on the receiver run `sendshotctl peer invite {invite}`, then on the sender \
                 `sendshotctl pair HOST`"
            )
        };
        match self {
            Self::NoCertificate | Self::Unknown { .. } => again("NAME"),
            Self::Revoked { name } => {
                format!("to admit it again, {}", again(&format!("{name} --replace")))
            }
            Self::KeyChanged { name } => format!(
                "if this is the right host, {}",
                again(&format!("{name} --replace"))
            ),
        }
    }
}
