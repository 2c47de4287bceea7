//! Pushes under faults of every kind: `MINUTES=3 SEED=1 torture`, or `CUTS=1000 LIES=100 torture`.

use std::process::ExitCode;

use sendshot_tests::torture::{self, Options};

fn main() -> ExitCode {
    let table = torture::run(&Options::from_environment());
    println!("{table}");
    match table.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
