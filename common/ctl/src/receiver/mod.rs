//! The commands for the receiving daemon, one file per command.

pub mod copies;
pub mod partials;
pub mod peers;
pub mod permissions;
pub mod retention;
pub mod roots;
pub mod status;
