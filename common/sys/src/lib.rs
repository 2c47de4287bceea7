//! The functions of btrfs and Linux that Sendshot needs beyond the standard library.
//!
//! Everything here blocks: call it from a named thread, never from the async runtime. All `unsafe` of the
//! project is in the private module `raw`; the public functions are safe to call. Layouts and privileges
//! follow the kernel's `include/uapi/linux/btrfs.h` and `btrfs_tree.h`, measured on Linux 6.18.

pub mod clock;
pub mod clone;
pub mod crash;
pub mod durable;
pub mod encoded;
pub mod filesystem;
pub mod inode_attributes;
pub mod mounts;
pub mod pipe;
mod raw;
pub mod search;
pub mod send;
pub mod send_pipe;
pub mod subvolume;
pub mod top_level;
