//! Sendshots compared with the kernel's streams, without daemons.

mod breaks;
mod diff;
mod flags;
mod histories;
mod keeps;
mod odd_places;
mod page_cache;
mod recapture;
mod subtree;
mod used_numbers;
