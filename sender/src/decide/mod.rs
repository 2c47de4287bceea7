//! Pure decisions: values in, values out. Nothing here reads a disk or a clock, waits, or calls a peer; the caller
//! gathers what a decision needs, and `now` is a parameter.

pub mod copy;
pub mod costs;
pub mod expiry;
pub mod forget;
pub mod held_snapshot;
pub mod parent;
pub mod parent_sendshot;
pub mod parent_snapshot;
pub mod reconcile;
pub mod resume;
pub mod retention;
pub mod schedule;
pub mod verdict;
