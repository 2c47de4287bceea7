//! The stages of a push, one per file. [`crate::push`] gives their order.

pub(crate) mod announce;
pub(crate) mod connect;
pub mod negotiate;
pub mod prepare;
pub mod record;
pub mod release;
pub mod resume;
pub(crate) mod send;
pub mod snapshot;
pub(crate) mod source;
pub mod standing;
pub mod still;
pub mod transfer;
