//! Generates the stream of a fetch on a thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sendshot_engine::diff::Version;
use sendshot_engine::stream::Pages;
use sendshot_engine::stream::measure::{self, Size};
use sendshot_engine::{Part, Sendshot, SkeletonHash, Source, StreamPosition};
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::restore::{FetchPoint, FetchedSegment};
use sendshot_transfer::cutter::{self, Cancelled};

use crate::receive::failures::{io_failure, with_causes};

/// Name of the subvolume in the stream; the sender names the restored one itself.
const NAME: &[u8] = b"restore";

/// A running generator.
pub type Generator = cutter::Generator<FetchedSegment, Error>;
type Cutter = cutter::Cutter<FetchedSegment, Error>;

/// Why the stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot generate the stream")]
    Engine(#[from] sendshot_engine::stream::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Data that is stored compressed had to be sent decoded.
    #[error("the stream is longer than the {length} bytes that were measured")]
    Longer { length: u64 },
}

/// The input of a stream.
#[derive(Debug)]
pub struct Fetch {
    /// Root directory of the copy.
    pub copy: OwnedFd,
    /// The sendshot of the copy, or of parts of it.
    pub sendshot: Arc<Sendshot>,
    /// 1 or 2.
    pub stream_version: u32,
    /// Where to resume.
    pub from: Option<FetchPoint>,
}

fn version(stream_version: u32) -> Version {
    match stream_version {
        1 => Version::V1,
        _ => Version::V2,
    }
}

impl Fetch {
    /// Measures the whole stream without generating it. Blocks.
    ///
    /// # Errors
    /// The failure for the sender.
    pub fn measure(&self) -> Result<Size, Failure> {
        measure::measure(None, &self.sendshot, NAME, version(self.stream_version))
            .map_err(|e| failure(&e.into()))
    }

    /// Starts to generate the stream, whose whole length is `length`.
    ///
    /// # Errors
    /// The kernel's error if no thread can be started.
    pub fn start(self, length: u64) -> io::Result<Generator> {
        let from = self.from.map(|from| from.point);
        cutter::start("fetch", from, move |cutter| self.generate(length, cutter))
    }

    fn generate(&self, length: u64, cutter: &mut Cutter) -> Result<(), Error> {
        let source = Source {
            parent: None,
            target: &self.sendshot,
            snapshot: &self.copy,
            name: NAME,
            version: version(self.stream_version),
            pages: Pages::Keep,
        };
        let from = self.from.map(|from| StreamPosition {
            offset: from.point.offset,
            skeleton: SkeletonHash(from.skeleton),
        });
        let mut is_longer = false;
        let out = |part: Part| {
            if part.end.offset > length {
                is_longer = true;
                return Err(io::ErrorKind::InvalidData.into());
            }
            let skeleton = part.end.skeleton.0;
            let complete = |segment, _| FetchedSegment { segment, skeleton };
            let sent = cutter.segment(part.bytes.into(), complete);
            sent.map_err(io::Error::other)
        };
        let made = sendshot_engine::stream_from(&source, from, None, out);
        match made {
            Ok(()) => Ok(()),
            Err(_) if is_longer => Err(Error::Longer { length }),
            Err(_) if cutter.is_cancelled() => Err(Cancelled.into()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Makes the failure for the sender.
pub fn failure(error: &Error) -> Failure {
    use sendshot_engine::stream::Error as Engine;
    match error {
        Error::Longer { .. } => Failure::new(
            Code::LengthChanged,
            error.to_string(),
            "fetch it again with stream version 1",
        ),
        Error::Engine(Engine::Diverged { .. }) => Failure::new(
            Code::ResumeImpossible,
            "the receiver cannot continue the stream at this position",
            "restore again: it restarts from the beginning",
        ),
        Error::Engine(Engine::Deleted) => Failure::new(
            Code::NotFound,
            "the copy was deleted on the receiver while it was being fetched",
            "choose another copy",
        ),
        Error::Engine(engine) => match sendshot_sys::durable::errno(engine) {
            Some(errno) => io_failure("read the copy", &errno.into()),
            None => Failure::new(
                Code::Internal,
                format!("the copy cannot be sent: {}", with_causes(engine)),
                "read the journal of sendshot-receiver",
            ),
        },
        Error::Cancelled(_) => Failure::new(Code::Internal, error.to_string(), ""),
    }
}
