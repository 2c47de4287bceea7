//! What every part of the daemon sees: its configuration and stores, and the threads that a sender may have.

pub mod calls;
pub mod receiver;
