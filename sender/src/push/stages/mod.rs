//! The stages of a push, one a file. The order is in [`crate::push`].

pub mod adopt;
pub mod candidates;
pub mod capture;
pub mod negotiate;
pub mod prepare;
pub mod record;
pub mod release;
pub mod resume;
pub mod snapshot;
pub mod standing;
pub mod still;
pub mod transfer;
