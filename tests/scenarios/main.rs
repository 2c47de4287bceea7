//! Scenarios on real btrfs, a module a subject. They need root, and say so without it.
//!
//! `cargo test -p sendshot-scenarios push::` runs those of a subject; `make scenarios` builds what they need and runs all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test ends it, and where says enough"
)]

mod apply;
mod engine;
mod house;
mod parents;
mod push;
mod resume;
mod retained;
mod security;
mod stream;
mod torture;
