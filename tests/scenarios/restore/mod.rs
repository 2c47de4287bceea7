//! Copies come back.

mod full_or_read_only;
mod in_place;
mod interrupted;
mod power;
mod whole;
