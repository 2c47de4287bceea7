//! What every part of the daemon sees: its identity and configuration, the pushes that run and those that ran.

pub(crate) mod blocking;
pub mod former;
pub mod history;
pub mod interrupted;
pub mod running;
pub mod sender;
