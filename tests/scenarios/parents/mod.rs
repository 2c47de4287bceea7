//! The parent of a push.

mod choice;
mod lost_state;
mod refused_streams;
mod rotation;
mod sendshots;
