//! Pairing of senders: invitations, tokens, the list of paired senders, and the permissions to read copies.

pub(crate) mod files;
pub(crate) mod grant;
pub(crate) mod invitation;
pub(crate) mod moment;
pub(crate) mod reading;
pub(crate) mod refusal;
pub(crate) mod senders;
pub(crate) mod token;
