//! Copies come back.

mod in_place;
mod interrupted;
mod power;
mod whole;
