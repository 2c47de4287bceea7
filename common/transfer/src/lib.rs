//! What both directions of a transfer share: a push sends a stream from a sender to a receiver, and a fetch from a
//! receiver to a sender.
//!
//! - [`cutter`] cuts a stream into hashed segments, on a thread of its own;
//! - [`position`] checks segments as they arrive;
//! - [`retry`] decides when a broken transfer is tried again;
//! - [`stall`] detects a transfer without progress.
//!
//! It opens no file and no connection.

pub mod cutter;
pub mod position;
pub mod retry;
pub mod stall;
