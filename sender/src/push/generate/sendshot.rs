//! The sendshot engine: makes the stream from two sendshots, and reads data from the snapshot as needed.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sendshot_engine::Sendshot;
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::measure::{self, PathCost, Size};
use sendshot_engine::stream::{HashWriter, Pages, Part, Source};
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::Segment;
use sendshot_transfer::cutter::{self, Cancelled};

use super::error::{Cutter, Error, Generator};
use crate::state::record::ResumePoint;
use crate::state::segment_log::SegmentLog;

/// Name of the subvolume in the stream; a daemon names its copies itself.
const NAME: &[u8] = b"push";

/// The input of the sendshot engine.
#[derive(Debug)]
pub struct Sendshots {
    /// Root directory of the read-only snapshot.
    pub snapshot: OwnedFd,
    /// The sendshot of the receiver's copy; `None` for a full send.
    pub parent: Option<Arc<Sendshot>>,
    /// The sendshot of the snapshot.
    pub new: Arc<Sendshot>,
    /// Directory and name of the new sendshot, beside which its hashes are stored.
    pub place: (OwnedFd, OsString),
    /// Stream version, 1 or 2.
    pub stream_version: u32,
    /// Where to resume; `None` for the start of the stream.
    pub from: Option<ResumePoint>,
    /// Records the segments of the stream.
    pub segment_log: Arc<SegmentLog>,
}

fn version(stream_version: u32) -> Version {
    match stream_version {
        1 => Version::V1,
        _ => Version::V2,
    }
}

/// Measures the length of a stream, without making it. Blocks.
///
/// # Errors
/// [`Error::Engine`].
pub fn size(parent: Option<&Sendshot>, new: &Sendshot, stream_version: u32) -> Result<Size, Error> {
    Ok(measure::measure(
        parent,
        new,
        NAME,
        version(stream_version),
    )?)
}

/// Measures the length, and the `top` paths that cost most of it.
///
/// # Errors
/// [`Error::Engine`].
pub fn size_by_paths(
    parent: Option<&Sendshot>,
    new: &Sendshot,
    stream_version: u32,
    top: usize,
) -> Result<(Size, Vec<PathCost>), Error> {
    let version = version(stream_version);
    Ok(measure::measure_paths(parent, new, NAME, version, top)?)
}

/// Starts the sendshot engine.
///
/// # Errors
/// [`Error::Start`]; later ones come through the channel.
pub fn sendshot(source: Sendshots) -> Result<Generator, Error> {
    let from = source.from.map(|from| from.point());
    cutter::start("sendshot-engine", from, move |cutter| make(&source, cutter))
        .map_err(Error::Start)
}

/// Makes the stream. Its hashes are durable before it has ended, hence before the push is recorded. Without
/// them the next push sends more, but nothing wrong.
fn make(source: &Sendshots, cutter: &mut Cutter) -> Result<(), Error> {
    let (dir, name) = &source.place;
    let uuid = source.new.head().uuid;
    let made = hashes::save(dir, name, uuid, |hashes| write(source, hashes, cutter));
    match made {
        Ok(saved) => {
            if let Err(e) = saved {
                tracing::warn!("hashes of files without checksums are not kept: {e}");
            }
            Ok(())
        }
        Err(_) if cutter.is_cancelled() => Err(Cancelled.into()),
        Err(e) => Err(e),
    }
}

fn write(source: &Sendshots, hashes: &mut HashWriter, cutter: &mut Cutter) -> Result<(), Error> {
    let stream = Source {
        parent: source.parent.as_deref(),
        target: &source.new,
        snapshot: &source.snapshot,
        name: NAME,
        version: version(source.stream_version),
        pages: Pages::Forget,
    };
    let from = source.from.map(|from| from.position);
    let out = |part: Part| {
        let complete = |segment: Segment, behind: Point| Segment {
            mark: source.segment_log.passed(ResumePoint {
                position: part.end,
                chain: behind.chain,
            }),
            ..segment
        };
        let sent = cutter.segment(part.bytes.into(), complete);
        sent.map_err(io::Error::other)
    };
    Ok(sendshot_engine::stream_from(
        &stream,
        from,
        Some(hashes),
        out,
    )?)
}
