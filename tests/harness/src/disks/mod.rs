//! File systems on loop devices in memory, and stock btrfs commands.

pub mod loopfs;
pub mod mount;
pub mod raw;
pub mod streams;
