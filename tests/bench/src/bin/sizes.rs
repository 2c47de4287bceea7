//! Compares the length of streams with the kernel's: `sizes HISTORIES SEED [ROUNDS]`.

use std::process::ExitCode;

use sendshot_harness::compare::equivalence;

/// Limit for the length of the sendshot engine's streams, in percent of the kernel's.
const LIMIT: f64 = 102.0;

fn argument(at: usize, usual: u64) -> u64 {
    std::env::args()
        .nth(at)
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

fn main() -> ExitCode {
    let (histories, first, rounds) = (argument(1, 20), argument(2, 1), argument(3, 6));
    let (mut ours, mut kernels) = (0, 0);
    for seed in first..first + histories {
        match equivalence::history_beside_the_kernel(seed, rounds) {
            Ok(outcome) => {
                ours += outcome.stream_bytes;
                kernels += outcome.kernels_bytes;
                if std::env::args().nth(4).is_some() {
                    println!("{seed}: {} {}", outcome.stream_bytes, outcome.kernels_bytes);
                }
            }
            Err(error) => {
                println!("FAILED: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    let percent = ours as f64 * 100.0 / kernels as f64;
    println!("{histories} histories of {rounds} rounds from seed {first}");
    println!("ours {ours} bytes, the kernel's {kernels} bytes: {percent:.1} % (limit {LIMIT} %)");
    if percent <= LIMIT {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
