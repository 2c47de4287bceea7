//! Our engine: the stream is made of two sendshots, and data is read from the snapshot as it is
//! needed.

use std::io;
use std::os::fd::OwnedFd;

use sendshot_engine::Sendshot;
use sendshot_engine::diff::Version;
use sendshot_engine::measure::{self, PathCost, Size};

use super::{Cutter, Error, Generator, start};

/// What the stream calls the subvolume; a daemon names its copies itself.
const NAME: &[u8] = b"push";

/// What to send.
#[derive(Debug)]
pub struct Sendshots {
    /// Root directory of the read-only snapshot.
    pub snapshot: OwnedFd,
    /// The sendshot of what the receiver has; `None` for a full send.
    pub parent: Option<Sendshot>,
    /// The sendshot of the snapshot.
    pub new: Sendshot,
    /// Stream version, 1 or 2.
    pub stream_version: u32,
}

fn version(stream_version: u32) -> Version {
    match stream_version {
        1 => Version::V1,
        _ => Version::V2,
    }
}

/// The length of a stream, without making it. Blocks.
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

/// The same, and the `top` paths that cost most of it.
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

/// Starts our engine.
///
/// # Errors
/// [`Error::Start`]; later ones come through the channel.
pub fn sendshot(source: Sendshots) -> Result<Generator, Error> {
    start("sendshot-engine", move |cutter| make(&source, cutter))
}

fn make(source: &Sendshots, cutter: &mut Cutter) -> Result<(), Error> {
    let parent = source.parent.as_ref();
    let made = sendshot_engine::stream(
        parent,
        &source.new,
        &source.snapshot,
        NAME,
        version(source.stream_version),
        |bytes| cutter.bytes(bytes).map_err(io::Error::other),
    );
    match made {
        Ok(()) => cutter.flush(),
        Err(_) if cutter.is_cancelled() => Err(Error::Cancelled),
        Err(e) => Err(e.into()),
    }
}
