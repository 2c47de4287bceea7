//! Pairing of senders: invitations, tokens, and the list of paired senders.

pub(crate) mod invitation;
pub(crate) mod refusal;
pub(crate) mod senders;
pub(crate) mod token;
