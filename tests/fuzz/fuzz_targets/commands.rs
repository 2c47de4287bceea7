//! See `sendshot_fuzzing::commands`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::commands;

fuzz_target!(|input: &[u8]| commands::run(input));
