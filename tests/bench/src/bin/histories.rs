//! Runs random histories: `histories HISTORIES SEED [ROUNDS]`.

use std::process::ExitCode;

use sendshot_harness::compare::equivalence;

fn argument(at: usize, usual: u64) -> u64 {
    std::env::args()
        .nth(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

fn main() -> ExitCode {
    let (histories, first, rounds) = (argument(1, 20), argument(2, 1), argument(3, 6));
    let (mut passed, mut failed, mut bytes) = (0, 0, 0);
    for seed in first..first + histories {
        match equivalence::history(seed, rounds) {
            Ok(outcome) => {
                passed += 1;
                bytes += outcome.stream_bytes;
            }
            Err(error) => {
                failed += 1;
                println!("FAILED: {error:#}");
            }
        }
    }
    println!(
        "{histories} histories of {rounds} rounds from seed {first}: {bytes} bytes of streams"
    );
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
