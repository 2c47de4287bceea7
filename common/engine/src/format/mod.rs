//! The sendshot file: its layout, and how it is written, checked and read. Nothing here accesses btrfs.

pub(crate) mod codec;
pub mod entry;
pub mod error;
pub mod file;
pub mod hashes;
pub mod layout;
pub(crate) mod read_from;
pub(crate) mod reader;
pub mod subtree;
mod verified;
pub(crate) mod writer;
