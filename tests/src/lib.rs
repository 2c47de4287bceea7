//! Harness for scenarios on real btrfs. They need root, and say so without it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test ends it, and where says enough"
)]

pub mod address;
pub mod binaries;
pub mod chain;
pub mod changes;
pub mod command;
pub mod daemon;
pub mod equivalence;
pub mod exact;
pub mod extents;
pub mod fail_points;
pub mod fill;
pub mod forgetful;
pub mod history;
pub mod hostile;
pub mod liar;
pub mod link;
pub mod loopfs;
pub mod mount;
pub mod nobody;
pub mod pairing;
pub mod power;
pub mod random;
pub mod receiver_box;
pub mod sender_box;
pub mod streams;
pub mod subvolumes;
pub mod torture;
pub mod tree;
pub mod until;
pub mod zoo;

/// BLAKE3 of some bytes, as what lies on disk is checked by it.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
