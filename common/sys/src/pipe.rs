//! Pipes.

use std::os::fd::AsFd;

/// Capacity in bytes: the most that is allowed without privileges by default.
const CAPACITY: usize = 1024 * 1024;

/// Makes a pipe hold more, so that its two ends wake each other up less often. Has no effect on other files, and beyond the
/// user's limit.
pub fn enlarge(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, CAPACITY);
}
