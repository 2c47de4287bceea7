//! The words for the user of every error in the rooms below: message, kind and remedy. Each file covers the room of
//! its name. Nothing else is here, and no room below knows this one.

mod connection;
mod push;
mod restore;
mod retained;
mod sender;
pub(crate) mod state;
mod volume;
