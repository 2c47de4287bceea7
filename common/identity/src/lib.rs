//! Who the two ends are to each other: keys, certificates, pairing, and the TLS they make.
//!
//! Each receiver is its own small certificate authority ([`Authority`]). An invitation
//! ([`Senders::invite`]) gives a [`Token`] that carries a secret and the fingerprint of that
//! authority, so pairing needs nothing but the token: the sender dials with
//! [`pairing_client_config`], which trusts the authority of the token only, and the receiver
//! answers the secret with a certificate ([`Senders::redeem`]).
//!
//! From then on TLS proves who the peer is ([`PeerIdentity`]), and [`Senders::authorize`] decides
//! at every call what that is worth: a certificate alone opens nothing, so revoking works at once.
//!
//! TLS is 1.3 only, without resumption, since a resumed session would not be verified again.

mod accept;
mod authority;
mod certificate;
mod connect;
mod connections;
mod crypto;
mod invitation;
mod key_file;
mod own_certificate;
mod peer;
mod refusal;
mod sender_key;
mod senders;
mod stream;
mod tls;
mod token;
mod validity;

pub use accept::accept;
pub use authority::{Authority, AuthorityError, SenderCertificate, SignError};
pub use certificate::CertificateError;
pub use connect::{ClockFault, ConnectError, connect};
pub use connections::Connections;
pub use crypto::RandomError;
pub use invitation::{Invitation, Pairing};
pub use key_file::KeyFileError;
pub use own_certificate::{OwnCertificateError, own_certificate};
pub use peer::{CaFingerprint, PeerId, PeerIdentity, PeerIdentityError, SpkiPin};
pub use refusal::{InviteError, RedeemError, Refusal, RegistryError, RenewError, RevokeError};
pub use sender_key::SenderKey;
pub use senders::{Redeemed, SenderRecord, Senders};
pub use stream::{PeerInfo, PeerStream};
pub use tls::{TlsError, ca_pem, client_config, pairing_client_config, server_config};
pub use token::{Secret, Token, TokenError};
pub use validity::Validity;
