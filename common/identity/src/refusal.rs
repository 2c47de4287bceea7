//! Why somebody is not let in, and what they can do about it.

use std::io;

use jiff::Timestamp;
use sendshot_model::{PeerName, SenderId};

use crate::authority::SignError;
use crate::crypto::RandomError;

/// The registry's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the registry of senders: {0}")]
pub struct RegistryError(#[from] pub(crate) io::Error);

/// Nobody can be invited under this name.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The name is taken.
    #[error(
        "a sender is paired as `{name}` already; choose another name, or run \
         `sendshotctl peer invite {name} --replace` for a new box to take over its directory and copies"
    )]
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

/// A token that opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No invitation has this secret.
    #[error(
        "the receiver knows no such token: it may be another receiver's, or replaced by a newer one; \
         run `sendshotctl peer invite NAME` on the receiver for a new one"
    )]
    Unknown,
    /// Its time is over.
    #[error(
        "the token expired at {expires_at}; \
         run `sendshotctl peer invite {name}` on the receiver for a new one"
    )]
    Expired {
        /// Who was invited.
        name: PeerName,
        /// When it expired.
        expires_at: Timestamp,
    },
    /// Another sender has used it.
    #[error(
        "the token has been used; if it was not by this box, run `sendshotctl peer revoke {name}` \
         on the receiver and invite again"
    )]
    Used {
        /// Who was invited.
        name: PeerName,
    },
    /// Too many wrong secrets were tried.
    #[error(
        "the token is void, since wrong ones were tried too often; \
         run `sendshotctl peer invite {name}` on the receiver for a new one"
    )]
    Void {
        /// Who was invited.
        name: PeerName,
    },
    /// The sender has another name already.
    #[error(
        "this sender is known to the receiver as `{name}`; to pair it again run \
         `sendshotctl peer invite {name} --replace` on the receiver"
    )]
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
    #[error("no sender is paired or invited as `{name}`; `sendshotctl peer list` shows who is")]
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
    #[error(
        "this receiver serves paired senders only; on the receiver run \
         `sendshotctl peer invite NAME`, then on the sender `sendshotctl pair HOST`"
    )]
    NoCertificate,
    /// Its certificate is ours, but the registry has no such sender.
    #[error(
        "this receiver does not know sender {sender}; on the receiver run \
         `sendshotctl peer invite NAME`, then on the sender `sendshotctl pair HOST`"
    )]
    Unknown {
        /// Who it says it is.
        sender: SenderId,
    },
    /// An administrator revoked it.
    #[error(
        "this receiver has revoked sender `{name}`; to admit it again, on the receiver run \
         `sendshotctl peer invite {name} --replace`, then on the sender `sendshotctl pair HOST`"
    )]
    Revoked {
        /// Its name.
        name: PeerName,
    },
    /// The name belongs to another instance or key since.
    #[error(
        "sender `{name}` has been paired again with another key; if this is the right box, on the \
         receiver run `sendshotctl peer invite {name} --replace`, then on the sender \
         `sendshotctl pair HOST`"
    )]
    KeyChanged {
        /// Its name.
        name: PeerName,
    },
}
