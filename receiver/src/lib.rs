//! The receiving daemon: takes in pushes of paired senders and keeps the copies.
//!
//! The way of a push on this side: [`replication`] authorises every call, [`holdings`] reports
//! what is held (*negotiate*), [`transfer`] moves the stream from the connection to a thread,
//! [`mod@apply`] applies and commits it, with checkpoints ([`mod@checkpoint`]) from which it can be taken
//! up again ([`partials`]).

pub mod apply;
pub mod calls;
mod checkpoint;
pub mod control;
pub mod daemon;
mod failures;
pub mod holdings;
mod limits;
pub mod pairing;
pub mod partials;
pub mod receiver;
pub mod replication;
pub mod root;
mod root_errors;
pub mod roots;
mod staging_host;
pub mod transfer;
pub mod transfers;
pub mod usage;
