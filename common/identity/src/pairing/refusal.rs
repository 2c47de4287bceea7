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

/// What a key can do at a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is a sender's own key: it pushes, and reads copies with a permission.
    Full,
    /// It reads copies for a time, and nothing else.
    ReadOnly,
}

/// No sender can be invited under this name.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The name belongs to a paired sender.
    #[error("a sender is paired as `{name}` already")]
    AlreadyPaired {
        /// The name requested.
        name: PeerName,
    },
    /// No sender has or had the name, so that it has no copies that could be read.
    #[error("no sender is or was paired as `{name}`")]
    NeverPaired {
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

/// A permission to read copies is not granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// No sender has the name.
    #[error("no sender is paired as `{name}`")]
    Unknown {
        /// The name requested.
        name: PeerName,
    },
    /// The sender is revoked: its key can do nothing.
    #[error("sender `{name}` is revoked, so that its key cannot read anything")]
    Revoked {
        /// The name requested.
        name: PeerName,
    },
    /// The grant cannot be stored.
    #[error(transparent)]
    Registry(#[from] RegistryError),
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
        /// The access that it would have given.
        access: Access,
    },
    /// Another sender has used the token.
    #[error("the token has been used")]
    Used {
        /// Name of the invited sender.
        name: PeerName,
        /// The access that it gave.
        access: Access,
    },
    /// Too many wrong secrets were tried.
    #[error("the token is void, since wrong ones were tried too often")]
    Void {
        /// Name of the invited sender.
        name: PeerName,
        /// The access that it gave.
        access: Access,
    },
    /// The token is for restoring, and the caller wants to be paired. It has not been used up.
    #[error("the token is for restoring the copies of `{name}`, not for pairing")]
    OnlyRestores {
        /// Name in the invitation.
        name: PeerName,
    },
    /// The token is for pairing, and the caller wants to restore only. It has not been used up.
    #[error("the token is for pairing a host as `{name}`, not for restoring")]
    OnlyPairs {
        /// Name in the invitation.
        name: PeerName,
    },
    /// The caller wants a temporary key under the id of a paired host.
    #[error("this host is paired with the receiver as `{name}`, and needs no temporary key")]
    HasOwnKey {
        /// The host's name.
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
    /// The key is a temporary one, which can only read copies.
    #[error("the key of this host can only restore the copies of `{name}`")]
    ReadOnly {
        /// Name of the sender whose copies it can read.
        name: PeerName,
    },
    /// The key was a temporary one, and its time is over.
    #[error("the time of this host to restore the copies of `{name}` has ended")]
    RestoreEnded {
        /// Name of the sender whose copies it could read.
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
            Self::NeverPaired { name } => format!(
                "`sendshotctl peer list` shows the senders; a host whose copies are to be kept here is paired \
                 with `sendshotctl peer invite {name}`"
            ),
            Self::Registry(_) | Self::Random(_) => String::new(),
        }
    }
}

impl GrantError {
    /// Returns what the administrator can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Unknown { .. } => "`sendshotctl peer list` shows the paired senders".to_owned(),
            Self::Revoked { name } => format!(
                "run `sendshotctl peer invite {name} --restore` to have its copies restored by any host"
            ),
            Self::Registry(_) => String::new(),
        }
    }
}

impl RedeemError {
    /// Returns what the user can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        let another = |invite: &str| {
            format!("run `sendshotctl peer invite {invite}` on the receiver for a new one")
        };
        match self {
            Self::Unknown => another("NAME"),
            Self::Expired { name, access, .. } | Self::Void { name, access } => match access {
                Access::Full => another(name.as_str()),
                Access::ReadOnly => another(&format!("{name} --restore")),
            },
            Self::Used {
                name,
                access: Access::ReadOnly,
            } => format!(
                "if it was not by this host, run `sendshotctl peer revoke {name} --restore` on the receiver; \
                 for a new one, `sendshotctl peer invite {name} --restore`"
            ),
            Self::OnlyRestores { name } => format!(
                "run `sendshotctl restore --pair HOST` with it; to pair this host, a token of `sendshotctl peer \
                 invite {name} --replace` on the receiver is needed"
            ),
            Self::OnlyPairs { name } => format!(
                "run `sendshotctl pair HOST` with it; to restore without pairing, a token of `sendshotctl peer \
                 invite {name} --restore` on the receiver is needed"
            ),
            Self::HasOwnKey { name } => format!(
                "run `sendshotctl peer grant {name} --for 24h` on the receiver, and restore without `--pair`"
            ),
            Self::Used {
                name,
                access: Access::Full,
            } => format!(
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
            Self::ReadOnly { name } => format!(
                "to have this host push in the place of `{name}`, {}",
                again(&format!("{name} --replace"))
            ),
            Self::RestoreEnded { name } => format!(
                "on the receiver run `sendshotctl peer invite {name} --restore`, then on this host \
                 `sendshotctl restore --pair HOST`"
            ),
        }
    }
}
