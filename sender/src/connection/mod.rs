//! The sender's end of a connection to a receiver: how it is made, counted, renewed and paired. The stages of a
//! push make the calls on it.

pub mod call;
pub mod confirm;
pub mod error;
pub mod frames;
pub mod hello;
pub mod link;
pub mod own_daemon;
pub mod pair;
pub mod renewal;
pub mod restore;
pub mod wire;
