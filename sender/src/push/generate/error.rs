//! Why a generator ends early, and its output.

use std::io;

use sendshot_proto::transfer::Segment;
use sendshot_sys::send_pipe;
use sendshot_transfer::cutter;

/// The output of a generator.
pub type Output = cutter::Output<Segment>;
/// A running generator.
pub type Generator = cutter::Generator<Segment, Error>;
/// Cuts the stream of an engine into segments.
pub(super) type Cutter = cutter::Cutter<Segment, Error>;

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
    #[error(transparent)]
    Cancelled(#[from] cutter::Cancelled),
}
