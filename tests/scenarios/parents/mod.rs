//! Which parent a push builds on.

mod choice;
mod lost_state;
mod refused_streams;
mod rotation;
mod sendshots;
