//! Stage *generate*: the send stream as hashed segments.
//!
//! The kernel engine runs the send ioctl on a thread of its own into a pipe; a second thread
//! cuts what comes out into segments. Both are bounded: the pipe by the kernel, the segments
//! by the channel. Nothing is ever kept in a file.
//!
//! Cancelling: dropping the receiving end of the channel makes the second thread stop reading
//! and close the pipe, upon which the ioctl returns `EPIPE` at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use nix::sys::signal::SigSet;
use sendshot_proto::transfer::{Chain, SEGMENT, Segment};
use sendshot_sys::send;
use tokio::sync::{mpsc, oneshot};

/// Segments that wait between the generator and the connection. With the pipe's 64 KiB and
/// HTTP/2's own window this is all that is ever in memory.
const QUEUE: usize = 8;

/// What to send.
#[derive(Debug)]
pub struct Source {
    /// Root directory of the read-only snapshot.
    pub snapshot: OwnedFd,
    /// Subvolume id of the parent.
    pub parent: Option<u64>,
    /// Stream version, 1 or 2.
    pub stream_version: u32,
}

/// What the generator makes.
#[derive(Debug)]
pub enum Output {
    /// The next piece.
    Segment(Segment),
    /// The stream is complete.
    End {
        /// Its length in bytes.
        length: u64,
        /// Chain value behind the last segment.
        chain: Chain,
    },
}

/// Why the stream broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread or pipe could not be made.
    #[error("start the generator")]
    Start(#[source] io::Error),
    /// The send ioctl failed.
    #[error("the kernel's send of the snapshot failed")]
    Send(#[source] io::Error),
    /// The pipe failed.
    #[error("read the kernel's send stream")]
    Read(#[source] io::Error),
    /// The thread of the ioctl is gone.
    #[error("the thread of the kernel's send died")]
    Died,
}

/// A running generator.
#[derive(Debug)]
pub struct Generator {
    /// What it makes. Dropping this cancels it.
    pub outputs: mpsc::Receiver<Result<Output, Error>>,
    /// Whether it still works on the snapshot.
    pub over: Over,
}

/// Tells when a generator has let go of its snapshot, which until then cannot be deleted.
#[derive(Debug)]
pub struct Over(oneshot::Receiver<()>);

impl Over {
    /// Waits for it. A generator that was cancelled ends at once, unless the kernel is in the
    /// middle of a slow read.
    pub async fn wait(self) {
        // The other end is never used, only dropped.
        let _ = self.0.await;
    }
}

/// Starts the kernel engine.
///
/// # Errors
/// [`Error::Start`]; later ones come through the channel.
pub fn kernel(source: Source) -> Result<Generator, Error> {
    let (reader, sending) = kernel_pipe(source)?;
    let (out, outputs) = mpsc::channel(QUEUE);
    let (working, over) = oneshot::channel();
    std::thread::Builder::new()
        .name("segments".into())
        .spawn(move || {
            cut(reader, sending, &out);
            drop(working);
        })
        .map_err(Error::Start)?;
    Ok(Generator {
        outputs,
        over: Over(over),
    })
}

/// Thread of a running send; joining it tells whether the stream is complete.
pub type Sending = std::thread::JoinHandle<io::Result<()>>;

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
/// [`Error::Send`] or [`Error::Died`].
pub fn finish(sending: Sending) -> Result<(), Error> {
    sending
        .join()
        .map_err(|_| Error::Died)?
        .map_err(Error::Send)
}

/// With a signal the kernel would start the stream over in its middle and report success, so
/// this thread takes none.
fn run_ioctl(source: &Source, writer: &OwnedFd) -> io::Result<()> {
    SigSet::all().thread_block()?;
    let request = send::Request {
        parent: source.parent,
        clone_sources: source.parent.into_iter().collect(),
        version: source.stream_version,
    };
    send::send(&source.snapshot, writer, &request)
}

fn cut(mut reader: File, sending: Sending, out: &mpsc::Sender<Result<Output, Error>>) {
    let mut offset = 0;
    let mut chain = Chain::default();
    loop {
        let data = match read_segment(&mut reader) {
            Ok(data) => data,
            Err(e) => {
                let _ = out.blocking_send(Err(Error::Read(e)));
                return abandon(reader, sending);
            }
        };
        if data.is_empty() {
            break;
        }
        chain = chain.extend(&data);
        let length = data.len() as u64;
        let segment = Segment {
            offset,
            data,
            chain,
        };
        if out.blocking_send(Ok(Output::Segment(segment))).is_err() {
            return abandon(reader, sending);
        }
        offset += length;
    }
    let last = finish(sending).map(|()| Output::End {
        length: offset,
        chain,
    });
    let _ = out.blocking_send(last);
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
