//! The commands for the sending daemon, one file per command.

pub mod cancel;
pub mod foreign;
pub mod forget;
pub mod held;
pub mod list;
pub mod not_looked_at;
pub mod pair;
pub mod pause;
pub mod plan;
pub mod progress;
pub mod prune;
pub mod push;
pub mod recovery_sheet;
pub mod restore;
pub mod status;
