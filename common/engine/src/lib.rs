//! Sendshots: snapshots reduced to their metadata.
//!
//! A sendshot holds no reference on file data, only inodes, names, extended attributes and
//! the extent map of one snapshot, and still serves as the parent of an incremental send:
//!
//! - [`capture()`] reads a snapshot's metadata by tree search and writes the file;
//! - [`recapture()`] does the same from the sendshot before, reading only what changed since;
//! - [`diff()`] is a pure function of two files, or of nothing and one, to the steps of a send
//!   stream; [`mod@diff::rule`] decides what is unchanged, and is where the argument stands;
//! - [`stream()`] turns the steps into a stream, reading data from the snapshot as they need it;
//!   [`stream_from()`] goes on in its middle; [`mod@stream::measure`] tells its size without making it;
//! - [`mod@format::hashes`] lie beside a sendshot, for files without checksums, and [`verify()`] reads what
//!   only they can tell.

pub mod capture;
pub mod diff;
pub mod format;
pub mod stream;

pub use capture::Frozen;
pub use capture::capture;
pub use capture::recapture::recapture;
pub use capture::save::{open, open_at, save, save_to};
pub use diff::diff;
pub use format::entry::{
    Entry, Extent, ExtentKind, Head, InodeItem, Name, Time, WireNumber, Xattr,
};
pub use format::file::Sendshot;
pub use format::reader::Reader;
pub use format::writer::Writer;
pub use stream::skeleton::{Place, SkeletonHash};
pub use stream::verify::verify;
pub use stream::{Part, Source, stream, stream_from};
