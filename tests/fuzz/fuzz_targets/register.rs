//! See `sendshot_tests::fuzzing::register`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_tests::fuzzing::register;

fuzz_target!(|input: &[u8]| register::run(input));
