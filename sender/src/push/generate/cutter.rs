//! A stream as hashed segments, made by a thread.

use bytes::Bytes;
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::{Mark, Segment};
use sendshot_sys::send_pipe;
use std::io;
use tokio::sync::{mpsc, oneshot};

/// Segments that wait between the generator and the connection. With the kernel's pipe and
/// HTTP/2's own window this is all that is ever in memory.
const QUEUE: usize = 8;

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
    /// The kernel's send failed.
    #[error(transparent)]
    Kernel(#[from] send_pipe::Error),
    /// The pipe failed.
    #[error("read the kernel's send stream")]
    Read(#[source] io::Error),
    /// Our engine failed.
    #[error("make the stream from sendshots")]
    Engine(#[from] sendshot_engine::stream::Error),
    /// What only hashes can tell was not found out.
    #[error("compare files without checksums")]
    Verify(#[from] sendshot_engine::stream::verify::Error),
    /// A thread is gone.
    #[error("the thread of the generator died")]
    Died,
    /// Nobody wants the stream any more.
    #[error("the stream is not wanted any more")]
    Cancelled,
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

/// Runs an engine on a thread; what it gives to its cutter comes out as segments, from `from` on.
pub(super) fn start(
    name: &str,
    from: Option<Point>,
    engine: impl FnOnce(&mut Cutter) -> Result<(), Error> + Send + 'static,
) -> Result<Generator, Error> {
    let (out, outputs) = mpsc::channel(QUEUE);
    let (working, over) = oneshot::channel();
    let work = move || {
        let mut cutter = Cutter::new(out, from);
        let made = engine(&mut cutter);
        cutter.end(made);
        drop(working);
    };
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(Error::Start)?;
    Ok(Generator {
        outputs,
        over: Over(over),
    })
}

/// Numbers and hashes the segments of a stream.
#[derive(Debug)]
pub(super) struct Cutter {
    out: mpsc::Sender<Result<Output, Error>>,
    offset: u64,
    chain: Chain,
}

impl Cutter {
    pub(super) fn new(out: mpsc::Sender<Result<Output, Error>>, from: Option<Point>) -> Self {
        Self {
            out,
            offset: from.map_or(0, |from| from.offset),
            chain: from.map_or(Chain::default(), |from| from.chain),
        }
    }

    /// Sends a segment; waits while too many are under way. `mark` is told the place behind it
    /// before it leaves.
    pub(super) fn segment(
        &mut self,
        data: Bytes,
        mark: impl FnOnce(Point) -> Mark,
    ) -> Result<(), Error> {
        self.chain = self.chain.extend(&data);
        let offset = self.offset;
        self.offset += data.len() as u64;
        let behind = Point {
            offset: self.offset,
            chain: self.chain,
        };
        let segment = Segment {
            offset,
            data,
            chain: self.chain,
            mark: mark(behind),
        };
        self.out
            .blocking_send(Ok(Output::Segment(segment)))
            .map_err(|_| Error::Cancelled)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.out.is_closed()
    }

    /// Tells how it ended. Nobody may listen any more.
    pub(super) fn end(self, made: Result<(), Error>) {
        let last = made.map(|()| Output::End {
            length: self.offset,
            chain: self.chain,
        });
        let _ = self.out.blocking_send(last);
    }
}
