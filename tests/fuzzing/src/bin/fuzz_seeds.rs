//! Writes the first inputs of a fuzzer: `fuzz_seeds TARGET DIRECTORY`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use sendshot_fuzzing::TARGETS;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, dir] = arguments.as_slice() else {
        eprintln!("usage: fuzz_seeds TARGET DIRECTORY");
        return ExitCode::from(2);
    };
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("no target is called {name}; there are {names}");
        return ExitCode::from(2);
    };
    for (number, seed) in (target.seeds)().iter().enumerate() {
        if let Err(error) = fs::write(Path::new(dir).join(format!("seed-{number:03}")), seed) {
            eprintln!("{dir}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
