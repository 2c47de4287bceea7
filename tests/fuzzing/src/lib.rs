//! Fuzz targets: one function for each place that reads untrusted bytes. Each accepts any bytes, and panics
//! if a promise is broken.
//!
//! Checksums keep a fuzzer away from the code behind them, so the functions that need it add correct ones to
//! the bytes they are given; the first byte of an input selects how it is interpreted. `tests/fuzz` runs them
//! under libFuzzer; `tests/fuzzing/tests/corpus.rs` runs them over the inputs found by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a test ends it, and its location says enough"
)]

pub mod bytes;
pub mod commands;
mod corpus;
pub mod messages;
pub mod register;
pub mod resume_state;
pub mod sendshot;
pub mod stream;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target, its program and the directory of its inputs.
    pub name: &'static str,
    /// Runs the target on an input.
    pub run: fn(&[u8]),
    /// Makes the first inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "stream",
        run: stream::run,
        seeds: stream::seeds,
    },
    Target {
        name: "commands",
        run: commands::run,
        seeds: commands::seeds,
    },
    Target {
        name: "sendshot",
        run: sendshot::run,
        seeds: sendshot::seeds,
    },
    Target {
        name: "resume_state",
        run: resume_state::run,
        seeds: resume_state::seeds,
    },
    Target {
        name: "register",
        run: register::run,
        seeds: register::seeds,
    },
    Target {
        name: "messages",
        run: messages::run,
        seeds: messages::seeds,
    },
];
