//! The kernel's own send (BTRFS_IOC_SEND), what `btrfs send` runs.

use std::io;
use std::os::fd::AsFd;

use crate::raw::{self, Args};

/// SEND_FLAG_VERSION: the version field counts.
const VERSION: u64 = 0x8;
/// SEND_FLAG_COMPRESSED: compressed extents as encoded writes; needs version 2.
const COMPRESSED: u64 = 0x10;

/// What to send.
#[derive(Debug, Clone)]
pub struct Request {
    /// Subvolume id of the parent for an incremental stream.
    pub parent: Option<u64>,
    /// Subvolume ids that clone commands may name. The parent is only one if listed.
    pub clone_sources: Vec<u64>,
    /// Stream version: 1 or 2.
    pub version: u32,
}

/// Writes the stream of a read-only subvolume to `out`; returns when all is written.
///
/// The calling thread MUST have all signals blocked: a signal that lands while the call
/// waits for the pipe makes the kernel start over in the middle of the output, and report
/// success. The call ends with `EPIPE` as soon as the reading end of the pipe is closed,
/// which is how a send is cancelled.
///
/// # Errors
/// The kernel's: `EPERM` for a subvolume that is not read-only or without CAP_SYS_ADMIN,
/// `EAGAIN` while a deduplication works on it, `EPIPE` when the reader went away.
pub fn send(subvolume: impl AsFd, out: impl AsFd, request: &Request) -> io::Result<()> {
    let mut args = Args::<72>::new();
    args.put_u64(24, request.parent.unwrap_or(0));
    let compressed = if request.version >= 2 { COMPRESSED } else { 0 };
    args.put_u64(32, VERSION | compressed);
    args.put_u32(40, request.version);
    raw::send(subvolume, out.as_fd(), &request.clone_sources, &mut args)
}
