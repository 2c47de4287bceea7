//! Decisions, pure: values in, values out. Nothing here reads a disk or a clock, waits, or asks anybody; what a
//! decision needs is gathered by whoever asks for it, and `now` is a parameter.

pub mod costs;
pub mod plan;
pub mod plan_sendshots;
pub mod retention;
pub mod verdict;
