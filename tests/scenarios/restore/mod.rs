//! Copies come back.

mod interrupted;
mod whole;
