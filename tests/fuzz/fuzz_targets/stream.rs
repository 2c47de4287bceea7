//! See `sendshot_tests::fuzzing::stream`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sendshot_tests::fuzzing::stream;

fuzz_target!(|input: &[u8]| stream::run(input));
