//! The ways in which independent commands of a stream may be executed. All must give the same copy.

use std::num::NonZeroUsize;

use sendshot_apply::{Attributes, Order, RunPolicy};

/// One of all ways, chosen by a number.
///
/// `ORDERS` (`1`, `2` or `8` workers, `shuffled` or `unfolded`) chooses for all numbers instead; `all` does not, see [`others`].
///
/// # Panics
/// If `ORDERS` has another value.
pub fn by(number: u64) -> RunPolicy {
    let seed = number / 8;
    match std::env::var("ORDERS").as_deref() {
        Err(_) | Ok("all") => match number % 8 {
            0 => RunPolicy::USUAL,
            1 => workers(1),
            2 => workers(2),
            3 => workers(8),
            4 => shuffled(workers(1), seed),
            5 => shuffled(workers(2), seed),
            6 => shuffled(workers(8), seed),
            _ => unfolded(),
        },
        Ok("1") => workers(1),
        Ok("2") => workers(2),
        Ok("8") => workers(8),
        Ok("shuffled") => shuffled(workers(8), seed),
        Ok("unfolded") => unfolded(),
        Ok(other) => panic!("ORDERS={other} is not 1, 2, 8, shuffled, unfolded or all"),
    }
}

/// The ways in which a stream is executed besides [`by`], each into a copy of its own: none, or with `ORDERS=all` one worker, two,
/// eight, eight in the worst order, and with attributes that are set one by one.
pub fn others(number: u64) -> Vec<RunPolicy> {
    match std::env::var("ORDERS").as_deref() {
        Ok("all") => vec![
            workers(1),
            workers(2),
            workers(8),
            shuffled(workers(8), number),
            unfolded(),
        ],
        _ => Vec::new(),
    }
}

fn workers(workers: usize) -> RunPolicy {
    RunPolicy {
        workers: NonZeroUsize::new(workers),
        ..RunPolicy::USUAL
    }
}

fn shuffled(policy: RunPolicy, seed: u64) -> RunPolicy {
    RunPolicy {
        order: Order::Shuffled(seed),
        ..policy
    }
}

fn unfolded() -> RunPolicy {
    RunPolicy {
        attributes: Attributes::SetAll,
        ..workers(2)
    }
}
