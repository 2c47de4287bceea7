//! Copies come back.

mod in_place;
mod interrupted;
mod permission;
mod whole;
