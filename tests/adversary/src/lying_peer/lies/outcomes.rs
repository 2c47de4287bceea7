//! How a push ends that meets a lie.

/// Exit codes: failed, unreachable, refused.
pub(super) const FAILED: &[i32] = &[1];
pub(super) const UNREACHABLE: &[i32] = &[3];
pub(super) const REFUSED: &[i32] = &[4];

pub(super) const INVALID: &str = "response is invalid";
pub(super) const STALLED: &str = "made no progress";
