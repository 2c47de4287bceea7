//! Pushes, and obstacles to them.

mod commands;
mod devices;
mod disk_away;
mod engines;
mod errors;
pub(crate) mod full_and_failing;
mod odd_places;
mod plans;
mod races;
mod read_only;
mod reload;
mod series;
mod trees;
mod turns;
mod volumes;
