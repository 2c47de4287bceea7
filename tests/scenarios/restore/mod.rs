//! Copies come back.

mod drill;
mod in_place;
mod interrupted;
mod paths;
mod permission;
mod whole;
