//! A peer that has the keys of a paired host and lies: between two honest daemons, changing what they say to each other
//! ([`LyingPeer`]), or in the place of a receiver, by a script ([`scripted`]).

pub mod answers;
mod between;
pub(crate) mod dial;
mod lie;
pub mod lies;
mod rewriter;
pub mod scripted;
pub mod victim;
pub mod watch;

pub use crate::lying_peer::between::LyingPeer;
pub use crate::lying_peer::lie::{LIES, Lie};
