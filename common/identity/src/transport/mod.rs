//! TLS between the two ends, and who is at the other one.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod connections;
pub(crate) mod peer;
pub(crate) mod stream;
pub(crate) mod tls;
