//! The kernel's send through a pipe: the ioctl runs on a thread of its own, its stream is read from the pipe.
//!
//! Closing the pipe ends the ioctl with `EPIPE` at once; its thread holds the snapshot as long as it lives.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::SigSet;

use crate::{send, subvolume};

/// What to send.
#[derive(Debug)]
pub struct Source {
    /// Root directory of the read-only snapshot.
    pub snapshot: OwnedFd,
    /// Subvolume id of the parent.
    pub parent: Option<u64>,
    /// Subvolume ids, besides the parent's, that data can be shared with.
    pub clone_sources: Vec<u64>,
    /// Stream version, 1 or 2.
    pub stream_version: u32,
}

/// Why there is no stream, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread or pipe could not be made.
    #[error("start the generator")]
    Start(#[source] io::Error),
    /// The send ioctl failed.
    #[error("the kernel's send of the snapshot failed")]
    Send(#[source] io::Error),
    /// The snapshot does not exist any more.
    #[error("the snapshot was deleted while it was being sent")]
    Deleted,
    /// The thread is gone.
    #[error("the thread of the generator died")]
    Died,
}

/// Thread of a running send; joining it tells whether the stream is complete.
pub type Sending = std::thread::JoinHandle<Result<(), Error>>;

/// Starts the send ioctl; its stream comes out of the returned pipe. Only when the pipe has
/// ended *and* [`finish`] says so is the stream complete.
///
/// # Errors
/// [`Error::Start`].
pub fn start(source: Source) -> Result<(File, Sending), Error> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Error::Start(e.into()))?;
    // More room means fewer switches between the two threads; refused beyond the user's limit.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1024 * 1024);
    let sending = std::thread::Builder::new()
        .name("kernel-send".into())
        .spawn(move || run_ioctl(&source, &writer))
        .map_err(Error::Start)?;
    Ok((File::from(reader), sending))
}

/// The result of a send whose pipe has ended.
///
/// # Errors
/// [`Error::Send`], [`Error::Deleted`] or [`Error::Died`].
pub fn finish(sending: Sending) -> Result<(), Error> {
    sending.join().map_err(|_| Error::Died)?
}

/// With a signal the kernel would start the stream over in its middle and report success, so
/// this thread takes none.
fn run_ioctl(source: &Source, writer: &OwnedFd) -> Result<(), Error> {
    let blocked = SigSet::all().thread_block();
    blocked.map_err(|e| Error::Start(e.into()))?;
    let request = send::Request {
        parent: source.parent,
        clone_sources: clone_sources(source),
        version: source.stream_version,
    };
    send::send(&source.snapshot, writer, &request).map_err(|e| {
        // While it runs the kernel lets no one delete the snapshot, but before.
        match subvolume::is_deleted(&source.snapshot) {
            Ok(true) => Error::Deleted,
            Ok(false) | Err(_) => Error::Send(e),
        }
    })
}

/// The kernel does not clone from the parent unless it is named here, too.
fn clone_sources(source: &Source) -> Vec<u64> {
    let mut ids = source.clone_sources.clone();
    ids.extend(source.parent);
    ids.sort_unstable();
    ids.dedup();
    ids
}
