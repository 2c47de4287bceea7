//! What the measurements share.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

pub mod delay;
pub mod measure;
pub mod trees;
