//! The receiving daemon: receives pushes of paired senders and keeps the copies.
//!
//! A push on this side: [`replication`] authorises every call, [`store::volumes`] reports what is held
//! (*negotiate*), [`replication::transfer`] moves the stream from the connection to a thread,
//! [`mod@receive::incoming`] applies and commits it, with checkpoints ([`mod@receive::checkpoint`]) from which it
//! can be resumed ([`store::partials`]).

#![allow(missing_docs, reason = "names say it; what surprises is documented")]

pub mod arguments;
pub mod check;
pub mod control;
pub mod daemon;
pub mod receive;
pub mod replication;
pub mod restore;
pub mod retention;
pub mod shared;
pub mod store;
pub mod upkeep;
