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

mod keys;
mod pairing;
mod transport;

pub use keys::authority::{Authority, AuthorityError, SenderCertificate, SignError};
pub use keys::certificate::CertificateError;
pub use keys::crypto::RandomError;
pub use keys::key_file::KeyFileError;
pub use keys::own_certificate::{OwnCertificateError, own_certificate};
pub use keys::sender_key::SenderKey;
pub use keys::validity::Validity;
pub use pairing::invitation::{Invitation, Pairing};
pub use pairing::refusal::{
    InviteError, RedeemError, Refusal, RegistryError, RenewError, RevokeError,
};
pub use pairing::senders::{Redeemed, SenderRecord, Senders};
pub use pairing::token::{Secret, Token, TokenError};
pub use transport::accept::accept;
pub use transport::connect::{ClockFault, ConnectError, connect};
pub use transport::connections::Connections;
pub use transport::peer::{CaFingerprint, PeerId, PeerIdentity, PeerIdentityError, SpkiPin};
pub use transport::stream::{PeerInfo, PeerStream};
pub use transport::tls::{TlsError, ca_pem, client_config, pairing_client_config, server_config};
