//! The words for the user of every error below: what happened, of which kind it is, and what can be done. A file has
//! those of the room of its name. Nothing else is here, and nothing below knows it.

mod connection;
mod push;
mod retained;
mod sender;
pub(crate) mod state;
mod volume;
