//! Interrupted pushes.

mod checkpoints;
mod interrupted;
mod pinned;
