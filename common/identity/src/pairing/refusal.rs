//! Why somebody is not let in, and what they can do about it: each error says why, and its
//! `remedy` what to run.

use std::io;

use jiff::Timestamp;
use sendshot_model::{PeerName, SenderId};

use crate::keys::authority::SignError;
use crate::keys::crypto::RandomError;

/// The registry's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the registry of senders: {0}")]
pub struct RegistryError(#[from] pub(crate) io::Error);

/// Nobody can be invited under this name.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The name is taken.
    #[error("a sender is paired as `{name}` already")]
    AlreadyPaired {
        /// The name.
        name: PeerName,
    },
    /// The invitation cannot be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no secret.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A certificate that is not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The sender is not welcome.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request is for another key than the sender's: that needs an administrator.
    #[error("the request to renew a certificate is for another key")]
    OtherKey,
    /// The request is not in order.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The new end cannot be written down.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A token that opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No invitation has this secret.
    #[error(
        "the receiver knows no such token: it may be another receiver's, or replaced by a newer one"
    )]
    Unknown,
    /// Its time is over.
    #[error("the token expired at {expires_at}")]
    Expired {
        /// Who was invited.
        name: PeerName,
        /// When it expired.
        expires_at: Timestamp,
    },
    /// Another sender has used it.
    #[error("the token has been used")]
    Used {
        /// Who was invited.
        name: PeerName,
    },
    /// Too many wrong secrets were tried.
    #[error("the token is void, since wrong ones were tried too often")]
    Void {
        /// Who was invited.
        name: PeerName,
    },
    /// The sender has another name already.
    #[error("this sender is known to the receiver as `{name}`")]
    OtherName {
        /// The name it has.
        name: PeerName,
    },
    /// The request is not in order.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The pairing cannot be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A name that cannot be revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// Nobody has it.
    #[error("no sender is paired or invited as `{name}`")]
    Unknown {
        /// The name.
        name: PeerName,
    },
    /// The revocation cannot be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why a peer may not do what senders do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It did not show a sender's certificate.
    #[error("this receiver serves paired senders only")]
    NoCertificate,
    /// Its certificate is ours, but the registry has no such sender.
    #[error("this receiver does not know sender {sender}")]
    Unknown {
        /// Who it says it is.
        sender: SenderId,
    },
    /// An administrator revoked it.
    #[error("this receiver has revoked sender `{name}`")]
    Revoked {
        /// Its name.
        name: PeerName,
    },
    /// The name belongs to another instance or key since.
    #[error("sender `{name}` has been paired again with another key")]
    KeyChanged {
        /// Its name.
        name: PeerName,
    },
}

impl InviteError {
    /// What the administrator can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::AlreadyPaired { name } => format!(
                "choose another name, or run `sendshotctl peer invite {name} --replace` for a new \
                 box to take over its directory and copies"
            ),
            Self::Registry(_) | Self::Random(_) => String::new(),
        }
    }
}

impl RedeemError {
    /// What the user can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let another = |name: &str| {
            format!("run `sendshotctl peer invite {name}` on the receiver for a new one")
        };
        match self {
            Self::Unknown => another("NAME"),
            Self::Expired { name, .. } | Self::Void { name } => another(name.as_str()),
            Self::Used { name } => format!(
                "if it was not by this box, run `sendshotctl peer revoke {name}` on the receiver; \
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
    /// What the administrator can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "`sendshotctl peer list` shows who is",
            Self::Registry(_) => "",
        }
    }
}

impl Refusal {
    /// What to do, on which box.
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
                "if this is the right box, {}",
                again(&format!("{name} --replace"))
            ),
        }
    }
}
