//! The words for the user of every error below: what happened, of which kind it is, and what can be done. Nothing else
//! is here, and nothing below knows it.

mod connection;
mod engine;
mod filesystem;
mod foreign;
mod forget;
mod generate;
mod parent;
mod push;
mod sender;
mod snapshot;
mod store;
mod transfer;
mod volume;
