//! Volumes: which one the user means, by what id it is known, what it was made from, and which engine sends it.
//! Nothing of it is sent from here.

pub mod engine;
pub mod ids;
mod label;
pub mod lineage;
pub mod register;
pub mod resolve;
pub mod series;
