//! The contract between sender, receiver and sendshotctl.
//!
//! [`v1`] is generated from the `.proto` files, whose comments are the contract. Messages of a peer are
//! converted at the edge, once, by the `TryFrom` implementations of the other modules; nothing of `v1` is
//! used further inside.

pub mod answer;
pub mod chain;
pub mod confirm;
pub mod failure;
pub mod hello;
pub mod history;
pub mod inventory;
pub mod malformed;
pub mod not_kept;
pub mod problem;
pub mod refusal;
pub mod report;
pub mod restore;
pub mod resume;
pub mod transfer;
pub mod volume;

/// Generated messages and services.
#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_debug_implementations,
    unreachable_pub
)]
pub mod v1 {
    tonic::include_proto!("sendshot.v1");
}

pub use malformed::Malformed;
