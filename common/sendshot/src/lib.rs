//! Sendshots: snapshots reduced to their metadata.
//!
//! A sendshot holds no reference on file data, only inodes, names, extended attributes and
//! the extent map of one snapshot, and still serves as the parent of an incremental send:
//!
//! - [`capture()`] reads a snapshot's metadata by tree search and writes the file;
//! - [`recapture()`] does the same from the sendshot before, reading only what changed since;
//! - [`diff()`] is a pure function of two files, or of nothing and one, to the steps of a send
//!   stream; [`mod@rule`] decides what is unchanged, and is where the argument stands;
//! - [`stream()`] turns the steps into a stream, reading data from the snapshot as they need it;
//!   [`stream_from()`] goes on in its middle; [`mod@measure`] tells its size without making it;
//! - [`mod@hashes`] lie beside a sendshot, for files without checksums, and [`verify()`] reads what
//!   only they can tell.

pub mod capture;
mod codec;
pub mod diff;
pub mod entry;
mod extent_items;
pub mod file;
mod frozen;
pub mod hashes;
pub mod measure;
mod paths;
mod reader;
pub mod recapture;
pub mod rule;
pub mod save;
pub mod skeleton;
pub mod snapshot;
pub mod stream;
pub mod verify;
mod writer;

pub use capture::capture;
pub use diff::diff;
pub use entry::{Entry, Extent, ExtentKind, Head, InodeItem, Name, Time, WireNumber, Xattr};
pub use file::{Reader, Sendshot, Writer};
pub use frozen::Frozen;
pub use recapture::recapture;
pub use save::{open, open_at, save, save_to};
pub use skeleton::{Place, SkeletonHash};
pub use stream::{Part, Source, stream, stream_from};
pub use verify::verify;
