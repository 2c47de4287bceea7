//! Sendshots: snapshots reduced to their metadata.
//!
//! A sendshot holds inodes, names, extended attributes and the extent map of one snapshot, but no reference
//! on file data. It still serves as the parent of an incremental send:
//!
//! - [`capture()`] reads a snapshot's metadata by tree search and writes the file;
//! - [`recapture()`] does the same from the previous sendshot and reads only what changed since;
//! - [`diff()`] is a pure function from two files, or one for a full send, to the steps of a send stream;
//!   [`mod@diff::rule`] decides what is unchanged and gives the proof;
//! - [`stream()`] turns the steps into a stream, reading data from the snapshot; [`stream_from()`] resumes in
//!   its middle; [`mod@stream::measure`] computes its size without generating it;
//! - [`mod@format::hashes`] is a file beside a sendshot, for files without checksums; [`compare_hashes()`] compares
//!   what only hashes can decide;
//! - [`subtree()`] reduces a sendshot to some paths, for a stream that brings only these.

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
pub use format::subtree::subtree;
pub use format::writer::Writer;
pub use stream::compare_hashes::compare_hashes;
pub use stream::skeleton::{SkeletonHash, StreamPosition};
pub use stream::{Part, Source, stream, stream_from};
