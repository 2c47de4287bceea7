//! Faults of hosts: cut links, lost power, deaths of daemons, broken disks.

pub mod damage;
pub mod fail_points;
pub mod link;
pub mod power;
pub mod snapshotless;
