//! What every part of the daemon shares: its identity and configuration, the running pushes and their history.

pub(crate) mod blocking;
pub mod drills;
pub mod former;
pub mod holdings;
pub mod interrupted;
pub mod last_pushes;
pub mod pauses;
pub mod probes;
pub mod pushed_states;
pub mod running;
pub mod runs;
pub mod sender;
pub mod stopped;
