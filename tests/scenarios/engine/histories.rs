//! Random histories of a volume, each round sent from a sendshot whose snapshot is deleted. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;

use sendshot_harness::compare::equivalence;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::trees::changes;
use sendshot_harness::trees::random::Random;

/// Number of histories in every run of the tests; `make fuzz` runs others and more.
const HISTORIES: u64 = 20;
const ROUNDS: u64 = 6;

#[test]
fn stock_receive_and_ours_agree_on_sendshot_streams() {
    for seed in 1..=HISTORIES {
        if let Err(error) = equivalence::history(seed, ROUNDS) {
            panic!("{error:#}");
        }
    }
}

#[test]
fn ranges_cannot_be_inserted_or_collapsed_so_no_history_does() {
    let disk = LoopFs::new(1 << 30, &[], "").unwrap();
    let file = disk.path().join("file");
    fs::write(&file, vec![1; 100_000]).unwrap();
    assert!(changes::shifting_ranges_is_refused(&file).unwrap());
}

/// An operation whose tool lacks an option would change nothing, and no other test would detect it.
#[test]
fn every_kind_of_change_happens() {
    let disk = LoopFs::new(1 << 30, &[], "").unwrap();
    let mut done = std::collections::BTreeMap::<u64, u64>::new();
    let mut random = Random::new(1);
    for _ in 0..4000 {
        let (kind, worked) = changes::change(&mut random, Path::new(disk.path()));
        *done.entry(kind).or_default() += u64::from(worked);
    }
    let never: Vec<_> = done.iter().filter(|(_, n)| **n == 0).collect();
    assert!(never.is_empty(), "never happened: {never:?} of {done:?}");
}
