//! Cuts a stream into hashed segments on a thread.

use std::io;

use bytes::Bytes;
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::{Mark, Segment};
use tokio::sync::{mpsc, oneshot};

/// Segments that wait between the generator and the connection. With the kernel's pipe and HTTP/2's own window
/// they are all that memory ever holds of a stream.
const QUEUE: usize = 8;

/// The output of a generator. `T` is a segment, or a segment with additions.
#[derive(Debug)]
pub enum Output<T> {
    /// A piece of the stream.
    Segment(T),
    /// The stream is complete.
    End {
        /// Length of the stream in bytes.
        length: u64,
        /// Chain value after the last segment.
        chain: Chain,
    },
}

/// The receiving end of the queue was dropped: the stream is not needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not needed any more")]
pub struct Cancelled;

/// A running generator.
#[derive(Debug)]
pub struct Generator<T, E> {
    /// The stream. Dropping this cancels the generator. The queue closes without [`Output::End`] or an error only
    /// if the thread of the generator dies.
    pub outputs: mpsc::Receiver<Result<Output<T>, E>>,
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

/// Runs an engine on a thread called `name`; the bytes that it gives to its cutter become segments, from `from` on.
///
/// # Errors
/// The kernel's error if no thread can be started.
pub fn start<T, E>(
    name: &str,
    from: Option<Point>,
    engine: impl FnOnce(&mut Cutter<T, E>) -> Result<(), E> + Send + 'static,
) -> io::Result<Generator<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    let (out, outputs) = mpsc::channel(QUEUE);
    let (working, over) = oneshot::channel();
    let work = move || {
        let mut cutter = Cutter::new(out, from);
        let made = engine(&mut cutter);
        cutter.end(made);
        drop(working);
    };
    std::thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(Generator {
        outputs,
        finished: Finished(over),
    })
}

/// Numbers and hashes the segments of a stream.
#[derive(Debug)]
pub struct Cutter<T, E> {
    out: mpsc::Sender<Result<Output<T>, E>>,
    offset: u64,
    chain: Chain,
}

impl<T, E> Cutter<T, E> {
    fn new(out: mpsc::Sender<Result<Output<T>, E>>, from: Option<Point>) -> Self {
        Self {
            out,
            offset: from.map_or(0, |from| from.offset),
            chain: from.map_or(Chain::default(), |from| from.chain),
        }
    }

    /// Sends a segment; waits while the queue is full. Before the segment leaves, `complete` gets it with the point
    /// after it, and can mark it or add to it.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn segment(
        &mut self,
        data: Bytes,
        complete: impl FnOnce(Segment, Point) -> T,
    ) -> Result<(), Cancelled> {
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
            mark: Mark::None,
        };
        self.out
            .blocking_send(Ok(Output::Segment(complete(segment, behind))))
            .map_err(|_| Cancelled)
    }

    /// Whether the stream is not needed any more.
    pub fn is_cancelled(&self) -> bool {
        self.out.is_closed()
    }

    /// Sends the outcome. The receiving end may be gone.
    fn end(self, made: Result<(), E>) {
        let last = made.map(|()| Output::End {
            length: self.offset,
            chain: self.chain,
        });
        let _ = self.out.blocking_send(last);
    }
}
