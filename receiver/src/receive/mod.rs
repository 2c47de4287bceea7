//! From a stream to a copy: staging, apply, checkpoints, commit, and their limits. This room knows nothing of
//! connections, nor of which sender may push.

pub mod announcement;
pub mod checkpoint;
pub(crate) mod failures;
pub mod incoming;
pub mod input;
pub mod ledger_writer;
pub(crate) mod limits;
mod staging;
pub mod table;
pub mod turns;
