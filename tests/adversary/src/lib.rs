//! Hostile peers: one between two honest daemons that tells a lie, a receiver with arbitrary responses, and a
//! sender whose streams and calls try to reach foreign data.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a test ends it, and its location says enough"
)]

pub mod hostile;
pub mod lying_peer;
