//! The way of a stream into a copy: staging, apply, checkpoints, commit, and what bounds them. It knows nothing of
//! connections, and nothing of who may push.

pub mod announcement;
pub mod apply;
pub mod checkpoint;
pub(crate) mod failures;
pub(crate) mod limits;
mod staging_host;
pub mod transfers;
