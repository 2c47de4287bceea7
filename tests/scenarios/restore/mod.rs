//! Copies come back.

mod in_place;
mod interrupted;
mod whole;
