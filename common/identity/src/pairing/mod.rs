//! How a sender comes to be known: invitations, tokens, and the list of those that are paired.

pub(crate) mod invitation;
pub(crate) mod refusal;
pub(crate) mod senders;
pub(crate) mod token;
