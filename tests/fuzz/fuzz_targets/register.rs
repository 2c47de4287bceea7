//! See `sendshot_fuzzing::register`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_fuzzing::register;

fuzz_target!(|input: &[u8]| register::run(input));
