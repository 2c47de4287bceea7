//! Sendshots against the kernel, without daemons.

mod breaks;
mod diff;
mod flags;
mod histories;
mod keeps;
mod odd_places;
mod recapture;
mod used_numbers;
