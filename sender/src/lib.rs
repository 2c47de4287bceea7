//! The sending daemon: replicates live btrfs subvolumes to paired receivers.
//!
//! [`push`] gives the stages of a push and names the module of each. [`daemon`] is what `main` starts;
//! [`control`] serves sendshotctl.

#![allow(missing_docs, reason = "names say it; what surprises is documented")]

pub mod arguments;
pub mod check;
pub mod connection;
pub mod control;
pub mod daemon;
pub mod decide;
mod problem;
pub mod push;
mod pushes;
pub mod restore;
pub mod retained;
pub mod schedule;
pub mod shared;
pub mod state;
pub mod volume;
