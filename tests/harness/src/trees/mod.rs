//! Files to push, and changes to them.

pub mod changes;
pub mod every_file_kind;
pub mod fill;
pub mod ghosts;
pub mod history;
pub mod random;
