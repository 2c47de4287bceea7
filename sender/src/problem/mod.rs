//! The words for the user of every error below: what happened, of which kind it is, and what can be done. Nothing else
//! is here, and nothing below knows it.

mod connection;
mod engine;
pub(crate) mod filesystem;
mod foreign;
mod forget;
mod generate;
mod pair;
mod parent;
mod push;
mod selection;
mod sender;
mod snapshot;
mod store;
mod transfer;
mod volume;
