//! The lies of a hostile receiver, by subject, with the expected outcome of each.

mod greeting;
mod holdings;
mod transfer;

pub use greeting::HELLO;
pub use holdings::INVENTORY;
pub use transfer::TRANSFER;

/// Exit codes: failed, unreachable, refused.
const FAILED: &[i32] = &[1];
const UNREACHABLE: &[i32] = &[3];
const REFUSED: &[i32] = &[4];

const INVALID: &str = "response is invalid";
const STALLED: &str = "made no progress";
