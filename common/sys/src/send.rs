//! The kernel's own send (BTRFS_IOC_SEND), which `btrfs send` calls.

use std::io;
use std::os::fd::AsFd;

use crate::raw::{self, Args};

/// SEND_FLAG_VERSION: the version field is valid.
const VERSION: u64 = 0x8;
/// SEND_FLAG_COMPRESSED: compressed extents are sent as encoded writes; needs version 2.
const COMPRESSED: u64 = 0x10;

/// Parameters of a send.
#[derive(Debug, Clone)]
pub struct Request {
    /// Subvolume ID of the parent for an incremental stream.
    pub parent: Option<u64>,
    /// Subvolume IDs from which clone commands may clone. They include the parent only if it is listed.
    pub clone_sources: Vec<u64>,
    /// Stream version: 1 or 2.
    pub version: u32,
}

/// Writes the stream of a read-only subvolume to `out`; returns when all of it is written.
///
/// The calling thread MUST have all signals blocked: a signal that arrives while the call waits for the pipe
/// makes the kernel restart the stream in the middle of the output, and report success. The call ends with
/// `EPIPE` as soon as the reading end of the pipe is closed, which is how a send is cancelled.
///
/// # Errors
/// `EPERM` for a subvolume that is not read-only or without CAP_SYS_ADMIN, `EAGAIN` during a deduplication of
/// it, `EPIPE` when the reader closed the pipe, and I/O errors.
pub fn send(subvolume: impl AsFd, out: impl AsFd, request: &Request) -> io::Result<()> {
    let mut args = Args::<72>::new();
    args.put_u64(24, request.parent.unwrap_or(0));
    let compressed = if request.version >= 2 { COMPRESSED } else { 0 };
    args.put_u64(32, VERSION | compressed);
    args.put_u32(40, request.version);
    raw::send(subvolume, out.as_fd(), &request.clone_sources, &mut args)
}
