//! Sendshots compared with the kernel's streams, without daemons.

mod breaks;
mod diff;
mod flags;
mod histories;
mod keeps;
mod odd_places;
mod recapture;
mod subtree;
mod used_numbers;
