//! Streams and pushes of a sender that means harm, a watch over what they must not touch, and answers of a
//! receiver that does.

pub mod answers;
#[allow(missing_docs, reason = "numbers, named as in the format")]
pub mod frame;
pub mod lies;
pub mod pushes;
pub mod receiver;
pub mod scene;
pub mod sender;
pub mod trick;
pub mod victim;
pub mod watch;

mod attributes;
mod clones;
mod framing;
mod harmless;
mod links;
mod numbers;
mod order;
mod traversal;

pub use crate::hostile::trick::{Expect, Trick, World};

/// Every trick, by what it is about.
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

/// Short streams that copy nothing but holes, of more bytes than any disk has.
pub fn filling() -> &'static [Trick] {
    harmless::FILLING
}
