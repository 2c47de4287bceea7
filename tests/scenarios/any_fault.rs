//! A short run of the torture test, which `make torture` runs for any length of time.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::env;
use std::time::Duration;

use sendshot_torture::Options;

/// Long enough for every kind of fault to occur many times.
const SECONDS: u64 = 150;
/// A fixed seed, so that a finding can be reproduced.
const SEED: u64 = 20261122;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// `TORTURE_SECONDS` and `SEED` change its duration and its random choices.
#[test]
fn a_push_after_any_fault_succeeds() {
    let time = Duration::from_secs(number("TORTURE_SECONDS").unwrap_or(SECONDS));
    let seed = number("SEED").unwrap_or(SEED);
    let table = sendshot_torture::pushes(&Options::lasting(time, seed));
    println!("{table}");
    assert_eq!(table.failed(), 0, "SEED={seed}\n{table}");
}
