//! The receiver deletes what the administrator's rules do not keep, and nothing else.

mod by_hand;
mod by_rule;
mod crashes;
mod ledgers;
mod model;
mod never;
mod size;
mod status;
mod world;
