//! A sample of the torture test of restores, which `make torture-restore` runs for any number.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::env;

use sendshot_torture::{Options, any_seed};

/// Restores of a sample.
const RESTORES: u64 = 12;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// `RESTORES` and `SEED` change their number and their random choices.
#[test]
fn a_restore_after_any_fault_succeeds() {
    let restores = number("RESTORES").unwrap_or(RESTORES);
    let seed = number("SEED").unwrap_or_else(any_seed);
    let table = sendshot_torture::restores(&Options::counted(restores, seed));
    println!("{table}");
    assert_eq!(table.failed(), 0, "SEED={seed}\n{table}");
    assert!(table.passed() >= restores, "SEED={seed}\n{table}");
}
