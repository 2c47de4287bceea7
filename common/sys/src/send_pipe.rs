//! The kernel's send through a pipe: the ioctl runs on its own thread, and its stream is read from the pipe.
//!
//! Closing the pipe ends the ioctl with `EPIPE` at once; the thread holds the snapshot as long as it lives.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::SigSet;

use crate::{pipe, send, subvolume};

/// Parameters of a send.
#[derive(Debug)]
pub struct Source {
    /// Root directory of the read-only snapshot.
    pub snapshot: OwnedFd,
    /// Subvolume ID of the parent.
    pub parent: Option<u64>,
    /// Subvolume IDs, besides the parent's, with which data can be shared.
    pub clone_sources: Vec<u64>,
    /// Stream version, 1 or 2.
    pub stream_version: u32,
}

/// Reason why there is no complete stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread or pipe could not be made.
    #[error("cannot start the generator")]
    Start(#[source] io::Error),
    /// The send ioctl failed.
    #[error("the kernel's send of the snapshot failed")]
    Send(#[source] io::Error),
    /// The snapshot no longer exists.
    #[error("the snapshot was deleted while it was being sent")]
    Deleted,
    /// The thread died.
    #[error("the thread of the generator ended without a result")]
    Died,
}

/// Thread of a running send; joining it returns whether the stream is complete.
pub type Sending = std::thread::JoinHandle<Result<(), Error>>;

/// Starts the send ioctl and returns the pipe with its stream. The stream is complete only if the pipe has
/// ended *and* [`finish`] returns success.
///
/// # Errors
/// [`Error::Start`].
pub fn start(source: Source) -> Result<(File, Sending), Error> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Error::Start(e.into()))?;
    pipe::enlarge(&writer);
    let sending = std::thread::Builder::new()
        .name("kernel-send".into())
        .spawn(move || run_ioctl(&source, &writer))
        .map_err(Error::Start)?;
    Ok((File::from(reader), sending))
}

/// Returns the result of a send after its pipe has ended.
///
/// # Errors
/// [`Error::Send`], [`Error::Deleted`] or [`Error::Died`].
pub fn finish(sending: Sending) -> Result<(), Error> {
    sending.join().map_err(|_| Error::Died)?
}

/// Runs the ioctl with all signals blocked: after a signal the kernel would restart the stream in its middle
/// and report success.
fn run_ioctl(source: &Source, writer: &OwnedFd) -> Result<(), Error> {
    let blocked = SigSet::all().thread_block();
    blocked.map_err(|e| Error::Start(e.into()))?;
    let request = send::Request {
        parent: source.parent,
        clone_sources: clone_sources(source),
        version: source.stream_version,
    };
    send::send(&source.snapshot, writer, &request).map_err(|e| {
        // The kernel forbids deleting the snapshot during the send, but it may have been deleted before.
        match subvolume::is_deleted(&source.snapshot) {
            Ok(true) => Error::Deleted,
            Ok(false) | Err(_) => Error::Send(e),
        }
    })
}

/// Adds the parent to the clone sources: the kernel does not clone from it unless it is listed here.
fn clone_sources(source: &Source) -> Vec<u64> {
    let mut ids = source.clone_sources.clone();
    ids.extend(source.parent);
    ids.sort_unstable();
    ids.dedup();
    ids
}
