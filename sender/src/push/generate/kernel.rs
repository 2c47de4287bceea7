//! The kernel engine: the send ioctl on a thread of its own writes into a pipe, a second thread
//! cuts what comes out into segments.
//!
//! Cancelling: when the segments are not wanted any more, the second thread closes the pipe, upon
//! which the ioctl returns `EPIPE` at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use nix::sys::signal::SigSet;
use sendshot_proto::transfer::{Mark, SEGMENT};
use sendshot_sys::{send, subvolume};

use super::cutter::{Cutter, Error, Generator, start};

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

/// Starts the kernel engine.
///
/// # Errors
/// [`Error::Start`]; later ones come through the channel.
pub fn kernel(source: Source) -> Result<Generator, Error> {
    let (reader, sending) = kernel_pipe(source)?;
    start("segments", None, move |cutter| cut(reader, sending, cutter))
}

/// Thread of a running send; joining it tells whether the stream is complete.
pub type Sending = std::thread::JoinHandle<Result<(), Error>>;

/// Starts the send ioctl; its stream comes out of the returned pipe. Only when the pipe has
/// ended *and* [`finish`] says so is the stream complete.
///
/// # Errors
/// [`Error::Start`].
pub fn kernel_pipe(source: Source) -> Result<(File, Sending), Error> {
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

fn cut(mut reader: File, sending: Sending, cutter: &mut Cutter) -> Result<(), Error> {
    loop {
        let wanted = match read_segment(&mut reader).map_err(Error::Read) {
            Ok(data) if data.is_empty() => return finish(sending),
            Ok(data) => cutter.segment(data, |_| Mark::None),
            Err(e) => Err(e),
        };
        if let Err(e) = wanted {
            abandon(reader, sending);
            return Err(e);
        }
    }
}

/// Closing the pipe ends the ioctl, whose thread holds the snapshot as long as it lives.
fn abandon(reader: File, sending: Sending) {
    drop(reader);
    if finish(sending).is_ok() {
        tracing::debug!("a cancelled send had come to its end");
    }
}

/// As many bytes as a segment holds, fewer only at the end of the stream.
fn read_segment(reader: &mut File) -> io::Result<Bytes> {
    let mut data = Vec::with_capacity(SEGMENT);
    reader
        .by_ref()
        .take(SEGMENT as u64)
        .read_to_end(&mut data)?;
    Ok(data.into())
}
