//! Copies come back.

mod drill;
mod full_or_read_only;
mod in_place;
mod interrupted;
mod paths;
mod permission;
mod power;
mod whole;
