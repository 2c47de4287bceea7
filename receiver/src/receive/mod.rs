//! The way of a stream into a copy: staging, apply, checkpoints, commit, and what bounds them. It knows nothing of
//! connections, and nothing of who may push.

pub mod announcement;
pub mod checkpoint;
pub(crate) mod failures;
pub mod intake;
pub(crate) mod limits;
mod staging;
pub mod table;
