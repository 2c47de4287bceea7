//! Keys and certificates: generation, storage, checks and expiry.

pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod crypto;
pub(crate) mod key_file;
pub(crate) mod own_certificate;
pub(crate) mod sender_key;
pub(crate) mod validity;
