//! Restores under faults of every kind: `RESTORES=300 SEED=1 torture-restore`.

use std::process::ExitCode;

use sendshot_torture::{self as torture, Options};

fn main() -> ExitCode {
    torture::end_by_ctrl_c();
    let table = torture::restores(&Options::from_environment("RESTORES"));
    println!("{table}");
    match table.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
