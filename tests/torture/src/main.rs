//! Pushes under faults of every kind: `MINUTES=3 SEED=1 torture`, or `CUTS=1000 LIES=100 torture`.

use std::process::ExitCode;

use sendshot_torture::{self as torture, Options};

fn main() -> ExitCode {
    end_by_ctrl_c();
    let table = torture::run(&Options::from_environment());
    println!("{table}");
    match table.failed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Ends the run on Ctrl-C once its hosts are deleted. Current iterations fail, as the daemons get it too.
fn end_by_ctrl_c() {
    std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Ok(runtime) = runtime.enable_all().build()
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            eprintln!("ending; what is under way is put away first");
            torture::stop();
        }
    });
}
