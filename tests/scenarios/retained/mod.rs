//! States retained between pushes, and the stated reasons.

mod reasons;
mod reasons_kept;
mod sendshots;
