//! Hosts, each with a file system, a daemon and a control command.

pub mod address;
pub mod binaries;
pub mod clock;
pub mod command;
pub mod daemon;
pub mod kernel_clock;
pub mod pairing;
pub mod receiver_host;
pub mod sender_host;
pub mod unprivileged;
pub mod until;
