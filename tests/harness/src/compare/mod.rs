//! Test oracles: what copies are compared with.

pub mod chain;
pub mod equivalence;
pub mod exact;
pub mod extents;
pub mod inode_flags;
pub mod orders;
pub mod reasons;
pub mod subvolumes;
pub mod tree;
