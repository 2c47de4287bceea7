//! Streams and pushes of a hostile sender, and a record of what they must not change.

#[allow(missing_docs, reason = "the constants are named as in the format")]
pub mod frame;
pub mod guest;
pub mod pushes;
pub mod scene;
pub mod sender;
pub mod trick;

mod attributes;
mod clones;
mod framing;
mod harmless;
mod links;
mod numbers;
mod order;
mod traversal;

pub use crate::hostile::trick::{Expect, Trick, World};

/// Returns every trick, grouped by subject.
pub fn corpus() -> Vec<Trick> {
    [
        traversal::TRICKS,
        links::TRICKS,
        clones::TRICKS,
        order::TRICKS,
        framing::TRICKS,
        attributes::TRICKS,
        numbers::TRICKS,
        harmless::TRICKS,
    ]
    .concat()
}

/// Returns short streams that clone only holes, of more bytes than any disk has.
pub fn filling() -> &'static [Trick] {
    harmless::FILLING
}
