//! Random histories of a volume, each round sent from a sendshot whose snapshot is gone. Needs root.

use sendshot_tests::equivalence;

/// Histories that every run of the tests goes through; `make fuzz` runs others and more.
const HISTORIES: u64 = 20;
const ROUNDS: u64 = 6;

#[test]
fn stock_receive_and_ours_make_what_was_snapshotted_from_sendshots() {
    for seed in 1..=HISTORIES {
        if let Err(error) = equivalence::history(seed, ROUNDS) {
            panic!("{error:#}");
        }
    }
}
