//! The lies of a hostile receiver, by subject, with the expected outcome of each.

mod greeting;
mod holdings;
mod outcomes;
mod transfer;

pub use greeting::HELLO;
pub use holdings::INVENTORY;
pub use transfer::TRANSFER;
