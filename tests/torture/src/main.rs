//! Pushes under faults of every kind: `MINUTES=3 SEED=1 torture`, or `CUTS=1000 LIES=100 torture`.

use std::process::ExitCode;

use sendshot_torture::{self as torture, Options};

fn main() -> ExitCode {
    torture::end_by_ctrl_c();
    let table = torture::pushes(&Options::from_environment("FAULTS"));
    println!("{table}");
    match table.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
