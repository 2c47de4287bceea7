//! Hostile peers.

mod certificates;
mod connections;
mod fetch;
mod hostile_receiver;
mod hostile_streams;
mod limits;
mod permission;
mod receiver_claims;
mod stolen_key;
