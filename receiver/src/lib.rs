//! The receiving daemon: takes in pushes of paired senders and keeps the copies.
//!
//! The way of a push on this side: [`replication`] authorises every call, [`holdings`] reports
//! what is held (*negotiate*), [`transfer`] moves the stream from the connection to a thread,
//! [`mod@apply`] applies and commits it.

pub mod apply;
pub mod busy;
pub mod control;
pub mod daemon;
pub mod holdings;
pub mod pairing;
pub mod receiver;
pub mod replication;
pub mod root;
pub mod transfer;
