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

const NONSENSE: &str = "makes no sense";
const STALLED: &str = "came no further";
