//! Cuts a stream into hashed segments on a thread.

use bytes::Bytes;
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::{Mark, Segment};
use sendshot_sys::send_pipe;
use std::io;
use tokio::sync::{mpsc, oneshot};

/// Segments that wait between the generator and the connection. With the kernel's pipe and HTTP/2's own window
/// they are all that memory ever holds of a stream.
const QUEUE: usize = 8;

/// The output of a generator.
#[derive(Debug)]
pub enum Output {
    Segment(Segment),
    /// The stream is complete.
    End {
        length: u64,
        /// Chain value after the last segment.
        chain: Chain,
    },
}

/// Why the stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start the generator")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Kernel(#[from] send_pipe::Error),
    /// The kernel's pipe could not be read.
    #[error("cannot read the kernel's send stream")]
    Read(#[source] io::Error),
    /// The sendshot engine failed.
    #[error("cannot make the stream from sendshots")]
    Engine(#[from] sendshot_engine::stream::Error),
    /// Files without checksums could not be compared by hash.
    #[error("cannot compare files without checksums")]
    CompareHashes(#[from] sendshot_engine::stream::compare_hashes::Error),
    /// A thread ended without a result.
    #[error("the thread of the generator ended without a result")]
    Died,
    /// The receiving end of the queue was dropped.
    #[error("the stream is not needed any more")]
    Cancelled,
}

#[derive(Debug)]
pub struct Generator {
    /// The stream. Dropping this cancels the generator.
    pub outputs: mpsc::Receiver<Result<Output, Error>>,
    /// Reports when the generator has closed the snapshot.
    pub finished: Finished,
}

/// Reports when a generator has closed its snapshot, which until then cannot be deleted.
#[derive(Debug)]
pub struct Finished(oneshot::Receiver<()>);

impl Finished {
    /// Waits for it. A cancelled generator ends at once, unless the kernel is in the middle of a slow read.
    pub async fn wait(self) {
        // The other end is never used, only dropped.
        let _ = self.0.await;
    }
}

/// Runs an engine on a thread; the bytes it gives to its cutter become segments, from `from` on.
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
        finished: Finished(over),
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

    /// Sends a segment; waits while the queue is full. Before the segment leaves, `mark` gets the point after it.
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

    /// Sends the outcome. The receiving end may be gone.
    pub(super) fn end(self, made: Result<(), Error>) {
        let last = made.map(|()| Output::End {
            length: self.offset,
            chain: self.chain,
        });
        let _ = self.out.blocking_send(last);
    }
}
