//! File systems on loop devices in memory, or served by the test, and stock btrfs commands.

pub mod loopfs;
pub mod mount;
pub mod raw;
pub mod simple_fs;
pub mod streams;
