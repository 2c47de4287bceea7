//! A short run of the torture that `make torture` runs for as long as one likes.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::env;
use std::time::Duration;

use sendshot_torture::Options;

/// Long enough for every kind of fault to come many times.
const SECONDS: u64 = 150;
/// Chosen once: what it finds can be found again.
const SEED: u64 = 20261122;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// `TORTURE_SECONDS` and `SEED` have it last otherwise and go other ways.
#[test]
fn whatever_happens_to_a_push_the_next_one_succeeds() {
    let time = Duration::from_secs(number("TORTURE_SECONDS").unwrap_or(SECONDS));
    let seed = number("SEED").unwrap_or(SEED);
    let table = sendshot_torture::run(&Options::lasting(time, seed));
    println!("{table}");
    assert_eq!(table.failed(), 0, "SEED={seed}\n{table}");
}
