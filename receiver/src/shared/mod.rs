//! What every part of the daemon shares: its configuration and stores, and the limit on each sender's threads.

pub mod calls;
pub mod pending;
pub mod receiver;
