//! Scenarios on real btrfs, one module per subject. They need root, and fail with that reason without it.
//!
//! `cargo test -p sendshot-scenarios push::` runs one subject; `make scenarios` builds and runs everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a test ends it, and its location says enough"
)]

mod any_fault;
mod any_restore_fault;
mod apply;
mod engine;
mod history;
mod house;
mod monitoring;
mod parents;
mod push;
mod restore;
mod resume;
mod retained;
mod retention;
mod schedule;
mod security;
mod setup;
mod stream;
