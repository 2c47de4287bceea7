//! Restores under faults: beside what exists and in the volume's place. After every fault the target is what it was
//! before or complete; the same command, undisturbed, completes it and leaves nothing behind.

mod check;
pub(crate) mod kind;
mod strike;
mod task;
pub(crate) mod world;
