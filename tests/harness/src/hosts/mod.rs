//! Hosts: a file system, a daemon and a control command each.

pub mod address;
pub mod binaries;
pub mod clock;
pub mod command;
pub mod daemon;
pub mod nobody;
pub mod pairing;
pub mod receiver_box;
pub mod sender_box;
pub mod until;
