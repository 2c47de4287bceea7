//! The ways in which independent commands of a stream may be executed. All must give the same copy.

use std::num::NonZeroUsize;

use sendshot_apply::{Attributes, Order, RunPolicy};

/// One of all ways, chosen by a number.
///
/// `ORDERS` (`1`, `2` or `8` workers, `shuffled` or `unfolded`) chooses for all numbers instead.
///
/// # Panics
/// If `ORDERS` has another value.
pub fn by(number: u64) -> RunPolicy {
    let workers = |workers| RunPolicy {
        workers: NonZeroUsize::new(workers),
        ..RunPolicy::USUAL
    };
    let shuffled = |policy: RunPolicy| RunPolicy {
        order: Order::Shuffled(number / 8),
        ..policy
    };
    let unfolded = RunPolicy {
        attributes: Attributes::SetAll,
        ..workers(2)
    };
    match std::env::var("ORDERS").as_deref() {
        Err(_) => match number % 8 {
            0 => RunPolicy::USUAL,
            1 => workers(1),
            2 => workers(2),
            3 => workers(8),
            4 => shuffled(workers(1)),
            5 => shuffled(workers(2)),
            6 => shuffled(workers(8)),
            _ => unfolded,
        },
        Ok("1") => workers(1),
        Ok("2") => workers(2),
        Ok("8") => workers(8),
        Ok("shuffled") => shuffled(workers(8)),
        Ok("unfolded") => unfolded,
        Ok(other) => panic!("ORDERS={other} is not 1, 2, 8, shuffled or unfolded"),
    }
}
