//! Peers that mean harm: one between two honest daemons that tells a lie, a receiver that answers anything, and
//! streams and calls of a sender that try to reach what is not theirs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test ends it, and where says enough"
)]

pub mod hostile;
pub mod lying_peer;
