//! Harness for scenarios on real btrfs. They need root, and say so without it.

pub mod history;
pub mod loopfs;
pub mod streams;
pub mod tree;
