//! See `sendshot_tests::fuzzing::messages`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_tests::fuzzing::messages;

fuzz_target!(|input: &[u8]| messages::run(input));
