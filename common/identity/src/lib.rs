//! Identities of sender and receiver: keys, certificates, pairing, and TLS between them.
//!
//! Each receiver is its own small certificate authority ([`Authority`]). An invitation ([`Senders::invite`])
//! gives a [`Token`] that carries a secret and the fingerprint of that authority, so pairing needs only the
//! token: the sender connects with [`pairing_client_config`], which trusts only the authority of the token,
//! and the receiver answers the secret with a certificate ([`Senders::redeem`]).
//!
//! From then on TLS authenticates the peer ([`PeerIdentity`]), and [`Senders::authorize`] decides at every
//! call what the peer may do: a certificate alone gives no access, so revoking takes effect at once.
//! [`Senders::authorize_reader`] decides that for calls that read copies, which are closed unless the receiver's
//! root opened them: by a grant ([`Senders::grant`]), or by an invitation for a temporary key
//! ([`Pairing::Restore`]). Both end by themselves ([`Moment`]).
//!
//! TLS is 1.3 only, without resumption, because a resumed session would not be verified again.

mod keys;
mod pairing;
mod transport;

pub use keys::authority::{
    Authority, AuthorityError, CA_CERTIFICATE, SenderCertificate, SignError,
};
pub use keys::certificate::CertificateError;
pub use keys::crypto::RandomError;
pub use keys::key_file::KeyFileError;
pub use keys::own_certificate::{OwnCertificateError, own_certificate};
pub use keys::sender_key::SenderKey;
pub use keys::validity::Validity;
pub use pairing::grant::{Grant, Granted, Reader, ReaderKey, Withdrawn};
pub use pairing::invitation::{Invitation, Pairing};
pub use pairing::moment::{Moment, Period, Remaining};
pub use pairing::refusal::{
    Access, GrantError, InviteError, RedeemError, Refusal, RegistryError, RenewError, RevokeError,
};
pub use pairing::senders::{Redeemed, SenderRecord, Senders};
pub use pairing::token::{Secret, Token, TokenError};
pub use transport::accept::accept;
pub use transport::connect::{ClockFault, ConnectError, connect};
pub use transport::connections::Connections;
pub use transport::peer::{CaFingerprint, PeerId, PeerIdentity, PeerIdentityError, SpkiPin};
pub use transport::stream::{PeerInfo, PeerStream};
pub use transport::tls::{TlsError, ca_pem, client_config, pairing_client_config, server_config};
