//! TLS between sender and receiver, and the identity of the peer.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod peer;
pub(crate) mod stream;
pub(crate) mod tls;
