//! What this sender keeps on source file systems, in the subvolume `.sendshot`, and the list of those file systems.
//! This room decides nothing and knows no receiver.

pub mod discard;
pub mod filesystems;
pub mod journal;
pub mod presence;
pub mod record;
pub mod restores;
pub mod segment_log;
pub mod store;
