//! Volumes: which one the user means, its id, its lineage, and the engine that sends it. This room sends
//! nothing.

pub mod engine;
pub mod ids;
mod label;
pub mod lineage;
pub mod live_state;
pub mod register;
pub mod resolve;
pub mod series;
